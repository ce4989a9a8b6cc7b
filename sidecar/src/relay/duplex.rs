//! One use: a workload's stream and a carrier, both ways at once in one future. Called by
//! `inbound` and `outbound` when the use may begin.
//!
//! The plaintext that rustls has decrypted *is* the buffer towards the workload, and nothing more
//! is read from the peer until it is gone; towards the peer at most `MOST_PENDING` bytes wait. So
//! a side that stalls stalls the other one, and memory does not grow.
//!
//! Never: reads on while the other side is stalled; ends a cut stream cleanly.

// SPDX-License-Identifier: Apache-2.0

use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::carrier::{Carrier, LinkError, Step};
use super::records::{Arrived, RecordError};
use super::scratch;
use crate::wire::Refuse;

/// How many times one poll goes round before it lets the other connections of this core run:
/// 16 rounds of at most four records are 1 MiB, about a quarter of a millisecond of AES.
const ROUNDS_A_POLL: u32 = 16;

/// Most that is kept of what a workload says before the acceptor has answered, so that a use which
/// is handed back can be opened elsewhere: a client's first flight fits many times over, and
/// nothing more is read from the workload until the answer is there.
pub const MOST_SAID: usize = 64 * 1024;

/// Counts bytes as they pass.
pub trait Meter {
    fn to_peer(&self, bytes: usize);
    fn to_workload(&self, bytes: usize);
}

/// The time limits of one use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A use without a byte in either direction for this long (and at most twice) is ended.
    pub idle: Duration,
    /// The acceptor must have answered by then; `None` once it has, or when it is us.
    pub answer: Option<Duration>,
}

/// What the workload said before the acceptor answered. It was metered when it was read.
#[derive(Debug, Default)]
pub struct Said {
    pub bytes: Vec<u8>,
    /// It has said all that it will say.
    pub ended: bool,
}

/// How a use ended. All but `Completed` leave the mesh connection unusable.
#[derive(Debug)]
pub enum Ending<I> {
    /// Both directions ended whole.
    Completed,
    WorkloadReset,
    PeerReset,
    Refused(Refuse),
    /// The acceptor retires and never took this use: it may be opened elsewhere, with these words.
    HandedBack(Said),
    NoAnswer,
    Idle,
    /// The interrupt came first; this is what it said.
    Interrupted(I),
    Broken(LinkError),
}

/// Runs one use to its end. `said` is what the workload said to an acceptor that handed the use
/// back, and goes first. `interrupt` is withdrawn permission or the end of a drain.
pub async fn run<C: Carrier, I>(
    carrier: &mut C,
    workload: &TcpStream,
    meter: &impl Meter,
    limits: Limits,
    said: Said,
    interrupt: impl Future<Output = I>,
) -> Ending<I> {
    let mut duplex = Duplex::new(carrier, workload, meter, limits);
    if let Err(error) = duplex.say_again(said) {
        return Ending::Broken(error);
    }
    let mut interrupt = std::pin::pin!(interrupt);
    let ending = poll_fn(|cx| {
        if let Poll::Ready(ending) = duplex.poll(cx) {
            return Poll::Ready(ending.into_ending());
        }
        interrupt.as_mut().poll(cx).map(Ending::Interrupted)
    })
    .await;
    if !matches!(ending, Ending::Completed | Ending::Refused(_) | Ending::HandedBack(_)) {
        duplex.carrier.send_reset();
        // Leaves if the socket takes it at once; the RST that follows says the same.
        let _ = poll_fn(|cx| Poll::Ready(duplex.carrier.records().poll_flush(cx).is_ready())).await;
    }
    ending
}

/// Why the poll stopped; `Ending` without the interrupt.
enum Stop {
    Completed,
    WorkloadReset,
    PeerReset,
    Refused(Refuse),
    HandedBack(Said),
    NoAnswer,
    Idle,
    Broken(LinkError),
}

