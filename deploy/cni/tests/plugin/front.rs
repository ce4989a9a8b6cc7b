//! TLS and a bearer token before the fake API, as a real API server asks for both.
//!
//! Never: passes a request on without the token of the moment.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use myelin_fake_api::FakeApi;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Longest head of a request that is waited for.
const MAX_HEAD: usize = 16 * 1024;

pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    /// The root that clients have to trust.
    pub(crate) root_pem: String,
    /// What the bearer has to show.
    pub(crate) token: Arc<Mutex<String>>,
}

impl Front {
    pub(crate) async fn before(api: &FakeApi, token: &str) -> Result<Self> {
        let mut of_root = CertificateParams::default();
        of_root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let (root_key, key) = (KeyPair::generate()?, KeyPair::generate()?);
        let root_pem = of_root.self_signed(&root_key)?.pem();
        let issuer = Issuer::from_params(&of_root, &root_key);
        let leaf = CertificateParams::new(["127.0.0.1".to_owned()])?.signed_by(&key, &issuer)?;
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let front = Self {
            address: listener.local_addr()?,
            root_pem,
            token: Arc::new(Mutex::new(token.to_owned())),
        };
        let (acceptor, behind) = (TlsAcceptor::from(Arc::new(config)), api.address());
        let token = Arc::clone(&front.token);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, token) = (acceptor.clone(), Arc::clone(&token));
                tokio::spawn(async move { pass(tcp, acceptor, token, behind).await.ok() });
            }
        });
        Ok(front)
    }
}

async fn pass(
    tcp: TcpStream,
    acceptor: TlsAcceptor,
    token: Arc<Mutex<String>>,
    behind: SocketAddr,
) -> Result<()> {
    let mut client = acceptor.accept(tcp).await?;
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") && head.len() < MAX_HEAD {
        if client.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let wanted = format!("authorization: bearer {}\r\n", token.lock().unwrap()).to_lowercase();
    if !String::from_utf8_lossy(&head).to_lowercase().contains(&wanted) {
        let refusal =
            b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        client.write_all(refusal).await?;
        return Ok(client.shutdown().await?);
    }
    let mut server = TcpStream::connect(behind).await?;
    server.write_all(&head).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
