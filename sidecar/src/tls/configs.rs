//! One credential generation as rustls configurations. Built by `credentials` for each new SVID or
//! bundle, and swapped in whole, so that a handshake sees one generation from start to end.
//!
//! Never: TLS 1.2, a group or suite that was not listed here, tickets or resumption (they come
//! with the rules that make them safe), a server name that leaks.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::time::Duration;

use myelin_identity::bundle::TrustBundles;
use myelin_identity::verify::{Peer, Refusal, Role};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{self, cipher_suite};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, NamedGroup, ServerConfig, SupportedCipherSuite, version};

use super::verifier::Verifier;
use crate::addr::Clock;
use crate::wire;

/// Ephemeral groups in order of preference: post-quantum hybrid, then the fast curve, then the
/// one that every other stack has. The same order for both directions.
const GROUPS: [&dyn SupportedKxGroup; 3] = [
    aws_lc_rs::kx_group::X25519MLKEM768,
    aws_lc_rs::kx_group::X25519,
    aws_lc_rs::kx_group::SECP256R1,
];

/// The same three suites, the one first that costs least: key updates weigh as much as records
/// (SHA-256 has instructions of its own, SHA-384 has not), and what protects a recording from the
/// quantum computers to come is the key exchange; 128 bits against Grover's search are NIST's
/// category 1.
const FASTEST_WITH_AES: [SupportedCipherSuite; 3] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
];
const FASTEST_WITHOUT: [SupportedCipherSuite; 3] = [
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
];

/// Whether this processor has instructions for AES.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// The credential cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
#[error(
    "this credential cannot serve TLS: {0}; the CA must issue a P-256 SVID for the key we sent"
)]
pub struct TlsError(#[from] rustls::Error);

/// Everything a handshake needs, for one credential generation.
#[derive(Clone, Debug)]
pub struct Configs {
    verifier: Arc<Verifier>,
    time: Arc<Now>,
    accept_mesh: Arc<ServerConfig>,
    accept_bare: Arc<ServerConfig>,
    dial_mesh: Arc<ClientConfig>,
    dial_bare: Arc<ClientConfig>,
    declared: Arc<[Declared]>,
}

/// Configurations for one ALPN that plain mTLS peers were declared to speak.
#[derive(Debug)]
struct Declared {
    alpn: Vec<u8>,
    accept: Arc<ServerConfig>,
    dial: Arc<ClientConfig>,
}

impl Configs {
    /// `chain` is leaf first; `trust` is our own bundle alone, or with the foreign ones; `alpns` are
    /// the protocols that configuration declares for peers without `myelin/1`.
    pub fn build(
        chain: &[CertificateDer<'static>],
        key: &PrivateKeyDer<'static>,
        trust: impl Into<TrustBundles>,
        alpns: &[Vec<u8>],
        clock: &Clock,
    ) -> Result<Self, TlsError> {
        Self::build_narrowed(chain, key, trust, alpns, clock, |_group| true)
    }

    /// The same with fewer groups, never with others: to measure what one group costs.
    pub fn build_narrowed(
        chain: &[CertificateDer<'static>],
        key: &PrivateKeyDer<'static>,
        trust: impl Into<TrustBundles>,
        alpns: &[Vec<u8>],
        clock: &Clock,
        keep: impl Fn(NamedGroup) -> bool,
    ) -> Result<Self, TlsError> {
        let mut provider = provider();
        Arc::make_mut(&mut provider).kx_groups.retain(|group| keep(group.name()));
        let verifier = Arc::new(Verifier::new(trust.into()));
        let time = Arc::new(Now(clock.clone()));
        let parts = Parts { chain, key, provider, verifier: &verifier, time: Arc::clone(&time) };
        let declared = alpns
            .iter()
            .map(|alpn| {
                let one = vec![alpn.clone()];
                Ok(Declared {
                    alpn: alpn.clone(),
                    accept: parts.server(one.clone())?,
                    dial: parts.client(one)?,
                })
            })
            .collect::<Result<Vec<_>, rustls::Error>>()?;
        Ok(Self {
            accept_mesh: parts.server(vec![wire::ALPN.to_vec()])?,
            accept_bare: parts.server(Vec::new())?,
            dial_mesh: parts.client(vec![wire::ALPN.to_vec()])?,
            dial_bare: parts.client(Vec::new())?,
            declared: declared.into(),
            time,
            verifier,
        })
    }

    /// Who holds this chain, by this generation's bundle and at this moment. After a handshake of
    /// the same generation this only looks it up.
    pub fn peer(&self, chain: &[CertificateDer<'_>], role: Role) -> Result<Arc<Peer>, Refusal> {
        self.verifier.peer(chain, self.time.read(), role)
    }

    /// For a peer that offered `myelin/1`.
    pub fn accept_mesh(&self) -> &Arc<ServerConfig> {
        &self.accept_mesh
    }

    /// For a declared peer; `None` if this ALPN was not known when the generation was built.
    pub fn accept_plain(&self, alpn: Option<&[u8]>) -> Option<&Arc<ServerConfig>> {
        match alpn {
            None => Some(&self.accept_bare),
            Some(name) => self.declared(name).map(|found| &found.accept),
        }
    }

    /// Towards a peer that speaks `myelin/1`.
    pub fn dial_mesh(&self) -> &Arc<ClientConfig> {
        &self.dial_mesh
    }

    /// Towards a declared peer, likewise.
    pub fn dial_plain(&self, alpn: Option<&[u8]>) -> Option<&Arc<ClientConfig>> {
        match alpn {
            None => Some(&self.dial_bare),
            Some(name) => self.declared(name).map(|found| &found.dial),
        }
    }

    fn declared(&self, alpn: &[u8]) -> Option<&Declared> {
        self.declared.iter().find(|declared| declared.alpn == alpn)
    }
}

/// The provider of every TLS connection that this process makes, the one to the CA included.
pub fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = GROUPS.to_vec();
    provider.cipher_suites = if has_aes() { &FASTEST_WITH_AES } else { &FASTEST_WITHOUT }.to_vec();
    Arc::new(provider)
}

struct Parts<'a> {
    chain: &'a [CertificateDer<'static>],
    key: &'a PrivateKeyDer<'static>,
    provider: Arc<CryptoProvider>,
    verifier: &'a Arc<Verifier>,
    time: Arc<Now>,
}

impl Parts<'_> {
    fn server(&self, alpns: Vec<Vec<u8>>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let time = Arc::clone(&self.time);
        let mut config = ServerConfig::builder_with_details(Arc::clone(&self.provider), time)
            .with_protocol_versions(&[&version::TLS13])?
            .with_client_cert_verifier(Arc::<Verifier>::clone(self.verifier))
            .with_single_cert(self.chain.to_vec(), self.key.clone_key())?;
        config.alpn_protocols = alpns;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.enable_secret_extraction = true;
        Ok(Arc::new(config))
    }

    fn client(&self, alpns: Vec<Vec<u8>>) -> Result<Arc<ClientConfig>, rustls::Error> {
        let time = Arc::clone(&self.time);
        let mut config = ClientConfig::builder_with_details(Arc::clone(&self.provider), time)
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::<Verifier>::clone(self.verifier))
            .with_client_auth_cert(self.chain.to_vec(), self.key.clone_key())?;
        config.alpn_protocols = alpns;
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        // The record layer is ours: rustls hands it each direction's keys after the handshake.
        config.enable_secret_extraction = true;
        Ok(Arc::new(config))
    }
}

/// Our clock, for rustls.
#[derive(Debug)]
struct Now(Clock);

impl Now {
    fn read(&self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(self.0.unix()))
    }
}

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.read())
    }
}
