//! Replicas of the keeper against the fake of the Kubernetes API, their webhooks asked over real
//! HTTPS by a client that believes what is registered. Time is a number that the tests advance.
//!
//! Never: a wait for time.

// SPDX-License-Identifier: Apache-2.0

mod files;
mod lifecycle;
mod wrong;

use std::net::SocketAddr;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use myelin_fake_api::{FakeApi, Resource, Rule};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::*;
use crate::webhook::tests::{At, review_at, serve_with_identity};

const NAMESPACE: &str = "myelin-system";
const SECRET: &str = "myelin-webhook";
const CONFIGURATION: &str = "myelin-injector";
const START: u64 = 2_000_000_000;
const MINUTE: u64 = 60;
const DAY: u64 = 24 * 60 * MINUTE;
const DEPLOYMENT: &str = include_str!("../../../fixtures/deployment.json");

struct Stage {
    api: FakeApi,
    kubeconfig: tempfile::NamedTempFile,
}

/// One controller: its keeper, and its webhook on a port of loopback.
struct Replica {
    keeper: Keeper,
    identity: Identity,
    believed: Believed,
    address: SocketAddr,
}

fn place() -> Place {
    let [namespace, secret, configuration] = [NAMESPACE, SECRET, CONFIGURATION].map(str::to_owned);
    Place { namespace, secret, configuration, service: "myelin-controller".to_owned() }
}

fn secrets() -> Resource {
    Resource::core("secrets")
}

fn registrations() -> Resource {
    Resource::new("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations")
}

/// As the chart has it, and a webhook of somebody else's among ours.
fn registration() -> Value {
    let webhook = |name: &str, service: &str| {
        let service = json!({ "name": service, "namespace": NAMESPACE, "path": "/inject" });
        json!({ "name": name, "clientConfig": { "service": service }, "timeoutSeconds": 5 })
    };
    let mut other = webhook("other", "somebody-else");
    other["clientConfig"]["caBundle"] = json!("b3RoZXI=");
    let ours = ["namespace", "pod"].map(|name| webhook(name, "myelin-controller"));
    json!({ "metadata": { "name": CONFIGURATION }, "webhooks": [ours[0], other, ours[1]] })
}

impl Stage {
    /// With what the chart installs, and no more rights than the chart gives.
    async fn installed() -> Self {
        let stage = Self::bare().await;
        stage.api.put(&registrations(), registration());
        stage.put_secret(json!({}));
        stage
    }

    async fn bare() -> Self {
        let api = FakeApi::start().await.unwrap();
        let group = "admissionregistration.k8s.io";
        api.allow_only(vec![
            Rule::new("", "secrets", &["get", "update", "watch"], &[SECRET]),
            Rule::new(
                group,
                "mutatingwebhookconfigurations",
                &["get", "patch", "watch"],
                &[CONFIGURATION],
            ),
        ]);
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(kubeconfig.path(), api.kubeconfig()).unwrap();
        Self { api, kubeconfig }
    }

    async fn replica(&self) -> Replica {
        let cluster = Cluster::connect(Some(self.kubeconfig.path())).await.unwrap();
        let (identity, believed) = (Identity::default(), Believed::default());
        let keeper = Keeper::new(
            cluster,
            place(),
            Arc::clone(&identity),
            Arc::clone(&believed),
            Arc::new(Metrics::new()),
        );
        let address = serve_with_identity(Arc::clone(&identity));
        Replica { keeper, identity, believed, address }
    }

    fn put_secret(&self, data: Value) {
        let metadata = json!({ "name": SECRET, "namespace": NAMESPACE, "labels": { "kept": "x" } });
        self.api.put(&secrets(), json!({ "metadata": metadata, "type": "Opaque", "data": data }));
    }

    fn secret(&self) -> Option<Value> {
        self.api.read(&secrets(), NAMESPACE, SECRET)
    }

    /// A field of the Secret, decoded.
    fn field(&self, name: &str) -> String {
        let secret = self.secret().unwrap();
        let text = secret["data"][name].as_str().unwrap_or_default();
        String::from_utf8(BASE64_STANDARD.decode(text).unwrap()).unwrap()
    }

    /// What our webhooks say in `caBundle`; they agree.
    fn ca_bundle_text(&self) -> String {
        let object = self.api.read(&registrations(), "", CONFIGURATION).unwrap();
        let bundle = object["webhooks"][0]["clientConfig"]["caBundle"].as_str().unwrap();
        String::from_utf8(BASE64_STANDARD.decode(bundle).unwrap()).unwrap()
    }

    fn ca_bundle(&self) -> Vec<CertificateDer<'static>> {
        let object = self.api.read(&registrations(), "", CONFIGURATION).unwrap();
        let of = |index: usize| &object["webhooks"][index]["clientConfig"]["caBundle"];
        assert_eq!(of(0), of(2));
        assert_eq!(of(1), "b3RoZXI=", "somebody else's");
        let pem = BASE64_STANDARD.decode(of(0).as_str().unwrap_or_default()).unwrap();
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().unwrap()
    }

    fn overwrite_ca_bundle(&self, with: &Value) {
        let mut object = self.api.read(&registrations(), "", CONFIGURATION).unwrap();
        for index in [0, 2] {
            object["webhooks"][index]["clientConfig"]["caBundle"] = with.clone();
        }
        self.api.put(&registrations(), object);
    }
}

impl Replica {
    async fn look(&mut self, now: u64) -> Result<(), CertificateError> {
        self.keeper.look(now, &mut Seen::default()).await
    }

    /// What new connections see.
    fn serves(&self) -> String {
        self.keeper.served.as_ref().map(|pair| pair.certificate.clone()).unwrap_or_default()
    }

    fn is_believed(&self) -> bool {
        self.believed.load(Ordering::Relaxed)
    }
}

/// The API server asks about a pod, believing these, by this clock.
async fn admits(address: SocketAddr, roots: &[CertificateDer<'static>], now: u64) -> bool {
    match review_at((address, At(Some(now))), roots, "POST", "/inject", DEPLOYMENT.as_bytes()).await
    {
        Ok((200, said)) => said.contains("\"allowed\":true"),
        _ => false,
    }
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}
