//! Asked of a server of our own: the good answer, and everything that is none.
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
        let provider = Arc::new(default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
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

/// Asks for at most nine bytes.
async fn ask(
    url: &str,
    by: &Authority,
    authorization: Option<HeaderValue>,
) -> Result<Vec<u8>, HttpsError> {
    let url = HttpsUrl::parse(url).unwrap();
    let by = Recognised::ByRoots(roots(by.0.pem().as_bytes()).unwrap());
    let config = Arc::new(client_config(by, &clock()).unwrap());
    let within = Duration::from_secs(3);
    get(Question { url: &url, address: None, authorization, most_bytes: 9, within }, config).await
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn answer_under_the_named_ca_is_taken_and_the_bearer_shown() {
    let authority = Authority::new();
    let (address, asked) = authority.serve(answer("200 OK", "the keys")).await;
    let url = format!("https://{address}/openid/v1/jwks");
    let bearer = HeaderValue::from_static("Bearer secret");
    assert_eq!(ask(&url, &authority, Some(bearer)).await.unwrap(), b"the keys");
    let asked = asked.borrow().to_ascii_lowercase();
    assert!(asked.starts_with("get /openid/v1/jwks http/1.1\r\n"), "{asked}");
    assert!(asked.contains("authorization: bearer secret\r\n"), "{asked}");
    assert!(asked.contains("accept: application/jwk-set+json, application/json\r\n"), "{asked}");
}

#[tokio::test]
async fn whatever_is_no_good_answer_is_an_error_that_says_so() {
    let authority = Authority::new();
    for (said, expected) in [
        (answer("404 Not Found", ""), "was 404"),
        (answer("302 Found", ""), "was 302"),
        (answer("200 OK", "more than nine"), "larger than 9 bytes"),
        ("hello".to_owned(), "no HTTP"),
        (String::new(), "no HTTP"),
    ] {
        let (address, _asked) = authority.serve(said).await;
        let error = ask(&format!("https://{address}/"), &authority, None).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    // A server that another CA vouches for hears no request.
    let (address, asked) = Authority::new().serve(answer("200 OK", "forged")).await;
    let refused = ask(&format!("https://{address}/"), &authority, None).await;
    assert!(matches!(refused, Err(HttpsError::Handshake(_))), "{refused:?}");
    assert!(asked.borrow().is_empty());
}

#[tokio::test]
async fn server_that_accepts_and_says_nothing_is_left_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let silent = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut hello = vec![0; 4096];
        // The caller hangs up by itself; nothing was said to it.
        while tcp.read(&mut hello).await.is_ok_and(|read| read > 0) {}
    });
    let left = ask(&url, &Authority::new(), None).await;
    assert!(matches!(left, Err(HttpsError::Deadline(_))), "{left:?}");
    silent.await.unwrap();
}

#[test]
fn url_without_https_or_a_host_is_none() {
    for wrong in ["http://10.0.0.1/", "https://", "10.0.0.1", "https:///path", ""] {
        assert!(HttpsUrl::parse(wrong).is_none(), "{wrong}");
    }
    assert_eq!(HttpsUrl::parse("https://[::1]:8443/a").unwrap().host(), "::1");
    assert!(roots(b"").is_err());
}

#[tokio::test]
async fn posted_body_arrives_whole_and_any_status_is_an_answer() {
    let authority = Authority::new();
    let posted = async |url: &str| {
        let url = HttpsUrl::parse_or_loopback(url).unwrap();
        let by = Recognised::ByRoots(roots(authority.0.pem().as_bytes()).unwrap());
        let config = Arc::new(client_config(by, &clock()).unwrap());
        let (address, authorization, within) = (None, None, Duration::from_secs(3));
        let question = Question { url: &url, address, authorization, most_bytes: 9, within };
        post(question, b"old 0\n\nnote".to_vec(), config).await
    };
    let (address, asked) = authority.serve(answer("409 Conflict", "7\n")).await;
    let (status, body) = posted(&format!("https://{address}/add-checkpoint")).await.unwrap();
    assert_eq!((status, body.as_slice()), (StatusCode::CONFLICT, b"7\n".as_slice()));
    let asked = asked.borrow().clone();
    assert!(asked.starts_with("POST /add-checkpoint HTTP/1.1\r\n"), "{asked}");
    assert!(asked.ends_with("\r\n\r\nold 0\n\nnote"), "{asked}");
    let (address, _asked) = authority.serve(answer("409 Conflict", "more than nine")).await;
    let refused = posted(&format!("https://{address}/")).await;
    assert!(matches!(refused, Err(HttpsError::TooBig(9))), "{refused:?}");
    let (address, asked) = Authority::new().serve(answer("200 OK", "forged")).await;
    let refused = posted(&format!("https://{address}/")).await;
    assert!(matches!(refused, Err(HttpsError::Handshake(_))), "{refused:?}");
    assert!(asked.borrow().is_empty());
}

#[test]
fn only_this_machine_may_be_asked_in_the_clear() {
    for here in ["http://127.0.0.1:1/a", "http://[::1]/"] {
        assert!(HttpsUrl::parse_or_loopback(here).unwrap().is_here(), "{here}");
        assert!(HttpsUrl::parse(here).is_none(), "{here}");
    }
    assert!(!HttpsUrl::parse_or_loopback("https://127.0.0.1/").unwrap().is_here());
    for wrong in ["http://10.0.0.1/", "http://localhost/", "http://w.example/", "ftp://[::1]/"] {
        assert!(HttpsUrl::parse_or_loopback(wrong).is_none(), "{wrong}");
    }
}
