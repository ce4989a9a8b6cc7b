//! The frames of `myelin/1`: shapes, limits, encoding, and a strict decoder that borrows payloads.
//! Called by the two machines, and by the relay for the header in front of bytes in place.
//!
//! Never: an allocation while decoding, a frame that is handed out before it is there whole, any
//! knowledge of which frame is legal when.

// SPDX-License-Identifier: Apache-2.0

use std::ops::RangeInclusive;

use super::names::{Kind, UseNumber};
use super::refuse::Refuse;
use super::violation::Violation;

/// The protocol name in ALPN.
pub const ALPN: &[u8] = b"myelin/1";
/// The highest version that this build speaks. Each `hello` states the sender's highest; both
/// then speak the lower of the two.
pub const VERSION: u16 = 1;
/// Type u8 and length u24.
pub const HEADER_LEN: usize = 4;
/// Header and payload together: the plaintext limit of one TLS record (RFC 8446, section 5.1),
/// so that no frame needs two.
pub const MAX_FRAME: usize = 16_384;
/// What is left for the payload.
pub const MAX_PAYLOAD: usize = MAX_FRAME - HEADER_LEN;
/// An inclusion proof in a log of 2^64 leaves is 64 hashes (2 KiB); a checkpoint with a dozen
/// cosignatures takes 2 KiB more. 8 KiB leaves room for two logs and still fits one frame.
pub const MAX_PROOF: usize = 8_192;

/// Version and proof length in front of a hello's proof.
const HELLO_FIXED: usize = 4;
const USE_LEN: usize = 8;

impl Kind {
    /// The payload lengths that are legal for this kind.
    pub const fn lengths(self) -> RangeInclusive<usize> {
        match self {
            Self::Hello => HELLO_FIXED..=HELLO_FIXED + MAX_PROOF,
            Self::Open | Self::Accepted | Self::Retiring => USE_LEN..=USE_LEN,
            Self::Refused => USE_LEN + 1..=USE_LEN + 1,
            Self::Data => 1..=MAX_PAYLOAD,
            Self::Fin | Self::Reset | Self::Idle => 0..=0,
        }
    }

    fn from_wire(byte: u8) -> Result<Self, Violation> {
        let index = usize::from(byte).wrapping_sub(1);
        Self::ALL.get(index).copied().ok_or(Violation::UnknownType(byte))
    }
}

/// A frame's header whose length is legal for its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    kind: Kind,
    length: usize,
}

impl Header {
    /// The kind of frame that follows.
    pub const fn kind(self) -> Kind {
        self.kind
    }

    /// The length of the payload in bytes.
    pub const fn length(self) -> usize {
        self.length
    }

    /// The four bytes on the wire.
    pub const fn encode(self) -> [u8; HEADER_LEN] {
        header_bytes(self.kind, self.length)
    }

    /// Reads a header.
    ///
    /// # Errors
    /// An unknown type, or a length that no frame of this type has.
    pub fn decode(bytes: [u8; HEADER_LEN]) -> Result<Self, Violation> {
        let kind = Kind::from_wire(bytes[0])?;
        let length = u32::from_be_bytes([0, bytes[1], bytes[2], bytes[3]]) as usize;
        let legal = kind.lengths();
        if legal.contains(&length) {
            return Ok(Self { kind, length });
        }
        Err(Violation::WrongLength { kind, got: length, least: *legal.start(), most: *legal.end() })
    }
}

/// One frame; payloads are borrowed from the bytes that were decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    Hello { version: u16, proof: &'a [u8] },
    Open(UseNumber),
    Accepted(UseNumber),
    Refused(UseNumber, Refuse),
    Retiring(UseNumber),
    Data(&'a [u8]),
    Fin,
    Reset,
    Idle,
}

