//! One request on a connection of its own. Called by `main` and `load`.
//!
//! Never: a second attempt.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// A request that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(60);

/// A slow reader's pace: 4 MB a second.
const PART: usize = 64 * 1024;
const BETWEEN_PARTS: Duration = Duration::from_millis(16);

/// Asks for the word and compares it, to the last byte.
pub(crate) async fn word(server: SocketAddr, path: &str) -> Result<()> {
    let expected = crate::answer(path)?;
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
    let mut answer = Vec::new();
    let mut part = vec![0; PART];
    loop {
        let read = stream.read(&mut part).await;
        let read = read.with_context(|| format!("after {} bytes of the answer", answer.len()))?;
        if read == 0 {
            return Ok(String::from_utf8(answer)?);
        }
        answer.extend_from_slice(&part[..read]);
        if path == "/last" {
            sleep(BETWEEN_PARTS).await;
        }
    }
}
