//! A finished handshake: who the peer is, what was negotiated, and the records that follow. Made
//! by the handshakes of this room, taken apart by `inbound` and `outbound`.
//!
//! Never: exists without a verified peer.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use myelin_identity::verify::Peer;
use rustls::pki_types::CertificateDer;
use rustls::{HandshakeKind, NamedGroup};

use crate::relay::Records;

/// What was negotiated, in words from closed lists, for log and metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The key-exchange group, as IANA names it.
    pub group: &'static str,
    /// The cipher suite, as IANA names it.
    pub cipher: &'static str,
    /// Was the handshake a resumption?
    pub resumed: bool,
}

impl Facts {
    /// For handshakes that ended before anything was negotiated.
    pub const NONE: Self = Self { group: "none", cipher: "none", resumed: false };
}

/// A TLS connection with a verified peer.
#[derive(Debug)]
pub struct Session {
    pub records: Box<Records>,
    /// Shared by all connections of this peer.
    pub peer: Arc<Peer>,
    /// What the peer presented, leaf first: what the proof in its hello speaks about.
    pub chain: Vec<CertificateDer<'static>>,
    pub facts: Facts,
    pub(super) myelin: bool,
}

impl Session {
    /// Did both sides agree on `myelin/1`? Otherwise the bytes go as they are.
    pub fn speaks_myelin(&self) -> bool {
        self.myelin
    }
}

/// Reads what a connection negotiated.
pub(super) fn facts(tls: &rustls::CommonState) -> Facts {
    let group =
        tls.negotiated_key_exchange_group().map_or("none", |group| group_word(group.name()));
    let cipher = tls.negotiated_cipher_suite().map_or("none", |suite| cipher_word(suite.suite()));
    Facts { group, cipher, resumed: tls.handshake_kind() == Some(HandshakeKind::Resumed) }
}

fn group_word(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        NamedGroup::X25519 => "x25519",
        NamedGroup::secp256r1 => "secp256r1",
        _ => "other",
    }
}

fn cipher_word(suite: rustls::CipherSuite) -> &'static str {
    use rustls::CipherSuite;
    match suite {
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        _ => "other",
    }
}
