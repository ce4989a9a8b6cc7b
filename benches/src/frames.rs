//! `myelin/1` in TLS records, both sides in memory: what a request and its answer cost beside the
//! kernel and the runtime. Called by the bench of framing and records.
//!
//! Never: a socket. `Link` owns one, so its few lines around the machines are not measured here;
//! the relay benches measure them.

// SPDX-License-Identifier: Apache-2.0

use std::io::{BufRead as _, IoSlice, Write as _};
use std::num::NonZeroU64;

use myelin_sidecar::wire::{Acceptor, Budget, Dialer, Event, Received, Side};
use rustls::Connection;

use crate::credentials::Sides;
use crate::handshake::{Met, carry, handshake};

/// Benches measure a connection, not how often it is renewed.
pub const ENDLESS: Budget = Budget { max_uses: NonZeroU64::MAX, max_bytes: NonZeroU64::MAX };

const LEGAL: &str = "both machines follow the protocol";

/// Two ends with a use running.
pub struct Frames {
    met: Met,
    dialer: Dialer,
    acceptor: Acceptor,
    flight: Vec<u8>,
}

impl Frames {
    pub fn new() -> Self {
        let (met, _peers) = handshake(&Sides::new(None));
        let mut dialer = Dialer::new(ENDLESS);
        let mut acceptor = Acceptor::new(ENDLESS);
        let mut out = Vec::new();
        dialer.course_mut().hello(&[], &mut out).expect(LEGAL);
        read(&mut acceptor, &out);
        out.clear();
        acceptor.course_mut().hello(&[], &mut out).expect(LEGAL);
        read(&mut dialer, &out);
        out.clear();
        dialer.open(&mut out).expect(LEGAL);
        read(&mut acceptor, &out);
        out.clear();
        acceptor.accept(&mut out).expect(LEGAL);
        read(&mut dialer, &out);
        Self { met, dialer, acceptor, flight: Vec::with_capacity(32 * 1024) }
    }

    /// `payload` there and back, a frame in a record each way.
    pub fn round_trip(&mut self, payload: &[u8]) -> usize {
        let Self { met, dialer, acceptor, flight } = self;
        let there = pass((&mut met.dialer, dialer), (&mut met.acceptor, acceptor), payload, flight);
        let back = pass((&mut met.acceptor, acceptor), (&mut met.dialer, dialer), payload, flight);
        there + back
    }
}

impl Default for Frames {
    fn default() -> Self {
        Self::new()
    }
}

fn pass<A: Side, B: Side>(
    (sender, speaks): (&mut Connection, &mut A),
    (receiver, hears): (&mut Connection, &mut B),
    payload: &[u8],
    flight: &mut Vec<u8>,
) -> usize {
    let header = speaks.course_mut().data(payload.len()).expect(LEGAL);
    let both = [IoSlice::new(&header), IoSlice::new(payload)];
    let written = sender.writer().write_vectored(&both).expect("rustls takes a record");
    debug_assert_eq!(written, header.len() + payload.len(), "a record was not split");
    carry(sender, receiver, flight);
    let chunk = receiver.reader().into_first_chunk().expect("a record has arrived");
    let (bytes, consumed) = read(hears, chunk);
    receiver.reader().consume(consumed);
    bytes
}

/// Judges one whole frame: how many payload bytes it had, and its length.
fn read(machine: &mut impl Side, input: &[u8]) -> (usize, usize) {
    match machine.receive(input).expect(LEGAL) {
        Received::Event { event: Event::Data { bytes, .. }, consumed } => (bytes.len(), consumed),
        Received::Event { consumed, .. } => (0, consumed),
        other => unreachable!("a whole frame is judged, not {other:?}"),
    }
}
