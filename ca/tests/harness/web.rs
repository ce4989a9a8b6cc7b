//! A web authority of the test's own, and bundle endpoints that answer whatever a test wants.
//!
//! Never: a certificate of the mesh.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A web authority with one server certificate, for 127.0.0.1 and web.b.example.
pub struct WebCa {
    pub authority: CertifiedIssuer<'static, KeyPair>,
    pub leaf: CertificateDer<'static>,
    pub leaf_pem: String,
    pub key: KeyPair,
}

impl WebCa {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let names = ["127.0.0.1".to_owned(), "web.b.example".to_owned()];
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names).unwrap();
        let leaf = params.signed_by(&key, &authority).unwrap();
        Self { authority, leaf: leaf.der().clone(), leaf_pem: leaf.pem(), key }
    }

    pub fn server(&self) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.leaf.clone()], key)
            .unwrap()
    }
}

/// An endpoint that answers whatever the test wants, byte for byte.
pub struct Scripted {
    address: SocketAddr,
    answer: Arc<Mutex<Vec<u8>>>,
}

impl Scripted {
    pub async fn start(web: &WebCa) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (acceptor, answers) = (TlsAcceptor::from(Arc::new(web.server())), answer.clone());
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, answers) = (acceptor.clone(), answers.clone());
                tokio::spawn(async move {
                    let mut tls = acceptor.accept(tcp).await?;
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(tls.read_u8().await?);
                    }
                    let said = answers.lock().unwrap().clone();
                    tls.write_all(&said).await?;
                    tls.shutdown().await
                });
            }
        });
        Self { address, answer }
    }

    pub fn say(&self, status: &str, body: &str) {
        self.say_bytes(http(status, body));
    }

    pub fn say_bytes(&self, bytes: impl Into<Vec<u8>>) {
        *self.answer.lock().unwrap() = bytes.into();
    }

    pub fn url(&self) -> String {
        format!("https://{}/bundle", self.address)
    }
}

/// A whole answer.
pub fn http(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
