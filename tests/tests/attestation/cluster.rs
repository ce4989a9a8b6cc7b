//! What of a cluster the CA sees: an issuer's key set in a file, and tokens as the API server signs
//! them for the kubelet.
//!
//! Never: our own code; a token is put together from RFC 7519 and Kubernetes' documentation.

// SPDX-License-Identifier: Apache-2.0

use std::path::{Path, PathBuf};

use anyhow::Result;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64, Engine as _};
use serde_json::json;

use crate::now;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

pub(crate) struct Cluster {
    key: EcdsaKeyPair,
    jwks: PathBuf,
}

/// One pod as its tokens name it.
pub(crate) struct Pod {
    pub(crate) namespace: &'static str,
    pub(crate) account: &'static str,
    pub(crate) uid: &'static str,
}

impl Cluster {
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
        let cluster = Self { key, jwks: directory.join("jwks.json") };
        cluster.publish()?;
        Ok(cluster)
    }

    /// Another key from now on, as after a rotation at the API server.
    pub(crate) fn rotate(&mut self) -> Result<()> {
        self.key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
        self.publish()
    }

    fn publish(&self) -> Result<()> {
        let point = self.key.public_key().as_ref();
        let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
        let key =
            json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.kid(), "x": x, "y": y});
        Ok(std::fs::write(&self.jwks, json!({"keys": [key]}).to_string())?)
    }

    fn kid(&self) -> String {
        BASE64.encode(&self.key.public_key().as_ref()[1..17])
    }

    /// What `myelin-ca serve` is told about it.
    pub(crate) fn flags(&self, namespaces: &[&str]) -> Vec<String> {
        let jwks = self.jwks.display().to_string();
        let fixed = ["--kubernetes-issuer", ISSUER, "--kubernetes-jwks", &jwks];
        let mut flags: Vec<String> = fixed.iter().map(|flag| (*flag).to_owned()).collect();
        for namespace in namespaces {
            flags.extend(["--kubernetes-allow-namespace".to_owned(), (*namespace).to_owned()]);
        }
        flags
    }

    /// A token of this pod for this audience, for so many seconds.
    pub(crate) fn token(&self, pod: &Pod, audience: &str, life: u64) -> Result<String> {
        let Pod { namespace, account, uid } = pod;
        let header = json!({"alg": "ES256", "kid": self.kid()});
        let claims = json!({
            "aud": [audience],
            "exp": now() + life,
            "iat": now(),
            "iss": ISSUER,
            "jti": format!("{uid}-{}", now()),
            "kubernetes.io": {
                "namespace": namespace,
                "node": {"name": "node-1", "uid": "6f0c"},
                "pod": {"name": format!("{account}-{uid}"), "uid": uid},
                "serviceaccount": {"name": account, "uid": "12ab"},
            },
            "nbf": now(),
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
        });
        let signed =
            format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes())?;
        Ok(format!("{signed}.{}", BASE64.encode(signature.as_ref())))
    }
}
