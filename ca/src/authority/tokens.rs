//! Join tokens: made for an operator, stored as a hash, bound to an ID and addresses, good once.
//!
//! Never: stores or logs a secret, or binds one to a reserved path or another trust domain.

// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;
use std::time::Duration;

use myelin_identity::bundle::TrustBundle;
use myelin_identity::id::{IdError, SpiffeId};
use myelin_identity::issuance::{JoinToken, MAX_PROTOCOL_BYTES, TokenSecret};

use super::denied::{Denied, DeniedError};
use crate::clock::UnixSeconds;
use crate::journal::{Batch, Grant, Hex, Journal, JournalError, TokenRecord};
use crate::store::Commit;

/// Longest that a token may wait: a machine that joins later gets a new one.
pub const MAX_TTL: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most addresses in a token, and so IP SANs in a certificate: every one is a record in the issuing
/// commit.
pub const MAX_ADDRESSES: usize = 16;
/// Most single ports in a token.
pub const MAX_PORTS: usize = 16;

/// What an operator asks for.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct TokenRequest {
    pub spiffe_id: String,
    pub addresses: Vec<IpAddr>,
    pub ports: Vec<u16>,
    pub protocol: String,
    pub ttl_seconds: u64,
}

/// A token that was stored. The secret exists here and in the operator's hands only.
pub struct NewToken {
    pub token: JoinToken,
    pub expires: UnixSeconds,
    pub name: Hex,
}

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error(
        "{id:?} is no SPIFFE ID: {why}; expected spiffe://<trust domain>/ns/<namespace>/sa/<service account>"
    )]
    Id { id: String, why: IdError },
    #[error("{0} is reserved for the CA itself; choose a path outside /myelin")]
    Reserved(SpiffeId),
    #[error(
        "{id} is of another trust domain than this CA ({expected}); use spiffe://{expected}/..."
    )]
    OtherTrustDomain { id: SpiffeId, expected: String },
    #[error(
        "{0} is revoked, so that a token for it would be good for nothing; see `myelin-ca revoke list`, and wait or take it back with `revoke undo`"
    )]
    Revoked(String),
    #[error(transparent)]
    Denied(#[from] DeniedError),
    #[error("{found} addresses were given, but there must be 1 to {MAX_ADDRESSES}, each once")]
    Addresses { found: usize },
    #[error("address {0} cannot be a workload's; name the address that peers dial")]
    Address(IpAddr),
    #[error("there may be at most {MAX_PORTS} ports, each once and not 0")]
    Ports,
    #[error(
        "protocol {0:?} must be at most {MAX_PROTOCOL_BYTES} of a-z 0-9 . : / -, such as myelin/1, mtls or mtls:h2"
    )]
    Protocol(String),
    #[error("a ttl of {0} s is outside 1 s to 7 days; machines that join later get a new token")]
    Ttl(u64),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("cannot draw random bytes from the operating system; no token was made")]
    NoRandomness,
}

/// Makes a token. Works on the journal alone, so that it does without a running server.
pub async fn create(
    journal: &Journal,
    bundle: &TrustBundle,
    request: &TokenRequest,
    now: UnixSeconds,
) -> Result<NewToken, TokenError> {
    let grant = grant(bundle, request)?;
    if request.ttl_seconds == 0 || request.ttl_seconds > MAX_TTL.as_secs() {
        return Err(TokenError::Ttl(request.ttl_seconds));
    }
    if Denied::read(journal, now).await?.holds_id(&grant.spiffe_id, now) {
        return Err(TokenError::Revoked(grant.spiffe_id));
    }
    let secret = TokenSecret::random().map_err(|_| TokenError::NoRandomness)?;
    let name = Hex(secret.stored_hash().to_vec());
    let expires = now + request.ttl_seconds;
    let mut batch = Batch::default();
    batch.create(&name.to_string(), &TokenRecord { grant, created: now, expires, used: None });
    match journal.commit(batch).await? {
        Commit::Committed { .. } => {
            Ok(NewToken { token: JoinToken { secret, bundle_hash: bundle.hash() }, expires, name })
        }
        // 256 random bits were there before: the generator is broken.
        Commit::Conflict => Err(TokenError::NoRandomness),
    }
}

/// The grant of a request, checked whole.
fn grant(bundle: &TrustBundle, request: &TokenRequest) -> Result<Grant, TokenError> {
    let id = workload_id(bundle, &request.spiffe_id)?;
    let addresses = addresses(&request.addresses)?;
    let ports = ports(&request.ports)?;
    protocol(&request.protocol)?;
    Ok(Grant { spiffe_id: id.to_string(), addresses, ports, protocol: request.protocol.clone() })
}

