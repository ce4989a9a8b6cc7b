//! Where `outbound` asks who lives at an address: coalesces equal questions, hands them to the
//! directory stream, and writes what the CA answers into `directory::Learned`. Asked on every
//! worker, answered from the stream that `watch` keeps open.
//!
//! Never: decides a route, invents an answer, holds a question longer than its deadline.

// SPDX-License-Identifier: Apache-2.0

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use crate::directory::{Answer as Entry, Learned, MAX_LEARNED};

/// How long a workload's connection may wait for the CA: below the second retransmission of a SYN
/// (3 s), so that a refusal still looks prompt.
pub const ANSWER_WITHIN: Duration = Duration::from_millis(1_500);
/// Questions on their way to the stream; more at one instant means that the stream does not move.
const MAX_QUEUED: usize = 1_024;
/// Places watched on one stream: the CA takes no more, and `Learned` holds no more.
const MAX_WATCHED: usize = MAX_LEARNED;
/// Ports watched on one address: the CA takes no more on one stream.
const MAX_WATCHED_PORTS: usize = 64;

/// One address and port that a workload dialled.
pub(super) type Place = (IpAddr, u16);

/// What came of a question. The answer itself is in `Learned`: route again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The CA has answered, now or earlier on this very stream.
    Learned,
    /// There is no connection to the CA.
    Unreachable,
    /// The CA did not answer within [`ANSWER_WITHIN`].
    Silent,
    /// More is asked than can be watched.
    Busy,
}

/// What is said on the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Watch(Place),
    Forget(Place),
}

/// The asking side of the directory.
pub struct Desk {
    learned: Arc<ArcSwap<Learned>>,
    book: Mutex<Book>,
}

struct Book {
    line: Line,
    watched: HashMap<Place, Watched>,
    /// Counts questions; the lowest number is the oldest place.
    asked: u64,
}

enum Line {
    /// On the way: questions wait for it.
    Connecting,
    Up(mpsc::Sender<Question>),
    Down,
}

struct Watched {
    since: u64,
    /// True once the CA has answered on this stream; dropped when the line goes down.
    answered: watch::Sender<bool>,
}

impl Desk {
    /// `learned` is what `outbound` routes by; only this desk writes it.
    pub fn new(learned: Arc<ArcSwap<Learned>>) -> Arc<Self> {
        let book = Book { line: Line::Connecting, watched: HashMap::new(), asked: 0 };
        Arc::new(Self { learned, book: Mutex::new(book) })
    }

    /// Asks the CA who lives there and waits for its answer, at most [`ANSWER_WITHIN`]; without a
    /// connection to the CA it does not wait at all. Port 0 asks for anybody at that address.
    pub async fn ask(&self, address: IpAddr, port: u16) -> Answer {
        let mut answered = match self.register((address.to_canonical(), port)) {
            Ok(answered) => answered,
            Err(answer) => return answer,
        };
        match timeout(ANSWER_WITHIN, answered.wait_for(|answered| *answered)).await {
            Ok(Ok(_)) => Answer::Learned,
            Ok(Err(_)) => Answer::Unreachable,
            Err(_) => Answer::Silent,
        }
    }

    /// A connection is being made: questions wait for it from now on.
    pub(super) fn connecting(&self) {
        self.book().line = Line::Connecting;
    }

    /// The CA has just answered on another connection, so there will be a line in a moment. True if
    /// that was news.
    pub(super) fn expect_line(&self) -> bool {
        let mut book = self.book();
        let news = matches!(book.line, Line::Down);
        if news {
            book.line = Line::Connecting;
        }
        news
    }

    /// There is no connection and nobody knows for how long: whoever waits is told so.
    pub(super) fn down(&self) {
        let mut book = self.book();
        book.line = Line::Down;
        for watched in book.watched.values_mut() {
            watched.answered = watch::Sender::new(false);
        }
    }

    /// A stream is open: what to ask on it at once (everything watched so far), and what follows.
    pub(super) fn up(&self) -> (Vec<Question>, mpsc::Receiver<Question>) {
        let (sender, receiver) = mpsc::channel(MAX_QUEUED);
        let mut book = self.book();
        book.line = Line::Up(sender);
        for watched in book.watched.values() {
            watched.answered.send_replace(false);
        }
        (book.watched.keys().copied().map(Question::Watch).collect(), receiver)
    }

    /// The CA has spoken about a place. What nobody asked about is not taken.
    pub(super) fn answered(&self, entry: Entry) {
        let (address, Some(port)) = entry.place else { return };
        let place = (address.to_canonical(), port);
        let mut book = self.book();
        if !book.watched.contains_key(&place) {
            return;
        }
        let (next, evicted) = self.learned.load().with([entry]);
        self.learned.store(Arc::new(next));
        for (address, port) in evicted {
            if let Some(port) = port {
                book.forget((address, port));
            }
        }
        if let Some(watched) = book.watched.get(&place) {
            watched.answered.send_replace(true);
        }
    }

    /// Notes the question and passes it on, unless the same is on its way already.
    fn register(&self, place: Place) -> Result<watch::Receiver<bool>, Answer> {
        let mut book = self.book();
        if matches!(book.line, Line::Down) {
            return Err(Answer::Unreachable);
        }
        if let Some(watched) = book.watched.get(&place) {
            return Ok(watched.answered.subscribe());
        }
        self.make_room(&mut book, place.0)?;
        book.say(Question::Watch(place)).map_err(|()| Answer::Busy)?;
        book.asked += 1;
        let (answered, receiver) = watch::channel(false);
        let since = book.asked;
        book.watched.insert(place, Watched { since, answered });
        Ok(receiver)
    }

    /// Forgets the longest watched place where one more would be too many. A scan of ports must not
    /// push out peers: with too many addresses only one at which nobody lives has to go.
    fn make_room(&self, book: &mut Book, address: IpAddr) -> Result<(), Answer> {
        let learned = self.learned.load();
        if book.watched.keys().filter(|(other, _)| *other == address).count() >= MAX_WATCHED_PORTS {
            let oldest = book.oldest(|(other, _)| other == address).ok_or(Answer::Busy)?;
            book.forget(oldest);
            if learned.is_meshed(address) {
                // Nobody watches that port any more, so its next connection has to ask again.
                let unwatched = Entry { place: (address, Some(oldest.1)), resident: None };
                self.learned.store(Arc::new(learned.with([unwatched]).0));
            }
        }
        if book.watched.len() >= MAX_WATCHED {
            let oldest = book.oldest(|(other, _)| !learned.is_meshed(other));
            book.forget(oldest.ok_or(Answer::Busy)?);
        }
        Ok(())
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // A panic elsewhere leaves at worst a question without its answer, which times out.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// While the line is being made nothing is lost: `up` asks for everything watched.
    fn say(&self, question: Question) -> Result<(), ()> {
        match &self.line {
            Line::Up(sender) => sender.try_send(question).map_err(|_| ()),
            Line::Connecting | Line::Down => Ok(()),
        }
    }

    /// Among those that are answered: a question on its way has somebody waiting for it.
    fn oldest(&self, may_go: impl Fn(Place) -> bool) -> Option<Place> {
        self.watched
            .iter()
            .filter(|(place, watched)| *watched.answered.borrow() && may_go(**place))
            .min_by_key(|(_, watched)| watched.since)
            .map(|(place, _)| *place)
    }

    fn forget(&mut self, place: Place) {
        if self.watched.remove(&place).is_some() {
            // Lost on a full queue: the CA then tells us of a place that we pass over.
            let _ = self.say(Question::Forget(place));
        }
    }
}
