//! What is asked of a part in a pod, and what is kept of a run: the shapes of all JSON here. Called
//! by everybody in this folder.
//!
//! Never: computes; `report` derives every figure that is shown from what is kept.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What the generator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Reads as fast as it can, on each connection.
    Bulk,
    /// Requests on kept connections, the next one as soon as one is answered.
    Kept,
    /// Requests on kept connections at a fixed rate.
    Paced,
    /// A new connection for each request, the next one as soon as one is answered.
    Fresh,
    /// A new connection for each request, at a fixed rate.
    FreshPaced,
    /// Opens connections, asks once on each, and holds them until it is killed.
    Hold,
}

/// A part of the generator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) kind: Kind,
    /// Taken in turn.
    pub(crate) endpoints: Vec<SocketAddr>,
    pub(crate) connections: usize,
    /// Requests under way at once, in a closed loop.
    pub(crate) in_flight: usize,
    /// A second, in an open loop.
    pub(crate) rate: f64,
    /// Connections that are open meanwhile and say nothing.
    pub(crate) held: usize,
    pub(crate) warm_ms: u64,
    pub(crate) window_ms: u64,
    /// Whose CPU clocks are read at both ends of the window.
    pub(crate) clocks: BTreeMap<String, Vec<i32>>,
}

/// A part of the server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Service {
    pub(crate) bulk: u16,
    pub(crate) request_ports: Vec<u16>,
}

/// What one window gave.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Window {
    pub(crate) seconds: f64,
    pub(crate) done: u64,
    pub(crate) bytes: u64,
    pub(crate) errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) first_error: Option<String>,
    pub(crate) p50_us: Option<u32>,
    pub(crate) p99_us: Option<u32>,
    pub(crate) max_us: Option<u32>,
    /// User and system seconds by name of the clock.
    pub(crate) cpu_s: BTreeMap<String, f64>,
    /// Share of the machine that somebody else's processes took, and that the host took away.
    pub(crate) other: f64,
    pub(crate) steal: f64,
}

impl Window {
    /// Share of the machine that was not ours.
    pub(crate) fn disturbance(&self) -> f64 {
        self.other + self.steal
    }

    /// CPU seconds of both proxies.
    pub(crate) fn proxies_s(&self) -> f64 {
        ["client", "server"].iter().filter_map(|side| self.cpu_s.get(*side)).sum()
    }
}

/// Resident memory of one pair, in KiB: of the client's proxy and of the server's.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) idle_kib: [f64; 2],
    /// By number of idle connections, what each of them adds.
    pub(crate) per_connection_kib: BTreeMap<usize, [f64; 2]>,
    pub(crate) errors: u64,
}

/// One peer in one round.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Visit {
    pub(crate) round: usize,
    pub(crate) peer: String,
    /// From the first exec to the first answered request, state directories empty.
    pub(crate) first_start_ms: Option<f64>,
    /// The same again, with what the first start left behind.
    pub(crate) start_ms: Option<f64>,
    pub(crate) windows: BTreeMap<String, Window>,
    pub(crate) memory: Option<Memory>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) failed: Option<String>,
}

/// What crossed the wire between the proxies of one pair.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Wire {
    pub(crate) handshakes: u64,
    pub(crate) resumed: u64,
    pub(crate) versions: BTreeMap<String, u64>,
    pub(crate) ciphers: BTreeMap<String, u64>,
    pub(crate) groups: BTreeMap<String, u64>,
    pub(crate) plaintext_flows: u64,
}

/// Who was measured.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct PeerFacts {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) about: String,
    pub(crate) wire: Option<Wire>,
    /// By file name.
    pub(crate) configuration: BTreeMap<String, String>,
}

/// Where and when.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) memory_mib: u64,
    pub(crate) descriptors: u64,
    pub(crate) arguments: Vec<String>,
}

/// A whole comparison.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Comparison {
    pub(crate) machine: Machine,
    pub(crate) quick: bool,
    pub(crate) peers: Vec<PeerFacts>,
    /// Who, and why.
    pub(crate) skipped: BTreeMap<String, String>,
    pub(crate) visits: Vec<Visit>,
}

/// One window of the scale measurement.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) round: usize,
    /// What grows: a key of `varied`.
    pub(crate) series: String,
    /// What was done meanwhile.
    pub(crate) load: String,
    pub(crate) at: f64,
    pub(crate) window: Window,
    /// Successful renewals of both sidecars a second, where they are what is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) renewals: Option<f64>,
}

/// A whole scale measurement.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Scale {
    pub(crate) machine: Machine,
    pub(crate) quick: bool,
    pub(crate) version: String,
    /// What was varied, in words, by series.
    pub(crate) varied: BTreeMap<String, String>,
    /// What could not be measured here, and why.
    pub(crate) left_out: Vec<String>,
    pub(crate) points: Vec<Point>,
}
