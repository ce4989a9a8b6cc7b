//! The serial number of a certificate, as an operator writes it and a deny list names it.
//! Called by `bundle` and `svid`.
//! Never: arithmetic; two serials are equal when their bytes are.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::str::FromStr;

use super::{Malformed, hex};

/// RFC 5280, section 4.1.2.2: at most 20 octets.
const MAX_SERIAL_BYTES: usize = 20;

/// The content octets of the DER INTEGER without a leading zero octet. Displayed as lower-case hex.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial(Vec<u8>);

/// The text or the bytes are no serial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a serial number; expected 1 to {MAX_SERIAL_BYTES} bytes, as hex without separators")]
pub struct SerialError;

impl Serial {
    /// Takes big-endian bytes; leading zero octets do not count.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SerialError> {
        let first = bytes.iter().position(|&b| b != 0).ok_or(SerialError)?;
        // One octet more than the bound may be there: DER puts a zero before a high bit.
        if bytes.len() > MAX_SERIAL_BYTES + 1 || bytes.len() - first > MAX_SERIAL_BYTES {
            return Err(SerialError);
        }
        Ok(Self(bytes[first..].to_vec()))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// From the raw content octets of a certificate, where a high first bit means a negative
    /// number.
    pub(crate) fn from_der_integer(raw: &[u8]) -> Result<Self, Malformed> {
        match raw.first() {
            Some(first) if first & 0x80 == 0 => {
                Self::from_bytes(raw).map_err(|SerialError| Malformed::Serial)
            }
            _ => Err(Malformed::Serial),
        }
    }
}

impl FromStr for Serial {
    type Err = SerialError;

    fn from_str(text: &str) -> Result<Self, SerialError> {
        if text.len() > 2 * MAX_SERIAL_BYTES || !text.len().is_multiple_of(2) || !text.is_ascii() {
            return Err(SerialError);
        }
        let bytes = (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| SerialError))
            .collect::<Result<Vec<u8>, _>>()?;
        // `from_str_radix` takes a sign.
        if text.contains('+') {
            return Err(SerialError);
        }
        Self::from_bytes(&bytes)
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_round_trip_through_text() {
        for text in ["01", "7f00", "ffffffffffffffffffffffffffffffffffffffff"] {
            assert_eq!(text.parse::<Serial>().map(|s| s.to_string()), Ok(text.to_owned()));
        }
        assert_eq!("00ff".parse::<Serial>().map(|s| s.to_string()), Ok("ff".to_owned()));
    }

    #[test]
    fn malformed_serials_are_refused() {
        let too_long = "11".repeat(21);
        for text in ["", "0", "00", "0g", "+1", "1 2 ", "é1", &too_long] {
            assert_eq!(text.parse::<Serial>(), Err(SerialError), "{text:?}");
        }
        assert_eq!(Serial::from_der_integer(&[0x80]), Err(Malformed::Serial));
        assert_eq!(Serial::from_der_integer(&[]), Err(Malformed::Serial));
        assert!(Serial::from_der_integer(&[0, 0x80]).is_ok());
    }
}
