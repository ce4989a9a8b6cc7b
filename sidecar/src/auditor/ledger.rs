//! What is known of each log: the newest tree that a server has shown, and the states that wait to
//! be compared with the next. Pure but for the instants that it is handed. Called by `auditor`.
//!
//! Never: two different roots for one size of one log without saying so; a state that is larger than
//! any server shows in the way of those that can be compared.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use myelin_identity::log::Hash;
use tokio::time::Instant;

use crate::proofs::{LogKey, Seen};

/// Logs at once: one for each replica's issuer and one for each root, their successors included.
/// The log that was seen longest ago makes room.
pub(super) const MAX_LOGS: usize = 32;
/// States of one log that wait to be compared: as many new peers as a busy sidecar meets in the
/// pause between two comparisons. 128 notes of 32 logs are some MiB at worst.
pub(super) const MAX_WAITING: usize = 128;
/// Of those, how many one comparison asks about: what its tiles are enough for.
pub(super) const PORTION: usize = 16;
/// Trees that servers have shown, each smaller than the one before, as a server does that has lost
/// something or is replayed: all must fit the next that is larger. One where all is well.
const MAX_TREES: usize = 4;
/// Compared states of one log that are remembered, so that each is asked about once; as many as the
/// judge remembers peers. 40 bytes each.
const MAX_COMPARED: usize = 1024;
/// From the first new state to the question, so that one question serves many.
const GATHER: Duration = Duration::from_secs(1);
/// Between two questions about one log: a fleet of ten thousand asks a thousand a second then.
const PAUSE: Duration = Duration::from_secs(10);
/// The longest pause while the server does not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A log's server shows what was signed within seconds. A state that none shows for so long was
/// signed by somebody else, or the CA has lost it.
const OVERDUE: Duration = Duration::from_secs(3600);

/// What became of a state that was seen.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// It was compared before.
    Known,
    Waits,
    /// It, or a larger one instead of it, was passed over.
    NoRoom,
    /// The log has signed another root for the same size before.
    Contradicts(Box<(Seen, Seen)>),
}

/// What a comparison came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Compared {
    /// So many states that had waited are of the history that the server shows.
    pub(super) consistent: usize,
    /// States were passed over since the last comparison.
    pub(super) missed: bool,
    /// A signed state is larger than what the server shows.
    pub(super) ahead: Option<Ahead>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ahead {
    pub(super) size: u64,
    pub(super) shown: u64,
    pub(super) is_overdue: bool,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    books: HashMap<LogKey, Book>,
    /// Counts what was entered: the order in which logs were seen.
    turn: u64,
}

#[derive(Debug, Default)]
struct Book {
    /// Trees that a server has shown and that no later one has been seen to continue, the largest
    /// first.
    trees: Vec<Seen>,
    waiting: Vec<Seen>,
    compared: HashSet<(u64, Hash)>,
    /// When the server is asked, while something waits.
    due: Option<Instant>,
    /// No question before this.
    rests_until: Option<Instant>,
    failures: u32,
    missed: bool,
    ahead_since: Option<Instant>,
    last_seen: u64,
}

impl Ledger {
    /// A state that an earlier run was shown.
    pub(super) fn remember(&mut self, seen: Seen) {
        if self.books.len() < MAX_LOGS {
            let log = seen.log.clone();
            self.books.insert(log, Book { trees: vec![seen], ..Book::default() });
        }
    }

    pub(super) fn enter(&mut self, seen: Seen, now: Instant) -> Entered {
        self.turn += 1;
        if !self.books.contains_key(&seen.log) {
            self.make_room();
        }
        let book = self.books.entry(seen.log.clone()).or_default();
        book.last_seen = self.turn;
        let entered = book.enter(seen);
        if entered != Entered::Known && !book.waiting.is_empty() {
            let gathered = now + GATHER;
            let soonest = book.rests_until.map_or(gathered, |rest| rest.max(gathered));
            book.due = Some(book.due.map_or(soonest, |due| due.min(soonest)));
        }
        entered
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.books.values().filter_map(|book| book.due).min()
    }

    pub(super) fn due(&self, now: Instant) -> Vec<LogKey> {
        let is_due = |book: &Book| book.due.is_some_and(|due| due <= now);
        self.books.iter().filter(|(_, book)| is_due(book)).map(|(log, _)| log.clone()).collect()
    }

