//! SPIFFE IDs and trust domains, parsed to the letter of the SPIFFE-ID specification (section 2).
//! Called by every room that names somebody; policy compares the results whole.
//! Never: patterns, prefixes, percent-decoding, case folding or any other second spelling of a
//! name.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// SPIFFE-ID, section 2.3: "implementations MUST support URIs up to 2048 bytes [..] and MUST NOT
/// generate longer ones".
pub const MAX_ID_BYTES: usize = 2048;

/// SPIFFE-ID, section 2.3: the bound of a URI's host component, RFC 3986 section 3.2.2.
pub const MAX_TRUST_DOMAIN_BYTES: usize = 255;

const SCHEME: &str = "spiffe://";

/// Everything below this path belongs to Myelin itself; attestation never issues it.
const RESERVED_PATH: &str = "/myelin";

/// The name of a trust domain: `[a-z0-9._-]`, 1 to 255 bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Reads the bare name (`example.org`, no scheme).
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if text.is_empty() {
            return Err(IdError::EmptyTrustDomain);
        }
        if text.len() > MAX_TRUST_DOMAIN_BYTES {
            return Err(IdError::TrustDomainTooLong { bytes: text.len() });
        }
        match text.chars().find(|&c| !in_trust_domain(c)) {
            Some(seen) => Err(IdError::TrustDomainCharacter { seen }),
            None => Ok(Self(text.into())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One SPIFFE ID with a path, as a leaf certificate carries it. Cloning copies two pointers.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: Arc<str>,
    trust_domain: TrustDomain,
}

impl SpiffeId {
    /// Reads a whole ID (`spiffe://example.org/ns/shop/sa/web`). A bare trust domain is no ID of a
    /// workload and is refused (X.509-SVID, section 2: a leaf's path is not empty).
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if text.len() > MAX_ID_BYTES {
            return Err(IdError::TooLong { bytes: text.len() });
        }
        let rest = text.strip_prefix(SCHEME).ok_or(IdError::Scheme)?;
        let (domain, path) = rest.split_once('/').unwrap_or((rest, ""));
        let trust_domain = TrustDomain::parse(domain)?;
        if path.is_empty() {
            return Err(IdError::NoPath);
        }
        for segment in path.split('/') {
            check_segment(segment)?;
        }
        Ok(Self { text: text.into(), trust_domain })
    }

    /// `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    pub fn workload(
        trust_domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, IdError> {
        // Checked one by one, so that a slash in an argument cannot make another path.
        check_segment(namespace)?;
        check_segment(service_account)?;
        Self::parse(&format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}"))
    }

    /// The reserved ID of the CA: `spiffe://<trust domain>/myelin/ca`.
    pub fn ca(trust_domain: &TrustDomain) -> Self {
        Self {
            text: format!("{SCHEME}{trust_domain}{RESERVED_PATH}/ca").into(),
            trust_domain: trust_domain.clone(),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// With its leading slash: `/ns/shop/sa/web`.
    pub fn path(&self) -> &str {
        &self.text[SCHEME.len() + self.trust_domain.0.len()..]
    }

    /// The namespace, if the path is exactly `/ns/<namespace>/sa/<service account>`.
    pub fn namespace(&self) -> Option<&str> {
        self.workload_parts().map(|(namespace, _)| namespace)
    }

    /// The service account, if the path is exactly `/ns/<namespace>/sa/<service account>`.
    pub fn service_account(&self) -> Option<&str> {
        self.workload_parts().map(|(_, service_account)| service_account)
    }

    /// Whether the path is `/myelin` or below it: never given to a workload.
    pub fn is_reserved(&self) -> bool {
        match self.path().strip_prefix(RESERVED_PATH) {
            Some(rest) => rest.is_empty() || rest.starts_with('/'),
            None => false,
        }
    }

    fn workload_parts(&self) -> Option<(&str, &str)> {
        let mut segments = self.path().split('/');
        match (
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
        ) {
            (Some(""), Some("ns"), Some(namespace), Some("sa"), Some(account), None) => {
                Some((namespace, account))
            }
            _ => None,
        }
    }
}

/// Why a text is no SPIFFE ID. Never repeats the text itself: it may be hostile and long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("the SPIFFE ID has {bytes} bytes, more than {MAX_ID_BYTES}; shorten its path")]
    TooLong { bytes: usize },
    #[error("the SPIFFE ID does not begin with `spiffe://` in lower case; write it so")]
    Scheme,
    #[error("the trust domain is empty; expected a name such as `example.org`")]
    EmptyTrustDomain,
    #[error("the trust domain has {bytes} bytes, more than {MAX_TRUST_DOMAIN_BYTES}; shorten it")]
    TrustDomainTooLong { bytes: usize },
    #[error(
        "the trust domain holds {seen:?}; only a-z 0-9 . _ - may be there (no port, user, query)"
    )]
    TrustDomainCharacter { seen: char },
    #[error("the SPIFFE ID has no path; expected one such as `/ns/<namespace>/sa/<account>`")]
    NoPath,
    #[error("the SPIFFE ID's path has an empty segment; remove the double or trailing slash")]
    EmptySegment,
    #[error("the SPIFFE ID's path has a `.` or `..` segment; write the path without them")]
    DotSegment,
    #[error("the SPIFFE ID's path holds {seen:?}; only A-Z a-z 0-9 . _ - may be there (no % ? #)")]
    PathCharacter { seen: char },
}

impl FromStr for TrustDomain {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse(text)
    }
}

impl FromStr for SpiffeId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse(text)
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn in_trust_domain(c: char) -> bool {
    matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-')
}

/// One part of a path: what a namespace and a service account are.
pub(crate) fn is_segment(text: &str) -> bool {
    check_segment(text).is_ok()
}

fn check_segment(segment: &str) -> Result<(), IdError> {
    match segment {
        "" => return Err(IdError::EmptySegment),
        "." | ".." => return Err(IdError::DotSegment),
        _ => {}
    }
    match segment.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))) {
        Some(seen) => Err(IdError::PathCharacter { seen }),
        None => Ok(()),
    }
}