impl Stop {
    fn into_ending<I>(self) -> Ending<I> {
        match self {
            Self::Completed => Ending::Completed,
            Self::WorkloadReset => Ending::WorkloadReset,
            Self::PeerReset => Ending::PeerReset,
            Self::Refused(why) => Ending::Refused(why),
            Self::HandedBack(said) => Ending::HandedBack(said),
            Self::NoAnswer => Ending::NoAnswer,
            Self::Idle => Ending::Idle,
            Self::Broken(error) => Ending::Broken(error),
        }
    }
}

impl From<LinkError> for Stop {
    fn from(error: LinkError) -> Self {
        Self::Broken(error)
    }
}

impl From<RecordError> for Stop {
    fn from(error: RecordError) -> Self {
        Self::Broken(error.into())
    }
}

struct Duplex<'a, C, M> {
    carrier: &'a mut C,
    workload: &'a TcpStream,
    meter: &'a M,
    /// Payload in front of the plaintext that the workload has not taken yet.
    undelivered: usize,
    workload_ended: bool,
    peer_ended: bool,
    idle: Duration,
    moved: bool,
    alarm: Pin<Box<Sleep>>,
    /// What the workload said so far; there while the acceptor has not answered.
    unanswered: Option<Said>,
}

impl<'a, C: Carrier, M: Meter> Duplex<'a, C, M> {
    fn new(carrier: &'a mut C, workload: &'a TcpStream, meter: &'a M, limits: Limits) -> Self {
        let first = limits.answer.unwrap_or(limits.idle);
        Self {
            carrier,
            workload,
            meter,
            undelivered: 0,
            workload_ended: false,
            peer_ended: false,
            idle: limits.idle,
            moved: false,
            alarm: Box::pin(tokio::time::sleep(first)),
            unanswered: limits.answer.map(|_| Said::default()),
        }
    }

