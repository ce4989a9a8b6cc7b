//! One direction of a TLS 1.3 connection: seals and opens records in place (RFC 8446 section 5.2).
//! The secrets come from rustls' key schedule, the AEAD from aws-lc; what is ours is where the
//! bytes lie. Called by `records` and its two boxes.
//!
//! Never: a nonce used twice (the sequence number only grows, and a key that has sealed its share
//! is replaced), plaintext handed out before its tag was checked, a copy of a payload.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::ops::Range;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use rustls::{ConnectionTrafficSecrets, Error, InvalidMessage};

/// Type, version and length in front of each record.
pub(super) const HEADER: usize = 5;
/// The record's true type and the tag behind its plaintext.
pub(super) const TRAILER: usize = 1 + TAG;
/// The most plaintext of one record (RFC 8446 section 5.1).
pub(super) const MAX_PLAINTEXT: usize = 1 << 14;
/// The longest record on the wire: a peer may pad up to here (RFC 8446 section 5.2).
pub(super) const MAX_RECORD: usize = HEADER + MAX_PLAINTEXT + 256;

/// Records under one key: the limit that rustls keeps for AES-GCM, within RFC 8446 section 5.5.
const MOST_UNDER_ONE_KEY: u64 = 1 << 24;

/// A key is replaced between two flushes; none seals so many records.
const WORN_BEFORE: u64 = 64;

const TAG: usize = 16;
const IV: usize = 12;
const VERSION: [u8; 2] = [3, 3];

/// The record types that occur once a handshake is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Alert = 21,
    Handshake = 22,
    Data = 23,
}

/// The key of one direction, and how many records it has seen.
struct Key {
    aead: LessSafeKey,
    iv: [u8; IV],
    sequence: u64,
}

impl Key {
    fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, Error> {
        let (algorithm, key, iv): (&'static Algorithm, &[u8], &[u8]) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => {
                (&AES_128_GCM, key.as_ref(), iv.as_ref())
            }
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => {
                (&AES_256_GCM, key.as_ref(), iv.as_ref())
            }
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
                (&CHACHA20_POLY1305, key.as_ref(), iv.as_ref())
            }
            _ => return Err(Error::General("a cipher suite that was never offered".to_owned())),
        };
        let unusable =
            || Error::General("the key schedule gave a key of a wrong length".to_owned());
        let unbound = UnboundKey::new(algorithm, key).map_err(|_| unusable())?;
        let iv = iv.try_into().map_err(|_| unusable())?;
        Ok(Self { aead: LessSafeKey::new(unbound), iv, sequence })
    }

    /// RFC 8446 section 5.3: the sequence number, xored into the end of the IV.
    fn next_nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, part) in nonce[IV - 8..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= part;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// Seals what we send.
#[derive(Debug)]
pub(super) struct Sealer(Key);

impl Sealer {
    pub(super) fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, Error> {
        Key::new(sequence, secrets).map(Self)
    }

    /// The key has sealed nearly what it may: it must be replaced before the next record of data.
    pub(super) fn is_worn(&self) -> bool {
        self.0.sequence >= MOST_UNDER_ONE_KEY - WORN_BEFORE
    }

    /// Seals `record`, which is room for the header, the plaintext, and room for the trailer.
    pub(super) fn seal(&mut self, kind: Kind, record: &mut [u8]) -> Result<(), Error> {
        let (header, body) = record.split_at_mut(HEADER);
        let [high, low] = u16::try_from(body.len()).map_err(|_| Error::EncryptError)?.to_be_bytes();
        let aad = [Kind::Data as u8, VERSION[0], VERSION[1], high, low];
        header.copy_from_slice(&aad);
        let (inner, tag) = body.split_at_mut(body.len() - TAG);
        if let Some(last) = inner.last_mut() {
            *last = kind as u8;
        }
        let nonce = self.0.next_nonce();
        let sealed = self.0.aead.seal_in_place_separate_tag(nonce, Aad::from(aad), inner);
        tag.copy_from_slice(sealed.map_err(|_| Error::EncryptError)?.as_ref());
        Ok(())
    }
}

/// Opens what the peer sent.
#[derive(Debug)]
pub(super) struct Opener(Key);

impl Opener {
    pub(super) fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, Error> {
        Key::new(sequence, secrets).map(Self)
    }

    /// Opens one whole record in place. The plaintext lies in the returned range of `record`.
    pub(super) fn open(&mut self, record: &mut [u8]) -> Result<(Kind, Range<usize>), Error> {
        let (header, body) = record.split_at_mut(HEADER);
        let mut aad = [0; HEADER];
        aad.copy_from_slice(header);
        let nonce = self.0.next_nonce();
        let opened = self.0.aead.open_in_place(nonce, Aad::from(aad), body);
        let inner = opened.map_err(|_| Error::DecryptError)?;
        // Padding is zeros behind the type; a record of nothing but zeros has no type.
        let end = inner.iter().rposition(|byte| *byte != 0);
        let end = end.ok_or(Error::InvalidMessage(InvalidMessage::InvalidContentType))?;
        if end > MAX_PLAINTEXT {
            return Err(Error::PeerSentOversizedRecord);
        }
        let kind = match inner[end] {
            21 => Kind::Alert,
            22 => Kind::Handshake,
            23 => Kind::Data,
            _ => return Err(Error::InvalidMessage(InvalidMessage::InvalidContentType)),
        };
        Ok((kind, HEADER..HEADER + end))
    }
}

/// The whole length of the record that begins with `bytes`, or `None` while its header is not
/// there whole. A record that no peer of ours may send is an error at its header: nobody makes us
/// wait for a body that would be refused.
pub(super) fn record_length(bytes: &[u8]) -> Result<Option<usize>, Error> {
    let Some([kind, major, minor, high, low]) = bytes.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    if *kind != Kind::Data as u8 {
        return Err(Error::InvalidMessage(InvalidMessage::InvalidContentType));
    }
    if [*major, *minor] != VERSION {
        return Err(Error::InvalidMessage(InvalidMessage::UnknownProtocolVersion));
    }
    let length = HEADER + usize::from(u16::from_be_bytes([*high, *low]));
    if length > MAX_RECORD {
        return Err(Error::PeerSentOversizedRecord);
    }
    if length < HEADER + TRAILER {
        return Err(Error::DecryptError);
    }
    Ok(Some(length))
}
