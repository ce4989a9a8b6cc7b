//! What has arrived on a connection, from ciphertext to the bytes that a workload gets, all in one
//! buffer: `ready | plain | sealed | free`. A record is opened where it lies; its payload waits
//! there until the workload takes it. Called by `records` alone.
//!
//! Never: a copy, but of what a sleeping connection keeps and of a record that came in two reads; a
//! byte of a record whose tag was not checked.

// SPDX-License-Identifier: Apache-2.0

use std::io::IoSlice;
use std::ops::Range;

use rustls::Error;

use super::seal::{Kind, Opener, record_length};
use super::shelf::{BUFFER, RECORD, Store};

/// Payloads in one write to the workload: as many records as a buffer holds.
pub(super) const MOST_PIECES: usize = BUFFER / RECORD;

#[derive(Debug, Default)]
pub(super) struct Inbox {
    store: Store,
    /// Payload for the workload, in pieces, oldest first.
    ready: [Range<u32>; MOST_PIECES],
    first: usize,
    last: usize,
    /// What is left of the record that was opened last.
    plain: Range<usize>,
    /// Not opened yet.
    sealed: Range<usize>,
}

impl Inbox {
    /// Begins with ciphertext that arrived behind the handshake.
    pub(super) fn new(sealed: &[u8]) -> Self {
        let store = if sealed.is_empty() { Store::Nothing } else { Store::Own(Box::from(sealed)) };
        Self { store, sealed: 0..sealed.len(), ..Self::default() }
    }

    /// The plaintext of one record, or nothing.
    pub(super) fn chunk(&self) -> &[u8] {
        &self.store.bytes()[self.plain.clone()]
    }

    pub(super) fn consume(&mut self, bytes: usize) {
        self.plain.start = (self.plain.start + bytes).min(self.plain.end);
        self.let_go();
    }

    /// Sets the next `bytes` of the plaintext aside for the workload: only after `may_set_aside`.
    pub(super) fn set_aside(&mut self, bytes: usize) {
        let end = self.plain.start + bytes;
        // A buffer is far shorter than 4 GiB.
        self.ready[self.last] = self.plain.start as u32..end as u32;
        self.last += 1;
        self.plain.start = end;
    }

    pub(super) fn has_ready(&self) -> bool {
        self.first < self.last
    }

    pub(super) fn may_set_aside(&self) -> bool {
        self.last < self.ready.len()
    }

    /// The pieces for one write.
    pub(super) fn ready<'a>(&'a self, slices: &mut [IoSlice<'a>; MOST_PIECES]) -> usize {
        let bytes = self.store.bytes();
        let pieces = &self.ready[self.first..self.last];
        for (slice, piece) in slices.iter_mut().zip(pieces) {
            *slice = IoSlice::new(&bytes[piece.start as usize..piece.end as usize]);
        }
        pieces.len()
    }

    /// The workload has taken this many.
    pub(super) fn taken(&mut self, mut bytes: usize) {
        while bytes > 0 && self.has_ready() {
            let piece = &mut self.ready[self.first];
            let part = bytes.min(piece.len());
            piece.start += part as u32;
            bytes -= part;
            if piece.start == piece.end {
                self.first += 1;
            }
        }
        if !self.has_ready() {
            (self.first, self.last) = (0, 0);
            self.let_go();
        }
    }

    /// Gives the buffer back when nothing is left in it: its connection may sleep from here on.
    fn let_go(&mut self) {
        if !self.has_ready() && self.plain.is_empty() && self.sealed.is_empty() {
            self.store = Store::Nothing;
            (self.plain, self.sealed) = (0..0, 0..0);
        }
    }

    /// Opens the next record if it is here whole. Data becomes the plaintext at hand; anything
    /// else is returned as it is.
    pub(super) fn open(&mut self, opener: &mut Opener) -> Result<Option<(Kind, &[u8])>, Error> {
        let sealed = &mut self.store.bytes_mut()[self.sealed.clone()];
        let Some(length) = record_length(sealed)?.filter(|length| *length <= sealed.len()) else {
            return Ok(None);
        };
        let (kind, inner) = opener.open(&mut sealed[..length])?;
        let start = self.sealed.start;
        self.sealed.start += length;
        let inner = start + inner.start..start + inner.end;
        if kind == Kind::Data {
            self.plain = inner.clone();
        }
        Ok(Some((kind, &self.store.bytes()[inner])))
    }

    /// Room for the next read. Only when all plaintext has gone.
    pub(super) fn room(&mut self) -> &mut [u8] {
        debug_assert!(
            !self.has_ready() && self.plain.is_empty(),
            "the reader waits for the writer"
        );
        if self.sealed.is_empty() {
            (self.sealed, self.plain) = (0..0, 0..0);
        }
        let free = self.store.bytes().len() - self.sealed.end;
        if !matches!(self.store, Store::Shared(_)) || free < BUFFER / 2 {
            self.store.spread(self.sealed.start, self.sealed.end, RECORD);
            self.sealed = 0..self.sealed.len();
            self.plain = 0..0;
        }
        &mut self.store.bytes_mut()[self.sealed.end..]
    }

    /// So many bytes were read into the room.
    pub(super) fn arrived(&mut self, bytes: usize) {
        self.sealed.end += bytes;
    }

    /// Before the connection sleeps: gives the shared buffer back.
    pub(super) fn sleep(&mut self) {
        let from = if self.has_ready() {
            self.ready[self.first].start as usize
        } else if self.plain.is_empty() {
            self.sealed.start
        } else {
            self.plain.start
        };
        if !self.store.shrink(from, self.sealed.end) {
            return;
        }
        for piece in &mut self.ready[self.first..self.last] {
            *piece = piece.start - from as u32..piece.end - from as u32;
        }
        let plain_is_empty = self.plain.is_empty();
        self.plain =
            if plain_is_empty { 0..0 } else { self.plain.start - from..self.plain.end - from };
        self.sealed = self.sealed.start - from..self.sealed.end - from;
    }
}
