//! gRPC's C core (and with it Python, C++, Ruby, PHP) names a Unix socket in `:authority` by its
//! path with `%2F` for each slash. That is no authority to Rust's HTTP/2, which would break off the
//! stream with PROTOCOL_ERROR before anybody is asked. Here each `%` of such a value becomes a `-`,
//! in place, as the bytes are read; nobody looks at the value afterwards. Called by `caller`.
//!
//! What is looked for is that one literal, wherever it stands in a block of headers: a caller that
//! writes the same bytes within another field's value, or in padding, has its own `%` changed there.
//!
//! Never: changes a length, or anything but a `%`; reads HPACK; touches a frame that has no headers.

// SPDX-License-Identifier: Apache-2.0

/// `PRI * HTTP/2.0` and what follows, before the first frame (RFC 9113, section 3.4).
const PREFACE: usize = 24;
/// Of a frame (section 4.1): length, type, flags, stream.
const FRAME_HEADER: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
/// The name as a literal of ten octets (RFC 7541, section 5.2): how C core writes it each time.
const NAME: &[u8] = b"\x0a:authority";
/// A length of so much and more goes on in further octets (RFC 7541, section 5.1). The first bit
/// would say that the value is Huffman-coded, which C core never does.
const LONG: u8 = 0x7f;

/// Where in the stream of bytes we are.
#[derive(Debug, Default)]
pub(super) struct Authority {
    place: Place,
    within: Within,
}

#[derive(Debug)]
enum Place {
    /// So many bytes of the preface are still to come.
    Preface(usize),
    Header {
        seen: usize,
        length: usize,
        kind: u8,
    },
    Payload {
        left: usize,
        headers: bool,
    },
}

/// Where in a block of headers.
#[derive(Debug)]
enum Within {
    /// So many bytes of the name were there.
    Name(usize),
    Length,
    /// The value's length, and the shift of its next octet.
    MoreLength(usize, u32),
    Value(usize),
}

impl Default for Place {
    fn default() -> Self {
        Self::Preface(PREFACE)
    }
}

impl Default for Within {
    fn default() -> Self {
        Self::Name(0)
    }
}

impl Authority {
    /// Mends what was just read, wherever the reads were cut.
    pub(super) fn mend(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let taken = match &mut self.place {
                Place::Preface(left) => {
                    let taken = bytes.len().min(*left);
                    *left -= taken;
                    if *left == 0 {
                        self.place = Place::Header { seen: 0, length: 0, kind: 0 };
                    }
                    taken
                }
                Place::Header { seen, length, kind } => {
                    match *seen {
                        0..=2 => *length = *length << 8 | usize::from(bytes[0]),
                        3 => *kind = bytes[0],
                        _ => {}
                    }
                    *seen += 1;
                    if *seen == FRAME_HEADER {
                        let headers = matches!(*kind, HEADERS | CONTINUATION);
                        if *kind == HEADERS {
                            self.within = Within::default();
                        }
                        self.place = Place::Payload { left: *length, headers }.unless_empty();
                    }
                    1
                }
                Place::Payload { left, headers } => {
                    let taken = bytes.len().min(*left);
                    *left -= taken;
                    if *headers {
                        bytes[..taken].iter_mut().for_each(|byte| self.within.step(byte));
                    }
                    let Place::Payload { left, headers } = self.place else { return };
                    self.place = Place::Payload { left, headers }.unless_empty();
                    taken
                }
            };
            bytes = &mut bytes[taken..];
        }
    }
}

impl Place {
    fn unless_empty(self) -> Self {
        match self {
            Self::Payload { left: 0, .. } => Self::Header { seen: 0, length: 0, kind: 0 },
            other => other,
        }
    }
}

impl Within {
    fn step(&mut self, byte: &mut u8) {
        *self = match *self {
            Self::Name(seen) if *byte == NAME[seen] && seen + 1 == NAME.len() => Self::Length,
            Self::Name(seen) if *byte == NAME[seen] => Self::Name(seen + 1),
            // No byte but the first of the name is like the first.
            Self::Name(_) => Self::Name(usize::from(*byte == NAME[0])),
            Self::Length if *byte < LONG => Self::value(usize::from(*byte)),
            Self::Length if *byte == LONG => Self::MoreLength(usize::from(LONG), 0),
            // Huffman-coded: not C core, and none of its percent signs.
            Self::Length => Self::Name(0),
            Self::MoreLength(length, shift) => {
                let more = usize::from(*byte & 0x7f).checked_shl(shift).unwrap_or(0);
                let length = length.saturating_add(more);
                let last = *byte & 0x80 == 0;
                if last { Self::value(length) } else { Self::MoreLength(length, shift + 7) }
            }
            Self::Value(left) => {
                if *byte == b'%' {
                    *byte = b'-';
                }
                Self::value(left - 1)
            }
        };
    }

    fn value(left: usize) -> Self {
        if left == 0 { Self::Name(0) } else { Self::Value(left) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, 4, 0, 0, 0, 1]);
        frame.extend(payload);
        frame
    }

    fn literal(name: &str, value: &str) -> Vec<u8> {
        let mut field = vec![0x40, u8::try_from(name.len()).unwrap()];
        field.extend(name.as_bytes());
        match u8::try_from(value.len()).unwrap() {
            length if length < LONG => field.push(length),
            length => field.extend([LONG, length - LONG]),
        }
        field.extend(value.as_bytes());
        field
    }

    /// As C core begins: preface, settings, one request, its data.
    fn stream(authority: &str) -> Vec<u8> {
        let mut stream = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        stream.extend(frame(4, b""));
        let mut fields = literal(":path", "/a%2Fb");
        fields.extend(literal(":authority", authority));
        fields.extend(literal("x", "%2F"));
        stream.extend(frame(HEADERS, &fields));
        stream.extend(frame(0, &literal(":authority", "%2F")));
        stream
    }

    #[test]
    fn an_authority_is_mended_and_nothing_else_is_however_the_reads_are_cut() {
        for path in ["run%2Fmyelin%2Fworkload%2Fapi.sock".to_owned(), "%2F".repeat(50)] {
            let expected = stream(&path.replace('%', "-"));
            for cut in [1, 2, 3, 7, 40, 10_000] {
                let mut bytes = stream(&path);
                let mut authority = Authority::default();
                bytes.chunks_mut(cut).for_each(|chunk| authority.mend(chunk));
                assert_eq!(bytes, expected, "cut every {cut}");
            }
        }
    }

    #[test]
    fn a_block_that_goes_on_in_another_frame_is_one_block() {
        let field = literal(":authority", "a%2Fb");
        let (one, two) = field.split_at(15);
        let mut bytes = stream("localhost");
        bytes.extend(frame(HEADERS, one));
        bytes.extend(frame(CONTINUATION, two));
        let mut expected = stream("localhost");
        let mended = literal(":authority", "a-2Fb");
        expected.extend(frame(HEADERS, &mended[..15]));
        expected.extend(frame(CONTINUATION, &mended[15..]));
        Authority::default().mend(&mut bytes);
        assert_eq!(bytes, expected);
    }
}
