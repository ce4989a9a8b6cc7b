//! `Issue`: proof, certificate, audit line, metric.
//!
//! Never: answers before the audit line is written.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::issuance::{IssueResponse, Lineage, LineageId, proto};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{Api, audit, caller};
use crate::attest::{Caller, attestor_of};
use crate::authority::{IssueError, Issued, Reason};

impl Api {
    pub(super) async fn answer_issue(
        &self,
        request: Request<proto::IssueRequest>,
    ) -> Result<Response<proto::IssueResponse>, Status> {
        let started = Instant::now();
        let caller = caller(&request)?;
        let request = request.into_inner();
        let attestor = attestor_of(&request);
        let result = self.issue_to(&caller, request).await;
        let outcome = match &result {
            Ok(issued) => {
                audit::issued(&caller, attestor, issued);
                if issued.again { "repeated" } else { "issued" }
            }
            Err(error) => {
                audit::refused(&caller, attestor, error);
                if matches!(error, IssueError::Refused(Reason::Alarm)) {
                    self.metrics.alarms.inc();
                }
                error.word()
            }
        };
        self.metrics.issued.with_label_values(&[outcome, attestor]).inc();
        self.metrics.issue_duration.observe(started.elapsed().as_secs_f64());
        result
            .map(|issued| Response::new(self.reply(issued)))
            .map_err(|error| audit::status(&error))
    }

    async fn issue_to(
        &self,
        caller: &Caller,
        request: proto::IssueRequest,
    ) -> Result<Issued, IssueError> {
        let now = self.authority.clock().seconds();
        let proven = self.attestors.prove(request, caller, now).await?;
        self.authority.issue(caller, &proven).await
    }

    fn reply(&self, issued: Issued) -> proto::IssueResponse {
        let mut id = [0; LineageId::BYTES];
        let known = issued.lineage.0.len().min(LineageId::BYTES);
        id[..known].copy_from_slice(&issued.lineage.0[..known]);
        let lineage = Lineage { id: LineageId::from_bytes(id), generation: issued.generation };
        let bundle = (*self.authority.bundle()).clone();
        IssueResponse { chain: issued.chain, lineage, bundle, log_proof: issued.log_proof }.into()
    }
}
