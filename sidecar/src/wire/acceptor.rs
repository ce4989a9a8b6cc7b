//! The acceptor's machine: answers each `open`, holds what follows it until the answer is given,
//! and drops what belongs to a use that was not taken. Called by inbound's relay, which judges
//! the peer anew at every `open`.
//!
//! Never: an open of its own, a byte handed out of a use that was not accepted, an answer that
//! policy did not give.

// SPDX-License-Identifier: Apache-2.0

use super::Side;
use super::course::{Budget, Course, Retirement, Role, State};
use super::event::{Action, Event, Received};
use super::frame::{Decoded, Frame};
use super::names::{Kind, UseNumber};
use super::refuse::Refuse;
use super::violation::{Misuse, Violation};

/// How much early data of an untaken use is read and dropped, so that the answer reaches the
/// dialer before a RST would. A dialer sends early only during one round trip: 1 MiB is 10 Gbit/s
/// for 0.8 ms. Beyond it the connection is cut, and the dialer, left without an answer, replays
/// nothing.
pub const MAX_DISCARDED: u64 = 1 << 20;

/// See the module's header.
#[derive(Debug)]
pub struct Acceptor {
    course: Course,
    /// The use at hand was opened past the budget: it can be refused or retired, not accepted.
    past_budget: bool,
}

impl Acceptor {
    /// A machine for a fresh TLS connection. First send [`Course::hello`].
    pub fn new(budget: Budget) -> Self {
        Self { course: Course::new(Role::Acceptor, budget), past_budget: false }
    }

    /// Takes the use that was opened.
    ///
    /// # Errors
    /// No use waits for an answer, or the budget was spent before it was opened.
    pub fn accept(&mut self, out: &mut Vec<u8>) -> Result<UseNumber, Misuse> {
        let State::Opened(halves) = self.course.state else {
            return Err(self.course.misuse("accepted"));
        };
        if self.past_budget {
            return Err(self.course.misuse("accepted past the connection's budget"));
        }
        let number = self.course.last_use();
        Frame::Accepted(number).encode_into(out);
        self.course.state = State::Running(halves);
        Ok(number)
    }

    /// Does not take the use that was opened, and retires the connection.
    ///
    /// # Errors
    /// No use waits for an answer.
    pub fn refuse(&mut self, why: Refuse, out: &mut Vec<u8>) -> Result<UseNumber, Misuse> {
        if !matches!(self.course.state, State::Opened(_)) {
            return Err(self.course.misuse("refused"));
        }
        let number = self.course.last_use();
        Frame::Refused(number, why).encode_into(out);
        self.discard();
        Ok(number)
    }

    /// Takes no further use. A running one goes on; one that waits for an answer is handed back
    /// to the dialer, which may open it elsewhere. Returns the last use that was taken.
    ///
    /// # Errors
    /// It was said before, or the connection has not greeted, or is past its end.
    pub fn retire(&mut self, out: &mut Vec<u8>) -> Result<UseNumber, Misuse> {
        if self.course.retirement != Retirement::Unsaid {
            return Err(self.course.misuse("retiring a second time"));
        }
        let current = self.course.last_use();
        let (last, open_may_cross) = match self.course.state {
            State::Idle => (current, true),
            State::Opened(_) => (UseNumber::new(current.value() - 1), false),
            // Once our idle is out the dialer may be ahead of us with the next open.
            State::Running(halves) => (current, halves.own_is_idle()),
            _ => return Err(self.course.misuse("retiring")),
        };
        Frame::Retiring(last).encode_into(out);
        self.course.retirement = Retirement::Said { open_may_cross };
        match self.course.state {
            State::Idle => self.course.state = State::Retired { open_may_cross },
            State::Opened(_) => self.discard(),
            _ => {}
        }
        Ok(last)
    }

    fn discard(&mut self) {
        self.course.state = State::Discarding { fin_read: false, bytes: 0 };
    }

    fn opened(&mut self, got: UseNumber) -> Result<Event<'static>, Violation> {
        let too_late = match self.course.state {
            State::Idle => false,
            State::Retired { open_may_cross: true } => true,
            _ => return Err(self.course.out_of_order(Kind::Open)),
        };
        let expected = self.course.last_use().next();
        if got != expected {
            return Err(Violation::WrongUse { kind: Kind::Open, got, expected });
        }
        self.past_budget = self.course.is_spent();
        let number = self.course.begin();
        if too_late {
            self.discard();
            return Ok(Event::OpenedTooLate(number));
        }
        Ok(Event::Opened(number))
    }

    /// Frames that the dialer sent before it could know that its use was not taken.
    fn drop_frame(
        &mut self,
        frame: Frame<'_>,
        fin_read: bool,
        bytes: u64,
    ) -> Result<Event<'static>, Violation> {
        match frame {
            Frame::Data(payload) if !fin_read => {
                let bytes = bytes + payload.len() as u64;
                if bytes > MAX_DISCARDED {
                    return Err(Violation::TooMuchDiscarded { limit: MAX_DISCARDED });
                }
                self.course.state = State::Discarding { fin_read, bytes };
                Ok(Event::Discarded)
            }
            Frame::Fin if !fin_read => {
                self.course.state = State::Discarding { fin_read: true, bytes };
                Ok(Event::Discarded)
            }
            Frame::Reset => {
                self.course.state = State::Reset;
                Ok(Event::Reset(self.course.last_use()))
            }
            other => Err(self.course.out_of_order(other.kind())),
        }
    }
}

impl Side for Acceptor {
    fn receive<'a>(&mut self, input: &'a [u8]) -> Result<Received<'a>, Violation> {
        let (frame, consumed) = match self.course.decode(input)? {
            Decoded::Incomplete { need } => return Ok(Received::Incomplete { need }),
            Decoded::Whole { frame, consumed } => (frame, consumed),
        };
        let judged = match (frame, self.course.state) {
            (Frame::Open(number), _) => self.opened(number),
            (Frame::Data(_) | Frame::Fin, State::Opened(_)) => return Ok(Received::Undecided),
            (frame, State::Discarding { fin_read, bytes }) => {
                self.drop_frame(frame, fin_read, bytes)
            }
            (frame, _) => self.course.shared(frame),
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
            State::Idle if self.course.is_spent() => Action::Retire,
            State::Opened(_) if self.past_budget => Action::Retire,
            State::Retired { .. } | State::Discarding { .. } => Action::Close,
            State::Reset | State::Broken(_) => Action::Abort,
            _ => Action::Wait,
        }
    }
}
