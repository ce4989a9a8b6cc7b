//! Keeps frames, up to a bound, and writes them as a classic pcap file that tshark reads.
//! Called by the capture.
//! Never: leaves out that it is incomplete; the summary says so.

// SPDX-License-Identifier: Apache-2.0

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

/// The classic format's magic number for nanosecond timestamps.
const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;

/// LINKTYPE_ETHERNET.
const LINKTYPE_ETHERNET: u32 = 1;

/// As tcpdump's default: larger than any frame.
const SNAP_LENGTH: u32 = 262_144;

const RECORD_HEADER: usize = 16;

/// How much memory is taken at a time: some sixteen of the largest frames.
const PIECE: usize = 1024 * 1024;

/// Frames in the form in which the file holds them.
#[derive(Debug)]
pub(crate) struct Kept {
    /// In pieces, so that growing never copies what is there while frames wait.
    pieces: Vec<Vec<u8>>,
    bytes: usize,
    limit: usize,
    frames: u64,
    left_out: u64,
}

/// What a written file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcapSummary {
    pub frames: u64,
    /// Frames that were captured but not kept, as the bound was reached.
    pub left_out: u64,
}

impl Kept {
    pub(crate) fn new(limit: usize) -> Self {
        Self { pieces: Vec::new(), bytes: 0, limit, frames: 0, left_out: 0 }
    }

    /// Keeps one frame; `at` is the time since the Unix epoch that the kernel noted.
    pub(crate) fn frame(&mut self, at: Duration, frame: &[u8]) {
        let Ok(length) = u32::try_from(frame.len()) else {
            return;
        };
        let size = RECORD_HEADER + frame.len();
        if self.bytes + size > self.limit {
            self.left_out += 1;
            return;
        }
        self.bytes += size;
        if self.pieces.last().is_none_or(|piece| piece.len() + size > piece.capacity()) {
            self.pieces.push(Vec::with_capacity(PIECE.max(size)));
        }
        let piece = self.pieces.last_mut().expect("a piece was pushed if there was none");
        let seconds = u32::try_from(at.as_secs()).unwrap_or(u32::MAX);
        for number in [seconds, at.subsec_nanos(), length, length] {
            piece.extend(number.to_ne_bytes());
        }
        piece.extend_from_slice(frame);
        self.frames += 1;
    }

    pub(crate) fn write(&self, path: &Path) -> Result<PcapSummary> {
        let doing = || format!("cannot write the capture to {}", path.display());
        let mut file = BufWriter::new(File::create(path).with_context(doing)?);
        file.write_all(&file_header()).with_context(doing)?;
        for piece in &self.pieces {
            file.write_all(piece).with_context(doing)?;
        }
        file.flush().with_context(doing)?;
        Ok(PcapSummary { frames: self.frames, left_out: self.left_out })
    }
}

/// The 24 bytes that a classic pcap file begins with; readers tell the byte order by the magic number.
fn file_header() -> Vec<u8> {
    let mut header = MAGIC_NANOSECONDS.to_ne_bytes().to_vec();
    header.extend(2_u16.to_ne_bytes());
    header.extend(4_u16.to_ne_bytes());
    for number in [0, 0, SNAP_LENGTH, LINKTYPE_ETHERNET] {
        header.extend(number.to_ne_bytes());
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_has_a_header_and_one_record_a_frame() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pcap");
        let mut kept = Kept::new(1000);
        kept.frame(Duration::new(5, 7), b"0123456789abcdef");
        assert_eq!(kept.write(&path).unwrap(), PcapSummary { frames: 1, left_out: 0 });
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 24 + 16 + 16);
        assert_eq!(bytes[..4], MAGIC_NANOSECONDS.to_ne_bytes());
        assert_eq!(bytes[28..32], 7_u32.to_ne_bytes());
    }

    #[test]
    fn frames_beyond_the_bound_are_left_out_and_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pcap");
        let mut kept = Kept::new(40);
        (0..3).for_each(|_| kept.frame(Duration::ZERO, b"0123"));
        assert_eq!(kept.write(&path).unwrap(), PcapSummary { frames: 2, left_out: 1 });
    }
}
