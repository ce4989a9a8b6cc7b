//! What leaves on a connection: frames are gathered in the record at the end of one buffer, bytes
//! of a workload are read right to where they will be sealed, and one write sends it all:
//! `sealed | open record | free`. Called by `records` alone.
//!
//! Never: a copy of a workload's bytes (those said before an answer came excepted, see `Said`); a
//! frame in two records.

// SPDX-License-Identifier: Apache-2.0

use std::io::IoSliceMut;

use rustls::Error;

use super::carrier::{Framing, LinkError};
use super::seal::{HEADER, Kind, MAX_PLAINTEXT, Sealer, TRAILER};
use super::shelf::{BUFFER, MOST_RECORDS, RECORD, Store};

/// What the kernel sends as one train of segments at most (GSO), less its own headers.
const TRAIN: usize = 65_536 - 320;

/// Records in one train. With whole records in a train, what one wake-up of the receiver finds can
/// be opened at once, and nothing of it has to be kept for the next.
const RECORDS_A_TRAIN: usize = 4;

/// A segment of the least path that IPv4 hosts must take (RFC 791): less is somebody's mistake.
const LEAST_SEGMENT: usize = 536;

/// A record with less room than this takes no further data: it is sealed, and the data begins one
/// of its own.
const LEAST_ROOM: usize = 1024;

#[derive(Debug)]
pub(super) struct Outbox {
    store: Store,
    /// Plaintext of a record of bulk data.
    full: usize,
    /// What the socket has not taken yet begins here.
    begin: usize,
    /// The end of what is sealed, and the beginning of the open record.
    sealed: usize,
    /// The end of the open record's plaintext; equal to `sealed` when none is open.
    end: usize,
}

impl Outbox {
    /// `segment`: what one TCP segment of this path carries.
    pub(super) fn new(segment: usize) -> Self {
        Self { store: Store::Nothing, full: full_record(segment), begin: 0, sealed: 0, end: 0 }
    }

    /// Nothing waits, not even unsealed.
    pub(super) fn is_empty(&self) -> bool {
        self.begin == self.end
    }

    /// Sealed bytes wait for the socket.
    pub(super) fn is_waiting(&self) -> bool {
        self.begin < self.sealed
    }

    /// Appends a control frame, or a piece of a few bytes, to the open record.
    pub(super) fn frame(&mut self, frame: &[u8], sealer: &mut Sealer) -> Result<(), Error> {
        if self.open_length() + frame.len() > MAX_PLAINTEXT {
            self.seal(Kind::Data, sealer)?;
        }
        self.begin_record(frame.len());
        let end = self.end + frame.len();
        self.store.bytes_mut()[self.end..end].copy_from_slice(frame);
        self.end = end;
        Ok(())
    }

    /// A record of its own that is no data.
    pub(super) fn message(
        &mut self,
        kind: Kind,
        message: &[u8],
        sealer: &mut Sealer,
    ) -> Result<(), Error> {
        self.seal(Kind::Data, sealer)?;
        self.begin_record(message.len());
        let end = self.end + message.len();
        self.store.bytes_mut()[self.end..end].copy_from_slice(message);
        self.end = end;
        self.seal(kind, sealer)
    }

