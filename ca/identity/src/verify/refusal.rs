//! Why a peer is refused: one variant, one line and one word each. The word is the same in log,
//! metric and `explain`; the sidecar's outcome words take it from here.
//! Never: certificate bytes or names that the peer made up without their having been parsed.

// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;
use std::sync::Arc;

use rustls::{CertificateError, OtherError};

use crate::bundle::BundleHash;
use crate::id::{SpiffeId, TrustDomain};
use crate::svid::MAX_CHAIN_CERTIFICATES;

/// Times are Unix seconds. The peer is to blame unless the variant says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the peer presented no certificate; every mesh peer has to present its SVID")]
    NoCertificate,
    #[error("the peer presented {count} certificates, more than {MAX_CHAIN_CERTIFICATES}")]
    ChainTooLong { count: usize },
    #[error("the peer's certificate chain is malformed: {why}")]
    ChainMalformed { why: String },
    #[error(
        "the peer's chain ends in no root of the trust bundle that we hold for {trust_domain} \
         (generation {generation}); compare its bundle with ours"
    )]
    UntrustedRoot { trust_domain: TrustDomain, generation: u64 },
    #[error(
        "the peer's chain has expired: now {now}, notBefore {not_before}, notAfter {not_after}; \
         see why it is not renewed, or whether a clock is wrong"
    )]
    Expired { now: u64, not_before: u64, not_after: u64 },
    #[error(
        "the peer's chain is not valid yet: now {now}, notBefore {not_before}, \
         notAfter {not_after}; \
         a clock is wrong, ours or the issuer's"
    )]
    NotYetValid { now: u64, not_before: u64, not_after: u64 },
    #[error(
        "the peer is {seen}, of another trust domain than {expected} and of none that we \
         federate with"
    )]
    WrongTrustDomain { seen: SpiffeId, expected: TrustDomain },
    #[error("the peer's certificate has no URI SAN, so no SPIFFE ID")]
    NoSpiffeId,
    #[error("the peer's certificate has {count} URI SANs; exactly one was expected")]
    ManyUris { count: usize },
    #[error("the peer's URI SAN is no SPIFFE ID: {why}")]
    MalformedId { why: String },
    #[error("the peer's certificate, or one that issued it, is not for this use: {why}")]
    WrongUsage { why: &'static str },
    #[error("the peer's key is not ECDSA P-256")]
    WrongKey,
    #[error("the peer presented a CA's certificate as its own")]
    CaAsLeaf,
    #[error("a certificate that is no CA's stands above another in the peer's chain")]
    LeafAsCa,
    #[error("the peer's chain has more intermediates than one of its CAs permits")]
    PathLength,
    #[error("a signature does not verify: in the peer's chain, or by its key in the handshake")]
    BadSignature,
    #[error("the peer is {seen}, but {} was expected", list(.expected))]
    WrongPeer { seen: SpiffeId, expected: Vec<SpiffeId> },
    #[error("{address} was dialled, but the peer's certificate names {}", list(.seen))]
    WrongAddress { address: IpAddr, seen: Vec<IpAddr> },
    #[error(
        "the CA's roots hash to {seen}, but the join token names {expected}; use a fresh token"
    )]
    WrongBundle { seen: BundleHash, expected: BundleHash },
    #[error("the peer is on the deny list until {until}")]
    Denied { until: u64 },
    #[error("the peer asked for a TLS version below 1.3")]
    OldTls,
}

impl Refusal {
    /// Every word that [`Refusal::word`] may say: the closed set for metric labels.
    pub const WORDS: [&'static str; 21] = [
        "no_certificate",
        "chain_too_long",
        "chain_malformed",
        "untrusted_root",
        "expired",
        "not_yet_valid",
        "wrong_trust_domain",
        "no_spiffe_id",
        "many_uris",
        "malformed_id",
        "wrong_usage",
        "wrong_key",
        "ca_as_leaf",
        "leaf_as_ca",
        "path_length",
        "bad_signature",
        "wrong_peer",
        "wrong_address",
        "wrong_bundle",
        "denied",
        "old_tls",
    ];

    /// The stable reason word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::ChainTooLong { .. } => "chain_too_long",
            Self::ChainMalformed { .. } => "chain_malformed",
            Self::UntrustedRoot { .. } => "untrusted_root",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::WrongTrustDomain { .. } => "wrong_trust_domain",
            Self::NoSpiffeId => "no_spiffe_id",
            Self::ManyUris { .. } => "many_uris",
            Self::MalformedId { .. } => "malformed_id",
            Self::WrongUsage { .. } => "wrong_usage",
            Self::WrongKey => "wrong_key",
            Self::CaAsLeaf => "ca_as_leaf",
            Self::LeafAsCa => "leaf_as_ca",
            Self::PathLength => "path_length",
            Self::BadSignature => "bad_signature",
            Self::WrongPeer { .. } => "wrong_peer",
            Self::WrongAddress { .. } => "wrong_address",
            Self::WrongBundle { .. } => "wrong_bundle",
            Self::Denied { .. } => "denied",
            Self::OldTls => "old_tls",
        }
    }

    /// The refusal that a TLS error of *our* side stands for, if our verifier (or the lack of
    /// something to verify) caused it. An alert that the peer sent is its own decision and yields
    /// `None`.
    pub fn of(error: &rustls::Error) -> Option<Self> {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
                inner.downcast_ref::<Self>().cloned()
            }
            rustls::Error::InvalidCertificate(CertificateError::BadSignature) => {
                Some(Self::BadSignature)
            }
            rustls::Error::NoCertificatesPresented => Some(Self::NoCertificate),
            rustls::Error::PeerIncompatible(
                rustls::PeerIncompatible::Tls12NotOfferedOrEnabled
                | rustls::PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13
                | rustls::PeerIncompatible::SupportedVersionsExtensionRequired,
            ) => Some(Self::OldTls),
            _ => None,
        }
    }

    /// The same for the `io::Error` in which asynchronous TLS streams wrap it.
    pub fn of_io(error: &std::io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref::<rustls::Error>().and_then(Self::of)
    }
}

impl From<Refusal> for rustls::Error {
    fn from(refusal: Refusal) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
    }
}

/// At most three, so that a line stays a line.
fn list<T: ToString>(items: &[T]) -> String {
    const SHOWN: usize = 3;
    if items.is_empty() {
        return "nobody".to_owned();
    }
    let shown: Vec<String> = items.iter().take(SHOWN).map(T::to_string).collect();
    let more = items.len().saturating_sub(SHOWN);
    if more == 0 { shown.join(" or ") } else { format!("{} or {more} more", shown.join(", ")) }
}
