//! The program as the chart runs it, against the fake of the Kubernetes API: from nothing to a pod
//! that is admitted.
//!
//! Never: a port that is not free, a wait for time.

// SPDX-License-Identifier: Apache-2.0

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use myelin_fake_api::{FakeApi, Resource};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const NAMESPACE: &str = "myelin-system";
const DEPLOYMENT: &str = include_str!("../fixtures/deployment.json");

/// A running program, and what it logged so far.
struct Running {
    child: Child,
    logged: Arc<Mutex<String>>,
    webhook: SocketAddr,
    ops: SocketAddr,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_myelin-controller"));
    command.arg("run").arg("--config").arg(directory.join("controller.toml"));
    command.arg("--kubeconfig").arg(directory.join("kubeconfig"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

impl Running {
    async fn start(directory: &Path) -> Result<Self> {
        let mut child = program(directory).spawn()?;
        let lines = BufReader::new(child.stderr.take().context("its log")?).lines();
        let logged = Arc::new(Mutex::new(String::new()));
        let written = Arc::clone(&logged);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut logged = written.lock().unwrap_or_else(|poison| poison.into_inner());
                *logged += &format!("{line}\n");
            }
        });
        let said = |name: &str| -> Option<SocketAddr> {
            let logged = logged.lock().ok()?;
            let line = logged.lines().find(|line| line.contains(" listening "))?;
            let (_, rest) = line.split_once(&format!(" {name}="))?;
            rest.split_whitespace().next()?.parse().ok()
        };
        loop {
            ensure!(child.try_wait()?.is_none(), "it has ended: {:?}", logged.lock());
            if let (Some(webhook), Some(ops)) = (said("webhook"), said("ops")) {
                return Ok(Self { child, logged, webhook, ops });
            }
            pause().await;
        }
    }

    /// Which conditions of readiness are not met.
    async fn lacks(&self) -> Result<Vec<String>> {
        let (status, said) = ask(TcpStream::connect(self.ops).await?, "GET", "/ready", "").await?;
        let said: Value = serde_json::from_str(&said)?;
        let conditions = said["conditions"].as_array().context("conditions")?;
        let lacking = conditions.iter().filter(|condition| condition["met"] == false);
        let lacking: Vec<String> =
            lacking.map(|it| it["name"].as_str().unwrap_or_default().to_owned()).collect();
        ensure!((status == 200) == lacking.is_empty(), "{said}");
        Ok(lacking)
    }

    async fn until_it_lacks(&self, expected: &[&str]) -> Result<()> {
        while self.lacks().await? != expected {
            pause().await;
        }
        Ok(())
    }
}

async fn ask(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    path: &str,
    body: &str,
) -> Result<(u16, String)> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said).await;
    let said = String::from_utf8(said)?;
    let status = said.split(' ').nth(1).context("a status")?.parse()?;
    let body = said.split_once("\r\n\r\n").context("a body")?.1;
    Ok((status, body.to_owned()))
}

/// What the chart writes, on ports that are free.
fn written(api: &FakeApi) -> Result<TempDir> {
    let directory = tempfile::tempdir()?;
    let bundle = directory.path().join("bundle.pem");
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    std::fs::write(&bundle, params.self_signed(&KeyPair::generate()?)?.pem())?;
    let text = format!(
        "trust_domain = \"cluster.local\"\nmesh_cidrs = [\"10.0.0.0/8\"]\n\
         [ca]\nservice = \"myelin-ca\"\nbundle_file = {bundle:?}\n\
         bundle_config_map = \"myelin-trust-bundle\"\n[sidecar]\nimage = \"sidecar:1\"\n\
         [webhook]\nlisten = \"127.0.0.1:0\"\n[ops]\nlisten = \"127.0.0.1:0\"\n\
         [log]\nlevel = \"debug\"\n"
    );
    std::fs::write(directory.path().join("controller.toml"), text)?;
    std::fs::write(directory.path().join("kubeconfig"), api.kubeconfig())?;
    Ok(directory)
}

fn registrations() -> Resource {
    Resource::new("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations")
}

#[tokio::test]
async fn from_nothing_to_a_pod_that_is_admitted() -> Result<()> {
    let api = FakeApi::start().await?;
    let directory = written(&api)?;
    // The API is not there yet.
    api.vanish();
    let running = Running::start(directory.path()).await?;
    running.until_it_lacks(&["ca", "certificate", "registration"]).await?;
    // It comes, and what the chart installs comes one after the other.
    api.heal();
    let labels = json!({ "myelin.dev/inject": "enabled" });
    let shop = json!({ "metadata": { "name": "shop", "labels": labels } });
    api.put(&Resource::core("namespaces"), shop);
    running.until_it_lacks(&["ca", "registration"]).await?;
    let ports = json!([{ "name": "grpc", "port": 15010 }]);
    let metadata = json!({ "name": "myelin-ca", "namespace": NAMESPACE });
    let spec = json!({ "clusterIP": "10.96.7.7", "ports": ports });
    api.put(&Resource::core("services"), json!({ "metadata": metadata, "spec": spec }));
    running.until_it_lacks(&["registration"]).await?;
    let service = json!({ "name": "myelin-controller", "namespace": NAMESPACE });
    let webhook = json!({ "name": "injector", "clientConfig": { "service": service } });
    let metadata = json!({ "name": "myelin-injector" });
    api.put(&registrations(), json!({ "metadata": metadata, "webhooks": [webhook] }));
    running.until_it_lacks(&[]).await?;

    let registered = api.read(&registrations(), "", "myelin-injector").context("it")?;
    let bundle = registered["webhooks"][0]["clientConfig"]["caBundle"].as_str().context("it")?;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&BASE64_STANDARD.decode(bundle)?) {
        roots.add(root?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("myelin-controller.myelin-system.svc")?;
    let stream = TcpStream::connect(running.webhook).await?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let (status, said) = ask(stream, "POST", "/inject", DEPLOYMENT).await?;
    let said: Value = serde_json::from_str(&said)?;
    ensure!(status == 200 && said["response"]["allowed"] == true, "{said}");
    let patch = BASE64_STANDARD.decode(said["response"]["patch"].as_str().context("a patch")?)?;
    ensure!(String::from_utf8(patch)?.contains("10.96.7.7:15010"));

    let maps = Resource::core("configmaps");
    while api.read(&maps, "shop", "myelin-trust-bundle").is_none() {
        pause().await;
    }
    let logged = running.logged.lock().map(|text| text.clone()).unwrap_or_default();
    ensure!(logged.contains("DEBUG") && !logged.contains("PRIVATE KEY"), "{logged}");
    Ok(())
}

#[tokio::test]
async fn without_a_way_to_an_api_the_program_ends_with_one_line() -> Result<()> {
    let directory = written(&FakeApi::start().await?)?;
    std::fs::write(directory.path().join("kubeconfig"), "{}")?;
    let ended = program(directory.path()).output()?;
    let said = String::from_utf8(ended.stderr)?;
    let last = said.lines().last().unwrap_or_default();
    ensure!(!ended.status.success() && last.contains("the kubeconfig "), "{said}");
    Ok(())
}
