//! A real Envoy that gets its certificate and its roots by secret discovery: it serves mutual TLS
//! with them, goes on with the next ones without a restart, and is reached through the mesh as a
//! declared peer.
//!
//! Never: a certificate file; Envoy has what the socket gave it and nothing else.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_identity::svid::Svid;
use myelin_identity::verify::PeerVerifier;
use myelin_lab::{Pod, Proc};
use myelin_sidecar::tls;
use myelin_tests::forge::{Credential, Forge};
use myelin_tests::programs::{eventually, listens};
use myelin_tests::{Mesh, Options, Spec, Workload, binaries, declared_peer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::stage::{LIFETIME_SECONDS, WEB, offering, socket};

pub(crate) const PORT: u16 = 7_000;
const LOCAL_PORT: u16 = 9_001;
const GREETING: &[u8] = b"greetings from behind envoy";
pub(crate) const CLIENT_ID: &str = "spiffe://mesh.test/ns/test/sa/client";
/// Of another trust domain, which only some of these Envoys believe.
pub(crate) const PARTNER_ID: &str = "spiffe://b.test/ns/test/sa/partner";
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Envoy's configuration: everything secret by its name, over the socket.
fn configuration(listen: SocketAddr, behind: SocketAddr, socket: &Path, roots: &str) -> String {
    let tls = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
    let proxy = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
    let source = "{resource_api_version: V3, api_config_source: {api_type: GRPC, \
                  transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: sds}}]}}";
    let http2 = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let (ip, port) = (listen.ip(), listen.port());
    let (to, to_port) = (behind.ip(), behind.port());
    let socket = socket.display();
    format!(
        r#"
node: {{id: web, cluster: web}}
static_resources:
  listeners:
  - name: l
    address: {{socket_address: {{address: {ip}, port_value: {port}}}}}
    filter_chains:
    - filters:
      - {{name: tcp, typed_config: {{"@type": {proxy}, stat_prefix: t, cluster: behind}}}}
      transport_socket:
        name: tls
        typed_config:
          "@type": {tls}
          require_client_certificate: true
          common_tls_context:
            tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}}
            tls_certificate_sds_secret_configs:
            - {{name: default, sds_config: {source}}}
            combined_validation_context:
              default_validation_context:
                match_typed_subject_alt_names:
                - {{san_type: URI, matcher: {{exact: "{CLIENT_ID}"}}}}
                - {{san_type: URI, matcher: {{exact: "{PARTNER_ID}"}}}}
              validation_context_sds_secret_config: {{name: {roots}, sds_config: {source}}}
  clusters:
  - name: behind
    type: STATIC
    load_assignment: {{cluster_name: behind, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {to}, port_value: {to_port}}}}}}}}}]}}]}}
  - name: sds
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{"@type": {http2}, explicit_http_config: {{http2_protocol_options: {{}}}}}}
    load_assignment: {{cluster_name: sds, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{pipe: {{path: "{socket}"}}}}}}}}]}}]}}
"#
    )
}

/// An Envoy in this workload's pod, with a server behind it that greets.
pub(crate) async fn envoy(mesh: &Mesh, web: &Workload, roots: &str) -> Result<Proc> {
    let behind = SocketAddr::new([127, 0, 0, 1].into(), LOCAL_PORT);
    let listener = web.pod.tcp_listen(behind).await?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(GREETING).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    let path = mesh.dir().join("envoy.yaml");
    let socket = socket(mesh, &web.spec.name);
    fs::write(&path, configuration(web.v4(PORT), behind, &socket, roots))?;
    let process = web
        .pod
        .command(binaries::envoy()?)
        .args(["--concurrency", "1", "--disable-hot-restart", "-l", "info", "-c"])
        .arg(&path)
        .label("envoy")
        .spawn()?;
    let ready = listens(&web.pod, web.pod.v4(), PORT).await;
    ready.with_context(|| process.last_words())?;
    Ok(process)
}

/// The serial of what is served there, to somebody who is outside of every sidecar and holds a
/// genuine SVID of the client.
async fn served(forge: &Forge, pod: &Pod, at: SocketAddr) -> Result<String> {
    served_to(&forge.svid(CLIENT_ID, pod.addresses())?, forge, pod, at).await
}

/// The same to whoever has this SVID, and believes the roots of `forge`.
pub(crate) async fn served_to(
    own: &Credential,
    forge: &Forge,
    pod: &Pod,
    at: SocketAddr,
) -> Result<String> {
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerVerifier::new(forge.bundle()?)))
        .with_client_auth_cert(own.chain.clone(), own.key.clone_key())?;
    let tcp = pod.tcp_connect(at).await?;
    let name = ServerName::IpAddress(at.ip().into());
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await?;
    let mut heard = vec![0; GREETING.len()];
    stream.read_exact(&mut heard).await?;
    ensure!(heard == GREETING);
    let chain = stream.get_ref().1.peer_certificates().context("no certificate")?;
    let svid = Svid::from_chain(chain.iter().map(|der| der.clone().into_owned()).collect())?;
    ensure!(svid.id().as_str() == WEB, "{}", svid.id());
    Ok(svid.serial().to_string())
}

