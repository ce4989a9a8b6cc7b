//! The server in the pod: answers 1 KiB with 1 KiB for as long as a connection lasts, and on
//! another port sends without end. Called by `mod` for the hidden `play serve`.
//!
//! Never: knows of proxies; it is a workload like any other.

// SPDX-License-Identifier: Apache-2.0

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::record::Service;

/// Both ways.
pub(crate) const MESSAGE: usize = 1024;

/// What it says on standard output once it listens.
pub(crate) const READY: &str = "LISTENS";

/// One write of the bulk service: a call per 256 KiB costs the server next to nothing.
const BULK_WRITE: usize = 256 * 1024;

/// As many as the kernel keeps by default (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

/// After a failed accept: long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// Serves until it is killed.
#[expect(clippy::print_stdout, reason = "a process of its own, whose output the stage reads")]
pub(crate) async fn perform(service: Service) -> Result<()> {
    let mut listening = JoinSet::new();
    let bulk = listen(service.bulk)?;
    listening.spawn(accept(bulk, send));
    for port in service.request_ports {
        let requests = listen(port)?;
        listening.spawn(accept(requests, answer));
    }
    println!("{READY}");
    listening.join_next().await;
    Ok(())
}

fn listen(port: u16) -> Result<TcpListener> {
    let socket = TcpSocket::new_v4().context("cannot make a socket")?;
    socket.set_reuseaddr(true).context("cannot set SO_REUSEADDR")?;
    socket
        .bind((Ipv4Addr::UNSPECIFIED, port).into())
        .with_context(|| format!("cannot bind port {port}"))?;
    socket.listen(BACKLOG).with_context(|| format!("cannot listen on port {port}"))
}

async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                stream.set_nodelay(true).ok();
                tokio::spawn(serve(stream));
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn answer(mut stream: TcpStream) {
    let mut message = [0_u8; MESSAGE];
    while stream.read_exact(&mut message).await.is_ok() {
        if stream.write_all(&message).await.is_err() {
            return;
        }
    }
}

async fn send(mut stream: TcpStream) {
    let block = vec![0x5a_u8; BULK_WRITE];
    while stream.write_all(&block).await.is_ok() {}
}