    /// What was said already goes first. It fits, and is flushed together with what follows.
    fn say_again(&mut self, said: Said) -> Result<(), LinkError> {
        if !said.bytes.is_empty() {
            self.carrier.send(&said.bytes)?;
        }
        if said.ended {
            self.carrier.send_fin()?;
            self.workload_ended = true;
        }
        if self.unanswered.is_some() {
            self.unanswered = Some(said);
        }
        Ok(())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Stop> {
        for _ in 0..ROUNDS_A_POLL {
            match self.round(cx) {
                Err(stop) => return Poll::Ready(stop),
                Ok(true) => self.moved = true,
                Ok(false) => return self.poll_alarm(cx),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Moves what can be moved once each way. `false`: nothing could, and every waker is set.
    fn round(&mut self, cx: &mut Context<'_>) -> Result<bool, Stop> {
        let delivered = self.towards_workload(cx)?;
        let had_room = self.carrier.records().has_room();
        let taken = self.towards_peer(cx)?;
        let flushed = self.carrier.records().poll_flush(cx).map_err(RecordError::Io)?;
        if flushed.is_ready() && !had_room {
            // There is room again, but the workload was not asked in this round, so no waker of its
            // would ever call us.
            return Ok(true);
        }
        if self.workload_ended && self.peer_ended && self.undelivered == 0 && flushed.is_ready() {
            return Err(Stop::Completed);
        }
        Ok(delivered || taken)
    }

    fn towards_workload(&mut self, cx: &mut Context<'_>) -> Result<bool, Stop> {
        if self.undelivered > 0 {
            return self.deliver(cx);
        }
        if !self.carrier.records().chunk().is_empty() {
            let step = self.carrier.step()?;
            return self.take(step);
        }
        if self.peer_ended && self.workload_ended {
            // What follows a whole use is not this use's to read.
            return Ok(false);
        }
        if self.carrier.records().has_clean_end() {
            return if self.peer_ended { Ok(false) } else { self.close_notify() };
        }
        match self.carrier.records().poll_read(cx)? {
            Poll::Ready(Arrived::Progress) => Ok(true),
            Poll::Ready(Arrived::CleanEnd) if self.peer_ended => Ok(false),
            Poll::Ready(Arrived::CleanEnd) => self.close_notify(),
            Poll::Pending => Ok(false),
        }
    }

    fn close_notify(&mut self) -> Result<bool, Stop> {
        let step = self.carrier.peer_closed()?;
        self.take(step)
    }

    fn take(&mut self, step: Step) -> Result<bool, Stop> {
        match step {
            Step::Deliver(bytes) => self.undelivered = bytes,
            Step::PeerFin => {
                self.peer_ended = true;
                // A workload that is gone already shows itself at the next read.
                let _ = SockRef::from(self.workload).shutdown(Shutdown::Write);
            }
            Step::PeerReset => return Err(Stop::PeerReset),
            Step::Accepted => {
                self.unanswered = None;
                self.alarm.as_mut().reset(Instant::now() + self.idle);
            }
            Step::Refused(why) => return Err(Stop::Refused(why)),
            Step::HandedBack => {
                return Err(Stop::HandedBack(self.unanswered.take().unwrap_or_default()));
            }
            Step::Nothing => {}
        }
        Ok(true)
    }

    fn deliver(&mut self, cx: &mut Context<'_>) -> Result<bool, Stop> {
        let records = self.carrier.records();
        let chunk = records.chunk();
        let bytes = &chunk[..self.undelivered.min(chunk.len())];
        match self.workload.try_write(bytes) {
            Ok(written) => {
                self.undelivered -= written;
                records.consume(written);
                self.meter.to_workload(written);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                match self.workload.poll_write_ready(cx) {
                    Poll::Ready(Ok(())) => Ok(true),
                    Poll::Ready(Err(_)) => Err(Stop::WorkloadReset),
                    Poll::Pending => Ok(false),
                }
            }
            Err(_) => Err(Stop::WorkloadReset),
        }
    }

    fn towards_peer(&mut self, cx: &mut Context<'_>) -> Result<bool, Stop> {
        if self.workload_ended || !self.carrier.may_send() || !self.carrier.records().has_room() {
            return Ok(false);
        }
        let most = match &self.unanswered {
            // The answer brings the next round.
            Some(said) if said.bytes.len() >= MOST_SAID => return Ok(false),
            Some(said) => MOST_SAID - said.bytes.len(),
            None => scratch::SCRATCH,
        };
        let read = scratch::with(|buffer| {
            let most = most.min(buffer.len());
            match self.workload.try_read(&mut buffer[..most]) {
                Ok(0) => self.carrier.send_fin().map(|()| Read::End).map_err(Stop::from),
                Ok(bytes) => {
                    self.carrier.send(&buffer[..bytes])?;
                    if let Some(said) = &mut self.unanswered {
                        said.bytes.extend_from_slice(&buffer[..bytes]);
                    }
                    Ok(Read::Bytes(bytes))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Read::Nothing),
                Err(_) => Err(Stop::WorkloadReset),
            }
        })?;
        match read {
            Read::End => {
                self.workload_ended = true;
                if let Some(said) = &mut self.unanswered {
                    said.ended = true;
                }
            }
            Read::Bytes(bytes) => self.meter.to_peer(bytes),
            Read::Nothing => {
                return match self.workload.poll_read_ready(cx) {
                    Poll::Ready(Ok(())) => Ok(true),
                    Poll::Ready(Err(_)) => Err(Stop::WorkloadReset),
                    Poll::Pending => Ok(false),
                };
            }
        }
        Ok(true)
    }

    /// One timer a use, looked at only when it fires: a use that moved since gets another turn.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<Stop> {
        while self.alarm.as_mut().poll(cx).is_ready() {
            if self.unanswered.is_some() {
                return Poll::Ready(Stop::NoAnswer);
            }
            if !std::mem::take(&mut self.moved) {
                return Poll::Ready(Stop::Idle);
            }
            self.alarm.as_mut().reset(Instant::now() + self.idle);
        }
        Poll::Pending
    }
}

enum Read {
    Bytes(usize),
    End,
    Nothing,
}
