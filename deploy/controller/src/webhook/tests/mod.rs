//! The webhook over real HTTPS, with reviews as an API server sends them.
//!
//! Never: an answer that only our own code reads.

// SPDX-License-Identifier: Apache-2.0

mod bounds;

use std::net::SocketAddr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;
use crate::certificate::server_config;
use crate::inject::{Privileges, Resources};

const NAME: &str = "myelin-controller.myelin-system.svc";

struct Served {
    address: SocketAddr,
    root: CertificateDer<'static>,
    identity: Identity,
    metrics: Arc<Metrics>,
}

fn certificate() -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed([NAME.to_owned()]).unwrap();
    (cert.der().clone(), PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap())
}

async fn serve(bundle: Option<&str>) -> Served {
    serve_with(bundle, &["10.96.0.5:15010"]).await
}

async fn serve_with(bundle: Option<&str>, addresses: &[&str]) -> Served {
    let (root, key) = certificate();
    let identity = Identity::default();
    identity.store(Some(Arc::new(server_config(vec![root.clone()], key).unwrap())));
    let metrics = Arc::new(Metrics::new());
    let address = serving(Arc::clone(&identity), bundle, addresses, Arc::clone(&metrics));
    Served { address, root, identity, metrics }
}

/// A webhook that has all it needs but for its certificate, which is the caller's.
pub(crate) fn serve_with_identity(identity: Identity) -> SocketAddr {
    serving(identity, Some("pem"), &["10.96.0.5:15010"], Arc::new(Metrics::new()))
}

fn serving(
    identity: Identity,
    bundle: Option<&str>,
    addresses: &[&str],
    metrics: Arc<Metrics>,
) -> SocketAddr {
    listening(built(identity, bundle, addresses, metrics))
}

fn built(
    identity: Identity,
    bundle: Option<&str>,
    addresses: &[&str],
    metrics: Arc<Metrics>,
) -> Webhook {
    let settings = Settings {
        trust_domain: "cluster.local".parse().unwrap(),
        mesh_cidrs: vec!["10.0.0.0/8".parse().unwrap()],
        namespace: "myelin-system".to_owned(),
        ca: Vec::new(),
        exceptions: Vec::new(),
        image: "sidecar:1".to_owned(),
        image_pull_policy: None,
        revision: "default".to_owned(),
        cni: false,
        resources: Resources::default(),
        privileges: Privileges::Warn,
        services: None,
        policies: None,
        bundle_pem: "".into(),
    };
    let held = Held::default();
    held.store(bundle.map(|pem| Arc::new(pem.to_owned())));
    let ca = ca_address::Held::default();
    ca.store(Arc::new(addresses.iter().map(|text| text.parse().unwrap()).collect()));
    Webhook::new(settings, held, ca, identity, metrics)
}

fn listening(webhook: Webhook) -> SocketAddr {
    let webhook = Arc::new(webhook);
    let listener = door::bind("test", "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(webhook.serve(listener));
    address
}

/// The API server's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At(pub(crate) Option<u64>);

impl TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        let Self(told) = self;
        let told = told.map(|seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds)));
        told.or_else(|| DefaultTimeProvider.current_time())
    }
}

async fn connect(
    (address, at): (SocketAddr, At),
    believed: &[CertificateDer<'static>],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(believed.iter().cloned());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_details(provider, Arc::new(at))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(NAME).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Status and body, from a server that one of these certificates says is ours.
pub(crate) async fn review_at(
    address: (SocketAddr, At),
    believed: &[CertificateDer<'static>],
    method: &str,
    path: &str,
    body: &[u8],
) -> std::io::Result<(u16, String)> {
    let mut stream = connect(address, believed).await?;
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {NAME}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    // A refused body may be cut before it is read whole.
    let _ = stream.write_all(body).await;
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said).await;
    let said = String::from_utf8(said).unwrap();
    let status = said.split(' ').nth(1).and_then(|status| status.parse().ok());
    let broken = || std::io::Error::other("no answer");
    let body = said.split_once("\r\n\r\n").ok_or_else(broken)?.1;
    Ok((status.ok_or_else(broken)?, body.to_owned()))
}

impl Served {
    async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        connect((self.address, At(None)), std::slice::from_ref(&self.root)).await
    }

    async fn ask(&self, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        let believed = std::slice::from_ref(&self.root);
        review_at((self.address, At(None)), believed, method, path, body).await.unwrap()
    }

    async fn review(&self, body: &str) -> Value {
        let (status, said) = self.ask("POST", "/inject?timeout=5s", body.as_bytes()).await;
        assert_eq!(status, 200, "{said}");
        let answer: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["kind"], "AdmissionReview");
        answer["response"].clone()
    }

    fn counted(&self, labels: &str) -> bool {
        self.metrics.render().contains(&format!("myelin_injection_reviews_total{{{labels}}} 1"))
    }
}

const DEPLOYMENT: &str = include_str!("../../../fixtures/deployment.json");

