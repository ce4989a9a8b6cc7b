//! Reads from a whole ClientHello (RFC 8446, section 4.1.2) the two things that a decision hangs
//! on: the protocols offered (RFC 7301) and whether TLS 1.3 is among the versions. Called by
//! `detect` alone; rustls judges the same bytes again in full.
//!
//! Never: an interpretation of the server name, a choice of a protocol, a panic.

// SPDX-License-Identifier: Apache-2.0

use super::reader::Reader;

/// More protocols than any client offers (browsers: three); a longer list is refused, not cut,
/// so that an offer of ours cannot hide behind the cut.
pub const MAX_PROTOCOLS: usize = 32;

const RANDOM: usize = 32;
const MAX_SESSION_ID: usize = 32;
const EXTENSION_ALPN: u16 = 16;
const EXTENSION_SUPPORTED_VERSIONS: u16 = 43;
const TLS13: [u8; 2] = [0x03, 0x04];

/// What a ClientHello offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The protocols offered, in the client's order; empty if it offers none.
    pub alpn: Vec<Vec<u8>>,
    /// Whether TLS 1.3 is in `supported_versions`. Without it: refuse with `protocol_version`.
    pub has_tls13: bool,
}

impl Hello {
    /// Whether the client offers exactly this protocol.
    pub fn offers(&self, protocol: &[u8]) -> bool {
        self.alpn.iter().any(|offered| offered == protocol)
    }
}

/// Reads the body of a ClientHello; the error is a reason word.
pub(super) fn parse(body: &[u8]) -> Result<Hello, &'static str> {
    let mut reader = Reader::new(body);
    let extensions = skip_to_extensions(&mut reader).ok_or("client_hello_truncated")?;
    if !reader.is_empty() {
        return Err("client_hello_trailing_bytes");
    }
    let mut alpn = None;
    let mut versions = None;
    let mut reader = Reader::new(extensions);
    while !reader.is_empty() {
        let kind = reader.u16().ok_or("extension_truncated")?;
        let payload = reader.vector().ok_or("extension_truncated")?;
        let slot = match kind {
            EXTENSION_ALPN => &mut alpn,
            EXTENSION_SUPPORTED_VERSIONS => &mut versions,
            _ => continue,
        };
        // RFC 8446, section 4.2: a second one could make us and rustls judge different lists.
        if slot.replace(payload).is_some() {
            return Err("extension_twice");
        }
    }
    Ok(Hello {
        alpn: alpn.map_or(Ok(Vec::new()), protocols)?,
        has_tls13: versions.map_or(Ok(false), has_tls13)?,
    })
}

/// The extensions' bytes; empty if the hello ends before them, as an old one may.
fn skip_to_extensions<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    reader.u16()?;
    reader.take(RANDOM)?;
    let session_id = reader.short_vector()?;
    let suites = reader.vector()?;
    let compression = reader.short_vector()?;
    let shaped = session_id.len() <= MAX_SESSION_ID
        && !suites.is_empty()
        && suites.len().is_multiple_of(2)
        && !compression.is_empty();
    if !shaped {
        return None;
    }
    if reader.is_empty() { Some(&[]) } else { reader.vector() }
}

fn protocols(payload: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let mut outer = Reader::new(payload);
    let list = outer.vector().filter(|list| !list.is_empty() && outer.is_empty());
    let mut reader = Reader::new(list.ok_or("alpn_malformed")?);
    let mut offered = Vec::new();
    while !reader.is_empty() {
        let name = reader.short_vector().filter(|name| !name.is_empty());
        let name = name.ok_or("alpn_malformed")?;
        if offered.len() == MAX_PROTOCOLS {
            return Err("alpn_too_many");
        }
        offered.push(name.to_vec());
    }
    Ok(offered)
}

fn has_tls13(payload: &[u8]) -> Result<bool, &'static str> {
    let mut outer = Reader::new(payload);
    let list = outer
        .short_vector()
        .filter(|list| outer.is_empty() && !list.is_empty() && list.len().is_multiple_of(2));
    let list = list.ok_or("supported_versions_malformed")?;
    Ok(list.chunks_exact(2).any(|version| version == TLS13))
}