    /// What the next comparison is about: the trees of before, and the smallest states that wait. Whoever
    /// makes up a state that is larger than the log does not keep others from their turn.
    pub(super) fn portion(&self, log: &LogKey) -> Vec<Seen> {
        let Some(book) = self.books.get(log) else { return Vec::new() };
        let mut waiting: Vec<&Seen> = book.waiting.iter().collect();
        waiting.sort_by_key(|seen| seen.size);
        book.trees.iter().chain(waiting.into_iter().take(PORTION)).cloned().collect()
    }

    /// All of `portion` that is no larger than `shown` is of the history of `shown`.
    pub(super) fn compared(&mut self, portion: &[Seen], shown: Seen, now: Instant) -> Compared {
        match self.books.get_mut(&shown.log) {
            Some(book) => book.compared(portion, shown, now),
            None => Compared { consistent: 0, missed: false, ahead: None },
        }
    }

    /// The server could not show it: asked again, later and later.
    pub(super) fn postpone(&mut self, log: &LogKey, now: Instant) -> Duration {
        self.books.get_mut(log).map_or(PAUSE, |book| book.postpone(now))
    }

    /// Nothing of this log counts any more.
    pub(super) fn drop_log(&mut self, log: &LogKey) {
        self.books.remove(log);
    }

    pub(super) fn newest_trees(&self) -> impl Iterator<Item = &Seen> {
        self.books.values().filter_map(|book| book.trees.first())
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

impl Book {
    fn enter(&mut self, seen: Seen) -> Entered {
        let same_size = |it: &&Seen| it.size == seen.size;
        if let Some(known) = self.trees.iter().chain(&self.waiting).find(same_size)
            && known.root != seen.root
        {
            return Entered::Contradicts(Box::new((known.clone(), seen)));
        }
        let is_tree = self.trees.contains(&seen);
        if is_tree || self.compared.contains(&(seen.size, seen.root)) {
            return Entered::Known;
        }
        if self.waiting.iter().any(|it| same_size(&it)) {
            return Entered::Waits;
        }
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push(seen);
            return Entered::Waits;
        }
        self.missed = true;
        // The largest gives way: it may be larger than the log will ever be.
        let largest = self.waiting.iter_mut().max_by_key(|it| it.size);
        if let Some(largest) = largest.filter(|largest| largest.size > seen.size) {
            *largest = seen;
        }
        Entered::NoRoom
    }

    fn compared(&mut self, portion: &[Seen], shown: Seen, now: Instant) -> Compared {
        let size = shown.size;
        let largest = self.trees.iter().chain(&self.waiting).map(|seen| seen.size).max();
        let ahead = largest.filter(|largest| *largest > size).map(|largest| {
            let since = *self.ahead_since.get_or_insert(now);
            Ahead { size: largest, shown: size, is_overdue: now - since >= OVERDUE }
        });
        if ahead.is_none() {
            self.ahead_since = None;
        }
        let before = self.waiting.len();
        self.take_over(portion, shown);
        let consistent = before - self.waiting.len();
        self.failures = 0;
        self.rests_until = Some(now + PAUSE);
        // What is larger than the tree has to wait for it; nothing else waits for that.
        let others = self.waiting.iter().any(|seen| seen.size <= size);
        let pause = if others { PAUSE } else { LONGEST_PAUSE };
        self.due = (!self.waiting.is_empty()).then(|| now + pause);
        Compared { consistent, missed: std::mem::take(&mut self.missed), ahead }
    }

    fn take_over(&mut self, portion: &[Seen], shown: Seen) {
        let fits = |seen: &Seen| seen.size <= shown.size && portion.contains(seen);
        self.trees.retain(|tree| !fits(tree));
        if self.trees.len() >= MAX_TREES {
            return;
        }
        if self.compared.len() + portion.len() > MAX_COMPARED {
            self.compared.clear();
        }
        let fitting = portion.iter().filter(|seen| fits(seen));
        self.compared.extend(fitting.map(|seen| (seen.size, seen.root)));
        self.waiting.retain(|seen| !fits(seen));
        self.trees.push(shown);
    }

    fn postpone(&mut self, now: Instant) -> Duration {
        let pause = PAUSE.saturating_mul(1 << self.failures.min(8)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.due = Some(now + pause);
        self.rests_until = self.due;
        pause
    }
}
