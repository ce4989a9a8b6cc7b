//! Why a handshake came to nothing, with one word for each reason. Called by the handshakes of
//! this room; `report` repeats the word.
//!
//! Never: two words for one reason; a message that holds a peer's bytes unescaped.

// SPDX-License-Identifier: Apache-2.0

use std::io;
use std::time::Duration;

use myelin_identity::verify::Refusal;
use rustls::Error;

use crate::relay::RecordError;

/// How a handshake failed, by who is to blame.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("the peer did not finish its handshake within {0:?}; it stalls or packets are lost")]
    Timeout(Duration),
    #[error("the peer closed in the middle of the handshake; its own log says why")]
    Closed,
    #[error("the connection broke in the middle of the handshake: {0}")]
    Io(io::Error),
    #[error("these bytes are not TLS; a plaintext client reached a port that takes mTLS only")]
    Plaintext,
    #[error("{0}")]
    Peer(#[from] Refusal),
    #[error("the peer speaks neither myelin/1 nor what is declared here; declare plain_mtls")]
    UndeclaredProtocol,
    #[error("the peer refused us with the TLS alert {0}; its log says why")]
    Alert(String),
    #[error("the peer broke the TLS protocol: {0}")]
    Protocol(Error),
}

impl HandshakeError {
    /// The outcome word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "handshake_timeout",
            Self::Closed => "handshake_closed",
            Self::Io(_) => "handshake_broken",
            Self::Plaintext => "plaintext_refused",
            Self::Peer(refusal) => refusal.word(),
            Self::UndeclaredProtocol => "undeclared_protocol",
            Self::Alert(_) => "refused_by_alert",
            Self::Protocol(_) => "tls_violation",
        }
    }

    /// Every word of this room's own; those of the verifier come beside them.
    pub const WORDS: [&'static str; 7] = [
        "handshake_timeout",
        "handshake_closed",
        "handshake_broken",
        "plaintext_refused",
        "undeclared_protocol",
        "refused_by_alert",
        "tls_violation",
    ];
}

impl From<RecordError> for HandshakeError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Truncated => Self::Closed,
            RecordError::Io(error) => Self::from(error),
            RecordError::Tls(error) => Self::from(error),
        }
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

impl From<Error> for HandshakeError {
    fn from(error: Error) -> Self {
        if let Some(refusal) = Refusal::of(&error) {
            return Self::Peer(refusal);
        }
        match error {
            Error::NoApplicationProtocol => Self::UndeclaredProtocol,
            Error::AlertReceived(alert) => Self::Alert(format!("{alert:?}")),
            Error::InvalidMessage(
                rustls::InvalidMessage::InvalidContentType
                | rustls::InvalidMessage::UnknownProtocolVersion,
            ) => Self::Plaintext,
            other => Self::Protocol(other),
        }
    }
}
