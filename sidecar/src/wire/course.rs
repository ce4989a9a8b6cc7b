//! The course of one mesh connection: what dialer and acceptor share. Holds the state, the
//! budget and the current use; judges hello, data, fin, reset and idle. Called by the two
//! machines, and by the relay through [`Side`](super::Side) to send.
//!
//! Never: opening, accepting, refusing or retiring (each belongs to one of the two machines), or
//! a way out of `Reset` and `Broken`.

// SPDX-License-Identifier: Apache-2.0

use std::num::NonZeroU64;

use super::event::{Event, Received};
use super::frame::{Decoded, Frame, HEADER_LEN, MAX_PROOF, VERSION, data_header, decode};
use super::halves::Halves;
use super::names::{Kind, Phase, UseNumber};
use super::violation::{Misuse, Violation};

/// How much one connection may carry before a fresh handshake replaces it. The ratchet protects
/// past uses from a later theft of keys, not future ones: these bounds do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Uses; 1 means that a connection is never recycled.
    pub max_uses: NonZeroU64,
    /// Payload bytes, both directions together. A running use is not cut when it passes them.
    pub max_bytes: NonZeroU64,
}

/// Which machine this is the course of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Dialer,
    Acceptor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Greeting { sent: bool, read: bool },
    Idle,
    Opened(Halves),
    Running(Halves),
    Discarding { fin_read: bool, bytes: u64 },
    Retired { open_may_cross: bool },
    Reset,
    Broken(Violation),
}

/// Whether `retiring` has been said on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retirement {
    Unsaid,
    /// `open_may_cross`: the dialer could already have sent an `open` when it was said.
    Said {
        open_may_cross: bool,
    },
}

/// See the module's header. The fields are the machines' business.
#[derive(Debug)]
pub struct Course {
    pub(super) role: Role,
    pub(super) state: State,
    pub(super) last: UseNumber,
    pub(super) retirement: Retirement,
    budget: Budget,
    bytes: u64,
    /// The driver ended the connection's life early, by age for instance.
    pub(super) exhausted: bool,
    /// The last use went whole both ways.
    whole: bool,
}

impl Course {
    pub(super) fn new(role: Role, budget: Budget) -> Self {
        Self {
            role,
            state: State::Greeting { sent: false, read: false },
            last: UseNumber::NONE,
            retirement: Retirement::Unsaid,
            budget,
            bytes: 0,
            exhausted: false,
            whole: false,
        }
    }

