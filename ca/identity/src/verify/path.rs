//! The path from a leaf to a root of the bundle: webpki builds and checks it, this room asks what
//! webpki leaves out (key usage of issuers, the root's own times) and finds our word for its
//! errors. Called by `verify` alone.
//! Never: names; webpki is not asked whom a certificate is for.

// SPDX-License-Identifier: Apache-2.0

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use super::{Refusal, Role, untrusted_root, usage_missing};
use crate::bundle::{MAX_CERTIFICATE_BYTES, Root, RootId, TrustBundle};
use crate::x509::{CaFacts, CaFault, Validity, parse, validity};

/// ECDSA only: each hash with the curve of its size, as RFC 8446 pairs them.
pub(super) static CHAIN_ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] =
    &[webpki::aws_lc_rs::ECDSA_P256_SHA256, webpki::aws_lc_rs::ECDSA_P384_SHA384];

/// A good path: where it ended, and the earliest end of its issuers.
pub(super) struct Path {
    pub(super) root: RootId,
    pub(super) not_after: u64,
}

pub(super) fn verify(
    leaf: &CertificateDer<'_>,
    issuers: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    now: UnixTime,
    role: Role,
) -> Result<Path, Refusal> {
    for der in std::iter::once(leaf).chain(issuers) {
        if der.len() > MAX_CERTIFICATE_BYTES {
            let why =
                format!("a certificate has {} bytes, more than {MAX_CERTIFICATE_BYTES}", der.len());
            return Err(Refusal::ChainMalformed { why });
        }
    }
    let in_words = |error| refusal(&error, leaf, issuers, bundle, role);
    let end_entity = EndEntityCert::try_from(leaf).map_err(in_words)?;
    let anchors = bundle.anchors();
    let usage = match role {
        Role::Client => KeyUsage::client_auth(),
        Role::Server => KeyUsage::server_auth(),
    };
    let path = end_entity
        .verify_for_usage(CHAIN_ALGORITHMS, &anchors, issuers, now, usage, None, None)
        .map_err(in_words)?;

    let root = reached_root(bundle, path.anchor(), now)?;
    let mut not_after = root.validity.not_after;
    let mut intermediates = 0;
    for issuer in path.intermediate_certificates() {
        let der = issuer.der();
        let facts = CaFacts::read(&der).map_err(of_issuer)?;
        not_after = not_after.min(facts.validity.not_after);
        intermediates += 1;
    }
    // webpki checks the intermediates' path lengths, but takes none from an anchor.
    if root.path_length.is_some_and(|most| intermediates > most) {
        return Err(Refusal::PathLength);
    }
    Ok(Path { root: root.id, not_after })
}

/// webpki holds an anchor to be timeless; a root whose own time is over vouches for nobody here.
/// Two roots may share name and key (one re-issued with later dates): the one that is valid counts.
fn reached_root<'b>(
    bundle: &'b TrustBundle,
    reached: &TrustAnchor<'_>,
    now: UnixTime,
) -> Result<&'b Root, Refusal> {
    let now = now.as_secs();
    let mut candidates =
        bundle.checked_roots().iter().filter(|root| root.anchor == *reached).peekable();
    let first =
        *candidates.peek().expect("the anchor that webpki reached is one of those it was given");
    let valid = |root: &&Root| (root.validity.not_before..=root.validity.not_after).contains(&now);
    let Validity { not_before, not_after } = first.validity;
    candidates.find(valid).ok_or(if now > not_after {
        Refusal::Expired { now, not_before, not_after }
    } else {
        Refusal::NotYetValid { now, not_before, not_after }
    })
}

fn of_issuer(fault: CaFault) -> Refusal {
    match fault {
        CaFault::Malformed(why) => Refusal::ChainMalformed { why: why.to_string() },
        CaFault::NotCa => Refusal::LeafAsCa,
        CaFault::NoKeyCertSign => {
            Refusal::WrongUsage { why: "an issuer's key usage lacks keyCertSign" }
        }
        CaFault::WrongKey => Refusal::WrongKey,
        CaFault::BadSignature => Refusal::BadSignature,
    }
}

fn refusal(
    error: &webpki::Error,
    leaf: &CertificateDer<'_>,
    issuers: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    role: Role,
) -> Refusal {
    use webpki::Error as E;
    let chain = || std::iter::once(leaf).chain(issuers);
    match error {
        E::CertExpired { time, not_after } => {
            let not_after = not_after.as_secs();
            let not_before =
                times_of(chain(), |v| v.not_after == not_after).map_or(0, |v| v.not_before);
            Refusal::Expired { now: time.as_secs(), not_before, not_after }
        }
        E::CertNotValidYet { time, not_before } => {
            let not_before = not_before.as_secs();
            let not_after =
                times_of(chain(), |v| v.not_before == not_before).map_or(0, |v| v.not_after);
            Refusal::NotYetValid { now: time.as_secs(), not_before, not_after }
        }
        E::UnknownIssuer => untrusted_root(bundle),
        E::InvalidSignatureForPublicKey => Refusal::BadSignature,
        E::SignatureAlgorithmMismatch
        | E::UnsupportedSignatureAlgorithmContext(_)
        | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => Refusal::ChainMalformed {
            why: "a signature is neither ECDSA P-256 with SHA-256 nor P-384 with SHA-384"
                .to_owned(),
        },
        E::CaUsedAsEndEntity => Refusal::CaAsLeaf,
        E::EndEntityUsedAsCa => Refusal::LeafAsCa,
        E::PathLenConstraintViolated => Refusal::PathLength,
        E::EmptyEkuExtension => Refusal::WrongUsage { why: "an extended key usage is empty" },
        E::RequiredEkuNotFoundContext(_) => Refusal::WrongUsage { why: usage_missing(role) },
        other => Refusal::ChainMalformed { why: format!("{other:?}") },
    }
}

/// webpki names only the end that was missed; the log shall have both (and which certificate it
/// was).
fn times_of<'a>(
    chain: impl Iterator<Item = &'a CertificateDer<'a>>,
    meant: impl Fn(&Validity) -> bool,
) -> Option<Validity> {
    chain.filter_map(|der| parse(der).ok().and_then(|c| validity(&c).ok())).find(meant)
}
