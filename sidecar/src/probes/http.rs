//! One HTTP probe, as the kubelet runs it: a GET on a connection of its own, redirects followed only
//! to the same host, the status decides. Called by the room's door.
//!
//! Never: dials another address than the one that was given; reads more of an answer than the
//! kubelet does.

// SPDX-License-Identifier: Apache-2.0

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{ACCEPT, CONNECTION, HOST, HeaderMap, HeaderValue, USER_AGENT};
use hyper::http::uri::Authority;
use hyper::{Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::redirect::{self, Place};
use super::{Driver, HttpProbe, Verdict, blind};

/// The kubelet's HTTP client gives up after as many (Go, net/http).
const MAX_REDIRECTS: usize = 10;

/// What the kubelet reads of a body before it lets go.
const MAX_BODY_BYTES: usize = 10 * 1024;

/// Of an answer's head; nobody reads it.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// Programs that tell probes from people go by how the kubelet's name begins.
const KUBELET: HeaderValue = HeaderValue::from_static("kube-probe/myelin");

/// An answer's head, and the connection that its body still comes over.
type Answered = (Response<Incoming>, Driver);

type Failed = Box<dyn std::error::Error + Send + Sync>;

pub(super) async fn run(probe: &HttpProbe, ip: IpAddr) -> Verdict {
    let first = Place { https: probe.https, port: probe.port, target: probe.target.clone() };
    let (mut place, mut headers) = (first, headers(probe));
    for _ in 0..=MAX_REDIRECTS {
        let Ok((answer, driver)) = get(&place, ip, &headers).await else {
            return Verdict::Unreachable;
        };
        let status = answer.status();
        let next = match redirect::next(status, answer.headers(), &place, ip) {
            Ok(Some(next)) => next,
            Ok(None) => {
                let verdict = read(answer).await;
                drop(driver);
                return verdict;
            }
            Err(redirect::Nowhere) => return Verdict::Unreachable,
        };
        if next.absolute {
            // A name of the workload's own went with the first address only.
            headers.remove(HOST);
        }
        place = next.place;
    }
    Verdict::Unreachable
}

/// The answer's status, once as much of its body has come as the kubelet waits for.
async fn read(answer: Response<Incoming>) -> Verdict {
    let status = answer.status();
    let mut body = answer.into_body();
    let mut seen = 0;
    while seen < MAX_BODY_BYTES {
        match body.frame().await {
            Some(Ok(frame)) => seen += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) => return Verdict::Unreachable,
            None => break,
        }
    }
    Verdict::Status(status)
}

fn headers(probe: &HttpProbe) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &probe.headers {
        headers.append(name, value.clone());
    }
    for (name, value) in [(USER_AGENT, KUBELET), (ACCEPT, HeaderValue::from_static("*/*"))] {
        // An empty one of the probe's own says: none at all.
        match headers.get(&name) {
            None => drop(headers.insert(name, value)),
            Some(own) if own.is_empty() => drop(headers.remove(name)),
            Some(_) => {}
        }
    }
    headers
}

async fn get(place: &Place, ip: IpAddr, headers: &HeaderMap) -> Result<Answered, Failed> {
    let address = SocketAddr::new(ip, place.port);
    let stream = TcpStream::connect(address).await?;
    let authority: Authority = match headers.get(HOST) {
        Some(named) => named.to_str()?.parse()?,
        None => address.to_string().parse()?,
    };
    if !place.https {
        return http1(stream, place, &authority, headers).await;
    }
    let stream = blind::connect(stream, ip).await?;
    if stream.get_ref().1.alpn_protocol() == Some(blind::H2) {
        return http2(stream, place, authority, headers).await;
    }
    http1(stream, place, &authority, headers).await
}

async fn http1(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    place: &Place,
    authority: &Authority,
    headers: &HeaderMap,
) -> Result<Answered, Failed> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD_BYTES);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let driver = Driver::of(connection);
    let mut request = Request::get(Uri::from(place.target.clone())).body(Empty::<Bytes>::new())?;
    *request.headers_mut() = headers.clone();
    request.headers_mut().insert(HOST, HeaderValue::from_str(authority.as_str())?);
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Ok((sender.send_request(request).await?, driver))
}

async fn http2(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    place: &Place,
    authority: Authority,
    headers: &HeaderMap,
) -> Result<Answered, Failed> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.max_header_list_size(MAX_HEAD_BYTES as u32);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    let driver = Driver::of(connection);
    let uri = Uri::builder().scheme("https").authority(authority);
    let uri = uri.path_and_query(place.target.clone()).build()?;
    let mut request = Request::get(uri).body(Empty::<Bytes>::new())?;
    *request.headers_mut() = headers.clone();
    request.headers_mut().remove(HOST);
    Ok((sender.send_request(request).await?, driver))
}
