//! TLS 1.3 with a peer: from a verified credential to rustls configurations, and from a TCP stream
//! to a `Session` whose peer is one SPIFFE ID. Called by `inbound`, `outbound` and `credentials`.
//!
//! Never: TLS 1.2, a session without a peer certificate, a second try with less than was asked
//! for, a key or a secret in a message.

// SPDX-License-Identifier: Apache-2.0

mod configs;
mod drive;
mod handshake;
mod refusal;
mod session;
mod verifier;

pub use configs::{Configs, TlsError, provider};
pub use handshake::{Deadline, Declared, Offer, accept, dial};
pub use refusal::HandshakeError;
pub use session::{Facts, Session};

#[cfg(test)]
mod tests;
