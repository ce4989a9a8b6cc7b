//! The SPIFFE Workload API, X.509 profile. Called by the gRPC server through `door`.
//!
//! Never: answers a request without the security header of the SPIFFE Workload Endpoint standard,
//! or makes JWTs.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;

use tonic::{Request, Response, Status};

use super::follow::{Answers, Desk};
use super::offer::{Offer, Version};
use super::stubs::workload::spiffe_workload_api_server::{
    SpiffeWorkloadApi, SpiffeWorkloadApiServer,
};
use super::stubs::workload::{
    NotRead, X509BundlesRequest, X509BundlesResponse, X509svid, X509svidRequest, X509svidResponse,
};
use crate::metrics::WorkloadCall;

/// What a request must carry, so that nobody can be tricked into sending one (SPIFFE Workload
/// Endpoint, section 6.1).
const SECURITY_HEADER: &str = "workload.spiffe.io";

/// Requests of this profile are empty.
const MAX_REQUEST_BYTES: usize = 1024;

const NO_JWT: &str = "this Workload API serves X.509-SVIDs only: Myelin issues no JWT-SVIDs";

pub(super) type WorkloadsService = SpiffeWorkloadApiServer<Workloads>;

#[derive(Clone)]
pub(super) struct Workloads {
    desk: Desk,
}

impl Workloads {
    pub(super) fn service(desk: Desk) -> WorkloadsService {
        SpiffeWorkloadApiServer::new(Self { desk }).max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    fn header_of<T>(&self, call: WorkloadCall, request: &Request<T>) -> Result<(), Status> {
        let header = request.metadata().get(SECURITY_HEADER);
        if header.is_some_and(|value| value.as_bytes() == b"true") {
            return Ok(());
        }
        let status = Status::invalid_argument(
            "security header missing from request: send the metadata `workload.spiffe.io: true`",
        );
        self.desk.refused(call, &status);
        Err(status)
    }

    fn no_jwt<T, A>(&self, request: &Request<T>) -> Result<A, Status> {
        self.header_of(WorkloadCall::Jwt, request)?;
        drop(self.desk.admit(WorkloadCall::Jwt, request)?);
        let status = Status::unimplemented(NO_JWT);
        self.desk.refused(WorkloadCall::Jwt, &status);
        Err(status)
    }
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for Workloads {
    type FetchX509SVIDStream = Answers<X509svidResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        self.header_of(WorkloadCall::X509Svid, &request)?;
        let place = self.desk.admit(WorkloadCall::X509Svid, &request)?;
        Ok(Response::new(self.desk.answers(place, Offer::version, svids)))
    }

    type FetchX509BundlesStream = Answers<X509BundlesResponse>;

    async fn fetch_x509_bundles(
        &self,
        request: Request<X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        self.header_of(WorkloadCall::X509Bundles, &request)?;
        let place = self.desk.admit(WorkloadCall::X509Bundles, &request)?;
        let version = |offer: &Offer| Version { serial: None, ..offer.version() };
        Ok(Response::new(self.desk.answers(place, version, bundles)))
    }

    async fn fetch_jwtsvid(&self, request: Request<NotRead>) -> Result<Response<NotRead>, Status> {
        self.no_jwt(&request)
    }

    type FetchJWTBundlesStream = Answers<NotRead>;

    async fn fetch_jwt_bundles(
        &self,
        request: Request<NotRead>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        self.no_jwt(&request)
    }

    async fn validate_jwtsvid(
        &self,
        request: Request<NotRead>,
    ) -> Result<Response<NotRead>, Status> {
        self.no_jwt(&request)
    }
}

fn svids(offer: &Offer) -> X509svidResponse {
    let svid = &offer.svid.svid;
    let workloads = X509svid {
        spiffe_id: svid.id().to_string(),
        x509_svid: svid.chain().iter().flat_map(|der| der.to_vec()).collect(),
        x509_svid_key: offer.svid.reveal_key().to_vec(),
        bundle: offer.own().der(),
        hint: String::new(),
    };
    let federated_bundles = offer.foreign.iter().map(|roots| (roots.name(), roots.der())).collect();
    X509svidResponse { svids: vec![workloads], crl: Vec::new(), federated_bundles }
}

fn bundles(offer: &Offer) -> X509BundlesResponse {
    let own = offer.own();
    let bundles = std::iter::once(&own).chain(&offer.foreign);
    let bundles: HashMap<_, _> = bundles.map(|roots| (roots.name(), roots.der())).collect();
    X509BundlesResponse { crl: Vec::new(), bundles }
}
