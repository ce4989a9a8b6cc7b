//! Puts the ClientHello together from the TLS records at the front of a connection: one pass over
//! record headers, and one copy only if the hello spans records. Called by `detect` alone.
//!
//! Never: a look beyond the prefix limit, a copy of a hello that is not there whole.

// SPDX-License-Identifier: Apache-2.0

use std::borrow::Cow;

/// The most that is looked at. A post-quantum ClientHello takes about 1.8 kB; sent in one-byte
/// records, six wire bytes each, it takes 11 kB. Nothing that we want to talk to needs more.
pub const PREFIX_LIMIT: usize = 16_384;

/// The record type of handshake messages.
pub(super) const HANDSHAKE: u8 = 22;

/// The high byte of every record version from SSL 3.0 to TLS 1.3.
const VERSION_MAJOR: u8 = 3;
const RECORD_HEADER: usize = 5;
/// RFC 8446, section 5.1: a plaintext record carries at most 2^14 bytes.
const MAX_FRAGMENT: usize = 1 << 14;
const CLIENT_HELLO: u8 = 1;
/// Message type and u24 length.
const MESSAGE_HEADER: usize = 4;

pub(super) enum Gathered<'a> {
    NeedMore {
        need: usize,
    },
    NotTls,
    Malformed(&'static str),
    /// The hello's body, without the message header.
    Hello(Cow<'a, [u8]>),
}

/// Finds the ClientHello at the front of `prefix`.
pub(super) fn gather(prefix: &[u8]) -> Gathered<'_> {
    let window = &prefix[..prefix.len().min(PREFIX_LIMIT)];
    match walk(window) {
        // What would not fit the window can be refused before it has come.
        Gathered::NeedMore { need } if need > PREFIX_LIMIT => {
            Gathered::Malformed("client_hello_too_long")
        }
        other => other,
    }
}

fn walk(window: &[u8]) -> Gathered<'_> {
    // Each of the first two bytes can show that this is no TLS: wait for no more than the next,
    // or a client that says less than a TLS record would be waited for in vain.
    if window.len() < 2 && window.first().is_none_or(|byte| *byte == HANDSHAKE) {
        return Gathered::NeedMore { need: window.len() + 1 };
    }
    let mut message = Message::default();
    let mut rest = window;
    while !rest.is_empty() {
        let (fragment, present) = match record(rest, rest.len() == window.len()) {
            Ok(Some(found)) => found,
            Ok(None) => {
                let used = window.len() - rest.len();
                return need(used + RECORD_HEADER, &message, 1);
            }
            Err(gathered) => return gathered,
        };
        message.see(&rest[RECORD_HEADER..RECORD_HEADER + present]);
        if let Err(word) = message.judge() {
            return Gathered::Malformed(word);
        }
        if message.is_whole() {
            return Gathered::Hello(message.body(window));
        }
        if present < fragment {
            return need(window.len(), &message, 0);
        }
        rest = &rest[RECORD_HEADER + fragment..];
    }
    need(window.len() + RECORD_HEADER, &message, 0)
}

/// What must at least still come: what the message lacks, after `base` bytes of the prefix.
fn need<'a>(base: usize, message: &Message, at_least: usize) -> Gathered<'a> {
    Gathered::NeedMore { need: base + message.lacks().max(at_least) }
}

/// The announced length of the record's fragment and how much of it is there, or `None` if its
/// header is not there whole (every byte of it that is there has been judged).
fn record(bytes: &[u8], is_first: bool) -> Result<Option<(usize, usize)>, Gathered<'static>> {
    let looks_wrong = bytes[0] != HANDSHAKE || bytes.get(1).is_some_and(|b| *b != VERSION_MAJOR);
    if looks_wrong {
        let word = Gathered::Malformed("not_a_handshake_record");
        return Err(if is_first { Gathered::NotTls } else { word });
    }
    let Some(header) = bytes.first_chunk::<RECORD_HEADER>() else {
        return Ok(None);
    };
    let fragment = usize::from(u16::from_be_bytes([header[3], header[4]]));
    match fragment {
        0 => Err(Gathered::Malformed("empty_record")),
        1..=MAX_FRAGMENT => Ok(Some((fragment, fragment.min(bytes.len() - RECORD_HEADER)))),
        _ => Err(Gathered::Malformed("record_too_long")),
    }
}

/// The handshake message so far: its header, its length, and where its first fragment lies.
#[derive(Default)]
struct Message {
    header: [u8; MESSAGE_HEADER],
    /// Bytes of the message seen, header included; may count bytes beyond its end.
    seen: usize,
    records: usize,
}

impl Message {
    fn see(&mut self, fragment: &[u8]) {
        let missing = MESSAGE_HEADER.saturating_sub(self.seen);
        let into = &mut self.header[MESSAGE_HEADER - missing..];
        for (to, from) in into.iter_mut().zip(fragment) {
            *to = *from;
        }
        self.seen += fragment.len();
        self.records += 1;
    }

    fn judge(&self) -> Result<(), &'static str> {
        if self.seen > 0 && self.header[0] != CLIENT_HELLO {
            return Err("not_a_client_hello");
        }
        if self.total().is_some_and(|total| total > PREFIX_LIMIT) {
            return Err("client_hello_too_long");
        }
        Ok(())
    }

    /// Header and body, once the header is there.
    fn total(&self) -> Option<usize> {
        let [_, high, middle, low] = self.header;
        let body = u32::from_be_bytes([0, high, middle, low]) as usize;
        (self.seen >= MESSAGE_HEADER).then_some(MESSAGE_HEADER + body)
    }

    fn is_whole(&self) -> bool {
        self.total().is_some_and(|total| self.seen >= total)
    }

    fn lacks(&self) -> usize {
        self.total().unwrap_or(MESSAGE_HEADER).saturating_sub(self.seen).max(1)
    }

    /// The body: borrowed if one record holds it, else copied together in a second walk over
    /// records that the first walk has judged.
    fn body<'a>(&self, window: &'a [u8]) -> Cow<'a, [u8]> {
        let total = self.total().unwrap_or(MESSAGE_HEADER);
        if self.records == 1 {
            let start = RECORD_HEADER + MESSAGE_HEADER;
            return Cow::Borrowed(window.get(start..RECORD_HEADER + total).unwrap_or_default());
        }
        let mut bytes = Vec::with_capacity(total);
        let mut rest = window;
        while bytes.len() < total {
            let Ok(Some((fragment, present))) = record(rest, false) else { break };
            let wanted = present.min(total - bytes.len());
            bytes.extend_from_slice(&rest[RECORD_HEADER..RECORD_HEADER + wanted]);
            rest = rest.get(RECORD_HEADER + fragment..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
        }
        bytes.drain(..MESSAGE_HEADER.min(bytes.len()));
        Cow::Owned(bytes)
    }
}
