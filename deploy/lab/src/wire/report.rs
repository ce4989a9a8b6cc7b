//! What a capture has to say, in numbers. Made by `analysis`, read by the demo and the suites.
//! Never: holds a byte of payload.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// What crossed the wire. "Flow" means one TCP connection, both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WireReport {
    /// Frames and bytes on the wire, each counted once, with their Ethernet headers. A frame may be
    /// larger than the MTU: veth passes on what TCP would have left to the network card to cut.
    pub frames: u64,
    pub bytes: u64,
    /// Frames that the kernel could not queue for the capture. Unless this is 0, "none" means nothing.
    pub dropped: u64,
    /// Places in flows where bytes are missing.
    pub gaps: u64,
    pub flows: u64,
    /// Flows of TLS records only, with a ServerHello that chose TLS 1.3.
    pub tls13_flows: u64,
    /// Flows whose ServerHello chose something older.
    pub older_tls_flows: u64,
    /// Flows with any byte that is no TLS record.
    pub non_tls_flows: u64,
    /// Flows of TLS records so far, but without a ServerHello.
    pub half_open_flows: u64,
    /// Flows without a byte of payload.
    pub silent_flows: u64,
    /// Flows that cannot be judged: they began before the capture, or bytes are missing.
    pub unjudged_flows: u64,
    /// Segments of flows beyond the bound of the flow table.
    pub untracked_segments: u64,
    /// Who spoke something other than TLS to whom, with the number of flows. Bounded; when it is full,
    /// `non_tls_flows` still counts.
    pub non_tls: BTreeMap<(IpAddr, SocketAddr), u64>,
    /// ServerHellos, and how many of them resumed a session.
    pub handshakes: u64,
    pub resumed: u64,
    pub retries: u64,
    /// Names with counts.
    pub versions: BTreeMap<String, u64>,
    pub ciphers: BTreeMap<String, u64>,
    pub groups: BTreeMap<String, u64>,
    pub records: BTreeMap<&'static str, u64>,
    /// Host names that ClientHellos carried in clear. Bounded.
    pub server_names: BTreeSet<String>,
    pub canaries: Vec<CanaryHits>,
}

/// How often one canary was readable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryHits {
    pub canary: String,
    /// In single frames, whatever protocol.
    pub in_frames: u64,
    /// In ordered TCP streams, also across borders of segments.
    pub in_streams: u64,
}

impl WireReport {
    /// How many canaries were readable on the wire at all.
    pub fn canary_hits(&self) -> u64 {
        self.canaries.iter().map(|hits| hits.in_frames.max(hits.in_streams)).sum()
    }

    /// Whether the capture saw everything: without this no absence is proven.
    pub fn is_complete(&self) -> bool {
        self.dropped == 0 && self.gaps == 0 && self.untracked_segments == 0
    }

    /// All reasons not to say "only TLS 1.3 crossed this wire and no canary was readable", one line
    /// each. Empty means that it may be said. Plaintext to a server for which `plain_is_meant` holds
    /// is no reason.
    pub fn objections(&self, plain_is_meant: impl Fn(SocketAddr) -> bool) -> Vec<String> {
        let mut found = Vec::new();
        let mut object = |holds: bool, text: String| {
            if holds {
                found.push(text);
            }
        };
        object(self.frames == 0, "nothing crossed the wire: there is nothing to judge".to_owned());
        object(self.dropped > 0, format!("the capture lost {} frames", self.dropped));
        object(self.gaps > 0, format!("{} places in flows are missing", self.gaps));
        object(self.untracked_segments > 0, "more flows than the capture can track".to_owned());
        object(self.unjudged_flows > 0, format!("{} flows cannot be judged", self.unjudged_flows));
        object(
            self.older_tls_flows > 0,
            format!("{} flows speak a TLS older than 1.3", self.older_tls_flows),
        );
        for hits in self.canaries.iter().filter(|hits| hits.in_frames + hits.in_streams > 0) {
            let (frames, streams) = (hits.in_frames, hits.in_streams);
            object(
                true,
                format!("{:?} was readable in {frames} frames, {streams} in streams", hits.canary),
            );
        }
        let listed: u64 = self.non_tls.values().sum();
        object(listed < self.non_tls_flows, "more plaintext flows than can be listed".to_owned());
        for ((client, server), flows) in &self.non_tls {
            object(
                !plain_is_meant(*server),
                format!("{flows} flows from {client} to {server} are not TLS"),
            );
        }
        found
    }
}
