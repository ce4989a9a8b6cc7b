//! What proves something and what does not, as a table: no sockets, no journal.
//!
//! Never: a connection; its exporter is made up.

// SPDX-License-Identifier: Apache-2.0

use aws_lc_rs::signature::Ed25519KeyPair;
use myelin_identity::issuance::{HostSpki, RequestKey, sign_host_proof};
use rcgen::{CertificateParams, KeyPair};

use super::*;

const NOW: u64 = 1_800_000_000;

async fn prove(request: proto::IssueRequest, caller: &Caller) -> Result<Proven, AttestError> {
    Attestors::default().prove(request, caller, NOW).await
}

/// A change that breaks a proof, and the word for it.
type Case = (fn(&mut Made), &'static str);

struct Made {
    request: proto::IssueRequest,
    caller: Caller,
}

fn made(attestation: fn(Vec<u8>) -> proto::issue_request::Attestation) -> Made {
    let host = Ed25519KeyPair::generate().unwrap();
    let csr_der = CertificateParams::default()
        .serialize_request(&KeyPair::generate().unwrap())
        .unwrap()
        .der()
        .to_vec();
    let (exporter, request_key) = ([7; EXPORTER_BYTES], RequestKey::random().unwrap());
    let host_signature = sign_host_proof(&host, &exporter, &csr_der, &request_key);
    let caller = Caller { remote: RemoteAddr("10.0.0.1:5".parse().unwrap()), peer: None, exporter };
    let request = proto::IssueRequest {
        csr_der,
        request_key: request_key.as_bytes().to_vec(),
        attestation: Some(attestation(HostSpki::of(&host).as_bytes().to_vec())),
        host_signature,
        lifetime_seconds: 0,
    };
    Made { request, caller }
}

fn token(host_spki: Vec<u8>) -> proto::issue_request::Attestation {
    proto::issue_request::Attestation::JoinToken(proto::JoinToken {
        secret: vec![1; 32],
        host_spki,
    })
}

fn alone(host_spki: Vec<u8>) -> proto::issue_request::Attestation {
    proto::issue_request::Attestation::Host(proto::Host { host_spki, lineage: None })
}

fn renewal(host_spki: Vec<u8>) -> proto::issue_request::Attestation {
    let lineage = Some(proto::Lineage { id: vec![1; 16], generation: 1 });
    proto::issue_request::Attestation::Host(proto::Host { host_spki, lineage })
}

#[tokio::test]
async fn each_right_is_told_from_the_others() {
    for (attestation, expected) in [(token as fn(_) -> _, "join_token"), (alone, "host_key")] {
        let Made { request, caller } = made(attestation);
        assert_eq!(attestor_of(&request), expected);
        assert_eq!(prove(request, &caller).await.unwrap().attestor(), expected);
    }
}

#[tokio::test]
async fn attestor_that_was_not_configured_is_refused_by_its_name() {
    fn pod(host_spki: Vec<u8>) -> proto::issue_request::Attestation {
        let token = "a.b.c".to_owned();
        let pod = proto::KubernetesToken { token, host_spki, lineage: None };
        proto::issue_request::Attestation::Kubernetes(pod)
    }
    fn machine(host_spki: Vec<u8>) -> proto::issue_request::Attestation {
        let chain_der = vec![vec![0]];
        let signature = vec![0; 64];
        proto::issue_request::Attestation::Machine(proto::MachineCertificate {
            chain_der,
            scheme: 0x0403,
            signature,
            host_spki,
            lineage: None,
        })
    }
    for (attestation, expected) in [(pod as fn(_) -> _, "kubernetes"), (machine, "machine")] {
        let Made { request, caller } = made(attestation);
        assert_eq!(attestor_of(&request), expected);
        assert_eq!(prove(request, &caller).await.unwrap_err().word(), "attestor_not_configured");
    }
}

#[tokio::test]
async fn renewal_without_a_peer_is_refused() {
    let Made { request, caller } = made(renewal);
    assert_eq!(attestor_of(&request), "renewal");
    assert_eq!(prove(request, &caller).await.unwrap_err().word(), "svid_not_presented");
}

#[tokio::test]
async fn request_that_differs_from_what_the_host_signed_is_refused() {
    let table: [Case; 8] = [
        (|made| made.caller.exporter[0] ^= 1, "host_signature"),
        (|made| made.request.request_key[0] ^= 1, "host_signature"),
        (|made| made.request.host_signature[10] ^= 1, "host_signature"),
        (|made| made.request.csr_der[60] ^= 1, "csr"),
        (|made| made.request.request_key.truncate(15), "malformed"),
        (|made| made.request.attestation = None, "malformed"),
        (|made| made.request.csr_der = vec![0; 5000], "malformed"),
        (|made| made.request.attestation = Some(token(vec![1; 91])), "malformed"),
    ];
    for (change, expected) in table {
        let mut made = made(token);
        change(&mut made);
        let word = prove(made.request, &made.caller).await.unwrap_err().word();
        assert!(word.starts_with(expected), "{word}, expected {expected}");
    }
}
