//! The least of HTTP/1.1 that probes need, over TCP inside a pod or over a Unix socket.
//!
//! Never: a connection that is used twice, or a body without an end.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use myelin_lab::Pod;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// A probe that takes longer is a failure.
const LIMIT: Duration = Duration::from_secs(15);

/// No page that is asked here is longer.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// What came back.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub body: String,
}

/// One request from inside a pod.
pub async fn request(pod: &Pod, to: SocketAddr, method: &str, path: &str) -> Result<Response> {
    let stream = pod.tcp_connect(to).await?;
    exchange(stream, method, path, "").await
}

/// One request over a Unix socket.
pub async fn over_socket(socket: &Path, method: &str, path: &str, body: &str) -> Result<Response> {
    let stream = UnixStream::connect(socket)
        .await
        .with_context(|| format!("cannot connect to {}", socket.display()))?;
    exchange(stream, method, path, body).await
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    path: &str,
    body: &str,
) -> Result<Response> {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let talk = async {
        stream.write_all(request.as_bytes()).await?;
        let mut bytes = Vec::new();
        (&mut stream).take(MAX_BYTES).read_to_end(&mut bytes).await?;
        anyhow::Ok(bytes)
    };
    let bytes =
        timeout(LIMIT, talk).await.with_context(|| format!("no answer to {method} {path}"))??;
    parse(&String::from_utf8_lossy(&bytes)).with_context(|| format!("{method} {path}"))
}

fn parse(text: &str) -> Result<Response> {
    let (head, body) = text.split_once("\r\n\r\n").context("the answer has no head")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(Response { status: status.context("the answer has no status")?, body: body.to_owned() })
}
