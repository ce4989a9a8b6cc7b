//! Which of the port's two services a call is for, by its path. Called by `serve`.
//!
//! Never: answers by itself; a path of neither is the directory's to refuse.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;

use super::serve::Api;
use super::stubs::policy::policies_server::PoliciesServer;
use super::stubs::services_server::ServicesServer;

#[derive(Clone)]
pub(super) struct Both {
    pub(super) services: ServicesServer<Api>,
    pub(super) policies: PoliciesServer<Api>,
}

impl Service<http::Request<Body>> for Both {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Neither of them is ever full: the port itself bounds streams.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = request.uri().path().split('/').nth(1).unwrap_or_default();
        if service == <PoliciesServer<Api> as NamedService>::NAME {
            self.policies.call(request)
        } else {
            self.services.call(request)
        }
    }
}