/// A workload that Envoy fronts: its port is Envoy's own, not the sidecar's to capture.
async fn fronted(mesh: &Mesh, more: &str) -> Result<Workload> {
    mesh.workload_of(behind_envoy(offering(mesh, "web", &[], more))).await
}

pub(crate) fn behind_envoy(mut spec: Spec) -> Spec {
    spec.intercept = vec!["--exclude-inbound-port".to_owned(), PORT.to_string()];
    spec
}

#[tokio::test]
async fn an_envoy_gets_its_certificate_by_secret_discovery_and_rotates_it() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::lifetime(LIFETIME_SECONDS)).await? else {
        return Ok(());
    };
    let web = fronted(&mesh, "sds = true").await?;
    let process = envoy(&mesh, &web, "ROOTCA").await?;
    let stranger = mesh.pod("stranger")?;
    let forge = Forge::of(&mesh.ca).await?;
    let first = served(&forge, &stranger, web.v4(PORT)).await;
    let first = first.with_context(|| process.last_words())?;
    let mut seen = vec![first];
    while seen.len() < 3 {
        eventually("Envoy serves with the next certificate", SOON, async || {
            // Not one handshake fails in between.
            let serial = served(&forge, &stranger, web.v4(PORT)).await?;
            let news = seen.last() != Some(&serial);
            if news {
                seen.push(serial);
            }
            Ok(news)
        })
        .await
        .with_context(|| process.last_words())?;
    }
    let log = web.log()?;
    for serial in &seen {
        let line =
            log.lines().find(|line| line.contains("workload's own") && line.contains(serial));
        line.with_context(|| format!("{serial} was not the workload's own"))?;
    }
    let metrics = web.metrics().await?;
    let nack = [("call", "sds"), ("outcome", "nack")];
    ensure!(metrics.sum("myelin_workload_api_answers_total", &nack) == 0.0);
    Ok(())
}

#[tokio::test]
async fn a_workload_reaches_that_envoy_through_its_sidecar_as_a_declared_peer() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let web = fronted(&mesh, "sds = true").await?;
    let process = envoy(&mesh, &web, "\"spiffe://mesh.test\"").await?;
    let plain = format!("port = {PORT}\nprotocol = \"mtls\"");
    let declared = declared_peer(web.pod.v4(), WEB, &plain);
    let client = mesh.workload_of(Spec::new("client").tables(&declared)).await?;
    let mut stream = client.pod.tcp_connect(web.v4(PORT)).await?;
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
    ended.with_context(|| process.last_words())?.with_context(|| client.last_words())?;
    ensure!(answer == GREETING, "{:?}", String::from_utf8_lossy(&answer));
    drop(stream);
    client.ended("outbound", "plain_mtls", 1.0).await?;
    // The refuse twin: another workload is not whom Envoy was told to let in.
    let other = mesh.workload_of(Spec::new("other").tables(&declared)).await?;
    let mut stream = other.pod.tcp_connect(web.v4(PORT)).await?;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await?;
    ensure!(answer.is_empty(), "{:?}", String::from_utf8_lossy(&answer));
    mesh.demand_clean_wire().await?;
    Ok(())
}

/// An Envoy that is not to get anything; what it says of its stream.
async fn says(web: &Workload, mesh: &Mesh, change: (&str, &str), words: &str) -> Result<()> {
    let path = mesh.dir().join("envoy.yaml");
    let behind = SocketAddr::new([127, 0, 0, 1].into(), LOCAL_PORT);
    let text = configuration(web.v4(PORT), behind, &socket(mesh, "web"), "ROOTCA");
    fs::write(&path, text.replace(change.0, change.1))?;
    let process = web
        .pod
        .command(binaries::envoy()?)
        .args(["--concurrency", "1", "--disable-hot-restart", "-l", "info", "-c"])
        .arg(&path)
        .label("envoy")
        .spawn()?;
    process.wait_line(words, SOON).await.map(drop)
}

#[tokio::test]
async fn without_sds_an_envoy_gets_nothing() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let web = fronted(&mesh, "sds = false").await?;
    says(&web, &mesh, ("", ""), "gRPC config stream to sds closed: 12, secret").await
}

/// Secrets are told whole. An operator who wants deltas reads in Envoy's log what to set instead.
#[tokio::test]
async fn an_envoy_that_asks_for_deltas_is_told_what_to_set() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let web = fronted(&mesh, "sds = true").await?;
    let deltas = ("api_type: GRPC", "api_type: DELTA_GRPC");
    says(
        &web,
        &mesh,
        deltas,
        "DeltaSecrets gRPC config stream to sds closed: 12, set%20%60api_type:%20GRPC",
    )
    .await
}