    /// Lets `read` fill up to `records` payloads in place, and puts their headers in front. What
    /// was read is sealed but for the last record, which may take a frame more.
    pub(super) fn fill<F: Framing>(
        &mut self,
        records: usize,
        framing: &mut F,
        sealer: &mut Sealer,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> std::io::Result<Option<usize>>,
    ) -> Result<Option<usize>, FillError> {
        if self.open_length() + F::HEAD + LEAST_ROOM > self.full {
            self.seal(Kind::Data, sealer)?;
        }
        let records = records.clamp(1, MOST_RECORDS);
        self.begin_record(F::HEAD + records * RECORD);
        let first = self.full - self.open_length() - F::HEAD;
        let other = self.full - F::HEAD;
        let read = {
            let mut rest = &mut self.store.bytes_mut()[self.end + F::HEAD..];
            let mut areas: [IoSliceMut<'_>; MOST_RECORDS] =
                std::array::from_fn(|_| IoSliceMut::new(&mut []));
            for (index, area) in areas[..records].iter_mut().enumerate() {
                let length = if index == 0 { first } else { other };
                let (room, behind) = rest.split_at_mut(length);
                *area = IoSliceMut::new(room);
                rest = behind.get_mut(TRAILER + HEADER + F::HEAD..).unwrap_or_default();
            }
            read(&mut areas[..records]).map_err(|_| FillError::Stream)?
        };
        let Some(bytes) = read.filter(|bytes| *bytes > 0) else {
            self.forget_empty_record();
            return Ok(read);
        };
        let mut left = bytes;
        let mut room = first;
        loop {
            let length = left.min(room);
            self.head(length, framing)?;
            self.end += length;
            left -= length;
            if left == 0 {
                return Ok(Some(bytes));
            }
            self.seal(Kind::Data, sealer)?;
            self.end = self.sealed + HEADER;
            room = other;
        }
    }

    fn head<F: Framing>(&mut self, length: usize, framing: &mut F) -> Result<(), FillError> {
        let header = framing.header(length).map_err(FillError::Link)?;
        let end = self.end + F::HEAD;
        self.store.bytes_mut()[self.end..end].copy_from_slice(&header[..F::HEAD]);
        self.end = end;
        Ok(())
    }

    /// Seals the open record, if there is one.
    pub(super) fn seal(&mut self, kind: Kind, sealer: &mut Sealer) -> Result<(), Error> {
        if self.end == self.sealed {
            return Ok(());
        }
        if self.end + TRAILER > self.store.bytes().len() {
            // It slept with the record open.
            self.spread(TRAILER);
        }
        let end = self.end + TRAILER;
        let record = &mut self.store.bytes_mut()[self.sealed..end];
        sealer.seal(kind, record)?;
        (self.sealed, self.end) = (end, end);
        Ok(())
    }

    /// What the socket should take now.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.store.bytes()[self.begin..self.sealed]
    }

    /// The socket took this many.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.begin += bytes;
        if self.is_empty() {
            self.store = Store::Nothing;
            (self.begin, self.sealed, self.end) = (0, 0, 0);
        }
    }

    /// Before the connection sleeps: gives the shared buffer back.
    pub(super) fn sleep(&mut self) {
        if self.store.shrink(self.begin, self.end) {
            self.sealed -= self.begin;
            self.end -= self.begin;
            self.begin = 0;
        }
    }

    /// Plaintext in the open record.
    fn open_length(&self) -> usize {
        (self.end - self.sealed).saturating_sub(HEADER)
    }

    /// Opens a record if none is, with room for `bytes` more and the trailer.
    fn begin_record(&mut self, bytes: usize) {
        let needed = self.end + HEADER + bytes + TRAILER;
        let is_shared = matches!(self.store, Store::Shared(_));
        if needed > self.store.bytes().len() || (!is_shared && needed <= BUFFER) {
            self.spread(HEADER + bytes + TRAILER);
        }
        if self.end == self.sealed {
            self.end = self.sealed + HEADER;
        }
    }

    fn spread(&mut self, room: usize) {
        self.store.spread(self.begin, self.end, room);
        self.sealed -= self.begin;
        self.end -= self.begin;
        self.begin = 0;
    }

    fn forget_empty_record(&mut self) {
        if self.end == self.sealed + HEADER {
            self.end = self.sealed;
        }
        if self.is_empty() {
            self.sent(0);
        }
    }
}

/// How much plaintext makes a record that is an even part of a train of segments.
fn full_record(segment: usize) -> usize {
    let segment = segment.clamp(LEAST_SEGMENT, TRAIN);
    let train = TRAIN / segment * segment;
    (train / RECORDS_A_TRAIN - HEADER - TRAILER).min(MAX_PLAINTEXT)
}

/// Why nothing could be taken from a stream.
#[derive(Debug)]
pub(super) enum FillError {
    /// The stream itself broke; a workload's stream has one word for that.
    Stream,
    Link(LinkError),
}

impl From<Error> for FillError {
    fn from(error: Error) -> Self {
        Self::Link(super::records::RecordError::from(error).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_full_records_fill_a_train_of_whole_segments() {
        for segment in [536, 1_220, 1_428, 1_448, 1_460, 8_948] {
            let wire = (full_record(segment) + HEADER + TRAILER) * RECORDS_A_TRAIN;
            assert!(wire <= TRAIN && TRAIN - wire < segment + RECORDS_A_TRAIN, "{segment}: {wire}");
            assert!(wire % segment < RECORDS_A_TRAIN || wire % segment > segment - RECORDS_A_TRAIN);
        }
        for strange in [0, 1, 65_483, usize::MAX] {
            let full = full_record(strange);
            assert!((4_096..=MAX_PLAINTEXT).contains(&full), "{strange}: {full}");
        }
    }
}
