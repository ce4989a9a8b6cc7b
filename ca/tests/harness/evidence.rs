//! Evidence from outside the mesh, made on the spot: a cluster that mints service-account tokens,
//! and a corporate CA that gives machines their certificates.
//!
//! Never: a shape that only our own code would write; tokens and certificates are put together from
//! their specifications.

// SPDX-License-Identifier: Apache-2.0

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64, Engine as _};
use myelin_ca::config::{AttestConfig, KeysConfig, KubernetesConfig};
use myelin_identity::issuance::{EXPORTER_BYTES, HostProof, RequestKey};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};

pub const ISSUER: &str = "https://kubernetes.default.svc";
/// TLS's `ecdsa_secp256r1_sha256`.
pub const ECDSA: u32 = 0x0403;

/// An issuer of service-account tokens, with its key set in a file.
pub struct Cluster {
    key: EcdsaKeyPair,
    kid: &'static str,
    pub jwks: PathBuf,
}

impl Cluster {
    pub fn new(directory: &Path) -> Self {
        Self::with_key(directory, "one")
    }

    /// With a key of this id.
    pub fn with_key(directory: &Path, kid: &'static str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = key.public_key().as_ref();
        let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
        let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": kid, "x": x, "y": y}]});
        let jwks = directory.join("jwks.json");
        std::fs::write(&jwks, keys.to_string()).unwrap();
        Self { key, kid, jwks }
    }

    pub fn config(&self) -> KubernetesConfig {
        let keys = KeysConfig::File(self.jwks.clone());
        KubernetesConfig { issuer: ISSUER.to_owned(), keys, review: None }
    }

    /// A token of this pod, good for an hour from `now`.
    pub fn token(&self, namespace: &str, account: &str, pod_uid: &str, now: u64) -> String {
        self.mint(&claims(namespace, account, pod_uid, now))
    }

    pub fn mint(&self, claims: &Value) -> String {
        let header = json!({"alg": "ES256", "kid": self.kid});
        let signed =
            format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64.encode(signature.as_ref()))
    }
}

pub fn claims(namespace: &str, account: &str, pod_uid: &str, now: u64) -> Value {
    json!({
        "iss": ISSUER,
        "aud": ["myelin-ca/prod.example"],
        "sub": format!("system:serviceaccount:{namespace}:{account}"),
        "iat": now,
        "nbf": now,
        "exp": now + 3600,
        "kubernetes.io": {
            "namespace": namespace,
            "serviceaccount": {"name": account, "uid": "5f1c"},
            "pod": {"name": format!("{account}-{pod_uid}"), "uid": pod_uid},
            "node": {"name": "node-1", "uid": "33"},
        },
    })
}

/// A corporate CA, with its root in a file.
pub struct Corporation {
    root: CertifiedIssuer<'static, KeyPair>,
    pub file: PathBuf,
}

/// A machine with a certificate of its own.
pub struct Machine {
    key: KeyPair,
    pub chain: Vec<CertificateDer<'static>>,
}

impl Corporation {
    pub fn new(directory: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = directory.join(format!("{name}.pem"));
        std::fs::write(&file, root.pem()).unwrap();
        Self { root, file }
    }

    pub fn root(&self) -> CertificateDer<'static> {
        self.root.der().clone()
    }

    /// A certificate for clients, from now on for `life`.
    pub fn machine(&self, dns: &str, change: impl FnOnce(&mut CertificateParams)) -> Machine {
        let mut params = CertificateParams::new(vec![dns.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, dns.to_ascii_uppercase());
        params.subject_alt_names.push(SanType::IpAddress("10.0.0.9".parse().unwrap()));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.root).unwrap();
        Machine { key, chain: vec![leaf.der().clone()] }
    }
}

impl Machine {
    /// Its key's signature over this very request.
    pub fn sign(
        &self,
        exporter: &[u8; EXPORTER_BYTES],
        csr_der: &[u8],
        request_key: &RequestKey,
    ) -> Vec<u8> {
        let pkcs8 = self.key.serialized_der();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8).unwrap();
        let bytes = HostProof::machine_bytes(exporter, csr_der, request_key);
        pair.sign(&SystemRandom::new(), &bytes).unwrap().as_ref().to_vec()
    }
}

pub fn attest(cluster: Option<&Cluster>, corporation: Option<&Corporation>) -> AttestConfig {
    AttestConfig {
        kubernetes: cluster.map(Cluster::config),
        machine_ca: corporation.map(|corporation| corporation.file.clone()),
    }
}

/// An hour, as most of these live.
pub const HOUR: Duration = Duration::from_secs(3600);
