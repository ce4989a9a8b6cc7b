//! Key sets over HTTPS from a server of our own: the good answer, and everything that is none.
//!
//! Never: a name that has to be resolved.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, UnixTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const NOW: u64 = 1_800_000_000;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn acceptor(&self) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &self.0).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// Answers every request with these bytes, and yields what the last one asked.
    async fn serve(&self, answer: String) -> (SocketAddr, tokio::sync::watch::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, heard) = tokio::sync::watch::channel(String::new());
        let acceptor = self.acceptor();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
                let mut request = vec![0; 4096];
                let read = tls.read(&mut request).await.unwrap_or(0);
                asked.send_replace(String::from_utf8_lossy(&request[..read]).into_owned());
                let _ = tls.write_all(answer.as_bytes()).await;
                let _ = tls.shutdown().await;
            }
        });
        (address, heard)
    }
}

fn clock() -> Clock {
    Clock::new(|| UnixTime::since_unix_epoch(Duration::from_secs(NOW)))
}

fn source(url: &str, by: &Authority, bearer: Option<PathBuf>) -> Result<HttpsSource, FetchError> {
    HttpsSource::new(url, PathBuf::from("/ca.pem"), by.0.pem().as_bytes(), bearer, clock())
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn answer_under_the_named_ca_is_taken_and_the_bearer_shown() {
    let authority = Authority::new();
    let (address, asked) = authority.serve(answer("200 OK", "the keys")).await;
    let dir = tempfile::tempdir().unwrap();
    let bearer = dir.path().join("token");
    std::fs::write(&bearer, "secret\n").unwrap();
    let url = format!("https://{address}/openid/v1/jwks");
    let source = source(&url, &authority, Some(bearer)).unwrap();
    assert_eq!(source.get(8).await.unwrap(), b"the keys");
    let asked = asked.borrow().to_ascii_lowercase();
    assert!(asked.starts_with("get /openid/v1/jwks http/1.1\r\n"), "{asked}");
    assert!(asked.contains("authorization: bearer secret\r\n"), "{asked}");
    assert!(!format!("{source:?}").contains("secret"));
}

#[tokio::test]
async fn whatever_is_no_good_answer_is_an_error_that_says_so() {
    let authority = Authority::new();
    for (said, expected) in [
        (answer("404 Not Found", ""), "answered 404"),
        (answer("302 Found", ""), "answered 302"),
        (answer("200 OK", "more than nine"), "no HTTP"),
        ("hello".to_owned(), "no HTTP"),
        (String::new(), "no HTTP"),
    ] {
        let (address, _asked) = authority.serve(said).await;
        let source = source(&format!("https://{address}/"), &authority, None).unwrap();
        let error = source.get(9).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    // A server that another CA vouches for hears no request.
    let (address, asked) = Authority::new().serve(answer("200 OK", "forged")).await;
    let source = source(&format!("https://{address}/"), &authority, None).unwrap();
    assert!(matches!(source.get(9).await, Err(FetchError::Unreachable { .. })));
    assert!(asked.borrow().is_empty());
}

#[test]
fn url_and_roots_are_checked_before_anything_is_sent() {
    let authority = Authority::new();
    for wrong in ["http://10.0.0.1/", "https://", "10.0.0.1", "https:///path", ""] {
        assert!(matches!(source(wrong, &authority, None), Err(FetchError::Url(_))), "{wrong}");
    }
    let none = HttpsSource::new("https://10.0.0.1/", PathBuf::new(), b"", None, clock());
    assert!(matches!(none, Err(FetchError::Roots { .. })));
}
