//! The API server's question about a new pod, over HTTPS, and what its answer makes of the pod.
//! Called by `cluster`.
//!
//! Never: the injector's own code; the patch is applied by somebody else's.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use myelin_lab::Pod;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::programs::random_word;

/// Where programs look for a token for the API.
const TOKEN_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
pub(super) const TOKEN_VOLUME: &str = "kube-api-access";

/// As the webhook's configuration says: `timeoutSeconds`; more, for a machine under load.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// The webhook as an API server is told of it.
pub(super) struct Webhook {
    pub(super) at: SocketAddr,
    /// Its name in the cluster, which its certificate must bear.
    pub(super) name: String,
    /// `caBundle`.
    pub(super) roots: String,
}

/// What the API server's admission of service accounts does to every pod: a token for the API in
/// each container that has nothing in its place.
pub(super) fn with_token(pod: &Value) -> Result<Value> {
    let mut pod = pod.clone();
    let spec = pod["spec"].as_object_mut().context("no spec")?;
    if spec.get("automountServiceAccountToken") == Some(&json!(false)) {
        return Ok(pod);
    }
    for list in ["initContainers", "containers"] {
        let Some(Value::Array(containers)) = spec.get_mut(list) else { continue };
        for container in containers {
            let mut mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
            if !mounts.iter().any(|mount| mount["mountPath"] == TOKEN_DIR) {
                let (name, to) = (TOKEN_VOLUME, TOKEN_DIR);
                mounts.push(json!({ "name": name, "mountPath": to, "readOnly": true }));
                container["volumeMounts"] = Value::Array(mounts);
            }
        }
    }
    let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
    let volumes = volumes.as_array_mut().context("volumes is no list")?;
    if !volumes.iter().any(|volume| volume["name"] == TOKEN_VOLUME) {
        let namespace = json!({
            "path": "namespace",
            "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" },
        });
        volumes.push(
            json!({ "name": TOKEN_VOLUME, "projected": { "defaultMode": 0o644, "sources": [
            { "serviceAccountToken": { "expirationSeconds": 3607, "path": "token" } },
            { "configMap": {
                "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }],
            } },
            { "downwardAPI": { "items": [namespace] } },
        ] } }),
        );
    }
    Ok(pod)
}

impl Webhook {
    /// Asks about a pod that is to be made; the pod as it will be, or why it will not.
    pub(super) async fn admit(&self, from: &Pod, pod: &Value) -> Result<Value> {
        let uid = random_word()?;
        let kind = json!({ "group": "", "version": "v1", "kind": "Pod" });
        let resource = json!({ "group": "", "version": "v1", "resource": "pods" });
        let review = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": uid, "kind": kind, "resource": resource, "operation": "CREATE",
                "requestKind": kind, "requestResource": resource, "dryRun": false,
                "namespace": pod["metadata"]["namespace"], "object": pod, "oldObject": null,
                "userInfo": { "username": "test" },
            },
        });
        let review = review.to_string();
        let answer = timeout(ANSWER_LIMIT, self.post(from, &review)).await;
        let answer = answer.context("the webhook does not answer")??;
        let response = &answer["response"];
        ensure!(response["uid"] == json!(uid), "the answer is to another question: {answer}");
        if response["allowed"] != true {
            bail!("refused: {}", response["status"]["message"].as_str().unwrap_or_default());
        }
        let mut admitted = pod.clone();
        if let Some(patch) = response["patch"].as_str() {
            ensure!(response["patchType"] == "JSONPatch", "{answer}");
            let patch: json_patch::Patch = serde_json::from_slice(&BASE64_STANDARD.decode(patch)?)?;
            json_patch::patch(&mut admitted, &patch)?;
        }
        Ok(admitted)
    }

    async fn post(&self, from: &Pod, body: &str) -> Result<Value> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(self.roots.as_bytes()) {
            roots.add(root?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(self.name.clone())?;
        let tcp = from.tcp_connect(self.at).await?;
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
        let head = format!(
            "POST /inject HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            self.name,
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        stream.flush().await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "the webhook answers {answer}");
        Ok(serde_json::from_str(body)?)
    }
}
