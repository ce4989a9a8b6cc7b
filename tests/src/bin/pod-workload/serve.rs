//! A service as people write them: HTTP/1.1, one request a connection, health, and an end that
//! finishes what was begun. Called by `main`.
//!
//! Never: accepts after SIGTERM.

// SPDX-License-Identifier: Apache-2.0

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How long a request takes that is meant to be open when something happens.
const SLOW: Duration = Duration::from_millis(150);

/// No request here has a longer head.
const MAX_HEAD: usize = 16 * 1024;

/// SIGTERM came: who asked for `/last` is answered now.
static ENDS: Semaphore = Semaphore::const_new(0);

/// `/break` was asked for: `/live` says no from then on.
static BROKEN: AtomicBool = AtomicBool::new(false);

pub(crate) async fn serve(port: u16, grpc: Option<u16>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let listener = listen(port).await?;
    if let Some(grpc) = grpc {
        tokio::spawn(crate::health::serve(listen(grpc).await?));
    }
    println!("serving on port {port}");
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            accepted = listener.accept() => {
                open.spawn(answer(accepted?.0));
            }
        }
        while open.try_join_next().is_some() {}
    }
    drop(listener);
    ENDS.add_permits(Semaphore::MAX_PERMITS);
    let left = open.len();
    while open.join_next().await.is_some() {}
    println!("ended with {left} requests finished");
    Ok(())
}

async fn listen(port: u16) -> Result<TcpListener> {
    let at = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    TcpListener::bind(at).await.with_context(|| format!("cannot listen on {at}"))
}

async fn answer(mut stream: TcpStream) {
    let Some(path) = asked(&mut stream).await else { return };
    let (status, body) = match path.as_str() {
        "/word" => ("200 OK", crate::word().unwrap_or_default()),
        "/slow" => {
            tokio::time::sleep(SLOW).await;
            ("200 OK", crate::word().unwrap_or_default())
        }
        "/last" => {
            println!("a last request is open");
            drop(ENDS.acquire().await);
            ("200 OK", crate::answer("/last").unwrap_or_default())
        }
        "/break" => {
            BROKEN.store(true, Ordering::Relaxed);
            ("200 OK", String::new())
        }
        "/live" if BROKEN.load(Ordering::Relaxed) => ("500 Broken", String::new()),
        "/live" | "/ready" => ("200 OK", String::new()),
        _ => ("404 Not Found", String::new()),
    };
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).await.ok();
    stream.shutdown().await.ok();
}

/// The path of a whole request.
async fn asked(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > MAX_HEAD || stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let head = String::from_utf8(head).ok()?;
    Some(head.split(' ').nth(1)?.to_owned())
}
