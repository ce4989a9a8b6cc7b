//! `grpc.health.v1.Health`, which always says SERVING. Called by `serve`.
//!
//! Never: another method, or a message that is read.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// The prefix of gRPC, then field 1: SERVING.
const SERVING: [u8; 7] = [0, 0, 0, 0, 2, 8, 1];

pub(crate) async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let connection = http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service_fn(check));
        tokio::spawn(connection);
    }
}

async fn check(
    request: Request<Incoming>,
) -> Result<Response<impl Body<Data = Bytes, Error = Infallible>>, hyper::Error> {
    request.into_body().collect().await?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames: [Result<_, Infallible>; 2] =
        [Ok(Frame::data(Bytes::from_static(&SERVING))), Ok(Frame::trailers(trailers))];
    let mut answer = Response::new(StreamBody::new(tokio_stream::iter(frames)));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(answer)
}
