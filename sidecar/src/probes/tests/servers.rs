//! Workloads that answer probes in every way that matters: HTTP with and without TLS, and gRPC
//! health.
//!
//! Never: this room's own client code.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{ACCEPT, HOST, HeaderMap, LOCATION, USER_AGENT};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

type Body = BoxBody<Bytes, std::io::Error>;

/// A port on which nobody listens any more.
pub(super) async fn nobody() -> u16 {
    listen().await.1
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A web server, in TLS if an ALPN is given.
pub(super) async fn web(alpn: Option<&[u8]>) -> u16 {
    let (listener, port) = listen().await;
    let tls = alpn.map(acceptor);
    let is_h2 = alpn == Some(b"h2");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                match tls {
                    None => web_on(stream, port, false).await,
                    Some(tls) => {
                        let Ok(stream) = tls.accept(stream).await else { return };
                        web_on(stream, port, is_h2).await;
                    }
                }
            });
        }
    });
    port
}

async fn web_on(stream: impl AsyncRead + AsyncWrite + Unpin, port: u16, is_h2: bool) {
    let service = service_fn(move |request| async move { page(&request, port).await });
    let stream = TokioIo::new(stream);
    if is_h2 {
        let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await;
    } else {
        let _ = http1::Builder::new().serve_connection(stream, service).await;
    }
}

async fn page(request: &Request<Incoming>, port: u16) -> Result<Response<Body>, std::io::Error> {
    let moved = |to: String| Response::builder().status(302).header(LOCATION, to);
    let told = |name| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let fine = |is: bool| Response::builder().status(if is { 200 } else { 400 });
    let answer = match request.uri().path() {
        "/ok" => Response::builder().status(200).header("x-secret", "secret"),
        "/broken" => Response::builder().status(503),
        "/teapot" => Response::builder().status(418),
        "/moved" => moved("/ok".to_owned()),
        "/moved-to-broken" => moved("broken".to_owned()),
        "/moved-by-address" => moved(format!("http://127.0.0.1:{port}/ok")),
        "/moved-away" => moved("http://192.0.2.1/steal".to_owned()),
        "/moved-without-a-place" => Response::builder().status(302),
        "/moved-in-circles" => moved("/moved-in-circles".to_owned()),
        "/hangs-up" => return Err(std::io::Error::other("no answer")),
        "/stalls" => std::future::pending().await,
        "/headers" => {
            let named = told("x-probe").as_deref() == Some("yes");
            let host = told(HOST.as_str()).as_deref() == Some("shop.example");
            fine(named && host && told(ACCEPT.as_str()).is_none())
        }
        "/default-headers" => {
            let host = told(HOST.as_str()) == Some(format!("127.0.0.1:{port}"));
            let agent = told(USER_AGENT.as_str()).is_some_and(|by| by.starts_with("kube-probe/"));
            fine(host && agent && told(ACCEPT.as_str()).as_deref() == Some("*/*"))
        }
        "/half" => {
            let parts = [Ok(Frame::data(Bytes::from("secret"))), Err(std::io::Error::other("cut"))];
            let body = StreamBody::new(tokio_stream::iter(parts));
            return Ok(Response::new(BodyExt::boxed(body)));
        }
        "/endless" => {
            let lines =
                || std::iter::repeat_with(|| Ok(Frame::data(Bytes::from(vec![b'x'; 1024]))));
            let body = StreamBody::new(tokio_stream::iter(lines()));
            return Ok(Response::new(BodyExt::boxed(body)));
        }
        _ => Response::builder().status(404),
    };
    let body = Full::new(Bytes::from("secret")).map_err(|never: Infallible| match never {});
    Ok(answer.body(body.boxed()).unwrap())
}

fn acceptor(alpn: &[u8]) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    // Of another name, and long over: nobody is to look.
    let mut params = CertificateParams::new(vec!["else.example".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// `grpc.health.v1.Health`, its state chosen by the service that is asked for.
pub(super) async fn health() -> u16 {
    let (listener, port) = listen().await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let connection = http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service_fn(check));
            tokio::spawn(connection);
        }
    });
    port
}

async fn check(request: Request<Incoming>) -> Result<Response<Body>, hyper::Error> {
    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
    assert_eq!(request.headers()["content-type"], "application/grpc");
    let body = request.into_body().collect().await?.to_bytes();
    assert_eq!(usize::from(body[4]), body.len() - 5, "the prefix says the length");
    // Field 1, a text; absent if it is empty.
    let service = body.get(7..).map(|text| String::from_utf8_lossy(text).into_owned());
    let message = |status: u8| vec![0, 0, 0, 0, 2, 0x08, status];
    let (answer, status) = match service.unwrap_or_default().as_str() {
        "" | "shop.Orders" => (message(1), Some("0")),
        "not-serving" => (message(2), Some("0")),
        "two-messages" => ([message(1), message(1)].concat(), Some("0")),
        "no-trailers" => (message(1), None),
        "junk" => (vec![0, 0, 0, 0, 9, 0xff], Some("0")),
        _ => (Vec::new(), Some("5")),
    };
    let mut trailers = HeaderMap::new();
    if let Some(status) = status {
        trailers.insert("grpc-status", status.parse().unwrap());
    }
    let frames = [Ok(Frame::data(Bytes::from(answer))), Ok(Frame::trailers(trailers))];
    let body = BodyExt::boxed(StreamBody::new(tokio_stream::iter(frames)));
    Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
}