impl Frame<'_> {
    /// The type of this frame.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Hello { .. } => Kind::Hello,
            Self::Open(_) => Kind::Open,
            Self::Accepted(_) => Kind::Accepted,
            Self::Refused(..) => Kind::Refused,
            Self::Retiring(_) => Kind::Retiring,
            Self::Data(_) => Kind::Data,
            Self::Fin => Kind::Fin,
            Self::Reset => Kind::Reset,
            Self::Idle => Kind::Idle,
        }
    }

    /// Appends the frame to `out`.
    ///
    /// # Panics
    /// If a payload is outside its limits: the machines check lengths before they build a frame.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let kind = self.kind();
        let length = self.payload_len();
        assert!(kind.lengths().contains(&length), "a {} payload within its limits", kind.word());
        out.extend_from_slice(&header_bytes(kind, length));
        match *self {
            Self::Hello { version, proof } => {
                out.extend_from_slice(&version.to_be_bytes());
                let proof_len = u16::try_from(proof.len()).expect("MAX_PROOF fits 16 bits");
                out.extend_from_slice(&proof_len.to_be_bytes());
                out.extend_from_slice(proof);
            }
            Self::Open(number) | Self::Accepted(number) | Self::Retiring(number) => {
                out.extend_from_slice(&number.value().to_be_bytes());
            }
            Self::Refused(number, reason) => {
                out.extend_from_slice(&number.value().to_be_bytes());
                out.push(reason.code());
            }
            Self::Data(bytes) => out.extend_from_slice(bytes),
            Self::Fin | Self::Reset | Self::Idle => {}
        }
    }

    const fn payload_len(&self) -> usize {
        match self {
            Self::Hello { proof, .. } => HELLO_FIXED + proof.len(),
            Self::Open(_) | Self::Accepted(_) | Self::Retiring(_) => USE_LEN,
            Self::Refused(..) => USE_LEN + 1,
            Self::Data(bytes) => bytes.len(),
            Self::Fin | Self::Reset | Self::Idle => 0,
        }
    }
}

/// What [`decode`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// The frame is not there whole. `need` is the length that the input must at least reach
    /// before another try is worth it: header first, then header and payload.
    Incomplete { need: usize },
    /// A whole frame, which took `consumed` bytes.
    Whole { frame: Frame<'a>, consumed: usize },
}

/// Reads the first frame of `input`. A bad type is found at the first byte, a bad length at the
/// fourth: a peer cannot make us wait for a frame that would be refused.
///
/// # Errors
/// A type, length or payload that no frame has.
pub fn decode(input: &[u8]) -> Result<Decoded<'_>, Violation> {
    let Some((header, rest)) = input.split_first_chunk::<HEADER_LEN>() else {
        if let Some(first) = input.first() {
            Kind::from_wire(*first)?;
        }
        return Ok(Decoded::Incomplete { need: HEADER_LEN });
    };
    let header = Header::decode(*header)?;
    let consumed = HEADER_LEN + header.length;
    let Some(payload) = rest.get(..header.length) else {
        return Ok(Decoded::Incomplete { need: consumed });
    };
    let frame = match header.kind {
        Kind::Hello => hello(payload)?,
        Kind::Open => Frame::Open(use_number(payload)),
        Kind::Accepted => Frame::Accepted(use_number(payload)),
        Kind::Refused => Frame::Refused(use_number(payload), Refuse::from_code(payload[USE_LEN])),
        Kind::Retiring => Frame::Retiring(use_number(payload)),
        Kind::Data => Frame::Data(payload),
        Kind::Fin => Frame::Fin,
        Kind::Reset => Frame::Reset,
        Kind::Idle => Frame::Idle,
    };
    Ok(Decoded::Whole { frame, consumed })
}

/// The header of a data frame of `length` bytes, for a relay that keeps room in front of what it
/// reads. `None` if no data frame has this length.
pub fn data_header(length: usize) -> Option<[u8; HEADER_LEN]> {
    Kind::Data.lengths().contains(&length).then(|| header_bytes(Kind::Data, length))
}

const fn header_bytes(kind: Kind, length: usize) -> [u8; HEADER_LEN] {
    let [.., high, middle, low] = length.to_be_bytes();
    [kind as u8, high, middle, low]
}

/// Only called on a payload whose length was checked by `Header::decode`.
fn use_number(payload: &[u8]) -> UseNumber {
    let bytes = payload.first_chunk::<USE_LEN>().expect("the header's length was checked");
    UseNumber::new(u64::from_be_bytes(*bytes))
}

fn hello(payload: &[u8]) -> Result<Frame<'_>, Violation> {
    let (fixed, proof) =
        payload.split_first_chunk::<HELLO_FIXED>().expect("the header's length was checked");
    let version = u16::from_be_bytes([fixed[0], fixed[1]]);
    let announced = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if version == 0 {
        return Err(Violation::VersionZero);
    }
    if announced != proof.len() {
        return Err(Violation::ProofLength { announced, got: proof.len() });
    }
    Ok(Frame::Hello { version, proof })
}
