//! Puts one direction of a TCP connection into order. Called by `analysis`.
//! Never: holds more than its bound; what does not come in time becomes a counted gap.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;

/// Bytes that one direction may hold while an earlier segment is missing: Linux' default largest
/// receive window (`net.ipv4.tcp_rmem`) is 6 MiB, so a sender cannot be further ahead of a lost segment.
const MAX_WAITING_BYTES: usize = 6 * 1024 * 1024;

/// What a push yields, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    Bytes(&'a [u8]),
    /// Bytes are missing here for good: the capture lost them, or the bound was reached.
    Gap,
}

/// The order of one direction.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    next: Option<u32>,
    /// Waiting segments by distance from `base`, which never moves: sequence numbers wrap, these do not.
    waiting: BTreeMap<u64, Vec<u8>>,
    waiting_bytes: usize,
    delivered: u64,
}

impl Stream {
    /// Starts at the sequence number of a SYN.
    pub(crate) fn start(&mut self, syn_seq: u32) {
        *self = Self { next: Some(syn_seq.wrapping_add(1)), ..Self::default() };
    }

    pub(crate) fn has_started(&self) -> bool {
        self.next.is_some()
    }

    /// Whether `seq` is the number that the SYN of this very stream had.
    pub(crate) fn began_with(&self, syn_seq: u32) -> bool {
        let delivered = u32::try_from(self.delivered & u64::from(u32::MAX)).unwrap_or(0);
        self.next.map(|next| next.wrapping_sub(delivered)) == Some(syn_seq.wrapping_add(1))
    }

    /// Takes one segment and yields what is in order now. A stream that was never started begins here.
    pub(crate) fn push(&mut self, seq: u32, payload: &[u8], mut yields: impl FnMut(Piece<'_>)) {
        if payload.is_empty() {
            return;
        }
        let next = *self.next.get_or_insert(seq);
        let ahead = seq.wrapping_sub(next).cast_signed();
        if ahead > 0 {
            let place = self.delivered + u64::from(ahead.unsigned_abs());
            self.wait(place, payload);
        } else {
            let known = usize::try_from(ahead.unsigned_abs()).unwrap_or(usize::MAX);
            let Some(fresh) = payload.get(known..).filter(|fresh| !fresh.is_empty()) else {
                return;
            };
            self.advance(fresh.len() as u64);
            yields(Piece::Bytes(fresh));
        }
        self.drain(&mut yields);
        while self.waiting_bytes > MAX_WAITING_BYTES {
            self.leap();
            yields(Piece::Gap);
            self.drain(&mut yields);
        }
    }

    fn wait(&mut self, place: u64, payload: &[u8]) {
        let held = self.waiting.entry(place).or_default();
        if payload.len() > held.len() {
            self.waiting_bytes += payload.len() - held.len();
            *held = payload.to_vec();
        }
    }

    /// Yields the waiting segments that have become the next ones.
    fn drain(&mut self, yields: &mut impl FnMut(Piece<'_>)) {
        while let Some(first) = self.waiting.first_entry() {
            let place = *first.key();
            if place > self.delivered {
                return;
            }
            let bytes = first.remove();
            self.waiting_bytes -= bytes.len();
            let known = usize::try_from(self.delivered - place).unwrap_or(usize::MAX);
            if let Some(fresh) = bytes.get(known..).filter(|fresh| !fresh.is_empty()) {
                self.advance(fresh.len() as u64);
                yields(Piece::Bytes(fresh));
            }
        }
    }

    /// Gives up what is missing before the first waiting segment.
    fn leap(&mut self) {
        if let Some((&place, _)) = self.waiting.first_key_value() {
            self.advance(place - self.delivered);
        }
    }

    fn advance(&mut self, bytes: u64) {
        self.delivered += bytes;
        let step = u32::try_from(bytes & u64::from(u32::MAX)).unwrap_or(0);
        self.next = self.next.map(|next| next.wrapping_add(step));
    }

    /// Whether segments wait behind a hole: at the end of a capture that hole is a gap.
    pub(crate) fn has_hole(&self) -> bool {
        !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the stream yields for these segments; a gap shows as `#`.
    fn read(start: u32, segments: &[(u32, &str)]) -> String {
        let (mut stream, mut out) = (Stream::default(), String::new());
        stream.start(start.wrapping_sub(1));
        for (offset, text) in segments {
            stream.push(start.wrapping_add(*offset), text.as_bytes(), |piece| match piece {
                Piece::Bytes(bytes) => out.push_str(std::str::from_utf8(bytes).unwrap()),
                Piece::Gap => out.push('#'),
            });
        }
        out
    }

    #[test]
    fn segments_are_ordered_and_repeats_dropped() {
        type Table = [(&'static [(u32, &'static str)], &'static str); 6];
        let table: Table = [
            (&[(0, "ab"), (2, "cd")], "abcd"),
            (&[(2, "cd"), (0, "ab")], "abcd"),
            (&[(0, "ab"), (0, "ab"), (2, "c")], "abc"),
            (&[(0, "ab"), (1, "bcd")], "abcd"),
            (&[(4, "ef"), (2, "cde"), (0, "ab")], "abcdef"),
            (&[(2, "c"), (2, "cde"), (0, "ab"), (1, "b")], "abcde"),
        ];
        for (segments, expected) in table {
            for start in [1, u32::MAX - 2] {
                assert_eq!(read(start, segments), expected, "{segments:?} from {start}");
            }
        }
    }

    #[test]
    fn hole_beyond_the_bound_becomes_a_gap() {
        let big = "x".repeat(MAX_WAITING_BYTES + 1);
        let out = read(1, &[(0, "ab"), (5, &big)]);
        assert!(out.starts_with("ab#x"), "{}", &out[..4]);
        assert_eq!(out.len(), 3 + big.len());
    }

    #[test]
    fn syn_of_the_same_stream_is_told_from_a_new_one() {
        let mut stream = Stream::default();
        stream.start(100);
        stream.push(101, b"abc", |_| {});
        assert!(stream.began_with(100));
        assert!(!stream.began_with(104));
    }
}