    /// Where the connection stands.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Greeting { .. } => Phase::Greeting,
            State::Idle => Phase::Idle,
            State::Opened(_) => Phase::Opened,
            State::Running(halves) if halves.is_whole() => Phase::Recycling,
            State::Running(_) => Phase::Running,
            State::Discarding { .. } => Phase::Discarding,
            State::Retired { .. } => Phase::Retired,
            State::Reset => Phase::Reset,
            State::Broken(_) => Phase::Broken,
        }
    }

    /// The last use that was opened, running or not.
    pub fn last_use(&self) -> UseNumber {
        self.last
    }

    /// Payload bytes so far, both directions together.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The budget allows no further use.
    pub fn is_spent(&self) -> bool {
        self.exhausted
            || self.retirement != Retirement::Unsaid
            || self.last.value() >= self.budget.max_uses.get()
            || self.bytes >= self.budget.max_bytes.get()
    }

    /// The acceptor has said that it takes no further use.
    pub fn is_retiring(&self) -> bool {
        self.retirement != Retirement::Unsaid
    }

    /// The last use went whole both ways.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Whether the workload's bytes may be sent now.
    pub fn may_send_data(&self) -> bool {
        match self.state {
            State::Opened(halves) => self.role == Role::Dialer && halves.own_flows(),
            State::Running(halves) => halves.own_flows(),
            _ => false,
        }
    }

    /// Whether the end of the workload's bytes may be sent now.
    pub fn may_send_fin(&self) -> bool {
        self.may_send_data()
    }

    /// Whether the peer may still send data of the use at hand: the driver should read.
    pub fn awaits_data(&self) -> bool {
        matches!(self.state, State::Opened(halves) | State::Running(halves) if halves.peer_flows())
    }

    /// Whether the peer's close_notify is a proper end here: no use would be cut short by it.
    /// `unread` is how many received bytes are not consumed. An end without close_notify never is.
    pub fn eof_is_clean(&self, unread: usize) -> bool {
        match self.state {
            State::Discarding { .. } => true,
            State::Idle | State::Retired { .. } => unread == 0,
            State::Running(halves) => unread == 0 && halves.is_whole(),
            State::Greeting { .. } | State::Opened(_) | State::Reset | State::Broken(_) => false,
        }
    }

    /// Sends our hello, once, first.
    ///
    /// # Errors
    /// A second hello, or a proof longer than `MAX_PROOF`.
    pub fn hello(&mut self, proof: &[u8], out: &mut Vec<u8>) -> Result<(), Misuse> {
        let State::Greeting { sent: false, read } = self.state else {
            return Err(self.misuse("hello"));
        };
        if proof.len() > MAX_PROOF {
            return Err(self.misuse("a hello with a proof longer than 8 KiB"));
        }
        Frame::Hello { version: VERSION, proof }.encode_into(out);
        self.greet(true, read);
        Ok(())
    }

    /// Counts `length` bytes of the workload and returns the header to put in front of them.
    ///
    /// # Errors
    /// Data is not legal now, or no data frame has this length.
    pub fn data(&mut self, length: usize) -> Result<[u8; HEADER_LEN], Misuse> {
        let header = data_header(length).filter(|_| self.may_send_data());
        let header = header.ok_or_else(|| self.misuse("data"))?;
        self.count(length);
        Ok(header)
    }

    /// Sends the end of the workload's bytes.
    ///
    /// # Errors
    /// No use is running, or its fin was sent.
    pub fn fin(&mut self, out: &mut Vec<u8>) -> Result<(), Misuse> {
        let halves = self.halves().filter(|_| self.may_send_fin());
        let next = halves.and_then(Halves::after_sending_fin);
        let next = next.ok_or_else(|| self.misuse("fin"))?;
        Frame::Fin.encode_into(out);
        self.advance(next);
        Ok(())
    }

    /// Gives the use at hand up. What is left to do is to flush and close with RST.
    ///
    /// # Errors
    /// No use is running, or our idle was sent.
    pub fn reset(&mut self, out: &mut Vec<u8>) -> Result<(), Misuse> {
        match self.state {
            State::Opened(halves) | State::Running(halves) if !halves.own_is_idle() => {
                Frame::Reset.encode_into(out);
                self.state = State::Reset;
                Ok(())
            }
            _ => Err(self.misuse("reset")),
        }
    }

    /// The driver has refreshed the traffic keys as `Action::RefreshKeys` asked: sends idle, the
    /// first frame under the new ones.
    ///
    /// # Errors
    /// No refresh was due.
    pub fn keys_refreshed(&mut self, out: &mut Vec<u8>) -> Result<(), Misuse> {
        let next = self.halves().and_then(Halves::after_sending_idle);
        let next = next.ok_or_else(|| self.misuse("idle"))?;
        Frame::Idle.encode_into(out);
        self.advance(next);
        Ok(())
    }

    pub(super) fn misuse(&self, attempted: &'static str) -> Misuse {
        Misuse { attempted, phase: self.phase() }
    }

    pub(super) fn out_of_order(&self, kind: Kind) -> Violation {
        Violation::OutOfOrder { kind, phase: self.phase() }
    }

    /// Decodes the next frame, unless the connection is past delivering anything.
    pub(super) fn decode<'a>(&mut self, input: &'a [u8]) -> Result<Decoded<'a>, Violation> {
        match self.state {
            State::Broken(violation) => Err(violation),
            State::Reset => Err(Violation::AfterEnd { phase: Phase::Reset }),
            _ => decode(input).inspect_err(|violation| self.state = State::Broken(*violation)),
        }
    }

    /// Makes a violation final.
    pub(super) fn conclude<'a>(
        &mut self,
        judged: Result<Event<'a>, Violation>,
        consumed: usize,
    ) -> Result<Received<'a>, Violation> {
        match judged {
            Ok(event) => Ok(Received::Event { event, consumed }),
            Err(violation) => {
                self.state = State::Broken(violation);
                Err(violation)
            }
        }
    }

    /// Judges the frames that mean the same to both sides; any other is out of order.
    pub(super) fn shared<'a>(&mut self, frame: Frame<'a>) -> Result<Event<'a>, Violation> {
        let kind = frame.kind();
        match (frame, self.state) {
            (Frame::Hello { version, proof }, State::Greeting { sent, read: false }) => {
                self.greet(sent, true);
                return Ok(Event::Hello { version: version.min(VERSION), proof });
            }
            (Frame::Data(bytes), State::Running(halves)) if halves.peer_flows() => {
                self.count(bytes.len());
                return Ok(Event::Data { of: self.last, bytes });
            }
            (Frame::Fin, State::Running(halves)) => {
                if let Some(next) = halves.after_reading_fin() {
                    self.advance(next);
                    return Ok(Event::Fin(self.last));
                }
            }
            (Frame::Idle, State::Running(halves)) => {
                if let Some(next) = halves.after_reading_idle() {
                    self.advance(next);
                    return Ok(Event::Idle(self.last));
                }
            }
            (Frame::Reset, State::Opened(halves) | State::Running(halves))
                if !halves.peer_is_idle() =>
            {
                self.state = State::Reset;
                return Ok(Event::Reset(self.last));
            }
            _ => {}
        }
        Err(self.out_of_order(kind))
    }

    /// Begins the next use.
    pub(super) fn begin(&mut self) -> UseNumber {
        self.last = self.last.next();
        self.whole = false;
        self.state = State::Opened(Halves::FLOWING);
        self.last
    }

    /// The use at hand, or none, is all there will be.
    pub(super) fn retired(&mut self) {
        self.state = State::Retired { open_may_cross: false };
    }

    fn greet(&mut self, sent: bool, read: bool) {
        self.state = if sent && read { State::Idle } else { State::Greeting { sent, read } };
    }

    fn halves(&self) -> Option<Halves> {
        match self.state {
            State::Opened(halves) | State::Running(halves) => Some(halves),
            _ => None,
        }
    }

    /// Takes one step of the use at hand; the last one recycles the connection.
    fn advance(&mut self, next: Halves) {
        self.whole = next.is_whole();
        self.state = match (self.state, self.retirement) {
            (State::Opened(_), _) => State::Opened(next),
            _ if !next.is_idle() => State::Running(next),
            (_, Retirement::Unsaid) => State::Idle,
            (_, Retirement::Said { open_may_cross }) => State::Retired { open_may_cross },
        };
    }

    fn count(&mut self, length: usize) {
        self.bytes = self.bytes.saturating_add(length as u64);
    }
}
