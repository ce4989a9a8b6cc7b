//! What is kept of the webhook's certificates: the one that is served, perhaps the next one, and
//! those that some replica may still serve. Called by the other files of this room.
//!
//! Never: a key in a message.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use myelin_identity::pem;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::tls::server_config;

/// Of what is served no more, how many stay published: one at a renewal, more only where somebody
/// puts another certificate into the Secret again and again.
pub(super) const MAX_BEFORE: usize = 4;

/// A chain, or a key, in PEM.
pub(super) const MAX_PEM_BYTES: usize = 32 * 1024;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) serving: Pair,
    pub(super) next: Option<Pair>,
    /// Each in PEM, the newest first.
    pub(super) before: Vec<String>,
    /// How long those are published, in seconds since the Unix epoch.
    pub(super) before_until: u64,
}

/// A certificate with its key, and what it says.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
    pub(super) names: Vec<String>,
    pub(super) not_before: u64,
    pub(super) not_after: u64,
}

impl Kept {
    pub(super) fn only(serving: Pair) -> Self {
        Self { serving, next: None, before: Vec::new(), before_until: 0 }
    }

    /// The next one is served from now on, and the one of today is published until `until`.
    pub(super) fn promoted(self, until: u64) -> Self {
        let Some(next) = self.next else { return self };
        let (today, before) = (self.serving.certificate, self.before);
        let kept = Self { serving: next, next: None, before, before_until: self.before_until };
        kept.remembering(today, until)
    }

    /// With one more that somebody still serves.
    pub(super) fn remembering(mut self, certificate: String, until: u64) -> Self {
        self.before.retain(|known| *known != certificate);
        self.before.insert(0, certificate);
        self.before.truncate(MAX_BEFORE);
        self.before_until = until;
        self
    }

    /// Whom the API server shall believe.
    pub(super) fn published(&self) -> impl Iterator<Item = &str> {
        let next = self.next.as_ref().map(|next| next.certificate.as_str());
        let both = [Some(self.serving.certificate.as_str()), next];
        both.into_iter().flatten().chain(self.before.iter().map(String::as_str))
    }

    /// The same as it is registered.
    pub(super) fn ca_bundle(&self) -> String {
        BASE64_STANDARD.encode(self.published().collect::<Vec<_>>().concat())
    }
}

/// The certificates of a text, and nothing else of it: what is here is published, and whoever put a
/// chain and its key into one field did not mean that. `None`: there is none, or one is damaged.
pub(super) fn certificates(text: &str) -> Option<String> {
    if text.len() > MAX_PEM_BYTES {
        return None;
    }
    let all = CertificateDer::pem_slice_iter(text.as_bytes());
    let again = all.map(|der| der.map(|der| pem::encode("CERTIFICATE", &der)));
    again.collect::<Result<String, _>>().ok().filter(|again| !again.is_empty())
}

impl Pair {
    /// `None`: it is not one, or certificate and key do not fit.
    pub(super) fn read(certificate: &str, key: &str) -> Option<Self> {
        if key.len() > MAX_PEM_BYTES {
            return None;
        }
        let certificate = certificates(certificate)?;
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).ok()?;
        let (_, read) = parse_x509_certificate(&der).ok()?;
        let names = read.subject_alternative_name().ok()??.value.general_names.iter();
        let names = names.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
        let validity = read.validity();
        let pair = Self {
            names: names.collect(),
            not_before: u64::try_from(validity.not_before.timestamp()).ok()?,
            not_after: u64::try_from(validity.not_after.timestamp()).ok()?,
            certificate,
            key: key.to_owned(),
        };
        pair.server_config().is_some().then_some(pair)
    }

    /// `None`: certificate and key do not fit.
    pub(super) fn server_config(&self) -> Option<ServerConfig> {
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).ok()?;
        server_config(chain.collect::<Result<_, _>>().ok()?, key).ok()
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { names, not_before, not_after, .. } = self;
        write!(f, "Pair({names:?}, {not_before}..{not_after}, key not shown)")
    }
}
