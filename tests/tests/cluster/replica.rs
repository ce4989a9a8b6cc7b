//! A replica of the CA beside the test: under the service account and the roles that the chart makes, with
//! the flags that it gives its pods. Called by the stories of the CA.
//!
//! Never: a right that the chart does not give.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use myelin_tests::binaries;
use serde_json::Value;

use crate::api::Api;
use crate::installed::{Installed, TRUST_DOMAIN};
use crate::programs::Program;

pub(crate) struct Replica {
    pub(crate) grpc: SocketAddr,
    data: PathBuf,
    pub(crate) program: Arc<Program>,
}

impl Replica {
    /// `name` tells replicas apart; `meshed` is the namespace whose pods may attest.
    pub(crate) async fn start(
        api: &Api,
        installed: &Installed<'_>,
        name: &str,
        meshed: &str,
    ) -> Result<Self> {
        let data = api.dir().join(name);
        let program = Program::start(&mut serve(api, installed, &data, meshed)?)?;
        let line = program.says("\"serving\"").await?;
        let line: Value = serde_json::from_str(&line)?;
        let grpc = line["grpc"].as_str().context("no address of its port")?.parse()?;
        Ok(Self { grpc, data, program: Arc::new(program) })
    }

    /// A command of `myelin-ca` on its data, as an operator types it; what it printed.
    pub(crate) fn operate(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(binaries::ca()?);
        let output = command.args(args).arg("--data").arg(&self.data).output()?;
        let why = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "myelin-ca {args:?}: {why}");
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// `myelin-ca serve` as the chart has it, but for paths and addresses.
fn serve(api: &Api, installed: &Installed<'_>, data: &Path, meshed: &str) -> Result<Command> {
    let namespace = &installed.namespace.name;
    let account = api.as_account(namespace, "myelin-ca")?;
    let file = |name: &str| api.dir().join(name);
    let secret = format!("/api/v1/namespaces/{namespace}/secrets/myelin-ca-seal-key");
    let seal_key =
        api.read(&secret)?["data"]["seal.key"].as_str().map(|key| BASE64_STANDARD.decode(key));
    fs::write(file("seal.key"), seal_key.context("no seal key")??)?;
    std::os::unix::fs::chown(file("seal.key"), None, None)?;
    fs::set_permissions(file("seal.key"), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let config: Value = serde_json::from_slice(&fs::read(&account)?)?;
    let roots = config.pointer("/clusters/0/cluster/certificate-authority-data");
    let roots =
        roots.and_then(Value::as_str).context("the kubeconfig names no certificate authority")?;
    fs::write(file("api-ca.crt"), BASE64_STANDARD.decode(roots)?)?;
    let token = config.pointer("/users/0/user/token").and_then(Value::as_str).context("a token")?;
    fs::write(file("ca-token"), token)?;
    let issuer = api.read("/.well-known/openid-configuration")?["issuer"].clone();
    let mut command = Command::new(binaries::ca()?);
    command
        .args(["serve", "--trust-domain", TRUST_DOMAIN, "--log-format", "json"])
        .args(["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"])
        .args(["--ca-address", "127.0.0.1", "--store", "kubernetes"])
        // A root goes when what it issued has been renewed: here within a test's patience.
        .args(["--default-lifetime", "30s", "--allow-short-lifetimes"])
        .args(["--kubernetes-namespace", namespace, "--kubernetes-name", "myelin-ca"])
        .args(["--kubernetes-issuer", issuer.as_str().context("no issuer")?])
        .args(["--kubernetes-jwks", &format!("{}/openid/v1/jwks", api.url()?)])
        .args(["--kubernetes-review", "--kubernetes-allow-namespace", meshed])
        .arg("--kubeconfig")
        .arg(&account)
        .arg("--kubernetes-jwks-ca")
        .arg(file("api-ca.crt"))
        .arg("--kubernetes-jwks-bearer-file")
        .arg(file("ca-token"))
        .arg("--seal-key-file")
        .arg(file("seal.key"))
        .arg("--data")
        .arg(data);
    Ok(command)
}