#[tokio::test]
async fn a_pod_comes_back_with_a_patch_that_makes_it_meshed() {
    let served = serve(Some("pem")).await;
    let response = served.review(DEPLOYMENT).await;
    let asked: Value = serde_json::from_str(DEPLOYMENT).unwrap();
    assert_eq!(response["uid"], asked["request"]["uid"]);
    assert_eq!((&response["allowed"], &response["patchType"]), (&json!(true), &json!("JSONPatch")));
    let patch = BASE64_STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let mut review = asked;
    json_patch::patch(&mut review["request"]["object"], &patch).unwrap();
    let pod = &review["request"]["object"];
    assert_eq!(pod["spec"]["initContainers"][1]["image"], "sidecar:1");
    assert_eq!(pod["metadata"]["annotations"]["myelin.dev/trust-bundle"], "pem");
    let told = &pod["metadata"]["annotations"]["myelin.dev/sidecar-config"];
    assert!(told.as_str().unwrap().contains("10.96.0.5:15010"), "{told}");
    assert!(served.counted("reason=\"\",result=\"injected\""), "{}", served.metrics.render());

    // Asked again about what came of it: nothing more to do.
    let again = served.review(&review.to_string()).await;
    assert_eq!(again["allowed"], true);
    assert!(again["patch"].is_null() && again["patchType"].is_null(), "{again}");
    assert!(served.counted("reason=\"\",result=\"unchanged\""));
}

#[tokio::test]
async fn a_refused_pod_hears_why() {
    let served = serve(Some("pem")).await;
    let conflicting = include_str!("../../../fixtures/conflicting-annotations.json");
    let response = served.review(conflicting).await;
    assert_eq!(response["allowed"], false);
    assert!(response["patch"].is_null());
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.starts_with("myelin: annotation myelin.dev/permissive-until"), "{message}");
    assert!(served.counted("reason=\"annotation\",result=\"refused\""));
}

#[tokio::test]
async fn warnings_are_sent_along_and_bounded() {
    let served = serve(Some("pem")).await;
    let response = served.review(include_str!("../../../fixtures/host-network.json")).await;
    assert_eq!(response["allowed"], true);
    assert!(response["warnings"][0].as_str().unwrap().contains("not meshed (hostNetwork"));
    assert!(served.counted("reason=\"host_network\",result=\"left\""));
    let mut review: Value = serde_json::from_str(DEPLOYMENT).unwrap();
    let one = json!({ "name": "x".repeat(63), "securityContext": { "privileged": true } });
    review["request"]["object"]["spec"]["containers"] = std::iter::repeat_n(one, 40).collect();
    let response = served.review(&review.to_string()).await;
    assert_eq!(response["warnings"].as_array().unwrap().len(), 15);
}

#[tokio::test]
async fn what_is_no_new_pod_passes_untouched() {
    let served = serve(Some("pem")).await;
    for (pointer, value) in [
        ("/request/operation", json!("UPDATE")),
        ("/request/kind/kind", json!("Deployment")),
        ("/request/kind/group", json!("apps")),
    ] {
        let mut review: Value = serde_json::from_str(DEPLOYMENT).unwrap();
        *review.pointer_mut(pointer).unwrap() = value;
        let response = served.review(&review.to_string()).await;
        assert_eq!((&response["allowed"], response["patch"].is_null()), (&json!(true), true));
    }
}

#[tokio::test]
async fn what_is_no_question_is_refused_and_the_next_one_answered() {
    let served = serve(Some("pem")).await;
    let older = DEPLOYMENT.replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1");
    let headless = "{\"apiVersion\":\"admission.k8s.io/v1\",\"kind\":\"AdmissionReview\"}";
    let large = vec![b' '; MAX_BODY_BYTES + 1];
    for (method, path, body, expected) in [
        ("POST", "/inject", &b"{"[..], 400),
        ("POST", "/inject", b"", 400),
        ("POST", "/inject", b"[1]", 400),
        ("POST", "/inject", older.as_bytes(), 400),
        ("POST", "/inject", headless.as_bytes(), 400),
        ("POST", "/inject", &large, 413),
        ("GET", "/inject", b"", 405),
        ("POST", "/", b"{}", 404),
        ("GET", "/metrics", b"", 404),
    ] {
        let (status, said) = served.ask(method, path, body).await;
        assert_eq!(status, expected, "{method} {path}: {said}");
    }
    let unreadable = "myelin_injection_reviews_total{reason=\"\",result=\"unreadable\"} 6";
    assert!(served.metrics.render().contains(unreadable), "{}", served.metrics.render());
    served.review(DEPLOYMENT).await;
}

#[tokio::test]
async fn without_a_trust_bundle_no_pod_is_let_through() {
    let served = serve(None).await;
    let (status, said) = served.ask("POST", "/inject", DEPLOYMENT.as_bytes()).await;
    assert_eq!(status, 503, "{said}");
    assert!(said.contains("no trust bundle yet"), "{said}");
}

#[tokio::test]
async fn without_an_address_of_the_ca_no_pod_is_let_through() {
    let served = serve_with(Some("pem"), &[]).await;
    let (status, said) = served.ask("POST", "/inject", DEPLOYMENT.as_bytes()).await;
    assert_eq!(status, 503, "{said}");
    assert!(said.contains("the CA's address"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_question_that_does_not_arrive_is_ended() {
    let served = serve(Some("pem")).await;
    let mut stream = served.connect().await.unwrap();
    let head = b"POST /inject HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{";
    stream.write_all(head).await.unwrap();
    let mut said = vec![0; 12];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(said, b"HTTP/1.1 408");
    // A stranger who says nothing at all is gone after the handshake's time.
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_renewed_certificate_is_served_without_a_restart() {
    let mut served = serve(Some("pem")).await;
    served.review(DEPLOYMENT).await;
    let (root, key) = certificate();
    served.identity.store(Some(Arc::new(server_config(vec![root.clone()], key).unwrap())));
    served.connect().await.expect_err("under the old root");
    served.root = root;
    served.review(DEPLOYMENT).await;
}
