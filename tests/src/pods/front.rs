//! What stands before the fake API: TLS, and a bearer token that was made for a pod, as a real API
//! server asks for both. Called by `cluster`.
//!
//! Never: passes a connection on whose first request shows no token.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::container::API_NAME;

/// Longest head of a request that is waited for.
const MAX_HEAD: usize = 16 * 1024;

const REFUSAL: &[u8] =
    b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const NOT_ACCEPTABLE: &[u8] =
    b"HTTP/1.1 406 Not Acceptable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const JWKS_TYPE: &str = "application/jwk-set+json";

/// The API server's door.
pub(super) struct Front {
    /// The root that pods find in `kube-root-ca.crt`.
    pub(super) root_pem: String,
    bearers: Arc<Mutex<HashSet<String>>>,
    serving: JoinHandle<()>,
}

impl Front {
    /// `jwks`: the public keys of tokens, which it serves itself.
    pub(super) fn serve(listener: TcpListener, behind: SocketAddr, jwks: String) -> Result<Self> {
        let jwks: Arc<str> = jwks.into();
        let (root_pem, acceptor) = identity(listener.local_addr()?)?;
        let bearers = Arc::new(Mutex::new(HashSet::new()));
        let known = Arc::clone(&bearers);
        let serving = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, known) = (acceptor.clone(), Arc::clone(&known));
                let jwks = Arc::clone(&jwks);
                tokio::spawn(async move { pass(tcp, acceptor, &known, &jwks, behind).await.ok() });
            }
        });
        Ok(Self { root_pem, bearers, serving })
    }

    /// From now on whoever shows this token is let in.
    pub(super) fn allow(&self, token: &str) {
        let mut bearers = self.bearers.lock().unwrap_or_else(PoisonError::into_inner);
        bearers.insert(format!("authorization: bearer {token}").to_lowercase());
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn identity(at: SocketAddr) -> Result<(String, TlsAcceptor)> {
    let mut of_root = CertificateParams::default();
    of_root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (root_key, key) = (KeyPair::generate()?, KeyPair::generate()?);
    let root_pem = of_root.self_signed(&root_key)?.pem();
    let issuer = Issuer::from_params(&of_root, &root_key);
    let leaf = CertificateParams::new([at.ip().to_string(), API_NAME.to_owned()])?
        .signed_by(&key, &issuer)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )?;
    Ok((root_pem, TlsAcceptor::from(Arc::new(config))))
}

async fn pass(
    tcp: TcpStream,
    acceptor: TlsAcceptor,
    known: &Mutex<HashSet<String>>,
    jwks: &str,
    behind: SocketAddr,
) -> Result<()> {
    let mut client = acceptor.accept(tcp).await?;
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") && head.len() < MAX_HEAD {
        if client.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let text = String::from_utf8_lossy(&head).to_lowercase();
    let is_known = {
        let known = known.lock().unwrap_or_else(PoisonError::into_inner);
        text.lines().any(|line| known.contains(line))
    };
    if !is_known {
        client.write_all(REFUSAL).await?;
        client.shutdown().await?;
        return Ok(());
    }
    if text.starts_with("get /openid/v1/jwks ") {
        // As the real one: whoever does not accept this type, or any, is told nothing.
        let accepts = |line: &str| line.starts_with("accept:") && line.contains(JWKS_TYPE);
        if !text.lines().any(accepts) {
            client.write_all(NOT_ACCEPTABLE).await?;
            client.shutdown().await?;
            return Ok(());
        }
        let length = jwks.len();
        let head =
            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
        client.write_all(format!("{head}{jwks}").as_bytes()).await?;
        client.shutdown().await?;
        return Ok(());
    }
    let mut server = TcpStream::connect(behind).await?;
    server.write_all(&head).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
