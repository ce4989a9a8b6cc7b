//! Looks for strings that must not be readable on the wire, in whole frames and across the borders of
//! segments. Called by `analysis`.
//! Never: keeps more of a stream than the longest string minus one byte.

// SPDX-License-Identifier: Apache-2.0

use memchr::memmem::{self, Finder};

/// The strings to look for.
#[derive(Debug)]
pub(crate) struct Canaries {
    finders: Vec<Finder<'static>>,
    /// The longest one's length minus one: what can hang over a border.
    overhang: usize,
}

/// The end of one direction's stream so far.
#[derive(Debug, Default)]
pub(crate) struct Tail(Vec<u8>);

impl Canaries {
    pub(crate) fn new(strings: &[Vec<u8>]) -> Self {
        let overhang = strings.iter().map(Vec::len).max().unwrap_or(0).saturating_sub(1);
        let finders = strings.iter().map(|string| Finder::new(string).into_owned()).collect();
        Self { finders, overhang }
    }

    /// Adds to `hits` (one number a string) what stands in `bytes` alone.
    pub(crate) fn count(&self, bytes: &[u8], hits: &mut [u64]) {
        for (finder, hits) in self.finders.iter().zip(hits) {
            *hits += finder.find_iter(bytes).count() as u64;
        }
    }

    /// As [`Canaries::count`], for bytes that follow what `tail` has seen.
    pub(crate) fn count_stream(&self, tail: &mut Tail, bytes: &[u8], hits: &mut [u64]) {
        self.count(bytes, hits);
        let border = tail.0.len();
        tail.0.extend_from_slice(&bytes[..bytes.len().min(self.overhang)]);
        for (finder, hits) in self.finders.iter().zip(hits) {
            *hits += count_across(&tail.0, border, finder.needle());
        }
        if bytes.len() >= self.overhang {
            tail.0.clear();
            tail.0.extend_from_slice(&bytes[bytes.len() - self.overhang..]);
        } else {
            let surplus = tail.0.len().saturating_sub(self.overhang);
            tail.0.drain(..surplus);
        }
    }
}

impl Tail {
    /// Bytes are missing: what comes does not continue what was.
    pub(crate) fn cut(&mut self) {
        self.0.clear();
    }
}

/// Occurrences that begin before `border` and end after it.
fn count_across(bytes: &[u8], border: usize, needle: &[u8]) -> u64 {
    let from = (border + 1).saturating_sub(needle.len());
    let to = bytes.len().min((border + needle.len()).saturating_sub(1));
    if from >= border || to <= border {
        return 0;
    }
    memmem::find_iter(&bytes[from..to], needle).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count_in_pieces(strings: &[&str], pieces: &[&str]) -> Vec<u64> {
        let strings: Vec<Vec<u8>> = strings.iter().map(|s| s.as_bytes().to_vec()).collect();
        let canaries = Canaries::new(&strings);
        let (mut tail, mut hits) = (Tail::default(), vec![0; strings.len()]);
        for piece in pieces {
            canaries.count_stream(&mut tail, piece.as_bytes(), &mut hits);
        }
        hits
    }

    #[test]
    fn string_is_found_once_however_it_is_cut() {
        let text = "..canary-7..";
        for first in 0..text.len() {
            for second in first..text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(count_in_pieces(&["canary-7", "zz"], &pieces), [1, 0], "{pieces:?}");
            }
        }
        let bytes: Vec<String> = text.chars().map(String::from).collect();
        let bytes: Vec<&str> = bytes.iter().map(String::as_str).collect();
        assert_eq!(count_in_pieces(&["canary-7", "7."], &bytes), [1, 1]);
    }

    #[test]
    fn string_with_a_hole_is_not_found() {
        assert_eq!(count_in_pieces(&["canary"], &["can", "-", "ary"]), [0]);
        let canaries = Canaries::new(&[b"canary".to_vec()]);
        let (mut tail, mut hits) = (Tail::default(), [0]);
        canaries.count_stream(&mut tail, b"can", &mut hits);
        tail.cut();
        canaries.count_stream(&mut tail, b"ary", &mut hits);
        assert_eq!(hits, [0]);
    }
}
