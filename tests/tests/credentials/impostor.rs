//! T55: somebody else answers where the CA should be. What matters is what it hears: at most the
//! empty question how the trust bundle came to be, whose answer proves itself or counts for nothing.
//!
//! Never: a CA that works; these servers only listen.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use myelin_identity::bundle::{BundleHash, TrustBundle};
use myelin_identity::issuance::{JoinToken, TokenSecret};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, version};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::ca::{WEB, trust_domain};
use crate::sidecar::{Sidecar, eventually};

const CA: &str = "spiffe://example.org/myelin/ca";
/// What opens an HTTP/2 connection, RFC 9113, section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty message of gRPC: the flag and a length of zero.
const EMPTY: usize = 5;
/// A sidecar that has said nothing for so long waits for an answer.
const PAUSE: Duration = Duration::from_millis(300);

/// Roots and a server credential for any ID that one likes.
struct Pki {
    root: CertificateDer<'static>,
    intermediate: CertifiedIssuer<'static, KeyPair>,
}

/// Listens where the CA should be, and remembers.
struct Server {
    address: SocketAddr,
    handshakes: Arc<AtomicUsize>,
    /// What was said on each connection that got through its handshake.
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
}

#[tokio::test]
async fn an_ordinary_svid_on_the_cas_port_hears_nothing_of_the_token() {
    let pki = Pki::new();
    let server = Server::start(&pki, WEB).await;
    offered_nothing(&server, pki.hash()).await;
}

#[tokio::test]
async fn a_ca_with_other_roots_than_the_token_names_hears_nothing_of_the_token() {
    let (pki, other) = (Pki::new(), Pki::new());
    let server = Server::start(&pki, CA).await;
    offered_nothing(&server, other.hash()).await;
}

#[tokio::test]
async fn the_ca_itself_hears_the_request() {
    let pki = Pki::new();
    let server = Server::start(&pki, CA).await;
    let (_state, _sidecar, secret) = join(&server, pki.hash());
    eventually("the CA hears the token", async || {
        server.heard().iter().any(|said| holds(said, &secret) && content(said) > EMPTY)
    })
    .await;
}

/// A sidecar that knows the CA by this hash tries a few times, and shows nothing.
async fn offered_nothing(server: &Server, hash: BundleHash) {
    let (_state, sidecar, secret) = join(server, hash);
    sidecar.until_metric(r#"myelin_renewals_total{outcome="ca_untrusted"} 3"#).await;
    assert!(sidecar.store.load().is_none());
    assert!(server.handshakes.load(Ordering::SeqCst) >= 3);
    for said in server.heard() {
        assert!(!holds(&said, &secret), "the token was sent to a stranger");
        assert!(content(&said) <= EMPTY, "a stranger heard {} bytes", content(&said));
    }
}

fn join(server: &Server, bundle_hash: BundleHash) -> (tempfile::TempDir, Sidecar, [u8; 32]) {
    let state = tempfile::tempdir().unwrap();
    let token = JoinToken { secret: TokenSecret::random().unwrap(), bundle_hash };
    let secret = *token.secret.reveal();
    let sidecar = Sidecar::start(server.address, &state.path().join("s"), Some(token));
    (state, sidecar, secret)
}

fn holds(said: &[u8], secret: &[u8]) -> bool {
    said.windows(secret.len()).any(|window| window == secret)
}

/// How many bytes of content all DATA frames of a connection carry: RFC 9113, section 4.1.
fn content(said: &[u8]) -> usize {
    let mut left = said.strip_prefix(PREFACE).expect("it speaks HTTP/2");
    let mut content = 0;
    while let [a, b, c, kind, rest @ ..] = left {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        content += if *kind == 0 { length } else { 0 };
        left = rest.get(5 + length..).unwrap_or_default();
    }
    content
}

impl Server {
    async fn start(pki: &Pki, id: &str) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(pki.server_config(id)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (handshakes, heard) = (Arc::new(AtomicUsize::new(0)), Arc::default());
        let counts: (_, Arc<Mutex<Vec<Vec<u8>>>>) = (Arc::clone(&handshakes), Arc::clone(&heard));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                counts.0.fetch_add(1, Ordering::SeqCst);
                let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
                let mut said = Vec::new();
                // Nobody waits for an answer for ever: the connection ends when it falls silent.
                while let Ok(Ok(1..)) = timeout(PAUSE, tls.read_buf(&mut said)).await {}
                if !said.is_empty() {
                    counts.1.lock().unwrap().push(said);
                }
            }
        });
        Self { address, handshakes, heard }
    }

    fn heard(&self) -> Vec<Vec<u8>> {
        self.heard.lock().unwrap().clone()
    }
}

impl Pki {
    fn new() -> Self {
        let root = CertifiedIssuer::self_signed(ca_params("root"), key()).unwrap();
        let intermediate =
            CertifiedIssuer::signed_by(ca_params("intermediate"), key(), &root).unwrap();
        Self { root: root.der().clone(), intermediate }
    }

    fn hash(&self) -> BundleHash {
        TrustBundle::new(trust_domain(), 1, vec![self.root.clone()]).unwrap().hash()
    }

    /// Presents what a CA presents: leaf, intermediate, roots.
    fn server_config(&self, id: &str) -> ServerConfig {
        let pair = key();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&pair, &self.intermediate).unwrap();
        let chain = vec![leaf.der().clone(), self.intermediate.der().clone(), self.root.clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(myelin_sidecar::tls::provider())
            .with_protocol_versions(&[&version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        config
    }
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}
