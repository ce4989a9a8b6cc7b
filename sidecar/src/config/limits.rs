//! `[limits]`: bounds that an operator may move, each within a range that has a reason. Called by
//! `config::parse`; the rooms that obey them get them from `app`.
//!
//! Never: an unbounded value, not even by a special number.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use super::error::ConfigError;
use super::section::Section;

/// Bounds of connections and waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In each direction; beyond it a connection waits in the kernel's backlog.
    pub max_connections: u32,
    pub handshake_timeout: Duration,
    pub connect_timeout: Duration,
    /// Without a byte in either direction.
    pub idle_timeout: Duration,
    /// For the first byte on a permissive port.
    pub detect_timeout: Duration,
    /// From SIGTERM to the cut; zero cuts at once.
    pub drain_timeout: Duration,
    /// How long a use may outlive its SVID; zero ends it at once.
    pub max_use_after_expiry: Duration,
    /// Uses of one mesh connection before it is replaced.
    pub max_uses: u32,
    /// Age at which a mesh connection carries no further use.
    pub max_connection_age: Duration,
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Of one mesh connection.
pub(super) const MOST_USES: u32 = 1_000_000;

const TENTH: Duration = Duration::from_millis(100);
const MINUTE: Duration = seconds(60);
const HOUR: Duration = seconds(60 * 60);
const DAY: Duration = seconds(24 * 60 * 60);

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Two sockets each, two directions: 40,000 of a usual file limit of 65,536.
            max_connections: 10_000,
            // Two round trips to the other side of the earth, on a loaded machine.
            handshake_timeout: seconds(10),
            // Three SYNs: the first two retries of Linux come after 1 and 3 s.
            connect_timeout: seconds(5),
            // What databases' connection pools keep open between uses.
            idle_timeout: HOUR,
            // Clients speak within a round trip, or wait for the server.
            detect_timeout: seconds(5),
            // Kubernetes kills 30 s after SIGTERM, systemd after 90 s.
            drain_timeout: seconds(25),
            max_use_after_expiry: HOUR,
            // Fresh ephemeral keys at least this often. A handshake costs both sides about 2 ms of
            // CPU: among a thousand uses that is 2 us each, well below what a use costs itself.
            max_uses: 1_000,
            // A thief of a connection's keys reads its next uses for no longer than this.
            max_connection_age: seconds(10 * 60),
        }
    }
}

pub(super) const KEYS: &[&str] = &[
    "max_connections",
    "handshake_timeout",
    "connect_timeout",
    "idle_timeout",
    "detect_timeout",
    "drain_timeout",
    "max_use_after_expiry",
    "max_uses",
    "max_connection_age",
];

pub(super) fn read(root: &Section<'_>) -> Result<Limits, ConfigError> {
    let section = root.child("limits", KEYS)?;
    let duration = |key, default, range, why| match section.field(key) {
        Some(field) => field.duration(range, why),
        None => Ok(default),
    };
    let number = |key, default: u32, max: u32, why| match section.field(key) {
        Some(field) => {
            let number = field.integer(1..=u64::from(max), why, &default.to_string())?;
            Ok(u32::try_from(number).expect("the range ends within 32 bits"))
        }
        None => Ok(default),
    };
    let preset = Limits::default();
    let wait = TENTH..=MINUTE;
    let answer = "less breaks on a loaded machine, more holds sockets for peers that are gone";
    let idle = "less breaks waiting clients, more keeps dead peers for days";
    let drain = "0s cuts at once; orchestrators wait no longer";
    let expiry = "0s ends uses at once; an SVID lives no longer than a day itself";
    let connections = "two file descriptors each, and Linux allows 1048576 by default";
    let age = "less makes handshakes without end; keys should not live on without end";
    let uses = "1 makes a new connection for every use; keys should not live on without end";
    Ok(Limits {
        max_connections: number("max_connections", preset.max_connections, 250_000, connections)?,
        handshake_timeout: duration(
            "handshake_timeout",
            preset.handshake_timeout,
            wait.clone(),
            answer,
        )?,
        connect_timeout: duration("connect_timeout", preset.connect_timeout, wait.clone(), answer)?,
        idle_timeout: duration("idle_timeout", preset.idle_timeout, seconds(1)..=DAY, idle)?,
        detect_timeout: duration("detect_timeout", preset.detect_timeout, wait, answer)?,
        drain_timeout: duration(
            "drain_timeout",
            preset.drain_timeout,
            Duration::ZERO..=HOUR,
            drain,
        )?,
        max_use_after_expiry: duration(
            "max_use_after_expiry",
            preset.max_use_after_expiry,
            Duration::ZERO..=DAY,
            expiry,
        )?,
        max_uses: number("max_uses", preset.max_uses, MOST_USES, uses)?,
        max_connection_age: duration(
            "max_connection_age",
            preset.max_connection_age,
            seconds(1)..=DAY,
            age,
        )?,
    })
}
