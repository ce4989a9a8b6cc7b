//! The dialer's machine: opens uses, one after the other, and knows what became of the last one.
//! Called by outbound's relay, which owns the TLS connection.
//!
//! Never: an open before the acceptor's hello, a second use beside the first, a replay of a use
//! that the acceptor may have taken.

// SPDX-License-Identifier: Apache-2.0

use super::Side;
use super::course::{Budget, Course, Retirement, Role, State};
use super::event::{Action, Event, Received};
use super::frame::{Decoded, Frame};
use super::halves::Halves;
use super::names::{Kind, UseNumber};
use super::refuse::Refuse;
use super::violation::{Misuse, Violation};

/// What became of a use, as far as the dialer can know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// No `open` was encoded for it: nobody has heard of it.
    NeverSent,
    /// The acceptor said that it takes no use above an earlier one: it never took this one.
    Replayable,
    /// It was opened and neither accepted, refused nor retired. The workload behind the acceptor
    /// may have seen it, so it is never replayed.
    Unknown,
    /// It was refused, for this reason.
    Refused(Refuse),
    /// It was accepted and has not, or not yet, gone whole both ways.
    Taken,
    /// Both fins have passed.
    Complete,
}

impl Fate {
    /// Whether the same use may be opened on another connection.
    pub const fn may_replay(self) -> bool {
        matches!(self, Self::NeverSent | Self::Replayable)
    }
}

/// See the module's header.
#[derive(Debug)]
pub struct Dialer {
    course: Course,
    /// What the acceptor said about the last use.
    answer: Fate,
}

impl Dialer {
    /// A machine for a fresh TLS connection. First send [`Course::hello`].
    pub fn new(budget: Budget) -> Self {
        Self { course: Course::new(Role::Dialer, budget), answer: Fate::NeverSent }
    }

    /// Whether the next use may be opened now.
    pub fn may_open(&self) -> bool {
        self.course.state == State::Idle && !self.course.is_spent()
    }

    /// Opens the next use. What the workload has said may follow at once.
    ///
    /// # Errors
    /// The connection is not idle, or its budget is spent.
    pub fn open(&mut self, out: &mut Vec<u8>) -> Result<UseNumber, Misuse> {
        if !self.may_open() {
            return Err(self.course.misuse("open"));
        }
        let number = self.course.begin();
        self.answer = Fate::Unknown;
        Frame::Open(number).encode_into(out);
        Ok(number)
    }

    /// Takes no further use, for instance because the connection has reached its age. A running
    /// use is not touched.
    pub fn retire(&mut self) {
        self.course.exhausted = true;
    }

    /// What became of a use of this connection.
    pub fn fate(&self, number: UseNumber) -> Fate {
        if number > self.course.last_use() {
            Fate::NeverSent
        } else if number < self.course.last_use() || self.course.is_whole() {
            // Only a use that went whole makes room for the next.
            Fate::Complete
        } else {
            self.answer
        }
    }

    fn accepted(&mut self, number: UseNumber) -> Result<Event<'static>, Violation> {
        let halves = self.unanswered(Kind::Accepted, number)?;
        self.answer = Fate::Taken;
        self.course.state = State::Running(halves);
        Ok(Event::Accepted(number))
    }

    fn refused(&mut self, number: UseNumber, why: Refuse) -> Result<Event<'static>, Violation> {
        self.unanswered(Kind::Refused, number)?;
        self.answer = Fate::Refused(why);
        self.course.retired();
        Ok(Event::Refused(number, why))
    }

    /// The halves of the use that waits for an answer, if the answer is for that one.
    fn unanswered(&self, kind: Kind, got: UseNumber) -> Result<Halves, Violation> {
        let State::Opened(halves) = self.course.state else {
            return Err(self.course.out_of_order(kind));
        };
        let expected = self.course.last_use();
        if got != expected {
            return Err(Violation::WrongUse { kind, got, expected });
        }
        Ok(halves)
    }

    fn retiring(&mut self, last: UseNumber) -> Result<Event<'static>, Violation> {
        let current = self.course.last_use();
        let wrong = Violation::WrongUse { kind: Kind::Retiring, got: last, expected: current };
        if self.course.retirement != Retirement::Unsaid {
            return Err(self.course.out_of_order(Kind::Retiring));
        }
        match self.course.state {
            State::Opened(_) if last.next() == current => {
                self.answer = Fate::Replayable;
                self.course.retired();
            }
            State::Idle if last == current => self.course.retired(),
            State::Opened(_) | State::Running(_) if last == current => {}
            State::Idle | State::Opened(_) | State::Running(_) => return Err(wrong),
            _ => return Err(self.course.out_of_order(Kind::Retiring)),
        }
        self.course.retirement = Retirement::Said { open_may_cross: false };
        Ok(Event::Retiring(last))
    }
}

impl Side for Dialer {
    fn receive<'a>(&mut self, input: &'a [u8]) -> Result<Received<'a>, Violation> {
        let (frame, consumed) = match self.course.decode(input)? {
            Decoded::Incomplete { need } => return Ok(Received::Incomplete { need }),
            Decoded::Whole { frame, consumed } => (frame, consumed),
        };
        let judged = match frame {
            Frame::Accepted(number) => self.accepted(number),
            Frame::Refused(number, why) => self.refused(number, why),
            Frame::Retiring(last) => self.retiring(last),
            other => self.course.shared(other),
        };
        self.course.conclude(judged, consumed)
    }

    fn course(&self) -> &Course {
        &self.course
    }

    fn course_mut(&mut self) -> &mut Course {
        &mut self.course
    }

    fn action(&self) -> Action {
        match self.course.state {
            State::Running(halves) if halves.refresh_is_due() => Action::RefreshKeys,
            State::Idle if self.course.is_spent() => Action::Close,
            State::Retired { .. } => Action::Close,
            State::Reset | State::Broken(_) => Action::Abort,
            _ => Action::Wait,
        }
    }
}
