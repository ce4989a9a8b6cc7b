//! Reads one direction of a connection as TLS records: their types, and what the hellos say in clear.
//! Called by `analysis`.
//! Never: decrypts anything, and never holds more than one hello.

// SPDX-License-Identifier: Apache-2.0

use super::hello::{self, Hello};

/// RFC 8446 section 5.1: the record header is type, legacy version, length.
const HEADER: usize = 5;

/// RFC 5246 section 6.2.3: a TLS 1.2 record may be 2^14 + 2048 long; TLS 1.3 allows less.
const MAX_RECORD: usize = (1 << 14) + 2048;

/// A hello with post-quantum shares and a large ticket stays under 4 KiB; beyond this it is not looked at.
const MAX_HELLO: usize = 16 * 1024;

/// RFC 8446 section 5.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ContentType {
    ChangeCipherSpec,
    Alert,
    Handshake,
    ApplicationData,
}

impl ContentType {
    pub fn name(self) -> &'static str {
        match self {
            Self::ChangeCipherSpec => "change_cipher_spec",
            Self::Alert => "alert",
            Self::Handshake => "handshake",
            Self::ApplicationData => "application_data",
        }
    }

    fn parse(byte: u8) -> Option<Self> {
        match byte {
            20 => Some(Self::ChangeCipherSpec),
            21 => Some(Self::Alert),
            22 => Some(Self::Handshake),
            23 => Some(Self::ApplicationData),
            _ => None,
        }
    }
}

/// What was noticed while reading.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    Record(ContentType),
    Hello(Hello),
}

/// How one direction reads so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Reading {
    /// No byte was seen.
    #[default]
    Empty,
    /// All bytes so far are TLS records.
    Records,
    /// Some byte was not what a TLS record has in its place.
    NotTls,
    /// Bytes are missing: from there on nothing can be said.
    Lost,
}

/// The reader of one direction.
#[derive(Debug, Default)]
pub(crate) struct Records {
    reading: Reading,
    header: Vec<u8>,
    /// What is left of the current record.
    left: usize,
    current: Option<ContentType>,
    /// Handshake bytes of the hello that is being collected; `None` once there is nothing to collect.
    hello: Hellos,
}

/// The hellos of one direction come first and in clear.
#[derive(Debug)]
enum Hellos {
    Collect(Vec<u8>),
    Done,
}

impl Default for Hellos {
    fn default() -> Self {
        Self::Collect(Vec::new())
    }
}

impl Records {
    pub(crate) fn reading(&self) -> Reading {
        self.reading
    }

    /// Bytes are missing here.
    pub(crate) fn lose(&mut self) {
        if self.reading != Reading::NotTls {
            self.reading = Reading::Lost;
        }
    }

    /// Reads the next bytes of the direction.
    pub(crate) fn read(&mut self, mut bytes: &[u8], mut notice: impl FnMut(Sight)) {
        if bytes.is_empty() || matches!(self.reading, Reading::NotTls | Reading::Lost) {
            return;
        }
        self.reading = Reading::Records;
        while !bytes.is_empty() {
            if self.left > 0 {
                let (body, rest) = bytes.split_at(self.left.min(bytes.len()));
                self.left -= body.len();
                bytes = rest;
                self.collect(body, &mut notice);
                continue;
            }
            let wanted = (HEADER - self.header.len()).min(bytes.len());
            self.header.extend_from_slice(&bytes[..wanted]);
            bytes = &bytes[wanted..];
            if !header_may_be_tls(&self.header) {
                self.reading = Reading::NotTls;
                return;
            }
            if let &[kind, _, _, high, low] = self.header.as_slice() {
                self.header.clear();
                self.left = usize::from(u16::from_be_bytes([high, low]));
                self.current = ContentType::parse(kind);
                self.current.into_iter().for_each(|kind| notice(Sight::Record(kind)));
            }
        }
    }

    fn collect(&mut self, body: &[u8], notice: &mut impl FnMut(Sight)) {
        match self.current {
            Some(ContentType::Handshake) => {}
            // From here on everything is encrypted: no more hellos in this direction.
            Some(ContentType::ApplicationData) => {
                self.hello = Hellos::Done;
                return;
            }
            _ => return,
        }
        let Hellos::Collect(held) = &mut self.hello else {
            return;
        };
        held.extend_from_slice(body);
        while let Some(length) = hello::message_length(held) {
            if held.len() < length {
                break;
            }
            let message: Vec<u8> = held.drain(..length).collect();
            if let Some(hello) = hello::read(&message) {
                notice(Sight::Hello(hello));
            }
        }
        if held.len() > MAX_HELLO {
            self.hello = Hellos::Done;
        }
    }
}

/// Judges as much of a record header as there is: the first byte of plaintext gives itself away.
fn header_may_be_tls(header: &[u8]) -> bool {
    let kind = header.first().is_none_or(|&byte| ContentType::parse(byte).is_some());
    let major = header.get(1).is_none_or(|&byte| byte == 3);
    let minor = header.get(2).is_none_or(|&byte| (1..=3).contains(&byte));
    let length = match header {
        &[kind, _, _, high, low] => {
            let length = usize::from(u16::from_be_bytes([high, low]));
            // Empty fragments are allowed for application data alone (RFC 8446 section 5.1).
            length <= MAX_RECORD && (length > 0 || kind == 23)
        }
        _ => true,
    };
    kind && major && minor && length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> (Reading, Vec<Sight>) {
        let (mut records, mut sights) = (Records::default(), Vec::new());
        for piece in pieces {
            records.read(piece, |sight| sights.push(sight));
        }
        (records.reading(), sights)
    }

    #[test]
    fn records_are_read_however_they_are_cut() {
        let mut bytes = vec![20, 3, 3, 0, 1, 1];
        bytes.extend([23, 3, 3, 0, 3, 9, 9, 9, 21, 3, 3, 0, 2, 1, 0]);
        let expected = [
            Sight::Record(ContentType::ChangeCipherSpec),
            Sight::Record(ContentType::ApplicationData),
            Sight::Record(ContentType::Alert),
        ];
        for cut in 0..bytes.len() {
            let (reading, sights) = read(&[&bytes[..cut], &bytes[cut..]]);
            assert_eq!(
                (reading, sights.as_slice()),
                (Reading::Records, &expected[..]),
                "cut {cut}"
            );
        }
    }

    #[test]
    fn plaintext_is_not_tls() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"220 mail.example",
            &[22, 2, 0, 0, 1],
            &[22, 3, 4, 0, 1],
            &[22, 3, 3, 0, 0],
            &[23, 3, 3, 0xff, 0xff],
            &[23, 3, 3, 0, 1, 7, b'x'],
        ] {
            assert_eq!(read(&[bytes]).0, Reading::NotTls, "{bytes:?}");
        }
    }
}
