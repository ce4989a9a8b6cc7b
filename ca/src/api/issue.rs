//! `Issue`: proof, certificate, audit line, metric.
//!
//! Never: answers before the audit line is written.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::issuance::{IssueResponse, Lineage, LineageId, proto};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::turns::{Turn, Who};
use super::{Api, audit, caller};
use crate::attest::{Caller, Proven, attestor_of};
use crate::authority::{IssueError, Issued, Reason};

/// A request as far as logs and metrics name it.
struct Asked {
    caller: Caller,
    attestor: &'static str,
    started: Instant,
}

impl Api {
    pub(super) async fn answer_issue(
        &self,
        request: Request<proto::IssueRequest>,
    ) -> Result<Response<proto::IssueResponse>, Status> {
        let (started, caller) = (Instant::now(), caller(&request)?);
        let who = if caller.peer.is_some() { Who::Renewing } else { Who::New };
        let turn = self.issues.take(who).await;
        let request = request.into_inner();
        let asked = Asked { attestor: attestor_of(&request), caller, started };
        let now = self.authority.clock().seconds();
        let result = match self.attestors.prove(request, &asked.caller, now).await {
            Err(error) => self.ended(&asked, Err(error.into())),
            Ok(proven) => self.issue_to(asked, proven, turn).await?,
        };
        result
            .map(|issued| Response::new(self.reply(issued)))
            .map_err(|error| audit::status(&error))
    }

    /// In a task of its own, which nobody who hangs up can stop: what was decided, an alarm above
    /// all, is also told.
    async fn issue_to(
        &self,
        asked: Asked,
        proven: Proven,
        turn: Turn,
    ) -> Result<Result<Issued, IssueError>, Status> {
        let api = self.clone();
        let task = tokio::spawn(async move {
            let result = api.authority.issue(&asked.caller, &proven).await;
            drop(turn);
            api.ended(&asked, result)
        });
        task.await
            .map_err(|_| Status::internal("the issue ended in the middle; please report this"))
    }

    /// The audit line and the metrics of one request.
    fn ended(
        &self,
        asked: &Asked,
        result: Result<Issued, IssueError>,
    ) -> Result<Issued, IssueError> {
        let Asked { caller, attestor, started } = asked;
        let outcome = match &result {
            Ok(issued) => {
                audit::issued(caller, attestor, issued);
                if issued.again { "repeated" } else { "issued" }
            }
            Err(error) => {
                audit::refused(caller, attestor, error);
                if matches!(error, IssueError::Refused(Reason::Alarm)) {
                    self.metrics.alarms.inc();
                }
                error.word()
            }
        };
        self.metrics.issued.with_label_values(&[outcome, *attestor]).inc();
        self.metrics.issue_duration.observe(started.elapsed().as_secs_f64());
        result
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
