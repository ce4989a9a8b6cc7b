//! The client's half: hosts, intentions, requests, and what comes of them.
//!
//! Never: keeps a connection that the test does not hold.

// SPDX-License-Identifier: Apache-2.0

use aws_lc_rs::signature::Ed25519KeyPair;
use myelin_identity::issuance::{
    HostSpki, IssueResponse, JoinToken, Lineage, RequestKey, proto, sign_host_proof,
};
use myelin_identity::svid::Svid;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tonic::{Code, Status};

use super::{Connected, ECDSA, Machine, Target, TestCa};

/// A host and its key.
pub struct Host {
    pub key: Ed25519KeyPair,
    pub spki: Vec<u8>,
}

impl Host {
    pub fn new() -> Self {
        let key = Ed25519KeyPair::generate().unwrap();
        Self { spki: HostSpki::of(&key).as_bytes().to_vec(), key }
    }

    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.key.sign(bytes).as_ref().to_vec()
    }
}

/// One intention to get a certificate: the same again is a retry.
pub struct Intent {
    pub svid_key: KeyPair,
    pub csr_der: Vec<u8>,
    pub request_key: RequestKey,
    pub lifetime_seconds: u64,
}

impl Intent {
    pub fn new() -> Self {
        let svid_key = KeyPair::generate().unwrap();
        let csr_der =
            CertificateParams::default().serialize_request(&svid_key).unwrap().der().to_vec();
        Self { svid_key, csr_der, request_key: RequestKey::random().unwrap(), lifetime_seconds: 0 }
    }
}

/// By what right.
pub enum By<'a> {
    Token(&'a JoinToken),
    HostAlone,
    Renewal(&'a Held),
    /// The workload's own certificate, vouched for by this SVID.
    Companion(&'a Held),
    /// A pod's token; with an SVID it renews.
    Pod(&'a str, Option<&'a Held>),
    /// A machine's certificate; with an SVID it renews.
    Machine(&'a Machine, Option<&'a Held>),
}

/// An SVID as its holder has it.
pub struct Held {
    pub response: IssueResponse,
    svid_key_der: Vec<u8>,
}

impl Held {
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.svid_key_der.clone().into())
    }

    pub fn svid(&self) -> Svid {
        Svid::from_chain(self.response.chain.clone()).unwrap()
    }

    pub fn serial(&self) -> String {
        self.svid().serial().to_string()
    }

    pub fn lineage(&self) -> Lineage {
        self.response.lineage
    }

    /// What a thief has: the same certificate and key.
    pub fn copy(&self) -> Self {
        Self { response: self.response.clone(), svid_key_der: self.svid_key_der.clone() }
    }
}

/// Builds the request as a sidecar would, for this connection.
pub fn request(
    connected: &Connected,
    host: &Host,
    by: &By<'_>,
    intent: &Intent,
) -> proto::IssueRequest {
    use proto::issue_request::Attestation;
    let attestation = match by {
        By::Token(token) => Attestation::JoinToken(proto::JoinToken {
            secret: token.secret.reveal().to_vec(),
            host_spki: host.spki.clone(),
        }),
        By::HostAlone => {
            Attestation::Host(proto::Host { host_spki: host.spki.clone(), lineage: None })
        }
        By::Renewal(held) => Attestation::Host(proto::Host {
            host_spki: host.spki.clone(),
            lineage: Some(held.lineage().into()),
        }),
        By::Companion(held) => Attestation::Companion(proto::Companion {
            host_spki: host.spki.clone(),
            vouched_by: Some(held.lineage().into()),
        }),
        By::Pod(token, held) => Attestation::Kubernetes(proto::KubernetesToken {
            token: (*token).to_owned(),
            host_spki: host.spki.clone(),
            lineage: held.map(|held| held.lineage().into()),
        }),
        By::Machine(machine, held) => Attestation::Machine(proto::MachineCertificate {
            chain_der: machine.chain.iter().map(|der| der.to_vec()).collect(),
            scheme: ECDSA,
            signature: machine.sign(&connected.exporter, &intent.csr_der, &intent.request_key),
            host_spki: host.spki.clone(),
            lineage: held.map(|held| held.lineage().into()),
        }),
    };
    let host_signature =
        sign_host_proof(&host.key, &connected.exporter, &intent.csr_der, &intent.request_key);
    proto::IssueRequest {
        csr_der: intent.csr_der.clone(),
        request_key: intent.request_key.as_bytes().to_vec(),
        attestation: Some(attestation),
        host_signature,
        lifetime_seconds: intent.lifetime_seconds,
    }
}

/// The whole of one issue: connection, request, answer.
pub async fn issue(
    target: &Target,
    host: &Host,
    by: By<'_>,
    intent: &Intent,
) -> Result<Held, Status> {
    let svid = match &by {
        By::Renewal(held) | By::Companion(held) => Some(*held),
        By::Pod(_, held) | By::Machine(_, held) => *held,
        By::Token(_) | By::HostAlone => None,
    };
    let mut connected = target.connect(svid).await;
    let request = request(&connected, host, &by, intent);
    send(&mut connected, request, intent).await
}

pub async fn send(
    connected: &mut Connected,
    request: proto::IssueRequest,
    intent: &Intent,
) -> Result<Held, Status> {
    let response = connected.client.issue(request).await?.into_inner();
    let response = IssueResponse::try_from(response).unwrap();
    Ok(Held { response, svid_key_der: intent.svid_key.serialize_der() })
}

/// A workload that joined with a token.
pub async fn join(ca: &TestCa, id: &str, address: &str) -> (Host, Held) {
    let token = ca.token(id, address).await;
    let host = Host::new();
    let held = issue(&ca.target(), &host, By::Token(&token), &Intent::new()).await.unwrap();
    (host, held)
}

/// The reason word of a refusal.
pub fn reason(status: &Status) -> &str {
    status.metadata().get("myelin-reason").map_or("", |word| word.to_str().unwrap())
}

#[track_caller]
pub fn assert_refused<T>(result: Result<T, Status>, code: Code, word: &str) {
    match result {
        Ok(_) => panic!("expected to be refused: {word}"),
        Err(status) => assert_eq!((status.code(), reason(&status)), (code, word), "{status}"),
    }
}
