//! One use: a workload's stream and a carrier, both ways at once in one future. Called by
//! `inbound` and `outbound` when the use may begin.
//!
//! The buffer in which records were opened *is* the buffer towards the workload, and nothing more
//! is read from the peer until it is gone; nothing is read from the workload while sealed records
//! wait for the peer's socket. So a side that stalls stalls the other one, and memory does not
//! grow.
//!
//! Never: reads on while the other side is stalled; ends a cut stream cleanly; says a word of the
//! workload twice.

// SPDX-License-Identifier: Apache-2.0

use std::future::poll_fn;
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::bell::Bell;
use super::carrier::{Carrier, MOST_SAID, Said, Step};
use super::ending::{Ending, Limits, Meter, Stop};
use super::records::{Arrived, RecordError};

/// How many times one poll goes round before it lets the other connections of this core run: at
/// most 2 MiB, about half a millisecond.
const ROUNDS_A_POLL: u32 = 4;

/// How much goes to the workload before its own words are looked at: four reads and four writes.
const STEPS_A_ROUND: u32 = 8;

/// A peer that says this much before the workload has spoken is answered without it: it waits for
/// the answer before it says much more (`MOST_SAID`).
const LINGER_BYTES: usize = 16 * 1024;

/// Runs one use to its end. `said` is what the workload said before this carrier was found;
/// `interrupt` is withdrawn permission or the end of a drain.
pub async fn run<C: Carrier, I>(
    carrier: &mut C,
    workload: &TcpStream,
    meter: &impl Meter,
    limits: Limits,
    said: Said,
    // Pinned by the caller: held by value it would lie in this future twice.
    mut interrupt: Pin<&mut impl Future<Output = I>>,
) -> Ending<I> {
    let first = limits.linger.or(limits.answer).unwrap_or(limits.idle);
    let mut alarm = pin!(tokio::time::sleep(first));
    let bell = Bell::new();
    let ringer = Waker::from(Arc::clone(&bell));
    let mut duplex = Duplex::new(carrier, workload, meter, limits);
    // In a statement of its own: what is matched on lies in the future for as long as it is.
    if let Err(stop) = duplex.say_again(said) {
        let ending = duplex.ending(stop);
        return duplex.last_word(ending);
    }
    let ending = poll_fn(|cx| {
        loop {
            if let Poll::Ready(stop) = duplex.poll(cx) {
                return Poll::Ready(duplex.ending(stop));
            }
            // What was waited for has come: from now on the timer is that of idleness, and must be
            // heard anew, rung or not.
            let reset = std::mem::take(&mut duplex.rewind);
            if reset {
                alarm.as_mut().reset(Instant::now() + duplex.idle);
            }
            if !bell.answer(cx.waker()) && !reset {
                return Poll::Pending;
            }
            let mut seldom = Context::from_waker(&ringer);
            let lingered = duplex.lingers;
            if let Poll::Ready(stop) = duplex.poll_alarm(alarm.as_mut(), &mut seldom) {
                return Poll::Ready(duplex.ending(stop));
            }
            if let Poll::Ready(why) = interrupt.as_mut().poll(&mut seldom) {
                return Poll::Ready(Ending::Interrupted(why));
            }
            if lingered == duplex.lingers {
                return Poll::Pending;
            }
        }
    });
    let ending = ending.await;
    duplex.last_word(ending)
}

/// What is left after a round.
enum Round {
    More,
    /// Nothing can be moved, and every waker is set.
    Over,
}

struct Duplex<'a, C, M> {
    carrier: &'a mut C,
    workload: &'a TcpStream,
    meter: &'a M,
    idle: Duration,
    /// Kept while the acceptor has not answered.
    said: Option<Said>,
    /// What follows the bytes that were set aside for the workload.
    after: Option<Step>,
    /// Nobody has told us yet whether the workload has spoken.
    unasked: bool,
    workload_ended: bool,
    peer_ended: bool,
    moved: bool,
    /// Our answer waits for company.
    lingers: bool,
    lingered_bytes: usize,
    /// Our fin is all there is to send, and may leave with what follows the use.
    fin_alone: bool,
    rewind: bool,
}

