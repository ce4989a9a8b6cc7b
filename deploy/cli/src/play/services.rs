//! Two services that answer with a canary: one is asked first (HTTP/1.1), one speaks first (as SMTP
//! and MySQL do), which a proxy that waits for the client's first byte would stall.
//! Never: encrypts anything; what they send is meant to be readable where nobody protects it.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;

use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::args::ServeArgs;

/// What a service says when it listens.
pub(crate) const READY: &str = "ready";

/// Answers every request with the canary.
pub(super) async fn web(args: ServeArgs) -> Result<()> {
    let listener = listen(&args).await?;
    let body = Bytes::from(format!("{}\n", args.canary));
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true).ok();
        tokio::spawn(answer(stream, body.clone()));
    }
}

/// Greets at once, then echoes.
pub(super) async fn greeter(args: ServeArgs) -> Result<()> {
    let listener = listen(&args).await?;
    let greeting = Bytes::from(format!("220 {}\n", args.canary));
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true).ok();
        tokio::spawn(greet(stream, greeting.clone()));
    }
}

#[expect(clippy::print_stdout, reason = "the demo waits for this line")]
async fn listen(args: &ServeArgs) -> Result<TcpListener> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    println!("{READY}");
    Ok(listener)
}

async fn answer(stream: TcpStream, body: Bytes) {
    let respond = service_fn(move |_: Request<Incoming>| {
        let body = Full::new(body.clone());
        async move { Ok::<_, Infallible>(Response::new(body)) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), respond);
    // A client that leaves is no business of a service that only answers.
    connection.await.ok();
}

async fn greet(mut stream: TcpStream, greeting: Bytes) {
    let (mut read, mut write) = stream.split();
    if write.write_all(&greeting).await.is_ok() {
        tokio::io::copy(&mut read, &mut write).await.ok();
        write.shutdown().await.ok();
    }
}
