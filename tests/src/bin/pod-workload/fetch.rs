//! One request on a connection of its own. Called by `main` and `load`.
//!
//! Never: a second attempt.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A request that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(30);

/// Asks for the word and compares it, to the last byte.
pub(crate) async fn word(server: SocketAddr, path: &str) -> Result<()> {
    let expected = if path == "/break" { String::new() } else { crate::word()? };
    let answer = timeout(LIMIT, exchange(server, path)).await;
    let answer = answer.with_context(|| format!("{server}: no answer within {LIMIT:?}"))?;
    let answer = answer.with_context(|| format!("{server}"))?;
    let (head, body) =
        answer.split_once("\r\n\r\n").with_context(|| format!("{server}: {answer:?}"))?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{server}: {head:?}");
    ensure!(body == expected, "{server}: another word came back: {} bytes", body.len());
    Ok(())
}

async fn exchange(server: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(server).await.context("cannot connect")?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.context("cannot ask")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.context("no whole answer")?;
    Ok(answer)
}
