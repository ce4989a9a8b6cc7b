//! One gRPC probe: `grpc.health.v1.Health/Check` in the clear, as the kubelet asks. Called by the
//! room's door.
//!
//! Never: TLS (the kubelet knows none here), a stream, an answer longer than a status.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, TE, USER_AGENT};
use hyper::{Method, Request, Uri, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;

use super::{Driver, Verdict};

/// An answer is a prefix of five bytes and one number.
const MAX_ANSWER_BYTES: usize = 4 * 1024;

/// A gRPC message's prefix: one byte that says whether it is compressed, four of its length.
const PREFIX_BYTES: usize = 5;

const METHOD: &str = "/grpc.health.v1.Health/Check";
const SERVING: i32 = 1;

type Failed = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

pub(super) async fn run(address: SocketAddr, service: &str) -> Verdict {
    match check(address, service).await {
        Ok(true) => Verdict::Passed,
        Ok(false) => Verdict::Failed,
        Err(_) => Verdict::Unreachable,
    }
}

async fn check(address: SocketAddr, service: &str) -> Result<bool, Failed> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream)).await?;
    let _driver = Driver::of(connection);
    let uri = Uri::builder().scheme("http").authority(address.to_string()).path_and_query(METHOD);
    let mut request = Request::new(Full::new(framed(service)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.build()?;
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(USER_AGENT, HeaderValue::from_static("kube-probe/myelin"));
    let answer = sender.send_request(request).await?;
    // An error may come without a body, its status among the headers.
    let early = !is_fine(answer.headers());
    if answer.status() != hyper::StatusCode::OK || early {
        return Ok(false);
    }
    let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await?;
    let fine = body.trailers().is_some_and(says_ok);
    Ok(fine && is_serving(&body.to_bytes()))
}

fn framed(service: &str) -> Bytes {
    let message = HealthCheckRequest { service: service.to_owned() };
    let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.encoded_len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    framed.extend_from_slice(&message.encode_to_vec());
    framed.freeze()
}

/// Says no error, or nothing yet.
fn is_fine(headers: &HeaderMap) -> bool {
    headers.get("grpc-status").is_none_or(|status| status == "0")
}

fn says_ok(trailers: &HeaderMap) -> bool {
    trailers.get("grpc-status").is_some_and(|status| status == "0")
}

fn is_serving(body: &[u8]) -> bool {
    let Some((prefix, message)) = body.split_at_checked(PREFIX_BYTES) else { return false };
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    let whole = usize::try_from(length).is_ok_and(|length| length == message.len());
    let decoded = HealthCheckResponse::decode(message);
    prefix[0] == 0 && whole && decoded.is_ok_and(|answer| answer.status == SERVING)
}
