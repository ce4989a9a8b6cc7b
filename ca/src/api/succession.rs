//! `Succession`: how the present trust bundle follows from earlier ones, for a sidecar that slept
//! through a rotation and so cannot recognise this CA yet, and for whoever checks a new bundle.
//!
//! Never: asks who is calling; every step proves itself, and none is a secret.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::issuance::proto;
use tonic::Response;

use super::Api;

impl Api {
    pub(super) fn answer_succession(&self) -> Response<proto::SuccessionResponse> {
        let steps = self.authority.steps().iter().map(Into::into).collect();
        Response::new(proto::SuccessionResponse { steps })
    }
}
