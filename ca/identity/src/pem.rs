//! PEM (RFC 7468) as it is written here: bundles, what people carry between machines, what a
//! workload is handed. Reading is `rustls_pki_types`' part. Called by `bundle`, by the CA, and by
//! the sidecar's workload API, the only one that writes a key.
//! Never: reads, or knows what it writes.

// SPDX-License-Identifier: Apache-2.0

use base64::prelude::{BASE64_STANDARD, Engine as _};

/// RFC 7468, section 2.
const LINE_CHARACTERS: usize = 64;

pub fn encode(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(LINE_CHARACTERS) {
        out.extend(line.iter().map(|byte| char::from(*byte)));
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_sixty_four_characters() {
        let text = encode("CERTIFICATE", &[0; 60]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.first(), Some(&"-----BEGIN CERTIFICATE-----"));
        assert_eq!(lines[1..3].iter().map(|line| line.len()).collect::<Vec<_>>(), [64, 16]);
        assert_eq!(lines.last(), Some(&"-----END CERTIFICATE-----"));
    }
}