impl<'a, C: Carrier, M: Meter> Duplex<'a, C, M> {
    fn new(carrier: &'a mut C, workload: &'a TcpStream, meter: &'a M, limits: Limits) -> Self {
        let dials = limits.answer.is_some();
        Self {
            carrier,
            workload,
            meter,
            idle: limits.idle,
            said: dials.then(Said::default),
            after: None,
            unasked: dials,
            workload_ended: false,
            peer_ended: false,
            moved: false,
            lingers: limits.linger.is_some(),
            lingered_bytes: 0,
            fin_alone: false,
            rewind: false,
        }
    }

    fn ending<I>(&mut self, stop: Stop) -> Ending<I> {
        stop.into_ending(|| self.said.take().unwrap_or_default())
    }

    /// The peer learns of an ending that is not clean.
    fn last_word<I>(&mut self, ending: Ending<I>) -> Ending<I> {
        if !matches!(ending, Ending::Completed | Ending::Refused(_) | Ending::HandedBack(_)) {
            self.carrier.send_reset();
            // Leaves if the socket takes it at once; the RST that follows says the same.
            let _ = self.carrier.records().poll_flush(&mut Context::from_waker(Waker::noop()));
        }
        ending
    }

    /// What was said to a carrier that handed the use back.
    fn say_again(&mut self, said: Said) -> Result<(), Stop> {
        let (records, framing) = self.carrier.parts();
        records.say(&said.bytes, framing)?;
        if said.ended {
            self.workload_ended = true;
            self.carrier.send_fin()?;
        }
        if self.said.is_some() {
            self.said = Some(said);
        }
        Ok(())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Stop> {
        for _ in 0..ROUNDS_A_POLL {
            match self.round(cx) {
                Err(stop) => return Poll::Ready(stop),
                Ok(Round::More) => {}
                Ok(Round::Over) => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Moves what can be moved each way, then pushes it out with one write.
    fn round(&mut self, cx: &mut Context<'_>) -> Result<Round, Stop> {
        let mut steps = 0;
        while steps < STEPS_A_ROUND && self.towards_workload(cx)? {
            steps += 1;
        }
        self.moved |= steps > 0;
        let had_room = self.carrier.records().has_room();
        while self.towards_peer(cx)? {
            self.moved = true;
        }
        let delivered = !self.carrier.records().has_ready() && self.after.is_none();
        let is_over = self.workload_ended && self.peer_ended && delivered;
        if is_over && self.fin_alone {
            return Err(Stop::Completed);
        }
        if self.lingers && steps < STEPS_A_ROUND {
            self.carrier.records().rest();
            return Ok(Round::Over);
        }
        let has_room = self.carrier.records().has_room();
        let flushed = self.carrier.records().poll_flush(cx).map_err(RecordError::Io)?;
        if steps == STEPS_A_ROUND || (flushed.is_ready() && !(had_room && has_room)) {
            // There is more, or room again: somebody was not asked to the end in this round, so no
            // waker of that side would ever call us.
            return Ok(Round::More);
        }
        if is_over && flushed.is_ready() {
            return Err(Stop::Completed);
        }
        Ok(Round::Over)
    }

    fn towards_workload(&mut self, cx: &mut Context<'_>) -> Result<bool, Stop> {
        if self.carrier.records().has_ready() {
            return self.deliver(cx);
        }
        if let Some(step) = self.after.take() {
            return self.take(step);
        }
        if !self.carrier.records().chunk().is_empty() {
            return self.gather();
        }
        if self.peer_ended && self.workload_ended {
            // What follows a whole use is not this use's to read.
            return Ok(false);
        }
        if self.carrier.records().has_clean_end() {
            return if self.peer_ended { Ok(false) } else { self.close_notify() };
        }
        match self.carrier.records().poll_read(cx)? {
            Poll::Ready(Arrived::Progress) => self.gather(),
            Poll::Ready(Arrived::CleanEnd) if self.peer_ended => Ok(false),
            Poll::Ready(Arrived::CleanEnd) => self.close_notify(),
            Poll::Pending => Ok(false),
        }
    }

    /// Judges what is here, frame by frame, and sets payload aside until something else comes.
    fn gather(&mut self) -> Result<bool, Stop> {
        loop {
            match self.carrier.step()? {
                Step::Deliver(bytes) => self.carrier.records().set_aside(bytes),
                other if self.carrier.records().has_ready() => {
                    self.after = Some(other);
                    return Ok(true);
                }
                other => return self.take(other),
            }
            let records = self.carrier.records();
            let full = !records.may_set_aside();
            if full || (records.chunk().is_empty() && !records.open_next()?) {
                return Ok(true);
            }
        }
    }

    fn close_notify(&mut self) -> Result<bool, Stop> {
        let step = self.carrier.peer_closed()?;
        self.take(step)
    }

    fn take(&mut self, step: Step) -> Result<bool, Stop> {
        match step {
            Step::PeerFin => {
                self.peer_ended = true;
                // One that has ended its own half is closed as soon as this use is over.
                if !(C::SETTLES && self.workload_ended) {
                    // A workload that is gone already shows itself at the next read.
                    let _ = SockRef::from(self.workload).shutdown(Shutdown::Write);
                }
            }
            Step::PeerReset => return Err(Stop::PeerReset),
            Step::Accepted => {
                self.said = None;
                self.rewind = true;
            }
            Step::Refused(why) => return Err(Stop::Refused(why)),
            Step::HandedBack => return Err(Stop::HandedBack),
            Step::Deliver(_) | Step::Nothing => {}
        }
        Ok(true)
    }

    fn deliver(&mut self, cx: &mut Context<'_>) -> Result<bool, Stop> {
        match self.carrier.records().deliver(self.workload) {
            Ok(Some(written)) => {
                self.meter.to_workload(written);
                self.lingered_bytes += written;
                if self.lingered_bytes > LINGER_BYTES {
                    self.stop_lingering();
                }
                Ok(true)
            }
            Ok(None) => match self.workload.poll_write_ready(cx) {
                Poll::Ready(Ok(())) => Ok(true),
                Poll::Ready(Err(_)) => Err(Stop::WorkloadReset),
                Poll::Pending => Ok(false),
            },
            Err(_) => Err(Stop::WorkloadReset),
        }
    }

    /// Takes what the workload says. `false`: nothing more now, or no room.
    fn towards_peer(&mut self, cx: &mut Context<'_>) -> Result<bool, Stop> {
        if self.workload_ended || !self.carrier.may_send() || !self.carrier.records().has_room() {
            return Ok(false);
        }
        // What a client says first is often there before the runtime has heard of it.
        if !std::mem::take(&mut self.unasked) {
            match self.workload.poll_read_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Err(Stop::WorkloadReset),
                Poll::Pending => return Ok(false),
            }
        }
        let kept = match &mut self.said {
            Some(said) if said.bytes.len() >= MOST_SAID => return Ok(false),
            Some(said) => Some(&mut said.bytes),
            None => None,
        };
        let (records, framing) = self.carrier.parts();
        match records.take_from(self.workload, framing, kept)? {
            Some(0) => {
                self.stop_lingering();
                self.workload_ended = true;
                self.fin_alone = C::SETTLES && self.carrier.records().has_nothing_to_send();
                if let Some(said) = &mut self.said {
                    said.ended = true;
                }
                self.carrier.send_fin()?;
                Ok(true)
            }
            Some(bytes) => {
                self.stop_lingering();
                self.meter.to_peer(bytes);
                Ok(true)
            }
            None => Ok(true),
        }
    }

    fn stop_lingering(&mut self) {
        self.rewind |= std::mem::take(&mut self.lingers);
    }

    /// One timer a use, looked at only when it fires: a use that moved since gets another turn.
    fn poll_alarm(&mut self, mut alarm: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<Stop> {
        while alarm.as_mut().poll(cx).is_ready() {
            if std::mem::take(&mut self.lingers) {
                alarm.as_mut().reset(Instant::now() + self.idle);
                continue;
            }
            if self.said.is_some() {
                return Poll::Ready(Stop::NoAnswer);
            }
            if !std::mem::take(&mut self.moved) {
                return Poll::Ready(Stop::Idle);
            }
            alarm.as_mut().reset(Instant::now() + self.idle);
        }
        Poll::Pending
    }
}
