//! OpenSSL, a TLS stack that nobody here wrote, as a client of a real sidecar and as a server that
//! one dials: T1, T2, and the accepted twins.
//!
//! Never: a verdict from OpenSSL's exit code alone.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use myelin_lab::Command;
use myelin_tests::binaries::installed;
use myelin_tests::forge::Credential;
use myelin_tests::programs::{listens, output};
use myelin_tests::{Spec, declared_peer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::stage::{PORT, SOON, Stage, declared, stage};

/// Writes certificate and key as OpenSSL reads them: leaf, intermediate, key, root.
fn files(dir: &Path, own: &Credential, root: &[u8]) -> Result<[PathBuf; 4]> {
    let paths = ["leaf.pem", "chain.pem", "key.pem", "root.pem"].map(|name| dir.join(name));
    let certificate = |der: &[u8]| pem("CERTIFICATE", der);
    fs::write(&paths[0], certificate(&own.chain[0]))?;
    fs::write(&paths[1], certificate(&own.chain[1]))?;
    fs::write(&paths[2], pem("PRIVATE KEY", own.key.secret_der()))?;
    fs::write(&paths[3], certificate(root))?;
    Ok(paths)
}

/// RFC 7468: base64 in lines of 64.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.extend(line.iter().map(|byte| char::from(*byte)));
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}

impl Stage {
    /// `openssl s_client` from the stranger's pod; says a line and returns all that it printed.
    async fn s_client(&self, more: &[&str]) -> Result<String> {
        let openssl = installed("openssl", "openssl")?;
        let script = format!(
            "(printf 'hello from openssl\\n'; sleep 2) | {} s_client -connect {} -ign_eof {} 2>&1; true",
            openssl.display(),
            self.to(),
            more.join(" ")
        );
        output(self.stranger.command("sh").args(["-c", &script]), SOON).await
    }
}

#[tokio::test]
async fn openssl_with_a_genuine_svid_is_served() -> Result<()> {
    let Some(mut stage) = stage(declared()).await? else { return Ok(()) };
    let own = stage.genuine()?;
    let [leaf, chain, key, root] = files(stage.mesh.dir(), &own, &stage.forge.root)?;
    let flags = format!(
        "-cert {} -cert_chain {} -key {} -CAfile {} -verify_return_error -tls1_3",
        leaf.display(),
        chain.display(),
        key.display(),
        root.display()
    );
    let said = stage.s_client(&[&flags]).await?;
    ensure!(said.contains("the workload answers"), "{said}");
    ensure!(said.contains("TLSv1.3"), "{said}");
    ensure!(said.contains("Verify return code: 0 (ok)"), "{said}");
    ensure!(stage.heard() == [b"hello from openssl\n"]);
    Ok(())
}

/// T1
#[tokio::test]
async fn openssl_without_a_certificate_is_refused() -> Result<()> {
    let Some(mut stage) = stage(declared()).await? else { return Ok(()) };
    let said = stage.s_client(&["-tls1_3"]).await?;
    ensure!(said.contains("certificate required"), "no such alert: {said}");
    ensure!(!said.contains("the workload answers") && stage.heard().is_empty());
    stage.server.outcome("inbound", "no_certificate", 1.0).await
}

/// T2
#[tokio::test]
async fn openssl_with_tls_1_2_is_refused_with_protocol_version() -> Result<()> {
    let Some(mut stage) = stage(declared()).await? else { return Ok(()) };
    let said = stage.s_client(&["-tls1_2"]).await?;
    ensure!(said.contains("protocol version"), "no such alert: {said}");
    ensure!(stage.heard().is_empty());
    stage.server.outcome("inbound", "old_tls", 1.0).await
}

/// The other direction: a workload reaches an OpenSSL server through its sidecar.
#[tokio::test]
async fn an_openssl_server_that_is_declared_is_reached() -> Result<()> {
    let Some(mut stage) = stage(Spec::new("server")).await? else { return Ok(()) };
    let id = "spiffe://mesh.test/ns/test/sa/openssl";
    let own = stage.forge.svid(id, stage.stranger.addresses())?;
    let [leaf, chain, key, root] = files(stage.mesh.dir(), &own, &stage.forge.root)?;
    let address = stage.stranger.v4();
    let process = s_server(&stage, [&leaf, &chain, &key, &root])?.spawn()?;
    listens(&stage.stranger, address, PORT).await.with_context(|| process.last_words())?;
    stage.server.reload(|spec| {
        spec.tables = declared_peer(address, id, &format!("port = {PORT}\nprotocol = \"mtls\""));
    })?;
    let mut stream = stage.server.pod.tcp_connect((address, PORT).into()).await?;
    stream.write_all(b"desserts\n").await?;
    let mut answer = vec![0; 9];
    tokio::time::timeout(SOON, stream.read_exact(&mut answer)).await?.context("no answer")?;
    ensure!(answer == b"stressed\n", "{:?}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// Demands a client certificate and answers each line reversed.
fn s_server(stage: &Stage, files: [&PathBuf; 4]) -> Result<Command> {
    let [leaf, chain, key, root] = files.map(|path| path.display().to_string());
    let openssl = installed("openssl", "openssl")?;
    let port = PORT.to_string();
    let flags = ["s_server", "-accept", &port, "-rev", "-tls1_3", "-Verify", "3"];
    Ok(stage
        .stranger
        .command(openssl)
        .args(flags)
        .args(["-verify_return_error", "-cert", &leaf, "-cert_chain", &chain, "-key", &key])
        .args(["-CAfile", &root])
        .label("openssl s_server"))
}
