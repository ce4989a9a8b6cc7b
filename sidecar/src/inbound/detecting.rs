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
use crate::detect::{self, Detected};
use crate::policy::Demand;
use crate::report::Outcome;
use crate::wire;

/// How much of a ClientHello is looked at: what `detect` itself allows.
const LOOK: usize = detect::MAX_PREFIX;

/// How long to wait for more of a ClientHello that came in part. Only unfinished ones wait.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

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
        let meshed = self.is_meshed(from).await;
        if server_first && !meshed {
            // Listed as server-first and not a mesh source: it may hear the workload at once.
            return Ok(Spoken::Plaintext);
        }
        let look = look(stream, workload_tls);
        let spoken = match tokio::time::timeout(self.config.detect, look).await {
            Ok(spoken) => spoken?,
            Err(_) => return Err(Outcome::DetectTimeout),
        };
        if meshed && spoken == Spoken::Plaintext {
            return Err(Outcome::Handshake("plaintext_refused"));
        }
        Ok(spoken)
    }

    async fn is_meshed(&self, from: PeerAddr) -> bool {
        let known = |inbound: &Self| {
            inbound.directory.load().is_known_meshed(from.ip(), &inbound.desk.learned())
        };
        if known(self) {
            return true;
        }
        self.desk.ask_whether_meshed(from.ip()).await
    }
}

async fn look(stream: &TcpStream, workload_tls: bool) -> Result<Spoken, Outcome> {
    let mut prefix = vec![0; 1];
    loop {
        let seen = stream.peek(&mut prefix).await.map_err(|_| Outcome::PeerVanished)?;
        let Some(first) = prefix.first().filter(|_| seen > 0) else {
            return Err(Outcome::PeerVanished);
        };
        if !detect::first_byte_is_tls(*first) {
            return Ok(Spoken::Plaintext);
        }
        if !workload_tls {
            return Ok(Spoken::Mesh);
        }
        // The workload speaks TLS of its own here: only a hello that offers myelin/1 is ours.
        match detect::client_hello(&prefix[..seen]) {
            Detected::Tls(hello) if hello.offers(wire::ALPN) => return Ok(Spoken::Mesh),
            Detected::NeedMore if seen < LOOK => {}
            _ => return Ok(Spoken::Plaintext),
        }
        if prefix.len() == seen {
            prefix.resize((seen * 4).clamp(2048, LOOK), 0);
        } else {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}
