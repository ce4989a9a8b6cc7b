//! One question over HTTPS: one connection, one bounded answer, one deadline. Called by `federation`
//! for bundles, by `attest` for the keys of service-account tokens and by `log` for cosignatures,
//! who say whom to expect there.
//!
//! Never: a redirect, a second try, a TLS version below 1.3, a resumed session, or a connection
//! that leaves this machine to an end that was not verified.

// SPDX-License-Identifier: Apache-2.0

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::{ClientConfig, RootCertStore, version::TLS13};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::clock::Clock;

/// Each address of the host gets its share of the deadline.
const MAX_ADDRESSES: usize = 4;
/// Status line and headers.
const MAX_HEAD_BYTES: usize = 16 * 1024;
const HTTPS_PORT: u16 = 443;
const HTTP_PORT: u16 = 80;

/// An https URL whose host a certificate can name.
#[derive(Clone, Debug)]
pub struct HttpsUrl {
    uri: Uri,
    name: ServerName<'static>,
    /// No TLS: the other end is on this machine.
    here: bool,
}

/// Whom to believe to be the one who is asked.
#[derive(Debug)]
pub enum Recognised {
    ByRoots(RootCertStore),
    By(Arc<dyn ServerCertVerifier>),
}

/// RFC 7517 section 8.5.1. The API server of Kubernetes answers its key set's readers with 406 unless they
/// name that type; others know the second alone.
const SETS_OF_KEYS: &str = "application/jwk-set+json, application/json";

/// What is asked, and how much patience there is.
#[derive(Debug)]
pub struct Question<'a> {
    pub url: &'a HttpsUrl,
    /// Where to connect to, if the host's name does not say it.
    pub address: Option<SocketAddr>,
    /// `Bearer ...`, if the server wants to know who asks.
    pub authorization: Option<HeaderValue>,
    /// Of the answer's body.
    pub most_bytes: usize,
    /// For all of it, resolving included.
    pub within: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    #[error("cannot reach {host}: {cause}; is it up, and the URL right?")]
    Unreachable { host: String, cause: String },
    #[error("there was no whole answer within {0:?}")]
    Deadline(Duration),
    #[error("the handshake with the endpoint failed: {0}")]
    Handshake(io::Error),
    #[error("the answer was {0}; expected 200")]
    Status(StatusCode),
    #[error("the answer is larger than {0} bytes")]
    TooBig(usize),
    #[error("the answer was cut or is no HTTP: {0}")]
    Broken(String),
}

impl HttpsUrl {
    /// `None` if it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let url = Self::of_any_scheme(text)?;
        (url.uri.scheme_str() == Some("https")).then_some(url)
    }

    /// Also `http://` and an address of this machine's loopback, where nobody listens in between.
    pub fn parse_or_loopback(text: &str) -> Option<Self> {
        let url = Self::of_any_scheme(text)?;
        let loopback =
            matches!(&url.name, ServerName::IpAddress(ip) if IpAddr::from(*ip).is_loopback());
        let here = url.uri.scheme_str() == Some("http") && loopback;
        (here || url.uri.scheme_str() == Some("https")).then_some(Self { here, ..url })
    }

    fn of_any_scheme(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let bare = uri.host()?.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned()).ok()?;
        Some(Self { uri, name, here: false })
    }

    /// Whether what is asked there never leaves this machine.
    pub fn is_here(&self) -> bool {
        self.here
    }

    pub fn host(&self) -> String {
        self.name.to_str().into_owned()
    }
}

/// Roots out of PEM, at least one that can be used.
pub fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|error| format!("is no PEM: {error}"))?;
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(certificates);
    if usable == 0 { Err("holds no certificate".to_owned()) } else { Ok(roots) }
}

