//! Service-account tokens bound to a pod, as the API server signs them for the kubelet, and the key
//! set by which the CA judges them. Called by `volumes` and `cluster`.
//!
//! Never: our own code; a token is put together from RFC 7519 and Kubernetes' documentation.

// SPDX-License-Identifier: Apache-2.0

use anyhow::Result;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64, Engine as _};
use myelin_fake_api::PodToken;
use serde_json::json;

pub(super) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The API server's signing key.
pub(super) struct Signer(EcdsaKeyPair);

/// Of whom a token is.
#[derive(Clone, Debug)]
pub(super) struct Bearer {
    pub(super) namespace: String,
    pub(super) account: String,
    pub(super) pod: String,
    pub(super) uid: String,
}

impl Signer {
    pub(super) fn new() -> Result<Self> {
        Ok(Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?))
    }

    /// The public half as a JWKS.
    pub(super) fn jwks(&self) -> String {
        let point = self.0.public_key().as_ref();
        let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
        let key = json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "kid": self.kid(), "x": x, "y": y,
        });
        json!({ "keys": [key] }).to_string()
    }

    pub(super) fn token(&self, bearer: &Bearer, audience: &str, life: u64) -> Result<String> {
        let Bearer { namespace, account, pod, uid } = bearer;
        let now = crate::forge::now();
        let header = json!({ "alg": "ES256", "kid": self.kid() });
        let claims = json!({
            "aud": [audience], "exp": now + life, "iat": now, "iss": ISSUER,
            "jti": format!("{uid}-{now}"), "nbf": now,
            "kubernetes.io": {
                "namespace": namespace,
                "node": { "name": "node", "uid": "6f0c" },
                "pod": { "name": pod, "uid": uid },
                "serviceaccount": { "name": account, "uid": "12ab" },
            },
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
        });
        let signed =
            format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes())?;
        Ok(format!("{signed}.{}", BASE64.encode(signature.as_ref())))
    }

    fn kid(&self) -> String {
        BASE64.encode(&self.0.public_key().as_ref()[1..17])
    }
}

impl Bearer {
    /// What a TokenReview says of its tokens as long as the pod is there.
    pub(super) fn reviewed(&self, audience: &str) -> PodToken {
        PodToken {
            audiences: vec![audience.to_owned()],
            namespace: self.namespace.clone(),
            service_account: self.account.clone(),
            pod: Some((self.pod.clone(), self.uid.clone())),
            node: Some("node".to_owned()),
            outlives_its_pod: false,
        }
    }
}
