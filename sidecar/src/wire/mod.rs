//! `myelin/1`: what two sidecars say to each other inside their TLS connection. One TLS connection
//! carries one workload connection (a *use*) at a time and, when a use has ended whole on both
//! sides, the next one. The relay drives these machines: it owns the socket and the TLS state,
//! feeds decrypted bytes in, and sends what it is told.
//!
//! # Frames
//!
//! Four bytes of header (type u8, length u24, big endian) and the payload; header and payload
//! together never exceed 16 384 bytes, so that a frame fits one TLS record.
//!
//! | type | frame | payload | who |
//! |---|---|---|---|
//! | 1 | `hello` | version u16, proof length u16, proof (at most 8 KiB) | both, once, first |
//! | 2 | `open` | use u64 | dialer |
//! | 3 | `accepted` | use u64 | acceptor |
//! | 4 | `refused` | use u64, reason u8 | acceptor |
//! | 5 | `retiring` | last use u64 | acceptor, once |
//! | 6 | `data` | 1 to 16 380 bytes | both |
//! | 7 | `fin` | none | both |
//! | 8 | `reset` | none | both |
//! | 9 | `idle` | none | both |
//!
//! # The life of a use
//!
//! ```text
//!            hello + hello
//!  Greeting ───────────────► Idle ◄───────────────────────────────────────────┐
//!                             │ │ retiring(last)                              │
//!                     open(n) │ └──────────────► Retired ──► close_notify     │
//!                             ▼                     ▲                         │
//!                          Opened ── refused(n) ────┤                         │
//!             (early data     │   ── retiring(n-1) ─┘ (n may be replayed)     │
//!              may follow)    │                                               │
//!                 accepted(n) │                                               │
//!                             ▼       fin + fin       new keys, idle + idle   │
//!                          Running ─────────────► Recycling ──────────────────┘
//!                             │                       │
//!                       reset │                       │ any frame out of order,
//!                             ▼                       ▼ anywhere in this picture
//!                           Reset ──► TCP RST ◄──── Broken
//! ```
//!
//! # The rules
//!
//! - Only the dialer opens. Use numbers start at 1; the only legal next number is the last plus 1.
//!   No `open` is sent before the acceptor's `hello` has been read: its proof is judged first.
//! - What the workload already said may follow `open` at once. The acceptor's machine leaves it in
//!   the driver's read buffer ([`Received::Undecided`]) until the `open` has been answered.
//! - Each side sends `fin` once; after it, it sends no more data. When a side has sent its `fin`
//!   **and** read the peer's, it refreshes its traffic keys, then sends `idle`. When both `idle`s
//!   have passed, the connection may carry the next use.
//! - **A refusal retires the connection.** What the dialer sent before it read the refusal is
//!   discarded by the acceptor, up to [`MAX_DISCARDED`], and never handed out. A refused peer
//!   so gets its next judgement only behind a fresh handshake, and nothing of a refused use can
//!   linger in a pipe that is used again.
//! - `retiring(last)`: the acceptor takes no use above `last`, which is the use at hand or, while
//!   that one is unanswered, the one before it. A use above `last` was never taken and may be
//!   opened elsewhere. Any other use without an answer is never replayed ([`Fate::Unknown`]). An
//!   acceptor says `retiring` before it closes an idle connection.
//! - A `reset`, or a frame out of order, ends the connection with a TCP RST. Frames are judged
//!   whole before a byte of their payload is handed out, and nothing is handed out afterwards.
//!
//! Never: I/O, a clock, async, a buffer of its own, a guess about what a malformed peer meant.

// SPDX-License-Identifier: Apache-2.0

mod acceptor;
mod course;
mod dialer;
mod event;
mod frame;
mod halves;
mod names;
mod refuse;
mod violation;

pub use acceptor::{Acceptor, MAX_DISCARDED};
pub use course::{Budget, Course};
pub use dialer::{Dialer, Fate};
pub use event::{Action, Event, Received};
pub use frame::{
    ALPN, Decoded, Frame, HEADER_LEN, Header, MAX_FRAME, MAX_PAYLOAD, MAX_PROOF, VERSION,
    data_header, decode,
};
pub use names::{Kind, Phase, UseNumber};
pub use refuse::Refuse;
pub use violation::{Misuse, Violation};

/// What a relay needs of either machine, so that one relay serves both directions.
pub trait Side {
    /// Judges the first frame of `input`: decrypted bytes, in order, that were not consumed yet.
    ///
    /// # Errors
    /// A [`Violation`] is final: each later call returns one too. The driver closes with RST.
    fn receive<'a>(&mut self, input: &'a [u8]) -> Result<Received<'a>, Violation>;

    /// What both sides share: phase, what is due, sending data, fin and reset.
    fn course(&self) -> &Course;

    /// The same, to send.
    fn course_mut(&mut self) -> &mut Course;

    /// What the driver must do now, besides moving data.
    fn action(&self) -> Action;
}

#[cfg(test)]
mod tests;
