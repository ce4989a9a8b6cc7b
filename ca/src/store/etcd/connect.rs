//! The connection to a member: TCP, TLS 1.3 with our client certificate, HTTP/2 that asks whether
//! the other end still lives. Called by `cluster`.
//!
//! Never: falls back to plaintext, or accepts a member that the configured CA did not sign.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore, version::TLS13};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use super::endpoint::EtcdEndpoint;
use crate::store::StoreError;

/// Dialling and handshake: a member that needs longer is passed over, the next try finds it ready.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// A black hole between us and a member is noticed after both together.
const PING_EVERY: Duration = Duration::from_secs(2);
const PING_ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// By what we know the cluster, and by what it knows us.
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientTls")
    }
}

impl ClientTls {
    /// From PEM: the CA that signed the members' certificates, and our own certificate chain with
    /// its key, if the cluster asks for one.
    pub fn from_pem(ca: &[u8], own: Option<(&[u8], &[u8])>) -> Result<Self, StoreError> {
        let wrong = |flag, why: String| StoreError::Tls { flag, why };
        let roots = certificates(ca).map_err(|why| wrong("--etcd-ca", why))?;
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root).map_err(|error| wrong("--etcd-ca", error.to_string()))?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| wrong("TLS 1.3", error.to_string()))?
            .with_root_certificates(store);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = certificates(chain).map_err(|why| wrong("--etcd-cert", why))?;
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|error| wrong("--etcd-key", error.to_string()))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| wrong("--etcd-cert and --etcd-key", error.to_string()))?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self { config: Arc::new(config) })
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(read) if read.is_empty() => Err("it holds no certificate in PEM".to_owned()),
        Ok(read) => Ok(read),
        Err(error) => Err(error.to_string()),
    }
}

/// A channel that connects when it is used, and again after it broke.
pub(super) fn channel(
    endpoint: &EtcdEndpoint,
    tls: Option<&ClientTls>,
) -> Result<Channel, StoreError> {
    let tls = match (endpoint.tls, tls) {
        (false, _) => None,
        (true, Some(tls)) => Some(tls.clone()),
        (true, None) => {
            let why = format!("{endpoint} needs the CA that signed its certificate");
            return Err(StoreError::Tls { flag: "--etcd-ca", why });
        }
    };
    let to = endpoint.clone();
    let connector = tower::service_fn(move |_: tonic::transport::Uri| {
        let (to, tls) = (to.clone(), tls.clone());
        async move {
            let connected = timeout(CONNECT_WITHIN, connect(&to, tls)).await;
            connected.unwrap_or_else(|_| {
                let why = format!("no connection within {CONNECT_WITHIN:?}");
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
            })
        }
    });
    // The name is never resolved; it only fills HTTP/2's :authority.
    Ok(Endpoint::from_static("http://etcd")
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER_WITHIN)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(connector))
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

async fn connect(
    to: &EtcdEndpoint,
    tls: Option<ClientTls>,
) -> io::Result<TokioIo<Box<dyn Stream>>> {
    let tcp = TcpStream::connect((to.host.as_str(), to.port)).await?;
    tcp.set_nodelay(true)?;
    let Some(tls) = tls else { return Ok(TokioIo::new(Box::new(tcp))) };
    let name = ServerName::try_from(to.host.clone()).map_err(io::Error::other)?;
    let stream = TlsConnector::from(tls.config).connect(name, tcp).await?;
    Ok(TokioIo::new(Box::new(stream)))
}