/// An ID that a workload of this trust domain may have.
pub(super) fn workload_id(bundle: &TrustBundle, text: &str) -> Result<SpiffeId, TokenError> {
    let id = SpiffeId::parse(text).map_err(|why| TokenError::Id { id: text.to_owned(), why })?;
    if id.trust_domain() != bundle.trust_domain() {
        let expected = bundle.trust_domain().to_string();
        return Err(TokenError::OtherTrustDomain { id, expected });
    }
    if id.is_reserved() {
        return Err(TokenError::Reserved(id));
    }
    Ok(id)
}

pub(super) fn addresses(asked: &[IpAddr]) -> Result<Vec<IpAddr>, TokenError> {
    let mut addresses: Vec<IpAddr> = asked.iter().map(IpAddr::to_canonical).collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.len() != asked.len() || !(1..=MAX_ADDRESSES).contains(&addresses.len()) {
        return Err(TokenError::Addresses { found: asked.len() });
    }
    if let Some(address) =
        addresses.iter().find(|address| address.is_unspecified() || address.is_multicast())
    {
        return Err(TokenError::Address(*address));
    }
    Ok(addresses)
}

pub(super) fn ports(asked: &[u16]) -> Result<Vec<u16>, TokenError> {
    let mut ports = asked.to_vec();
    ports.sort_unstable();
    ports.dedup();
    if ports.len() != asked.len() || ports.len() > MAX_PORTS || ports.first() == Some(&0) {
        return Err(TokenError::Ports);
    }
    Ok(ports)
}

pub(super) fn protocol(asked: &str) -> Result<(), TokenError> {
    let fits =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"./-:".contains(&byte);
    if asked.len() > MAX_PROTOCOL_BYTES || !asked.bytes().all(fits) {
        return Err(TokenError::Protocol(asked.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use myelin_identity::id::TrustDomain;
    use myelin_identity::seal::SealKey;

    use super::*;
    use crate::signer::{Signer, Vault};
    use crate::template::{IssuerTemplate, Serial, Validity};

    /// A change that makes a request wrong, and what the refusal says.
    type Case = (fn(&mut TokenRequest), &'static str);

    pub(in crate::authority) fn bundle() -> TrustBundle {
        let template = IssuerTemplate {
            common_name: "test".to_owned(),
            trust_domain: "prod.example".to_owned(),
            serial: Serial::from_random([1; 16]),
            validity: Validity { not_before: 1, not_after: 2_000_000_000 },
            path_length: None,
            extensions: Vec::new(),
        };
        let (root, _) =
            Signer::make_root(&template, &Vault::sealed(SealKey::from_bytes([1; 32]))).unwrap();
        let domain = TrustDomain::parse("prod.example").unwrap();
        TrustBundle::new(domain, 1, vec![root.certificate().clone()]).unwrap()
    }

    #[test]
    fn grant_is_checked_whole() {
        let bundle = bundle();
        let asked = |change: fn(&mut TokenRequest)| {
            let mut request = TokenRequest {
                spiffe_id: "spiffe://prod.example/ns/shop/sa/web".to_owned(),
                addresses: vec!["10.0.0.7".parse().unwrap()],
                ports: vec![80],
                protocol: String::new(),
                ttl_seconds: 60,
            };
            change(&mut request);
            grant(&bundle, &request).map_err(|error| error.to_string())
        };
        assert!(asked(|_| {}).is_ok());
        let table: [Case; 10] = [
            (|it| it.spiffe_id = "web".to_owned(), "no SPIFFE ID"),
            (|it| it.spiffe_id = "spiffe://prod.example/myelin/ca".to_owned(), "reserved"),
            (
                |it| it.spiffe_id = "spiffe://other.example/ns/a/sa/b".to_owned(),
                "another trust domain",
            ),
            (|it| it.addresses.clear(), "1 to 16"),
            (|it| it.addresses.push("::ffff:10.0.0.7".parse().unwrap()), "each once"),
            (|it| it.addresses = vec!["0.0.0.0".parse().unwrap()], "cannot be a workload's"),
            (|it| it.addresses = vec!["224.0.0.1".parse().unwrap()], "cannot be a workload's"),
            (|it| it.ports = vec![0], "ports"),
            (|it| it.ports = vec![80, 80], "ports"),
            (|it| it.protocol = "H2 ".to_owned(), "protocol"),
        ];
        for (change, expected) in table {
            let error = asked(change).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
