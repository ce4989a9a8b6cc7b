//! The line to a controller: mutual TLS 1.3 under our SVID to exactly the configured SPIFFE ID, HTTP/2
//! on top, and the pace at which it is tried again. Called by `services` and `policies`, which say
//! over it what they have to say.
//!
//! Never: says a word before the other end has proved to be exactly the controller; comes back at
//! once with everybody else when a controller went away.

// SPDX-License-Identifier: Apache-2.0

mod pace;

pub use self::pace::{LONGEST_SPREAD, Pace};

use std::io;
use std::sync::Arc;
use std::time::Duration;

use myelin_identity::UnixTime;
use myelin_identity::id::SpiffeId;
use myelin_identity::verify::{Expected, Peer, Refusal, Role};
use rustls::pki_types::ServerName;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::Channel;

use crate::addr::{Clock, Endpoint};
use crate::credentials::{NoIdentity, Snapshot, Store, channel_over};
use crate::net::{DialError, Dialer};

/// What gRPC speaks underneath.
pub const ALPN: &[u8] = b"h2";
/// Handshake and first words of a controller: two round trips across a continent and a busy minute.
pub const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// What the operator wrote, already parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where controllers answer, tried in turn. At least one.
    pub addresses: Vec<Endpoint>,
    /// Who a controller is: the whole ID.
    pub id: SpiffeId,
}

/// Why there is no connection to a controller, or no more.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error(transparent)]
    NoIdentity(#[from] NoIdentity),
    #[error("the controller cannot be reached: {0}")]
    Dial(#[from] DialError),
    #[error("the controller did not finish its handshake within {CONNECT_WITHIN:?}")]
    Slow,
    #[error("whoever answers is not the controller, nothing was sent to it: {0}")]
    NotTheController(Refusal),
    #[error("TLS with the controller failed: {0}")]
    Tls(io::Error),
    #[error("HTTP/2 with the controller failed: {0}")]
    Http(#[from] tonic::transport::Error),
    #[error("the configuration that was read again names no controller; restart to take that over")]
    Undeclared,
    #[error("the controller ended the watch: {0}")]
    Status(#[from] tonic::Status),
    #[error("the controller closed the watch")]
    Closed,
    #[error("what the controller says is not taken: {0}")]
    Refused(String),
}

/// All that a connection stands on.
pub struct Line {
    pub config: Config,
    pub store: Arc<Store>,
    pub dialer: Dialer,
    pub clock: Clock,
}

/// One connection to a controller that has proved to be it.
pub struct Call {
    pub channel: Channel,
    peer: Arc<Peer>,
    /// The SVID that we proved ourselves by.
    ours: Arc<Snapshot>,
    published: watch::Receiver<u64>,
}

impl Line {
    /// Connects to one of the controllers; `turn` counts through them.
    pub async fn call(&self, controller: Endpoint) -> Result<Call, Broken> {
        let published = self.store.subscribe();
        let ours = self.store.usable(self.clock.unix())?;
        let connected = timeout(CONNECT_WITHIN, self.connect(controller, &ours));
        let (channel, peer) = connected.await.map_err(|_| Broken::Slow)??;
        Ok(Call { channel, peer, ours, published })
    }

    /// Resolves when the call has to end. `Ok`: another SVID is in use, which the next one proves.
    /// Trust is judged at every use, and a call lasts for days.
    pub async fn over(&self, call: &mut Call) -> Result<(), Broken> {
        loop {
            if call.published.changed().await.is_err() {
                // The store ends with the process.
                return std::future::pending().await;
            }
            let Some(now) = self.store.load() else { continue };
            if now.svid.serial() != call.ours.svid.serial() {
                return Ok(());
            }
            self.still_trusted(&call.peer, &now).map_err(Broken::NotTheController)?;
        }
    }

    async fn connect(
        &self,
        controller: Endpoint,
        snapshot: &Snapshot,
    ) -> Result<(Channel, Arc<Peer>), Broken> {
        let tcp = self.dialer.dial(controller).await?;
        let config = snapshot.tls.dial_plain(Some(ALPN)).ok_or(Broken::Undeclared)?;
        let name = ServerName::from(controller.ip());
        let shaking = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await;
        let tls = shaking.map_err(|source| match Refusal::of_io(&source) {
            Some(refusal) => Broken::NotTheController(refusal),
            None => Broken::Tls(source),
        })?;
        let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
        let verified = snapshot.tls.peer(chain, Role::Server);
        let peer = verified.map_err(Broken::NotTheController)?;
        let expected = Expected { ids: vec![self.config.id.clone()], address: None };
        expected.check(&peer).map_err(Broken::NotTheController)?;
        self.still_trusted(&peer, snapshot).map_err(Broken::NotTheController)?;
        Ok((channel_over(tls, "http://myelin-controller").await?, peer))
    }

    fn still_trusted(&self, peer: &Peer, snapshot: &Snapshot) -> Result<(), Refusal> {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(self.clock.unix()));
        peer.still_trusted(&snapshot.bundle, &snapshot.deny, now)
    }
}
