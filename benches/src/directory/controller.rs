//! The programs: the controller under measurement, and the CA that issues to it, as processes of their own.
//! Called by `mod`.
//!
//! Never: an option that an operator would not have them run with.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64, Engine as _};
use myelin_ca::app::system_clock;
use rcgen::CertifiedKey;
use serde_json::json;

use super::args::Args;
use crate::issuance::ca::TRUST_DOMAIN;
use crate::process::{Process, free_port, program};

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
const NAMESPACE: &str = "myelin-system";
const ACCOUNT: &str = "myelin-controller";
/// As the kubelet projects it for the CA; longer than any measurement.
const TOKEN_SECONDS: u64 = 3_600;
const LOG: &str = "controller.log";

/// The CA with a cluster's key set, for as long as it is held.
pub(super) struct Ca {
    _process: Process,
    grpc: SocketAddr,
}

/// Where everything of one mesh lies, and on which ports it answers.
pub(super) struct Place<'p> {
    pub(super) dir: &'p Path,
    pub(super) directory: SocketAddr,
    ops: SocketAddr,
    webhook: SocketAddr,
}

impl<'p> Place<'p> {
    pub(super) fn new(dir: &'p Path) -> Result<Self> {
        let (directory, ops, webhook) = (free_port()?, free_port()?, free_port()?);
        Ok(Self { dir, directory, ops, webhook })
    }

    /// The CA on a data directory that is there, told of a cluster; the controller's token is left beside it.
    pub(super) async fn ca(&self, args: &Args, data: &Path) -> Result<Ca> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
        let jwks = self.dir.join("jwks.json");
        fs::write(&jwks, key_set(&key))?;
        fs::write(self.dir.join("token"), token(&key)?)?;
        let (grpc, ops) = (free_port()?, free_port()?);
        let mut command = Command::new(program(args.ca.as_ref(), "myelin-ca", "--ca")?);
        command.args(["serve", "--trust-domain", TRUST_DOMAIN, "--data"]).arg(data);
        command.args(["--listen", &grpc.to_string(), "--ops-listen", &ops.to_string()]);
        command.args(["--kubernetes-issuer", ISSUER, "--kubernetes-allow-namespace", NAMESPACE]);
        command.arg("--kubernetes-jwks").arg(&jwks);
        let log = self.dir.join("ca.log");
        let process = Process::start(command, None, &log, (ops, "/readyz")).await?;
        Ok(Ca { _process: process, grpc })
    }

    /// The controller, once it is ready: its lists are complete then.
    pub(super) async fn controller(
        &self,
        args: &Args,
        ca: &Ca,
        kubeconfig: &str,
    ) -> Result<Process> {
        let program = program(args.controller.as_ref(), "myelin-controller", "--controller")?;
        let at = |name: &str| self.dir.join(name);
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["myelin-controller.myelin-system.svc".to_owned()])?;
        fs::write(at("webhook.pem"), cert.pem())?;
        fs::write(at("webhook.key"), signing_key.serialize_pem())?;
        fs::write(at("kubeconfig"), kubeconfig)?;
        let here = self.dir.display();
        let config = format!(
            "trust_domain = \"{TRUST_DOMAIN}\"\nmesh_cidrs = [\"10.96.0.0/16\"]\n\
             [ca]\naddress = [\"{}\"]\nbundle_file = \"{here}/bundle.pem\"\n\
             [sidecar]\nimage = \"registry.example/myelin-sidecar:0.1.0\"\n\
             [webhook]\nlisten = \"{}\"\n\
             certificate_file = \"{here}/webhook.pem\"\nkey_file = \"{here}/webhook.key\"\n\
             [services]\nlisten = \"{}\"\naddress = [\"{}\"]\n\
             token_file = \"{here}/token\"\nstate_dir = \"{here}/state\"\n\
             [ops]\nlisten = \"{}\"\n[log]\nlevel = \"warn\"\n",
            ca.grpc, self.webhook, self.directory, self.directory, self.ops
        );
        fs::write(at("controller.toml"), config)?;
        let mut command = Command::new(program);
        command.args(["run", "--config"]).arg(at("controller.toml"));
        command.arg("--kubeconfig").arg(at("kubeconfig"));
        Process::start(command, None, &at(LOG), (self.ops, "/ready")).await
    }
}

/// Who the controller is.
pub(super) fn id() -> String {
    format!("spiffe://{TRUST_DOMAIN}/ns/{NAMESPACE}/sa/{ACCOUNT}")
}

fn key_set(key: &EcdsaKeyPair) -> String {
    let point = key.public_key().as_ref();
    let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
    json!({ "keys": [{
        "kty": "EC", "crv": "P-256", "use": "sig", "kid": "bench", "x": x, "y": y,
    }] })
    .to_string()
}

/// As the API server signs one for the kubelet (RFC 7519).
fn token(key: &EcdsaKeyPair) -> Result<String> {
    let now = system_clock().seconds();
    let claims = json!({
        "aud": [format!("myelin-ca/{TRUST_DOMAIN}")], "iss": ISSUER, "jti": "bench",
        "iat": now, "nbf": now, "exp": now + TOKEN_SECONDS,
        "sub": format!("system:serviceaccount:{NAMESPACE}:{ACCOUNT}"),
        "kubernetes.io": {
            "namespace": NAMESPACE,
            "node": { "name": "node-1", "uid": "6f0c" },
            "pod": { "name": format!("{ACCOUNT}-0"), "uid": "c0" },
            "serviceaccount": { "name": ACCOUNT, "uid": "12ab" },
        },
    });
    let header = json!({ "alg": "ES256", "kid": "bench" });
    let signed =
        format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes())?;
    Ok(format!("{signed}.{}", BASE64.encode(signature.as_ref())))
}
