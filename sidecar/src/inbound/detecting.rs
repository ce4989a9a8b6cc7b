//! Permissive mode's one question: does this client speak TLS to us, or plaintext to the workload?
//! Asked by looking at the first bytes without taking them. Called by `serve`, never in strict mode.
//!
//! Never: lets the workload speak first to a source that the directory knows as meshed; decides on
//! half a ClientHello.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use tokio::net::TcpStream;

use super::Inbound;
use crate::addr::PeerAddr;
use crate::detect::{self, Detected, PREFIX_LIMIT, PortListing, Source, Verdict};
use crate::policy::Demand;
use crate::report::Outcome;
use crate::wire;

/// How long to wait for more of a ClientHello that came in part. Only unfinished ones wait.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The first look; a post-quantum ClientHello fits.
const FIRST_LOOK: usize = 2_048;

/// What the client turned out to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    Mesh,
    Plaintext,
}

impl Inbound {
    /// Waits for the client's first bytes, within the detection deadline.
    pub(super) async fn listen_first(
        &self,
        stream: &TcpStream,
        from: PeerAddr,
        demand: Demand,
    ) -> Result<Spoken, Outcome> {
        let Demand::Permissive { server_first, workload_tls } = demand else {
            return Ok(Spoken::Mesh);
        };
        let listing = if server_first { PortListing::ServerFirst } else { PortListing::Unlisted };
        let source = self.source(from).await;
        if detect::on_silence(listing, source) == Verdict::Plaintext {
            return Ok(Spoken::Plaintext);
        }
        let look = look(stream, source, workload_tls);
        let deadline = self.config.detect;
        tokio::time::timeout(deadline, look).await.unwrap_or(Err(Outcome::DetectTimeout))
    }

    /// Does the directory know somebody of the mesh at this address?
    async fn source(&self, from: PeerAddr) -> Source {
        let is_meshed = || self.directory.load().is_known_meshed(from.ip(), &self.learned.load());
        if !is_meshed() {
            // Port 0 asks for anybody at all who lives there.
            self.desk.ask(from.ip(), 0).await;
        }
        if is_meshed() { Source::Meshed } else { Source::Unknown }
    }
}

async fn look(stream: &TcpStream, source: Source, workload_tls: bool) -> Result<Spoken, Outcome> {
    let mut prefix = vec![0; FIRST_LOOK];
    let mut before = 0;
    loop {
        let seen = stream.peek(&mut prefix).await.map_err(|_| Outcome::PeerVanished)?;
        if seen == 0 {
            return Err(Outcome::PeerVanished);
        }
        let detected = detect::client_hello(&prefix[..seen]);
        // The workload speaks TLS of its own here: only a hello that offers myelin/1 is ours.
        let foreign = matches!(&detected, Detected::Tls(hello) if !hello.offers(wire::ALPN));
        if workload_tls && foreign && source == Source::Unknown {
            return Ok(Spoken::Plaintext);
        }
        match detect::on_first_bytes(&detected, source) {
            Verdict::Handshake => return Ok(Spoken::Mesh),
            Verdict::Plaintext => return Ok(Spoken::Plaintext),
            Verdict::Refuse("protocol_version") => return Err(Outcome::PeerRefused("old_tls")),
            Verdict::Refuse("plaintext_from_meshed_source") => {
                return Err(Outcome::Handshake("plaintext_refused"));
            }
            Verdict::Refuse(_) => return Err(Outcome::Handshake("tls_violation")),
            Verdict::Hold if seen == prefix.len() && seen < PREFIX_LIMIT => {
                prefix.resize(PREFIX_LIMIT, 0);
            }
            Verdict::Hold if seen == before => tokio::time::sleep(LOOK_AGAIN).await,
            Verdict::Hold => {}
        }
        before = seen;
    }
}
