//! PEM (RFC 7468) for what people carry between machines: certificates, requests. Reading is
//! `rustls_pki_types`' part.
//!
//! Never: a private key.

// SPDX-License-Identifier: Apache-2.0

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// RFC 7468, section 2.
const LINE_CHARACTERS: usize = 64;

pub fn encode(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(LINE_CHARACTERS) {
        out.extend(line.iter().map(|byte| char::from(*byte)));
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}
