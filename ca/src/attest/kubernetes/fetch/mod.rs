//! A key set over HTTPS: one connection, one GET, one bounded answer, under a CA that was named.
//! Called by `keys`.
//!
//! Never: follows a redirect, trusts the system's roots, speaks less than TLS 1.3, or tries twice.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::clock::Clock;

const HTTPS_PORT: u16 = 443;
/// A service-account token that shows who asks, as the API server wants to see it.
const MAX_BEARER_BYTES: u64 = 8 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{0:?} is no https URL with a host; expected such as https://10.96.0.1/openid/v1/jwks")]
    Url(String),
    #[error("{} holds no CA certificate in PEM: {why}", path.display())]
    Roots { path: PathBuf, why: String },
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("cannot reach {host}: {cause}")]
    Unreachable { host: String, cause: std::io::Error },
    #[error("the answer of {host} is no HTTP: {cause}")]
    Broken { host: String, cause: String },
    #[error("{host} answered {status}; may this CA read it? see --kubernetes-jwks-bearer-file")]
    Status { host: String, status: StatusCode },
    #[error("cannot read the bearer token {}: {cause}", path.display())]
    Bearer { path: PathBuf, cause: std::io::Error },
}

/// Where to ask, and by what to recognise who answers.
pub struct HttpsSource {
    uri: Uri,
    host: String,
    name: ServerName<'static>,
    tls: TlsConnector,
    bearer_file: Option<PathBuf>,
}

impl HttpsSource {
    /// `roots_pem` are the CAs of the file at `roots`.
    pub fn new(
        url: &str,
        roots: PathBuf,
        roots_pem: &[u8],
        bearer_file: Option<PathBuf>,
        clock: Clock,
    ) -> Result<Self, FetchError> {
        let wrong = || FetchError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("https") {
            return Err(wrong());
        }
        let host = uri.host().ok_or_else(wrong)?.to_owned();
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare).map_err(|_| wrong())?;
        let tls = TlsConnector::from(Arc::new(config(roots, roots_pem, clock)?));
        Ok(Self { uri, host, name, tls, bearer_file })
    }

    /// The body, if it is a 200 of at most `most` bytes.
    pub(super) async fn get(&self, most: usize) -> Result<Vec<u8>, FetchError> {
        let unreachable = |cause| FetchError::Unreachable { host: self.host.clone(), cause };
        let port = self.uri.port_u16().unwrap_or(HTTPS_PORT);
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        let tcp = TcpStream::connect((bare, port)).await.map_err(unreachable)?;
        let tls = self.tls.connect(self.name.clone(), tcp).await.map_err(unreachable)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(tls)).await.map_err(|error| self.broken(&error))?;
        let request = self.request().await?;
        let exchange = async {
            let response =
                sender.send_request(request).await.map_err(|error| self.broken(&error))?;
            if response.status() != StatusCode::OK {
                let (host, status) = (self.host.clone(), response.status());
                return Err(FetchError::Status { host, status });
            }
            let body = Limited::new(response.into_body(), most).collect().await;
            let body = body.map_err(|error| self.broken(error.as_ref()))?;
            Ok(body.to_bytes().to_vec())
        };
        // The connection is driven only as long as the exchange needs it. That it has ended does not
        // mean that the answer was not there before.
        let (mut exchange, mut connection) = (pin!(exchange), pin!(connection));
        let mut over = false;
        loop {
            tokio::select! {
                answer = &mut exchange => return answer,
                _ = &mut connection, if !over => over = true,
            }
        }
    }

    async fn request(&self) -> Result<Request<Empty<Bytes>>, FetchError> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let authority = self.uri.authority().map_or(self.host.as_str(), |it| it.as_str());
        let mut request =
            Request::get(path).header(HOST, authority).header(ACCEPT, "application/json");
        if let Some(path) = &self.bearer_file {
            // Read at each request: the kubelet replaces it.
            let wrong = |cause| FetchError::Bearer { path: path.clone(), cause };
            let at = path.clone();
            let read = tokio::task::spawn_blocking(move || read_bearer(&at)).await;
            let text = read.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            let text = text.map_err(wrong)?;
            request = request.header(AUTHORIZATION, format!("Bearer {}", text.trim()));
        }
        request.body(Empty::new()).map_err(|error| self.broken(&error))
    }

    fn broken(&self, cause: &dyn std::error::Error) -> FetchError {
        FetchError::Broken { host: self.host.clone(), cause: cause.to_string() }
    }
}

impl fmt::Debug for HttpsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpsSource({})", self.uri)
    }
}

/// What is longer than a token is cut, and so refused by whoever sees it.
fn read_bearer(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_BEARER_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn config(roots: PathBuf, pem: &[u8], clock: Clock) -> Result<ClientConfig, FetchError> {
    let wrong = |why: String| FetchError::Roots { path: roots.clone(), why };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|error| wrong(error.to_string()))?;
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if store.is_empty() {
        return Err(wrong("there is none in it".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(clock))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

#[cfg(test)]
mod tests;
