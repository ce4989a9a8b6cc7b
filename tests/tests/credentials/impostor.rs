//! T55: somebody else answers where the CA should be. What matters is what it hears: nothing.
//!
//! Never: a CA that works; these servers only listen.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
use tokio_rustls::TlsAcceptor;

use crate::ca::{WEB, trust_domain};
use crate::sidecar::{Sidecar, eventually};

const CA: &str = "spiffe://example.org/myelin/ca";

/// Roots and a server credential for any ID that one likes.
struct Pki {
    root: CertificateDer<'static>,
    intermediate: CertifiedIssuer<'static, KeyPair>,
}

/// Listens where the CA should be, and counts.
struct Server {
    address: SocketAddr,
    handshakes: Arc<AtomicUsize>,
    heard: Arc<AtomicUsize>,
}

#[tokio::test]
async fn an_ordinary_svid_on_the_cas_port_hears_nothing() {
    let pki = Pki::new();
    let server = Server::start(&pki, WEB).await;
    assert_eq!(offer_token(&server, pki.hash()).await, 0);
}

#[tokio::test]
async fn a_ca_with_other_roots_than_the_token_names_hears_nothing() {
    let (pki, other) = (Pki::new(), Pki::new());
    let server = Server::start(&pki, CA).await;
    assert_eq!(offer_token(&server, other.hash()).await, 0);
}

#[tokio::test]
async fn the_ca_itself_hears_the_request() {
    let pki = Pki::new();
    let server = Server::start(&pki, CA).await;
    let (_state, _sidecar) = join(&server, pki.hash());
    let heard = || server.heard.load(Ordering::SeqCst);
    eventually("the CA hears something", async || heard() > 0).await;
}

/// What a server hears of a sidecar that knows the CA by this hash and has tried it a few times.
async fn offer_token(server: &Server, hash: BundleHash) -> usize {
    let (_state, sidecar) = join(server, hash);
    sidecar.until_metric(r#"myelin_renewals_total{outcome="ca_untrusted"} 3"#).await;
    assert!(sidecar.store.load().is_none());
    assert!(server.handshakes.load(Ordering::SeqCst) >= 3);
    server.heard.load(Ordering::SeqCst)
}

fn join(server: &Server, bundle_hash: BundleHash) -> (tempfile::TempDir, Sidecar) {
    let state = tempfile::tempdir().unwrap();
    let token = JoinToken { secret: TokenSecret::random().unwrap(), bundle_hash };
    let sidecar = Sidecar::start(server.address, &state.path().join("s"), Some(token));
    (state, sidecar)
}

impl Server {
    async fn start(pki: &Pki, id: &str) -> Self {
        let acceptor = TlsAcceptor::from(Arc::new(pki.server_config(id)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (handshakes, heard) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (Arc::clone(&handshakes), Arc::clone(&heard));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                counts.0.fetch_add(1, Ordering::SeqCst);
                let Ok(mut tls) = acceptor.accept(tcp).await else { continue };
                let mut bytes = [0; 4_096];
                if let Ok(count) = tls.read(&mut bytes).await {
                    counts.1.fetch_add(count, Ordering::SeqCst);
                }
            }
        });
        Self { address, handshakes, heard }
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
