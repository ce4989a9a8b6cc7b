//! Which service a request is for. Called by the gRPC server for each request.
//!
//! Never: reads a message.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::task::{Context, Poll};

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;

use super::envoy::SecretsService;
use super::spiffe::WorkloadsService;

/// The services behind one socket.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) workloads: WorkloadsService,
    pub(super) secrets: Option<SecretsService>,
}

impl Service<http::Request<Body>> for Door {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = request.uri().path().split('/').nth(1).unwrap_or_default().to_owned();
        match (service.as_str(), &mut self.secrets) {
            (WorkloadsService::NAME, _) => self.workloads.call(request),
            (SecretsService::NAME, Some(secrets)) => secrets.call(request),
            (SecretsService::NAME, None) => unimplemented(
                "secret discovery is off; set `sds = true` in the sidecar's [workload_api]",
            ),
            _ => unimplemented("this socket serves SpiffeWorkloadAPI and Envoy's secret discovery"),
        }
    }
}

fn unimplemented(why: &'static str) -> BoxFuture<http::Response<Body>, Infallible> {
    Box::pin(async move { Ok(Status::unimplemented(why).into_http()) })
}
