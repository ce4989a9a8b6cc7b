//! Envoy, a proxy that nobody here wrote, as a declared mesh peer in both directions (T63), and
//! where it is not declared.
//!
//! Never: an Envoy that is told less than a real one would be; it verifies the sidecar as well.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use myelin_lab::Proc;
use myelin_tests::binaries::envoy;
use myelin_tests::programs::listens;
use myelin_tests::{Spec, declared_peer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::openssl::pem;
use crate::stage::{GREETING, PORT, SOON, Stage, declared, stage};

/// Where Envoy listens in plaintext, for its own workload.
const LOCAL_PORT: u16 = 9_001;
const ENVOY_ID: &str = "spiffe://mesh.test/ns/test/sa/envoy";
const SERVER_ID: &str = "spiffe://mesh.test/ns/test/sa/server";

/// `(type URL, TLS block)` of Envoy's two directions.
const DOWNSTREAM: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const UPSTREAM: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";

impl Stage {
    fn credential_files(&self) -> Result<[PathBuf; 3]> {
        let own = self.forge.svid(ENVOY_ID, self.stranger.addresses())?;
        let paths = ["envoy.pem", "envoy.key", "envoy-root.pem"].map(|n| self.mesh.dir().join(n));
        let chain: String = own.chain.iter().map(|der| pem("CERTIFICATE", der)).collect();
        fs::write(&paths[0], chain)?;
        fs::write(&paths[1], pem("PRIVATE KEY", own.key.secret_der()))?;
        fs::write(&paths[2], pem("CERTIFICATE", &self.forge.root))?;
        Ok(paths)
    }

    /// Mutual TLS 1.3 with Envoy's own SVID; the peer must be exactly `SERVER_ID`.
    fn tls(&self, kind: &str, alpn: &str) -> Result<String> {
        let [chain, key, root] = self.credential_files()?.map(|path| path.display().to_string());
        let must = if kind == DOWNSTREAM { "require_client_certificate: true, " } else { "" };
        Ok(format!(
            "{{name: tls, typed_config: {{\"@type\": {kind}, {must}common_tls_context: {{\
             alpn_protocols: [{alpn}], \
             tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}}, \
             tls_certificates: [{{certificate_chain: {{filename: {chain}}}, private_key: {{filename: {key}}}}}], \
             validation_context: {{trusted_ca: {{filename: {root}}}, match_typed_subject_alt_names: \
             [{{san_type: URI, matcher: {{exact: \"{SERVER_ID}\"}}}}]}}}}}}}}"
        ))
    }

    /// A TCP proxy from one address to another, with TLS on one of its sides.
    async fn envoy(
        &self,
        listen: SocketAddr,
        inward: Option<&str>,
        to: SocketAddr,
        outward: Option<&str>,
    ) -> Result<Proc> {
        let socket = |tls: Option<&str>| {
            tls.map(|tls| format!(", transport_socket: {tls}")).unwrap_or_default()
        };
        let address = |at: SocketAddr| {
            format!("{{socket_address: {{address: {}, port_value: {}}}}}", at.ip(), at.port())
        };
        let text = format!(
            "static_resources:\n  listeners:\n  - {{name: l, address: {}, filter_chains: [{{filters: \
             [{{name: tcp, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, \
             stat_prefix: t, cluster: c}}}}]{}}}]}}\n  clusters:\n  - {{name: c, type: STATIC, connect_timeout: 5s, \
             load_assignment: {{cluster_name: c, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {}}}}}]}}]}}{}}}\n",
            address(listen),
            socket(inward),
            address(to),
            socket(outward),
        );
        let path = self.mesh.dir().join("envoy.yaml");
        fs::write(&path, text)?;
        let process = self
            .stranger
            .command(envoy()?)
            .args(["--concurrency", "1", "--disable-hot-restart", "-l", "info", "-c"])
            .arg(&path)
            .label("envoy")
            .spawn()?;
        let ready = listens(&self.stranger, listen.ip(), listen.port()).await;
        ready.with_context(|| process.last_words())?;
        Ok(process)
    }

    /// Through Envoy, from its own pod, to the workload behind the sidecar.
    async fn through_envoy(&self, alpn: &str) -> Result<Vec<u8>> {
        let local = SocketAddr::new([127, 0, 0, 1].into(), LOCAL_PORT);
        let tls = self.tls(UPSTREAM, alpn)?;
        let process = self.envoy(local, None, self.to(), Some(&tls)).await?;
        let mut stream = self.stranger.tcp_connect(local).await?;
        stream.write_all(b"hello through envoy").await?;
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
        ended.with_context(|| process.last_words())?.context("reset")?;
        Ok(answer)
    }
}

/// T63
#[tokio::test]
async fn an_envoy_client_is_served_where_it_is_declared() -> Result<()> {
    let Some(mut stage) = stage(declared()).await? else { return Ok(()) };
    ensure!(stage.through_envoy("").await? == GREETING);
    ensure!(stage.heard().contains(&b"hello through envoy".to_vec()));
    stage.server.ended("inbound", "plain_mtls", 1.0).await
}

/// T63: a client that offers only `h2`, on a port that is declared so.
#[tokio::test]
async fn an_envoy_client_that_offers_only_h2_is_served_where_that_is_declared() -> Result<()> {
    let tables = "[[inbound.port]]\nport = 7000\nplain_mtls = true\nalpn = \"h2\"\n";
    let Some(stage) = stage(Spec::new("server").tables(tables)).await? else { return Ok(()) };
    ensure!(stage.through_envoy("h2").await? == GREETING);
    Ok(())
}

/// T63: the refuse twin.
#[tokio::test]
async fn an_envoy_client_is_refused_where_it_is_not_declared() -> Result<()> {
    for alpn in ["", "h2"] {
        let Some(mut stage) = stage(Spec::new("server")).await? else { return Ok(()) };
        let answered = stage.through_envoy(alpn).await.unwrap_or_default();
        ensure!(answered.is_empty() && stage.heard().is_empty(), "{alpn:?} was served");
        stage.server.outcome("inbound", "undeclared_protocol", 1.0).await?;
    }
    Ok(())
}

/// T63, the other direction: the workload reaches an Envoy through its sidecar.
#[tokio::test]
async fn an_envoy_server_that_is_declared_is_reached() -> Result<()> {
    let Some(mut stage) = stage(Spec::new("server")).await? else { return Ok(()) };
    let at = SocketAddr::new(stage.stranger.v4(), PORT);
    // Behind Envoy: a server in its own pod that greets.
    let behind = SocketAddr::new([127, 0, 0, 1].into(), LOCAL_PORT);
    let listener = stage.stranger.tcp_listen(behind).await?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"greetings from behind envoy").await;
            let _ = stream.shutdown().await;
        }
    });
    let tls = stage.tls(DOWNSTREAM, "")?;
    let _envoy = stage.envoy(at, Some(&tls), behind, None).await?;
    stage.server.reload(|spec| {
        let plain = format!("port = {PORT}\nprotocol = \"mtls\"");
        spec.tables = declared_peer(at.ip(), ENVOY_ID, &plain);
    })?;
    let mut stream = stage.server.pod.tcp_connect(at).await?;
    let mut answer = Vec::new();
    tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.context("no end")??;
    ensure!(answer == b"greetings from behind envoy", "{:?}", String::from_utf8_lossy(&answer));
    drop(stream);
    stage.server.ended("outbound", "plain_mtls", 1.0).await
}
