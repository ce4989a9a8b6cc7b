//! What is known of each log: the newest state that was proven to continue all before it, and the
//! states that wait to be proven. Pure but for the instants that it is handed. Called by `auditor`.
//!
//! Never: two different roots for one size of one log without saying so.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::proofs::{LogKey, Seen};

/// Logs at once: one for each replica's issuer and one for each root, their successors included.
/// The log that was seen longest ago makes room.
pub(super) const MAX_LOGS: usize = 32;
/// States of one log that wait to be proven. One server round proves them all.
pub(super) const MAX_WAITING: usize = 16;
/// From the first new state to the question, so that one question serves many.
const GATHER: Duration = Duration::from_secs(1);
/// Between two questions about one log: a fleet of ten thousand asks a thousand a second then.
const PAUSE: Duration = Duration::from_secs(10);
/// The longest pause while the server does not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What became of a state that was seen.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// It is the state that is known.
    Known,
    Waits,
    NoRoom,
    /// The log has signed another root for the same size before.
    Contradicts(Box<(Seen, Seen)>),
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    books: HashMap<LogKey, Book>,
    /// Counts what was entered: the order in which logs were seen.
    turn: u64,
}

#[derive(Debug, Default)]
struct Book {
    proven: Option<Seen>,
    waiting: Vec<Seen>,
    /// When the server is asked, while something waits.
    due: Option<Instant>,
    /// No question before this.
    rests_until: Option<Instant>,
    failures: u32,
    last_seen: u64,
}

impl Ledger {
    /// A state that an earlier run has proven.
    pub(super) fn remember(&mut self, seen: Seen) {
        if self.books.len() < MAX_LOGS {
            let log = seen.log.clone();
            self.books.insert(log, Book { proven: Some(seen), ..Book::default() });
        }
    }

    pub(super) fn enter(&mut self, seen: Seen, now: Instant) -> Entered {
        self.turn += 1;
        if !self.books.contains_key(&seen.log) {
            self.make_room();
        }
        let book = self.books.entry(seen.log.clone()).or_default();
        book.last_seen = self.turn;
        let same_size = book.proven.iter().chain(&book.waiting).find(|it| it.size == seen.size);
        if let Some(known) = same_size {
            return match known.root == seen.root {
                true => Entered::Known,
                false => Entered::Contradicts(Box::new((known.clone(), seen))),
            };
        }
        if book.waiting.len() >= MAX_WAITING {
            return Entered::NoRoom;
        }
        book.waiting.push(seen);
        if book.due.is_none() {
            let gathered = now + GATHER;
            book.due = Some(book.rests_until.map_or(gathered, |rest| rest.max(gathered)));
        }
        Entered::Waits
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.books.values().filter_map(|book| book.due).min()
    }

    pub(super) fn due(&self, now: Instant) -> Vec<LogKey> {
        let is_due = |book: &Book| book.due.is_some_and(|due| due <= now);
        self.books.iter().filter(|(_, book)| is_due(book)).map(|(log, _)| log.clone()).collect()
    }

    /// Everything that must be of one history, the proven state first.
    pub(super) fn states(&self, log: &LogKey) -> Vec<Seen> {
        let Some(book) = self.books.get(log) else { return Vec::new() };
        book.proven.iter().chain(&book.waiting).cloned().collect()
    }

    /// `newest` continues all that was known; says how many states that proves.
    pub(super) fn proven(&mut self, newest: Seen) -> usize {
        let Some(book) = self.books.get_mut(&newest.log) else { return 0 };
        let proven = book.waiting.len();
        book.waiting.clear();
        book.proven = Some(newest);
        (book.due, book.failures) = (None, 0);
        book.rests_until = Some(Instant::now() + PAUSE);
        proven
    }

    /// The server could not show it: asked again, later and later.
    pub(super) fn postpone(&mut self, log: &LogKey, now: Instant) -> Duration {
        let Some(book) = self.books.get_mut(log) else { return PAUSE };
        let pause = PAUSE.saturating_mul(1 << book.failures.min(8)).min(LONGEST_PAUSE);
        book.failures = book.failures.saturating_add(1);
        book.due = Some(now + pause);
        pause
    }

    /// Nothing of this log counts any more.
    pub(super) fn drop_log(&mut self, log: &LogKey) {
        self.books.remove(log);
    }

    pub(super) fn proven_states(&self) -> impl Iterator<Item = &Seen> {
        self.books.values().filter_map(|book| book.proven.as_ref())
    }

    fn make_room(&mut self) {
        if self.books.len() < MAX_LOGS {
            return;
        }
        let oldest = self.books.iter().min_by_key(|(_, book)| book.last_seen);
        if let Some(log) = oldest.map(|(log, _)| log.clone()) {
            self.books.remove(&log);
        }
    }
}
