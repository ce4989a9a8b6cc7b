//! One fetch from a bundle endpoint: whom to recognise there, and one document. Called by `refresh`.
//!
//! Never: takes an endpoint's word for who it is, or more bytes or seconds than the bounds here.

// SPDX-License-Identifier: Apache-2.0

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use myelin_identity::bundle::{MAX_FORM_BYTES, TrustBundle};
use myelin_identity::id::SpiffeId;
use myelin_identity::verify::{EndpointVerifier, Refusal};
use rustls::RootCertStore;

use crate::clock::Clock;
use crate::datadir::read_bounded;
use crate::https::{self, HttpsError, HttpsUrl, Question};

/// All of it, resolving included: below the deadline of an operator's question, who may be waiting.
const FETCH_DEADLINE: Duration = Duration::from_secs(8);
/// The system's roots as a file: 150 of them take 250 KB.
const MAX_SYSTEM_ROOTS_BYTES: u64 = 4 * 1024 * 1024;

/// Where distributions keep the public authorities' roots: Debian, Red Hat, Alpine.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Whom the endpoint must prove to be.
#[derive(Clone, Debug)]
pub(super) enum Recognised {
    Spiffe {
        bundle: Arc<TrustBundle>,
        id: SpiffeId,
    },
    /// By public authorities, or by those of this PEM.
    Web {
        roots_pem: Option<String>,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the endpoint is not who it should be: {0}")]
    Refused(Refusal),
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error(
        "no roots to recognise web endpoints by: {0}; install ca-certificates, or add with --web-roots"
    )]
    NoWebRoots(String),
    #[error(transparent)]
    Https(#[from] HttpsError),
    #[error("the answer is no UTF-8")]
    NoText,
    #[error("the URL of the entry cannot be read; remove it and add it again")]
    Url,
}

impl FetchError {
    pub const WORDS: [&'static str; 7] = [
        "unreachable",
        "deadline",
        "endpoint_refused",
        "no_web_roots",
        "http_status",
        "too_big",
        "broken_answer",
    ];

    pub fn word(&self) -> &'static str {
        match self {
            Self::Refused(_) | Self::Tls(_) => "endpoint_refused",
            Self::NoWebRoots(_) => "no_web_roots",
            Self::NoText | Self::Url => "broken_answer",
            Self::Https(error) => match error {
                HttpsError::Unreachable { .. } => "unreachable",
                HttpsError::Deadline(_) => "deadline",
                HttpsError::Handshake(_) => "endpoint_refused",
                HttpsError::Status(_) => "http_status",
                HttpsError::TooBig(_) => "too_big",
                HttpsError::Broken(_) => "broken_answer",
            },
        }
    }
}

/// The document at `url`, which an operator's entry has checked.
pub(super) async fn fetch(
    url: &str,
    address: Option<SocketAddr>,
    recognised: Recognised,
    clock: &Clock,
) -> Result<String, FetchError> {
    let url = HttpsUrl::parse(url).ok_or(FetchError::Url)?;
    let recognised = match recognised {
        Recognised::Spiffe { bundle, id } => {
            https::Recognised::By(Arc::new(EndpointVerifier::new(bundle, id)))
        }
        Recognised::Web { roots_pem } => {
            let roots = match roots_pem {
                Some(pem) => https::roots(pem.as_bytes()),
                None => system_roots(),
            };
            https::Recognised::ByRoots(roots.map_err(FetchError::NoWebRoots)?)
        }
    };
    let config = Arc::new(https::client_config(recognised, clock)?);
    let question = Question {
        url: &url,
        address,
        authorization: None,
        most_bytes: MAX_FORM_BYTES,
        within: FETCH_DEADLINE,
    };
    let body = https::get(question, config).await.map_err(|error| match error {
        HttpsError::Handshake(error) => match Refusal::of_io(&error) {
            Some(refusal) => FetchError::Refused(refusal),
            None => HttpsError::Handshake(error).into(),
        },
        error => error.into(),
    })?;
    String::from_utf8(body).map_err(|_| FetchError::NoText)
}

/// Read at each fetch, so that an update of the system's roots counts at once.
pub fn system_roots() -> Result<RootCertStore, String> {
    let found = SYSTEM_ROOTS.iter().find(|path| Path::new(path).exists());
    let path = found.ok_or_else(|| format!("none of {} is there", SYSTEM_ROOTS.join(", ")))?;
    let pem = read_bounded(Path::new(path), MAX_SYSTEM_ROOTS_BYTES)
        .map_err(|error: io::Error| format!("{path}: {error}"))?;
    https::roots(&pem).map_err(|why| format!("{path} {why}"))
}
