//! Who is connected right now, for `admin`. Each worker thread has its own roster and answers
//! questions about it from its own runtime. Called by `Report` and by the worker in `app`.
//!
//! Never: shared between threads; copied unless somebody asks.

// SPDX-License-Identifier: Apache-2.0

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use myelin_identity::id::SpiffeId;
use tokio::time::Instant;

use crate::addr::{OrigDst, PeerAddr};
use crate::metrics::{Direction, Security};

/// All connections of one worker. As many as the door lets in.
#[derive(Clone, Default)]
pub struct Roster {
    rows: Rc<RefCell<HashMap<u64, Rc<Row>>>>,
    next: Rc<Cell<u64>>,
}

/// One connection's row; removed when dropped.
pub struct Entry {
    roster: Roster,
    key: u64,
    row: Rc<Row>,
}

/// What can be said of a running connection.
pub struct Row {
    direction: Direction,
    from: PeerAddr,
    began: Instant,
    to: Cell<Option<OrigDst>>,
    security: Cell<Security>,
    peer: RefCell<Option<SpiffeId>>,
    received: Cell<u64>,
    sent: Cell<u64>,
}

impl Roster {
    pub fn enter(&self, row: Row) -> Entry {
        let key = self.next.get();
        self.next.set(key.wrapping_add(1));
        let row = Rc::new(row);
        self.rows.borrow_mut().insert(key, Rc::clone(&row));
        Entry { roster: self.clone(), key, row }
    }

    /// At most `most` rows, as JSON values, oldest first.
    pub fn list(&self, most: usize) -> Vec<serde_json::Value> {
        let rows = self.rows.borrow();
        let mut keys: Vec<_> = rows.keys().copied().collect();
        keys.sort_unstable();
        keys.iter().take(most).filter_map(|key| rows.get(key)).map(|row| row.show()).collect()
    }
}

impl Entry {
    pub fn row(&self) -> &Row {
        &self.row
    }

    pub fn row_handle(&self) -> Rc<Row> {
        Rc::clone(&self.row)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.roster.rows.borrow_mut().remove(&self.key);
    }
}

impl Row {
    pub fn new(direction: Direction, from: PeerAddr) -> Self {
        Self {
            direction,
            from,
            began: Instant::now(),
            to: Cell::new(None),
            security: Cell::new(Security::Unknown),
            peer: RefCell::new(None),
            received: Cell::new(0),
            sent: Cell::new(0),
        }
    }

    pub fn direction(&self) -> Direction {
        self.direction
    }

    pub fn from(&self) -> PeerAddr {
        self.from
    }

    pub fn destination(&self) -> Option<OrigDst> {
        self.to.get()
    }

    pub fn security(&self) -> Security {
        self.security.get()
    }

    pub fn peer(&self) -> Option<SpiffeId> {
        self.peer.borrow().clone()
    }

    /// Since it was accepted.
    pub fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    pub fn set_destination(&self, to: OrigDst) {
        self.to.set(Some(to));
    }

    pub fn set_security(&self, security: Security) {
        self.security.set(security);
    }

    pub fn set_peer(&self, peer: &SpiffeId) {
        self.peer.replace(Some(peer.clone()));
    }

    pub fn count_received(&self, bytes: usize) {
        self.received.set(self.received.get() + bytes as u64);
    }

    pub fn count_sent(&self, bytes: usize) {
        self.sent.set(self.sent.get() + bytes as u64);
    }

    /// Towards the workload, and from it.
    pub fn bytes(&self) -> (u64, u64) {
        (self.received.get(), self.sent.get())
    }

    fn show(&self) -> serde_json::Value {
        serde_json::json!({
            "direction": self.direction.word(),
            "from": self.from.to_string(),
            "to": self.to.get().map(|to| to.to_string()),
            "security": self.security.get().word(),
            "peer": self.peer.borrow().as_ref().map(SpiffeId::to_string),
            "age_seconds": self.seconds(),
            "received_bytes": self.received.get(),
            "sent_bytes": self.sent.get(),
        })
    }
}
