//! A genuine identity in the test's own hands: a pod without a sidecar is enrolled at the real CA by
//! the sidecar's own credentials room, so its SVID is in the log and its hello can prove it. Called
//! by the suites that take a peer's part on the wire.
//!
//! Never: a certificate that the CA did not issue; those are `forge`'s.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use arc_swap::ArcSwap;
use myelin_identity::id::TrustDomain;
use myelin_identity::issuance::JoinToken;
use myelin_identity::verify::Peer;
use myelin_lab::Pod;
use myelin_sidecar::addr::{Clock, Endpoint};
use myelin_sidecar::credentials::{self, Desk, Evidence, Snapshot, Store};
use myelin_sidecar::directory::Learned;
use myelin_sidecar::metrics::Metrics;
use myelin_sidecar::net::Dialer;
use myelin_sidecar::relay::Link;
use myelin_sidecar::tls::{self, Deadline, Offer};
use myelin_sidecar::wire::{self, Acceptor, Budget};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::ca::Ca;
use crate::forge::now;
use crate::mesh::Mesh;

/// Far beyond what an issue takes here.
const ENROLLED_WITHIN: Duration = Duration::from_secs(20);

/// For one step of a peer that answers at once.
const STEP_WITHIN: Duration = Duration::from_secs(10);
/// No connection ends because it has carried enough.
const BUDGET: Budget = Budget { max_uses: NonZeroU64::MAX, max_bytes: NonZeroU64::MAX };

/// Renewed as a sidecar's would be, until it is dropped.
pub struct Genuine {
    store: Arc<Store>,
    _state: TempDir,
    _leave: oneshot::Sender<()>,
}

impl Genuine {
    /// Enrols `pod` with a join token for `id` and the pod's addresses.
    pub async fn enrol(mesh: &Mesh, pod: &Pod, id: &str) -> Result<Self> {
        Self::enrol_at(&mesh.ca, pod, id).await
    }

    /// The same at any CA.
    pub async fn enrol_at(ca: &Ca, pod: &Pod, id: &str) -> Result<Self> {
        let state = tempfile::tempdir()?;
        let token = ca.token(id, pod.addresses()).await?;
        let clock = Clock::new(now);
        let store = Store::new(vec![b"h2".to_vec()], clock.clone(), None);
        let mut bumped = store.subscribe();
        let config = credentials::Config {
            trust_domain: TrustDomain::parse(ca.trust_domain())?,
            id: None,
            cas: vec![Endpoint(ca.endpoint())],
            state_dir: state.path().join("state"),
            join_token: Some(token.trim().parse::<JoinToken>()?),
            evidence: Evidence::None,
            pinned: None,
            lifetime: None,
            dialer: Dialer::new(None, ENROLLED_WITHIN),
            workload: None,
        };
        let (leave, left) = oneshot::channel();
        let (kept, netns) = (Arc::clone(&store), pod.netns().clone());
        // A thread of its own, which lives in the pod as long as the identity does.
        thread::Builder::new()
            .name("genuine".to_owned())
            .spawn(move || netns.run(|| keep(config, kept, clock, left)).and_then(|ended| ended))?;
        let first = bumped.wait_for(|generation| *generation > 0);
        match tokio::time::timeout(ENROLLED_WITHIN, first).await {
            Ok(Ok(_)) => {}
            _ => bail!(
                "no SVID for {id} within {ENROLLED_WITHIN:?}; the CA said: {}",
                ca.last_words()
            ),
        }
        Ok(Self { store, _state: state, _leave: leave })
    }

    /// What a sidecar would hold at this moment.
    pub fn snapshot(&self) -> Result<Arc<Snapshot>> {
        self.store.load().context("the identity is gone")
    }

    /// A mesh connection to there, greeted with the proof.
    pub async fn dial(&self, from: &Pod, to: SocketAddr) -> Result<Link<wire::Dialer>> {
        let own = self.snapshot()?;
        let tcp = from.tcp_connect(to).await?;
        let deadline = Deadline(STEP_WITHIN);
        let session = tls::dial(tcp, Endpoint(to), Offer::Myelin1, &own.tls, deadline).await?;
        let mut link = Link::new(session.records, wire::Dialer::new(BUDGET));
        link.greet(&own.log_proof, STEP_WITHIN, |_| ()).await?;
        Ok(link)
    }

    /// What came in, answered as a sidecar would answer it; and who it was.
    pub async fn accept(&self, tcp: TcpStream) -> Result<(Link<Acceptor>, Peer)> {
        let own = self.snapshot()?;
        let session = tls::accept(tcp, &own.tls, None, Deadline(STEP_WITHIN)).await?;
        let mut link = Link::new(session.records, Acceptor::new(BUDGET));
        link.greet(&own.log_proof, STEP_WITHIN, |_| ()).await?;
        Ok((link, Peer::clone(&session.peer)))
    }
}

fn keep(
    config: credentials::Config,
    store: Arc<Store>,
    clock: Clock,
    left: oneshot::Receiver<()>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let desk = Desk::new(Arc::new(ArcSwap::from_pointee(Learned::default())));
    let metrics = Arc::new(Metrics::new());
    let shutdown = async { drop(left.await) };
    Ok(runtime.block_on(credentials::run(config, store, desk, metrics, clock, shutdown))?)
}
