//! One issue at a time for each host key. Two at once would both sign and both be logged, and only
//! one of them commits: a client that asks and hangs up, over and over, would fill the log.
//!
//! Never: orders replicas (the compare-and-swap does that), or keeps anything of a host that asks
//! for nothing.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as Line, OwnedMutexGuard};

use super::Reason;
use crate::journal::Hex;

/// Requests of one host key at a time, the one under way included: a sidecar has one, and another
/// after each connection that it lost meanwhile.
const MAX_AT_ONCE: usize = 8;

#[derive(Default)]
pub(super) struct Turns {
    hosts: Mutex<HashMap<Hex, Waiting>>,
}

#[derive(Default)]
struct Waiting {
    line: Arc<Line<()>>,
    requests: usize,
}

/// The right to go on, until it is dropped.
pub(super) struct Turn<'a> {
    _held: OwnedMutexGuard<()>,
    _place: Place<'a>,
}

/// A place in the line, also of who gives up waiting.
struct Place<'a> {
    turns: &'a Turns,
    host: Hex,
}

impl Turns {
    /// Waits until no other request of this host is under way.
    pub(super) async fn take(&self, host: &Hex) -> Result<Turn<'_>, Reason> {
        let (line, place) = {
            let mut hosts = self.hosts();
            let waiting = hosts.entry(host.clone()).or_default();
            if waiting.requests >= MAX_AT_ONCE {
                return Err(Reason::Contended);
            }
            waiting.requests += 1;
            (waiting.line.clone(), Place { turns: self, host: host.clone() })
        };
        Ok(Turn { _held: line.lock_owned().await, _place: place })
    }

    // Each change is one addition or removal: a panic leaves nothing half done.
    fn hosts(&self) -> MutexGuard<'_, HashMap<Hex, Waiting>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut hosts = self.turns.hosts();
        if let Some(waiting) = hosts.get_mut(&self.host) {
            waiting.requests -= 1;
            if waiting.requests == 0 {
                hosts.remove(&self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_host_has_one_turn_another_host_its_own_and_the_line_is_bounded() {
        let turns = Turns::default();
        let (one, other) = (Hex(vec![1]), Hex(vec![2]));
        let first = turns.take(&one).await.unwrap();
        turns.take(&other).await.unwrap();
        let waits = async || timeout(Duration::from_millis(1), turns.take(&one)).await.is_err();
        assert!(waits().await && waits().await);
        let line: Vec<_> = (1..MAX_AT_ONCE).map(|_| Box::pin(turns.take(&one))).collect();
        let mut line = futures_util::future::join_all(line);
        assert!(timeout(Duration::from_millis(1), &mut line).await.is_err());
        assert_eq!(turns.take(&one).await.err(), Some(Reason::Contended));
        drop(line);
        drop(first);
        drop(turns.take(&one).await.unwrap());
        assert!(turns.hosts().is_empty(), "nothing is kept");
    }
}
