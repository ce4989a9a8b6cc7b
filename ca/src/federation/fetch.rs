//! One fetch from a bundle endpoint: one connection, one GET, one document. Called by `refresh`.
//!
//! Never: a redirect, a TLS version below 1.3, a connection without verification, more bytes or
//! seconds than the bounds here, or a second try.

// SPDX-License-Identifier: Apache-2.0

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use myelin_identity::bundle::{MAX_FORM_BYTES, TrustBundle};
use myelin_identity::id::SpiffeId;
use myelin_identity::verify::{EndpointVerifier, Refusal};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::{ClientConfig, RootCertStore, version::TLS13};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::clock::Clock;

/// All of it, resolving included: below the deadline of an operator's question, who may be waiting.
const FETCH_DEADLINE: Duration = Duration::from_secs(8);
/// Each address of the host gets its share of the deadline.
const MAX_ADDRESSES: usize = 4;
/// Status line and headers.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// The system's roots as a file: 150 of them take 250 KB.
const MAX_SYSTEM_ROOTS_BYTES: u64 = 4 * 1024 * 1024;
const HTTPS_PORT: u16 = 443;

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
    #[error("cannot reach {host}: {cause}; is the endpoint up, and the URL right?")]
    Unreachable { host: String, cause: String },
    #[error("the endpoint did not answer within {FETCH_DEADLINE:?}")]
    Deadline,
    #[error("the endpoint is not who it should be: {0}")]
    Refused(Refusal),
    #[error("the handshake with the endpoint failed: {0}")]
    Handshake(String),
    #[error(
        "no roots to recognise web endpoints by: {0}; install ca-certificates, or add with --web-roots"
    )]
    NoWebRoots(String),
    #[error("the endpoint answered {0}; expected 200 with the bundle")]
    Status(StatusCode),
    #[error("the endpoint's answer is larger than {MAX_FORM_BYTES} bytes")]
    TooBig,
    #[error("the endpoint's answer was cut or is no HTTP: {0}")]
    Broken(String),
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
            Self::Unreachable { .. } => "unreachable",
            Self::Deadline => "deadline",
            Self::Refused(_) | Self::Handshake(_) => "endpoint_refused",
            Self::NoWebRoots(_) => "no_web_roots",
            Self::Status(_) => "http_status",
            Self::TooBig => "too_big",
            Self::Broken(_) => "broken_answer",
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
    let broken = |cause: &str| FetchError::Broken(cause.to_owned());
    let uri: Uri = url.parse().map_err(|_| broken("the URL cannot be read"))?;
    let name = server_name(&uri).map_err(|()| broken("the URL names no host"))?;
    let config = config(recognised, clock)?;
    let fetched = async {
        let tcp = connect(&uri, &name, address).await?;
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, tcp).await;
        let tls = connecting.map_err(|error| match Refusal::of_io(&error) {
            Some(refusal) => FetchError::Refused(refusal),
            None => FetchError::Handshake(error.to_string()),
        })?;
        get(&uri, tls).await
    };
    timeout(FETCH_DEADLINE, fetched).await.unwrap_or(Err(FetchError::Deadline))
}

/// The host as a certificate would name it.
pub(super) fn server_name(uri: &Uri) -> Result<ServerName<'static>, ()> {
    let host = uri.host().ok_or(())?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(bare.to_owned()).map_err(|_| ())
}

/// Roots out of PEM, at least one that can be used.
pub(super) fn web_roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|error| format!("is no PEM: {error}"))?;
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(certificates);
    if usable == 0 { Err("holds no certificate".to_owned()) } else { Ok(roots) }
}

fn config(recognised: Recognised, clock: &Clock) -> Result<ClientConfig, FetchError> {
    let kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1];
    let provider = Arc::new(CryptoProvider { kx_groups, ..default_provider() });
    let builder = ClientConfig::builder_with_details(provider, Arc::new(clock.clone()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| FetchError::Handshake(error.to_string()))?;
    let mut config = match recognised {
        Recognised::Spiffe { bundle, id } => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(EndpointVerifier::new(bundle, id)))
            .with_no_client_auth(),
        Recognised::Web { roots_pem } => {
            let roots = match roots_pem {
                Some(pem) => web_roots(pem.as_bytes()),
                None => system_roots(),
            };
            let roots = roots.map_err(FetchError::NoWebRoots)?;
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Read at each fetch, so that an update of the system's roots counts at once.
fn system_roots() -> Result<RootCertStore, String> {
    let found = SYSTEM_ROOTS.iter().find(|path| std::path::Path::new(path).exists());
    let path = found.ok_or_else(|| format!("none of {} is there", SYSTEM_ROOTS.join(", ")))?;
    let said = |error: io::Error| format!("{path}: {error}");
    if std::fs::metadata(path).map_err(said)?.len() > MAX_SYSTEM_ROOTS_BYTES {
        return Err(format!("{path} is larger than {MAX_SYSTEM_ROOTS_BYTES} bytes"));
    }
    let pem = std::fs::read(path).map_err(said)?;
    web_roots(&pem).map_err(|why| format!("{path} {why}"))
}

async fn connect(
    uri: &Uri,
    name: &ServerName<'_>,
    address: Option<SocketAddr>,
) -> Result<TcpStream, FetchError> {
    let port = uri.port_u16().unwrap_or(HTTPS_PORT);
    let host = name.to_str();
    let unreachable = |cause: String| FetchError::Unreachable { host: host.to_string(), cause };
    let addresses: Vec<SocketAddr> = match (address, name) {
        (Some(address), _) => vec![address],
        (None, ServerName::IpAddress(ip)) => vec![SocketAddr::new(IpAddr::from(*ip), port)],
        (None, _) => {
            let found = tokio::net::lookup_host((host.as_ref(), port)).await;
            let found = found.map_err(|error| unreachable(error.to_string()))?;
            found.take(MAX_ADDRESSES).collect()
        }
    };
    let mut last = "it has no address".to_owned();
    let share = FETCH_DEADLINE / u32::try_from(addresses.len().max(1) + 1).unwrap_or(1);
    for address in addresses {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => last = format!("{address}: {error}"),
            Err(_) => last = format!("{address}: no answer"),
        }
    }
    Err(unreachable(last))
}

async fn get(uri: &Uri, tls: TlsStream<TcpStream>) -> Result<String, FetchError> {
    let broken = |error: hyper::Error| FetchError::Broken(error.to_string());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(HOST, authority)
        .header(ACCEPT, "application/json")
        .header(CONNECTION, "close")
        .header(USER_AGENT, concat!("myelin-ca/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| FetchError::Broken(error.to_string()))?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(tls))
        .await
        .map_err(broken)?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(broken)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_FORM_BYTES).collect().await;
        let bytes = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => FetchError::TooBig,
            None => FetchError::Broken(error.to_string()),
        })?;
        String::from_utf8(bytes.to_bytes().to_vec())
            .map_err(|_| FetchError::Broken("it is no UTF-8".to_owned()))
    };
    // The connection is driven until the answer is whole; what becomes of it then is nobody's care.
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        said = &mut exchange => said,
        _ = &mut connection => exchange.await,
    }
}
