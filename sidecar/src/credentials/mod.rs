//! My identity, always fresh: the host key, the SVID and its renewals, the trust bundle, the deny
//! list, and what the CA's directory says. `app` runs it on the runtime that carries no workload's
//! bytes; `inbound` and `outbound` read the [`Store`] and ask the [`Desk`].
//!
//! Never: a private key on disk or in a log (the host key is sealed), a renewal that follows the
//! wall clock, a snapshot that was not verified, a token for anybody but the CA.

// SPDX-License-Identifier: Apache-2.0

mod acknowledge;
mod ca_client;
mod desk;
mod evidence;
mod host_key;
mod issue;
mod keeper;
mod kept_list;
mod renew;
mod start;
mod state_dir;
mod store;
mod succession;
mod watch;
mod workload;

#[cfg(test)]
mod testing;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use myelin_identity::bundle::TrustBundle;
use myelin_identity::id::{SpiffeId, TrustDomain};
use myelin_identity::issuance::JoinToken;
use tokio::sync::{Notify, watch as shared};

use self::ca_client::Connector;
use self::keeper::Keeper;
use self::start::Start;
use self::watch::Watch;
use self::workload::Companion;
use crate::addr::{Clock, Endpoint};
use crate::metrics::Metrics;
use crate::net::Dialer;

pub use self::ca_client::{ConnectError, channel_over};
pub use self::desk::{ANSWER_WITHIN, Answer, Desk};
pub use self::evidence::{Evidence, EvidenceError};
pub use self::host_key::HostKeyError;
pub use self::issue::{IssueError, Reason};
pub use self::keeper::{ATTESTED, RENEWED};
pub use self::start::StartError;
pub use self::state_dir::{Secrecy, StateDir, StateError};
pub use self::store::{NoIdentity, Rejected, Snapshot, Store};
pub use self::succession::Unproven;
pub use self::workload::{Standing, WorkloadIdentity, WorkloadSvid};

/// What the operator wrote, already parsed.
#[derive(Clone, Debug)]
pub struct Config {
    pub trust_domain: TrustDomain,
    /// The ID that this sidecar must get. Absent: whatever the join token stands for.
    pub id: Option<SpiffeId>,
    /// Where the CA's replicas answer, tried in turn. At least one.
    pub cas: Vec<Endpoint>,
    /// Host key, seal key, bundle and deny list live here. Made if missing, 0700.
    pub state_dir: PathBuf,
    /// Needed once; later starts prove themselves by the host key.
    pub join_token: Option<JoinToken>,
    /// What is shown beside the host key at each issue, in place of a join token.
    pub evidence: Evidence,
    /// Recognises the CA in place of the token's hash, until a newer bundle was learned.
    pub pinned: Option<TrustBundle>,
    /// What is asked of the CA; absent: its default. The CA may shorten it.
    pub lifetime: Option<Duration>,
    /// Makes sockets that interception lets pass.
    pub dialer: Dialer,
    /// Filled with an SVID for the workload's own hands; absent: none is asked for.
    pub workload: Option<Arc<WorkloadIdentity>>,
}

/// Keeps `store` and `desk` up to date until `shutdown`. Ends early only before the first SVID,
/// when it is clear that this sidecar can never get one as it was started.
pub async fn run(
    config: Config,
    store: Arc<Store>,
    desk: Arc<Desk>,
    metrics: Arc<Metrics>,
    clock: Clock,
    shutdown: impl Future<Output = ()>,
) -> Result<(), StartError> {
    assert!(!config.cas.is_empty(), "configuration refuses a sidecar without a CA address");
    let token = config.join_token.clone();
    let (pinned, attests) = (config.pinned.clone(), config.evidence != Evidence::None);
    let start = Start::open(&config.state_dir, &config.trust_domain, token, pinned, attests)?;
    store.remember_denied(start.denied.clone());
    let connector = Connector { dialer: config.dialer, clock };
    let renew_now = Notify::new();
    let (vouches, vouching) = shared::channel(None);
    let mut keeper = Keeper::new(&config, &connector, &store, &desk, &metrics, &start, vouches);
    let companion = Companion {
        config: &config,
        connector: &connector,
        store: &store,
        metrics: &metrics,
        start: &start,
        vouching,
    };
    let watch = Watch {
        cas: &config.cas,
        connector: &connector,
        store: &store,
        desk: &desk,
        metrics: &metrics,
        file: &start.file,
        renew_now: &renew_now,
        workload: config.workload.as_deref(),
    };
    tokio::select! {
        ended = Box::pin(keeper.run(&renew_now)) => ended.map(|never| match never {}),
        never = Box::pin(watch.run()) => match never {},
        never = Box::pin(companion.run()) => match never {},
        () = shutdown => Ok(()),
    }
}