pub fn client_config(recognised: Recognised, clock: &Clock) -> Result<ClientConfig, rustls::Error> {
    let kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1];
    let provider = Arc::new(CryptoProvider { kx_groups, ..default_provider() });
    let builder = ClientConfig::builder_with_details(provider, Arc::new(clock.clone()))
        .with_protocol_versions(&[&TLS13])?;
    let mut config = match recognised {
        Recognised::ByRoots(roots) => builder.with_root_certificates(roots).with_no_client_auth(),
        Recognised::By(verifier) => {
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The body of the answer, if that is a 200.
pub async fn get(question: Question<'_>, config: Arc<ClientConfig>) -> Result<Vec<u8>, HttpsError> {
    match ask(question, None, config).await? {
        (StatusCode::OK, body) => Ok(body),
        (status, _) => Err(HttpsError::Status(status)),
    }
}

/// Posts a body; yields the answer, whatever its status.
pub async fn post(
    question: Question<'_>,
    body: Vec<u8>,
    config: Arc<ClientConfig>,
) -> Result<(StatusCode, Vec<u8>), HttpsError> {
    ask(question, Some(body), config).await
}

async fn ask(
    question: Question<'_>,
    body: Option<Vec<u8>>,
    config: Arc<ClientConfig>,
) -> Result<(StatusCode, Vec<u8>), HttpsError> {
    let within = question.within;
    let asked = async {
        let tcp = connect(&question).await?;
        if question.url.here {
            return exchange(question, body, tcp).await;
        }
        let connecting = TlsConnector::from(config).connect(question.url.name.clone(), tcp);
        exchange(question, body, connecting.await.map_err(HttpsError::Handshake)?).await
    };
    timeout(within, asked).await.unwrap_or(Err(HttpsError::Deadline(within)))
}

async fn connect(question: &Question<'_>) -> Result<TcpStream, HttpsError> {
    let HttpsUrl { uri, name, here } = question.url;
    let port = uri.port_u16().unwrap_or(if *here { HTTP_PORT } else { HTTPS_PORT });
    let host = name.to_str();
    let unreachable = |cause: String| HttpsError::Unreachable { host: host.to_string(), cause };
    let addresses: Vec<SocketAddr> = match (question.address, name) {
        (Some(address), _) => vec![address],
        (None, ServerName::IpAddress(ip)) => vec![SocketAddr::new(IpAddr::from(*ip), port)],
        (None, _) => {
            let found = tokio::net::lookup_host((host.as_ref(), port)).await;
            let found = found.map_err(|error| unreachable(error.to_string()))?;
            found.take(MAX_ADDRESSES).collect()
        }
    };
    let mut last = "it has no address".to_owned();
    let share = question.within / u32::try_from(addresses.len().max(1) + 1).unwrap_or(1);
    for address in addresses {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => last = format!("{address}: {error}"),
            Err(_) => last = format!("{address}: no answer"),
        }
    }
    Err(unreachable(last))
}

async fn exchange(
    question: Question<'_>,
    body: Option<Vec<u8>>,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<(StatusCode, Vec<u8>), HttpsError> {
    let broken = |error: hyper::Error| HttpsError::Broken(error.to_string());
    let most = question.most_bytes;
    let gets = body.is_none();
    let request = request(question, body).map_err(|error| HttpsError::Broken(error.to_string()))?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        // A conflict says what is known there; of other refusals the status is all that counts.
        let has_body = status == StatusCode::OK || !gets && status == StatusCode::CONFLICT;
        if !has_body {
            return Ok((status, Vec::new()));
        }
        let body = Limited::new(response.into_body(), most).collect().await;
        let bytes = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => HttpsError::TooBig(most),
            None => HttpsError::Broken(error.to_string()),
        })?;
        Ok((status, bytes.to_bytes().to_vec()))
    };
    // The connection is driven until the answer is whole; what becomes of it then is nobody's care.
    // That it has ended does not mean that the answer was not there before.
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        said = &mut exchange => said,
        _ = &mut connection => exchange.await,
    }
}

fn request(
    question: Question<'_>,
    body: Option<Vec<u8>>,
) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let uri = &question.url.uri;
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let (mut request, accepted) = match body {
        Some(_) => (Request::post(path), "*/*"),
        None => (Request::get(path), SETS_OF_KEYS),
    };
    request = request
        .header(HOST, authority)
        .header(ACCEPT, accepted)
        .header(CONNECTION, "close")
        .header(USER_AGENT, concat!("myelin-ca/", env!("CARGO_PKG_VERSION")));
    if let Some(authorization) = question.authorization {
        request = request.header(AUTHORIZATION, authorization);
    }
    request.body(Full::from(body.unwrap_or_default()))
}

#[cfg(test)]
mod tests;
