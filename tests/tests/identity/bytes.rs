//! Bytes that are no honest handshake, against the inbound side of a real sidecar: T12. Bounded
//! CPU, an end within the handshake deadline, and the next client is served as if nothing was.
//!
//! Never: a wall-clock measure; CPU is read from the process's own clock.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_sidecar::tls;
use myelin_tests::Spec;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::{GREETING, Stage, client, stage};

/// The deadline that the sidecar under test is given.
const DEADLINE: Duration = Duration::from_secs(2);

fn spec() -> Spec {
    Spec::new("server")
        .tables("[[inbound.port]]\nport = 7000\nplain_mtls = true\n")
        .limits("handshake_timeout = \"2s\"")
}

/// User and system time of the sidecar so far.
fn cpu(stage: &Stage) -> Result<Duration> {
    let pid = stage.server.pid().context("the sidecar is down")?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').context("no name in stat")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    // USER_HZ is 100 on every Linux that Rust runs on.
    Ok(Duration::from_millis(ticks * 10))
}

/// Writes what it may, then reads to the end, which must come.
async fn endure(stage: &Stage, bytes: &[u8]) -> Result<()> {
    let mut stream = stage.stranger.tcp_connect(stage.to()).await?;
    let _ = stream.write_all(bytes).await;
    demand_end(&mut stream).await
}

async fn demand_end(stream: &mut TcpStream) -> Result<()> {
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(DEADLINE * 4, stream.read_to_end(&mut rest)).await;
    ended.context("still open long after the handshake deadline").map(drop)
}

/// A real ClientHello, as records of at most `size` bytes each.
fn hello(stage: &Stage, size: usize) -> Result<Vec<u8>> {
    let config = client(&stage.forge, None, &[])?;
    let name = ServerName::IpAddress(stage.to().ip().into());
    let mut connection = ClientConnection::new(Arc::new(config), name)?;
    let mut record = Vec::new();
    connection.write_tls(&mut record)?;
    let (head, body) = record.split_at(5);
    let mut out = Vec::new();
    for piece in body.chunks(size) {
        out.extend_from_slice(&head[..3]);
        out.extend_from_slice(&u16::try_from(piece.len())?.to_be_bytes());
        out.extend_from_slice(piece);
    }
    Ok(out)
}

#[tokio::test]
async fn junk_and_stalls_end_at_the_deadline_and_cost_next_to_nothing() -> Result<()> {
    let Some(mut stage) = stage(spec()).await? else { return Ok(()) };
    let one_byte_records = hello(&stage, 1)?;
    let half = hello(&stage, 16_000)?;
    let junk = vec![0x16; 16 * 1024];
    let before = cpu(&stage)?;
    let rounds = 3;
    for _ in 0..rounds {
        endure(&stage, &junk).await.context("16 KiB of junk")?;
        endure(&stage, &one_byte_records).await.context("one-byte records")?;
    }
    endure(&stage, &half[..half.len() / 2]).await.context("half a hello")?;
    endure(&stage, b"").await.context("silence")?;
    let spent = (cpu(&stage)? - before) / (2 * rounds);
    ensure!(spent < Duration::from_millis(50), "{spent:?} of CPU each");
    ensure!(stage.heard().is_empty(), "the workload heard something");
    stage.server.outcome("inbound", "handshake_timeout", 2.0).await?;
    // The twin: an honest client is served at once.
    let own = stage.genuine()?;
    let answer = stage.speak(client(&stage.forge, Some(&own), &[])?, b"hello").await?;
    ensure!(answer == GREETING);
    Ok(())
}

/// An honest hello in one-byte records is slow, not wrong: with a certificate it gets in. Without,
/// the reason is the certificate.
#[tokio::test]
async fn a_chain_of_a_hundred_certificates_is_refused_unread() -> Result<()> {
    let Some(mut stage) = stage(spec()).await? else { return Ok(()) };
    let mut own = stage.genuine()?;
    let intermediate = stage.forge.intermediate.clone();
    own.chain.extend(std::iter::repeat_n(intermediate, 98));
    let config = client(&stage.forge, Some(&own), &[])?;
    let before = cpu(&stage)?;
    stage.demand_refused("a hundred certificates", config, "chain_too_long").await?;
    let spent = cpu(&stage)? - before;
    ensure!(spent < Duration::from_millis(50), "{spent:?} of CPU");
    // The twin: the same chain without the surplus.
    own.chain.truncate(2);
    let answer = stage.speak(client(&stage.forge, Some(&own), &[])?, b"hello").await?;
    ensure!(answer == GREETING);
    Ok(())
}

/// The sidecar's own groups: a client that offers none of them has nothing to agree on.
#[tokio::test]
async fn a_client_with_no_group_of_ours_is_refused() -> Result<()> {
    let Some(mut stage) = stage(spec()).await? else { return Ok(()) };
    let mut provider = (*tls::provider()).clone();
    provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::SECP384R1];
    let own = stage.genuine()?;
    let verifier = myelin_identity::verify::PeerVerifier::new(stage.forge.bundle()?);
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(own.chain.clone(), own.key.clone_key())?;
    stage.demand_refused("P-384 only", config, "tls_violation").await
}
