//! The peer verifier as one credential generation uses it: the rules are those of
//! `myelin_identity::verify`; here their result is remembered by the leaf's hash, so that the
//! caller learns *who* the peer is without a second verification, and a peer that comes again
//! costs no chain signature. Called by rustls and by this room's handshakes.
//!
//! Never: remembers beyond its own bundle generation; skips the validity dates or the peer's own
//! CertificateVerify signature, remembered or not.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use myelin_identity::bundle::TrustBundles;
use myelin_identity::svid::MAX_CHAIN_CERTIFICATES;
use myelin_identity::verify::{self, Peer, PeerVerifier, Refusal, Role};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// How many verified peers are remembered. A sidecar talks to tens of peers, the busiest to a few
/// thousand; an entry is about 300 bytes. When it is full it starts afresh: a peer that comes
/// again is verified again, and nothing else changes.
const REMEMBERED: usize = 1024;

/// Hash of the chain, and whether the peer was checked as a client.
type Seen = ([u8; 32], bool);

#[derive(Debug)]
pub(super) struct Verifier {
    trust: TrustBundles,
    rules: PeerVerifier,
    seen: Mutex<HashMap<Seen, Arc<Peer>>>,
}

impl Verifier {
    pub(super) fn new(trust: TrustBundles) -> Self {
        // Chains are judged here, with the foreign bundles; the rules lend their signature checks.
        let rules = PeerVerifier::new(Arc::clone(trust.own()));
        Self { trust, rules, seen: Mutex::default() }
    }

    /// Who holds this chain: remembered if its dates still hold, verified otherwise.
    pub(super) fn peer(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
        role: Role,
    ) -> Result<Arc<Peer>, Refusal> {
        let key = (fingerprint(chain), role == Role::Client);
        if let Some(peer) = self.lock().get(&key)
            && (peer.not_before..=peer.path_not_after).contains(&now.as_secs())
        {
            return Ok(Arc::clone(peer));
        }
        let peer = Arc::new(verify::peer(chain, &self.trust, now, role)?);
        let mut seen = self.lock();
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        seen.insert(key, Arc::clone(&peer));
        Ok(peer)
    }

    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        now: UnixTime,
        role: Role,
    ) -> Result<(), Error> {
        // The bound comes before the copy: a hundred certificates are refused unread.
        if issuers.len() >= MAX_CHAIN_CERTIFICATES {
            return Err(Refusal::ChainTooLong { count: issuers.len() + 1 }.into());
        }
        let mut chain = Vec::with_capacity(1 + issuers.len());
        chain.push(leaf.clone());
        chain.extend_from_slice(issuers);
        self.peer(&chain, now, role)?;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Seen, Arc<Peer>>> {
        // A panic elsewhere leaves at worst a missing entry.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Each certificate's length goes in as well, so that no two chains read the same.
fn fingerprint(chain: &[CertificateDer<'_>]) -> [u8; 32] {
    let mut hash = Context::new(&SHA256);
    for certificate in chain {
        hash.update(&(certificate.len() as u64).to_be_bytes());
        hash.update(certificate);
    }
    let mut out = [0; 32];
    out.copy_from_slice(hash.finish().as_ref());
    out
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates, now, Role::Server)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls12_signature(&self.rules, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ServerCertVerifier::verify_tls13_signature(&self.rules, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ServerCertVerifier::supported_verify_schemes(&self.rules)
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        ClientCertVerifier::root_hint_subjects(&self.rules)
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates, now, Role::Client)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ClientCertVerifier::verify_tls12_signature(&self.rules, message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        ClientCertVerifier::verify_tls13_signature(&self.rules, message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ClientCertVerifier::supported_verify_schemes(&self.rules)
    }
}
