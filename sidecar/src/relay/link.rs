//! A mesh connection that speaks `myelin/1`: records and the use machine together. Called by
//! `inbound` and `outbound` for greeting, opening and settling, and by the duplex in between.
//!
//! Never: a frame that spans two records; a byte of payload outside of the duplex.

// SPDX-License-Identifier: Apache-2.0

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::carrier::{Carrier, LinkError, Step};
use super::outbox::FillError;
use super::records::{Arrived, RecordError, Records};
use crate::wire::{Action, Event, Misuse, Phase, Received, Side};

/// `Link` is generic over the side: `wire::Dialer` or `wire::Acceptor`.
#[derive(Debug)]
pub struct Link<M> {
    pub(super) records: Box<Records>,
    pub(super) machine: M,
    /// Control frames on their way into a record; the longest is a hello.
    out: Vec<u8>,
}

impl<M: Side> Link<M> {
    pub fn new(records: Box<Records>, machine: M) -> Self {
        Self { records, machine, out: Vec::new() }
    }

    pub fn machine(&self) -> &M {
        &self.machine
    }

    pub fn records(&self) -> &Records {
        &self.records
    }

    pub fn into_records(self) -> Records {
        *self.records
    }

    /// Says hello and waits for the peer's, whose proof is handed to `judge`.
    pub async fn greet<R>(
        &mut self,
        proof: &[u8],
        within: Duration,
        judge: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, LinkError> {
        self.control(|machine, out| machine.course_mut().hello(proof, out))?;
        // It is in its record now; a connection rests for minutes and has nothing as long to say.
        self.out = Vec::new();
        let mut judge = Some(judge);
        let heard = self.event(within, |event| match (event, judge.take()) {
            (Event::Hello { proof, .. }, Some(judge)) => Some(judge(proof)),
            _ => None,
        });
        // The machine takes nothing before a hello, so no other event can come first.
        heard.await?.flatten().ok_or(LinkError::EarlyClose)
    }

    /// Writes a control frame of the machine; it leaves with the next flush.
    pub fn control<R>(
        &mut self,
        frame: impl FnOnce(&mut M, &mut Vec<u8>) -> Result<R, Misuse>,
    ) -> Result<R, LinkError> {
        self.out.clear();
        let done = frame(&mut self.machine, &mut self.out)?;
        if !self.out.is_empty() {
            self.records.write(&self.out)?;
        }
        Ok(done)
    }

    /// Appends payload of the use at hand, for drivers that hold it in their hands (the suites' own
    /// peers); the duplex reads a workload right into records instead.
    pub fn send(&mut self, payload: &[u8]) -> Result<(), LinkError> {
        self.records.say(payload, &mut self.machine).map_err(|error| match error {
            FillError::Link(error) => error,
            FillError::Stream => LinkError::EarlyClose,
        })
    }

    /// Flushes, then waits for the next event, which must not be payload. `None` is a clean end.
    pub async fn event<R>(
        &mut self,
        within: Duration,
        take: impl FnOnce(Event<'_>) -> R,
    ) -> Result<Option<R>, LinkError> {
        let mut take = Some(take);
        let next = poll_fn(|cx| self.poll_event(cx, &mut take));
        tokio::time::timeout(within, next).await.unwrap_or(Err(LinkError::Silent(within)))
    }

    /// After both fins: new keys, idle, and the peer's idle. `true` if another use may follow.
    pub async fn settle(&mut self, within: Duration) -> Result<bool, LinkError> {
        loop {
            if self.machine.action() == Action::RefreshKeys {
                self.records.refresh_keys().map_err(RecordError::Tls)?;
                self.control(|machine, out| machine.course_mut().keys_refreshed(out))?;
            }
            match self.machine.course().phase() {
                Phase::Idle => return self.flush().await.map(|()| true),
                Phase::Recycling | Phase::Running => {}
                _ => return Ok(false),
            }
            if self.event(within, |_| ()).await?.is_none() {
                return Ok(false);
            }
        }
    }

    /// Pushes what is pending.
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        Ok(poll_fn(|cx| self.records.poll_flush(cx)).await.map_err(RecordError::Io)?)
    }

    /// Says close_notify and reads to the peer's end, within a deadline: closing on unread bytes
    /// would become a reset, and our last words would be lost with it.
    pub async fn close(&mut self, within: Duration) {
        if self.records.say_close().is_err() {
            return;
        }
        let read_out = async { while let Ok(Some(())) = self.event(within, |_| ()).await {} };
        // The peer that does not let us end well has no claim to a clean end.
        let _ = tokio::time::timeout(within, read_out).await;
    }

    /// Nothing to read, nothing to send, not closed: a use may follow, as far as can be known
    /// without asking the peer.
    pub fn is_quiet(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let event = self.poll_event(&mut cx, &mut Some(|_: Event<'_>| ()));
        event.is_pending() && self.records.is_silent()
    }

    /// Says close_notify as far as the socket takes it at once, and closes. For an idle link, on
    /// which neither side has anything left to lose.
    pub fn part(mut self) {
        // A peer that takes nothing, or is gone, sees the connection's end all the same.
        let _ = self.records.say_close();
        let _ = self.records.poll_flush(&mut Context::from_waker(Waker::noop()));
    }

    fn poll_event<R, F: FnOnce(Event<'_>) -> R>(
        &mut self,
        cx: &mut Context<'_>,
        take: &mut Option<F>,
    ) -> Poll<Result<Option<R>, LinkError>> {
        loop {
            let chunk = self.records.chunk();
            if !chunk.is_empty() {
                let (done, consumed) = match self.machine.receive(chunk)? {
                    Received::Incomplete { .. } => return Poll::Ready(Err(LinkError::SplitFrame)),
                    Received::Undecided => return Poll::Ready(Err(self.undecided())),
                    Received::Event { event, consumed } => {
                        (take.take().map(|take| take(event)), consumed)
                    }
                };
                self.records.consume(consumed);
                return Poll::Ready(Ok(done));
            }
            if self.records.has_clean_end() {
                return Poll::Ready(self.clean_end());
            }
            let flushed = self.records.poll_flush(cx).map_err(RecordError::Io)?;
            match self.records.poll_read(cx)? {
                Poll::Ready(Arrived::Progress | Arrived::CleanEnd) => {}
                Poll::Pending => {
                    // Both are registered by now: whichever comes first wakes us. What the read
                    // itself gave us to say (new keys that the peer asked for) leaves as well.
                    if flushed.is_ready() {
                        let _ = self.records.poll_flush(cx).map_err(RecordError::Io)?;
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    fn clean_end<R>(&self) -> Result<Option<R>, LinkError> {
        if self.machine.course().eof_is_clean(0) { Ok(None) } else { Err(LinkError::EarlyClose) }
    }

    fn undecided(&self) -> LinkError {
        // Only a driver that asks for events while a use waits for its answer comes here.
        let phase = self.machine.course().phase();
        LinkError::Misuse(Misuse { attempted: "reading past an unanswered open", phase })
    }
}

impl<M: Side> Carrier for Link<M> {
    type Framing = M;
    const SETTLES: bool = true;

    fn records(&mut self) -> &mut Records {
        &mut self.records
    }

    fn parts(&mut self) -> (&mut Records, &mut M) {
        (&mut self.records, &mut self.machine)
    }

    fn step(&mut self) -> Result<Step, LinkError> {
        let chunk = self.records.chunk();
        let (event, consumed) = match self.machine.receive(chunk)? {
            Received::Incomplete { .. } => return Err(LinkError::SplitFrame),
            Received::Undecided => return Err(self.undecided()),
            Received::Event { event, consumed } => (event, consumed),
        };
        let (skip, step) = match event {
            Event::Data { bytes, .. } => {
                let length = bytes.len();
                (consumed - length, Step::Deliver(length))
            }
            Event::Fin(_) => (consumed, Step::PeerFin),
            Event::Reset(_) => (consumed, Step::PeerReset),
            Event::Accepted(_) => (consumed, Step::Accepted),
            Event::Refused(_, why) => (consumed, Step::Refused(why)),
            Event::Retiring(_) if self.machine.course().phase() == Phase::Retired => {
                (consumed, Step::HandedBack)
            }
            _ => (consumed, Step::Nothing),
        };
        self.records.consume(skip);
        Ok(step)
    }

    fn send_fin(&mut self) -> Result<(), LinkError> {
        self.control(|machine, out| machine.course_mut().fin(out))
    }

    fn send_reset(&mut self) {
        // If the machine has nothing left to give up, the RST alone says it.
        let _ = self.control(|machine, out| machine.course_mut().reset(out));
    }

    fn may_send(&self) -> bool {
        self.machine.course().may_send_data()
    }

    fn peer_closed(&mut self) -> Result<Step, LinkError> {
        match self.machine.course().phase() {
            Phase::Recycling => Ok(Step::Nothing),
            _ => Err(LinkError::EarlyClose),
        }
    }
}
