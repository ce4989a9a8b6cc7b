//! The seam between who writes X.509 and who signs it: rcgen writes with a signature of no bytes,
//! then the real key signs what was written. So no library ever holds a CA key, and a key in a
//! token needs no more than bytes to sign.
//!
//! Never: changes what was written.

// SPDX-License-Identifier: Apache-2.0

use rcgen::{PublicKeyData, SignatureAlgorithm, SigningKey};

use super::SignerError;
use super::key::{Key, PublicPoint};

/// An empty BIT STRING: how a draft ends.
const NO_SIGNATURE: &[u8] = &[0x03, 0x01, 0x00];
const SEQUENCE: u8 = 0x30;
const BIT_STRING: u8 = 0x03;

/// Stands in for the key while rcgen writes.
pub(super) struct Unsigned(pub(super) PublicPoint);

impl PublicKeyData for Unsigned {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for Unsigned {
    fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(Vec::new())
    }
}

/// Signs a draft: `SEQUENCE { what is signed, algorithm, signature }`, of a certificate as of a
/// request.
pub(super) fn finish(draft: &[u8], key: &Key) -> Result<Vec<u8>, SignerError> {
    let inside = content(draft).and_then(|inside| inside.strip_suffix(NO_SIGNATURE));
    let inside = inside.ok_or(SignerError::Draft)?;
    let signed = element(inside).ok_or(SignerError::Draft)?;
    let signature = key.sign(signed)?;
    let mut whole = inside.to_vec();
    whole.push(BIT_STRING);
    put_length(&mut whole, signature.len() + 1);
    // No unused bits.
    whole.push(0);
    whole.extend_from_slice(&signature);
    let mut out = vec![SEQUENCE];
    put_length(&mut out, whole.len());
    out.extend_from_slice(&whole);
    Ok(out)
}

/// What is inside the one element that these bytes are.
fn content(der: &[u8]) -> Option<&[u8]> {
    let whole = element(der)?;
    let (head, length) = head(der)?;
    (whole.len() == der.len()).then_some(&der[head..head + length])
}

/// The first element of these bytes, with its head.
fn element(der: &[u8]) -> Option<&[u8]> {
    let (head, length) = head(der)?;
    der.get(..head + length)
}

/// Lengths of the head and of the content of the element that begins here: up to 64 KiB.
fn head(der: &[u8]) -> Option<(usize, usize)> {
    match *der {
        [_, short @ 0..=0x7f, ..] => Some((2, short.into())),
        [_, 0x81, length, ..] => Some((3, length.into())),
        [_, 0x82, high, low, ..] => Some((4, u16::from_be_bytes([high, low]).into())),
        _ => None,
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    let [.., high, low] = length.to_be_bytes();
    match length {
        0..=0x7f => out.push(low),
        0x80..=0xff => out.extend([0x81, low]),
        _ => out.extend([0x82, high, low]),
    }
}
