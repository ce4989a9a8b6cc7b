//! Where `outbound` asks what is behind a service's address: coalesces equal questions, hands them to
//! the stream that `watch` keeps open, and writes what the controller answers into
//! `directory::Services`. Asked on every worker.
//!
//! Never: decides a route, invents an answer, forgets one because the controller is gone, holds a
//! question longer than its deadline.

// SPDX-License-Identifier: Apache-2.0

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use myelin_identity::services::{MAX_ASKED, Said, ServiceAnswer, ServiceQuestion};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::timeout;

use crate::directory::{Services, Told};

/// How long a workload's connection may wait for the controller: as long as for the CA, which is
/// asked at the same time.
pub const ANSWER_WITHIN: Duration = Duration::from_millis(1_500);
/// Questions on their way to the stream; more at one instant means that the stream does not move.
const MAX_QUEUED: usize = 1_024;

/// What came of a question. The answer itself is in the table: route again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// No controller is configured: nothing is behind any address.
    Off,
    /// The controller has answered, now or earlier on this very stream.
    Answered,
    /// There is no connection to a controller.
    Unreachable,
    /// The controller did not answer within [`ANSWER_WITHIN`].
    Silent,
    /// More is asked than can be watched.
    Busy,
}

/// The asking side of the service directory.
pub struct ServiceDesk {
    table: Arc<ArcSwap<Services>>,
    book: Mutex<Book>,
    /// Somebody asks while nobody is connected.
    wanted: Notify,
}

struct Book {
    line: Line,
    /// True once the controller has answered on this stream; replaced when the line goes down.
    watched: HashMap<SocketAddr, watch::Sender<bool>>,
}

enum Line {
    /// No controller is configured.
    Off,
    /// Nobody is connected and nothing is wrong: the first question connects.
    Resting,
    Up(mpsc::Sender<ServiceQuestion>),
    /// The last try failed.
    Down,
}

impl ServiceDesk {
    /// `table` is what `outbound` routes by; only this desk writes it.
    pub fn new(table: Arc<ArcSwap<Services>>, is_on: bool) -> Arc<Self> {
        let line = if is_on { Line::Resting } else { Line::Off };
        let book = Mutex::new(Book { line, watched: HashMap::new() });
        Arc::new(Self { table, book, wanted: Notify::new() })
    }

    /// Asks what is behind an address and waits for the answer, at most [`ANSWER_WITHIN`]; it does
    /// not wait where no controller could be reached.
    pub async fn ask(&self, place: SocketAddr) -> Asked {
        let mut answered = match self.register(place) {
            Ok(answered) => answered,
            Err(why) => return why,
        };
        match timeout(ANSWER_WITHIN, answered.wait_for(|answered| *answered)).await {
            Ok(Ok(_)) => Asked::Answered,
            Ok(Err(_)) => Asked::Unreachable,
            Err(_) => Asked::Silent,
        }
    }

    /// Resolves when somebody asks, or asked while nobody listened.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Whether there is anything to be told about.
    pub(super) fn is_needed(&self) -> bool {
        !self.book().watched.is_empty()
    }

    /// The connection has ended: questions wait for the next one.
    pub(super) fn resting(&self) {
        self.part(Line::Resting);
    }

    /// Nobody could be reached: whoever waits is told so.
    pub(super) fn down(&self) {
        self.part(Line::Down);
    }

    fn part(&self, line: Line) {
        let mut book = self.book();
        let is_down = matches!(line, Line::Down);
        book.line = line;
        for answered in book.watched.values_mut() {
            // Whoever waits on the old one hears that it is gone; the next connection may be quick.
            if is_down || *answered.borrow() {
                *answered = watch::Sender::new(false);
            }
        }
    }

    /// A stream is open: what to ask on it at once (everything watched so far, with what is held of
    /// it), and what follows.
    pub(super) fn up(&self) -> (Vec<ServiceQuestion>, mpsc::Receiver<ServiceQuestion>) {
        let (sender, receiver) = mpsc::channel(MAX_QUEUED);
        let table = self.table.load();
        let mut book = self.book();
        book.line = Line::Up(sender);
        let question = |place: &SocketAddr| {
            let known = table.version(*place);
            ServiceQuestion { place: *place, forget: false, known }
        };
        (book.watched.keys().map(question).collect(), receiver)
    }

    /// The controller has spoken about a place. What nobody asked about is not taken.
    pub(super) fn answered(&self, answer: ServiceAnswer) {
        let ServiceAnswer { place, said, zone } = answer;
        let mut book = self.book();
        if !book.watched.contains_key(&place) {
            return;
        }
        let held = self.table.load();
        let told = match said {
            // Of a state that we have forgotten meanwhile: asked again at the next connection.
            Said::Unchanged(version) if held.version(place) != Some(version) => return,
            // Whoever is elsewhere now needs the endpoints once more, to put them in another order.
            Said::Unchanged(_) if held.zone(place) != zone.as_deref() => {
                // Lost on a full queue: the order is as it was until the service changes.
                let _ = book.say(ServiceQuestion { place, forget: false, known: None });
                None
            }
            Said::Unchanged(_) => None,
            Said::NotAService => Some(Told { place, service: None, zone }),
            Said::Service(version, view) => {
                Some(Told { place, service: Some((version, view)), zone })
            }
        };
        if let Some(told) = told {
            let (next, evicted) = held.with(told);
            self.table.store(Arc::new(next));
            for place in evicted {
                book.forget(place);
            }
        }
        if let Some(answered) = book.watched.get(&place) {
            answered.send_replace(true);
        }
    }

    /// Notes the question and passes it on, unless the same is on its way already.
    fn register(&self, place: SocketAddr) -> Result<watch::Receiver<bool>, Asked> {
        let mut book = self.book();
        match book.line {
            Line::Off => return Err(Asked::Off),
            Line::Down if book.watched.contains_key(&place) => {
                self.wanted.notify_one();
                return Err(Asked::Unreachable);
            }
            Line::Down | Line::Resting | Line::Up(_) => {}
        }
        if !matches!(book.line, Line::Up(_)) {
            self.wanted.notify_one();
        }
        if let Some(answered) = book.watched.get(&place) {
            return Ok(answered.subscribe());
        }
        // What is answered leaves this book with the table; all else is on its way.
        if book.watched.len() >= MAX_ASKED {
            return Err(Asked::Busy);
        }
        let question = ServiceQuestion { place, forget: false, known: None };
        book.say(question).map_err(|()| Asked::Busy)?;
        let (answered, receiver) = watch::channel(false);
        book.watched.insert(place, answered);
        // Asked while it is down, it is watched from the next connection on.
        let is_down = matches!(book.line, Line::Down);
        if is_down { Err(Asked::Unreachable) } else { Ok(receiver) }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // A panic elsewhere leaves at worst a question without its answer, which times out.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// Without a stream nothing is lost: `up` asks for everything watched.
    fn say(&self, question: ServiceQuestion) -> Result<(), ()> {
        match &self.line {
            Line::Up(sender) => sender.try_send(question).map_err(|_| ()),
            Line::Off | Line::Resting | Line::Down => Ok(()),
        }
    }

    fn forget(&mut self, place: SocketAddr) {
        if self.watched.remove(&place).is_some() {
            // Lost on a full queue: the controller then tells us of a place that we pass over.
            let _ = self.say(ServiceQuestion { place, forget: true, known: None });
        }
    }
}
