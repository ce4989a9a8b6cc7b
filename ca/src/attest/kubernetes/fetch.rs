//! A key set over HTTPS, under a CA that was named, with a token of our own if the server wants to
//! know who asks. Called by `keys`.
//!
//! Never: trusts the system's roots, or keeps the token that it shows.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::HeaderValue;
use rustls::ClientConfig;

use crate::clock::Clock;
use crate::datadir::read_bounded_text;
use crate::https::{self, HttpsError, HttpsUrl, Question, Recognised};

/// A service-account token that shows who asks, as the API server wants to see it.
const MAX_BEARER_BYTES: u64 = 8 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{0:?} is no https URL with a host; expected such as https://10.96.0.1/openid/v1/jwks")]
    Url(String),
    #[error("{} {why}; it names the CAs by which the server of the keys is recognised", path.display())]
    Roots { path: PathBuf, why: String },
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("{host} answered {status}; may this CA read it? see --kubernetes-jwks-bearer-file")]
    Status { host: String, status: StatusCode },
    #[error("the keys cannot be fetched from {host}: {cause}")]
    Failed { host: String, cause: HttpsError },
    #[error("cannot read the bearer token {}: {cause}", path.display())]
    Bearer { path: PathBuf, cause: io::Error },
}

/// Where to ask, and by what to recognise who answers.
pub struct HttpsSource {
    url: HttpsUrl,
    tls: Arc<ClientConfig>,
    bearer_file: Option<PathBuf>,
}

impl HttpsSource {
    /// `roots_pem` are the CAs of the file at `roots`.
    pub fn new(
        url: &str,
        roots: PathBuf,
        roots_pem: &[u8],
        bearer_file: Option<PathBuf>,
        clock: &Clock,
    ) -> Result<Self, FetchError> {
        let url = HttpsUrl::parse(url).ok_or_else(|| FetchError::Url(url.to_owned()))?;
        let trusted =
            https::roots(roots_pem).map_err(|why| FetchError::Roots { path: roots, why })?;
        let tls = Arc::new(https::client_config(Recognised::ByRoots(trusted), clock)?);
        Ok(Self { url, tls, bearer_file })
    }

    /// The body of the answer.
    pub(super) async fn get(
        &self,
        most_bytes: usize,
        within: Duration,
    ) -> Result<Vec<u8>, FetchError> {
        let authorization = match &self.bearer_file {
            Some(path) => Some(bearer(path).await?),
            None => None,
        };
        let question =
            Question { url: &self.url, address: None, authorization, most_bytes, within };
        let host = || self.url.host();
        https::get(question, Arc::clone(&self.tls)).await.map_err(|cause| match cause {
            HttpsError::Status(status) => FetchError::Status { host: host(), status },
            cause => FetchError::Failed { host: host(), cause },
        })
    }
}

/// Read at each request: the kubelet replaces it.
async fn bearer(path: &Path) -> Result<HeaderValue, FetchError> {
    let wrong = |cause| FetchError::Bearer { path: path.to_owned(), cause };
    let at = path.to_owned();
    let read = tokio::task::spawn_blocking(move || read_bounded_text(&at, MAX_BEARER_BYTES)).await;
    let text = read.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(wrong)?;
    let mut value = HeaderValue::try_from(format!("Bearer {}", text.trim()))
        .map_err(|_| wrong(io::Error::other("it is no token: no header can hold it")))?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for HttpsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpsSource({:?})", self.url)
    }
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::UnixTime;

    use super::*;

    #[test]
    fn url_and_roots_are_checked_before_anything_is_sent() {
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        let clock = Clock::new(UnixTime::now);
        let made =
            |url: &str, ca: &str| HttpsSource::new(url, "/ca".into(), ca.as_bytes(), None, &clock);
        for wrong in ["http://10.0.0.1/", "https://", "10.0.0.1", "https:///path", ""] {
            assert!(matches!(made(wrong, &ca), Err(FetchError::Url(_))), "{wrong}");
        }
        let none = made("https://10.0.0.1/", "").unwrap_err();
        assert!(none.to_string().contains("/ca holds no certificate"), "{none}");
        made("https://10.0.0.1/", &ca).unwrap();
    }

    #[tokio::test]
    async fn bearer_is_read_as_one_line_and_what_no_header_can_hold_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "secret\n").unwrap();
        let value = bearer(file.path()).await.unwrap();
        assert_eq!(value.as_bytes(), b"Bearer secret");
        assert!(!format!("{value:?}").contains("secret"));
        std::fs::write(file.path(), "two\nlines").unwrap();
        assert!(matches!(bearer(file.path()).await, Err(FetchError::Bearer { .. })));
    }
}
