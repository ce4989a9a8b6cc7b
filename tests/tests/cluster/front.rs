//! Where a real API server finds a controller that runs beside the test, in no pod behind the chart's Service:
//! an address of this machine, with a certificate for it. Each connection is led on to the controller, which is
//! believed by the `caBundle` that it had registered, under the name of the chart's Service, as the API server
//! would believe it. Called by the stories of admission.
//!
//! Never: a byte changed on the way; a controller that the registration does not vouch for.

// SPDX-License-Identifier: Apache-2.0

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub(crate) struct Front {
    pub(crate) at: SocketAddr,
    /// By which the API server believes it.
    pub(crate) pem: String,
    serving: JoinHandle<()>,
}

impl Front {
    /// `name` and `ca_bundle` (PEM): by what the controller at `behind` is believed.
    pub(crate) async fn serve(
        on: IpAddr,
        behind: SocketAddr,
        name: &str,
        ca_bundle: &[u8],
    ) -> Result<Self> {
        let listener = TcpListener::bind((on, 0)).await?;
        let at = listener.local_addr()?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([on.to_string()])?.self_signed(&key)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let served = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )?;
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(ca_bundle) {
            roots.add(root?)?;
        }
        let asked = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let (acceptor, connector) =
            (TlsAcceptor::from(Arc::new(served)), TlsConnector::from(Arc::new(asked)));
        let name = ServerName::try_from(name.to_owned())?;
        let serving = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, connector) = (acceptor.clone(), connector.clone());
                let name = name.clone();
                tokio::spawn(
                    async move { pass(tcp, acceptor, behind, connector, name).await.ok() },
                );
            }
        });
        Ok(Self { at, pem: certificate.pem(), serving })
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn pass(
    tcp: TcpStream,
    acceptor: TlsAcceptor,
    behind: SocketAddr,
    connector: TlsConnector,
    name: ServerName<'static>,
) -> Result<()> {
    let mut client = acceptor.accept(tcp).await?;
    let mut server = connector.connect(name, TcpStream::connect(behind).await?).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// The address from which this machine reaches the API server at this URL: there the API server reaches us.
pub(crate) fn own_address(url: &str) -> Result<IpAddr> {
    let place = url.split_once("://").context("no URL")?.1;
    let place = place.split('/').next().unwrap_or(place);
    let host = if place.contains("]:") || !place.ends_with(']') && place.contains(':') {
        place.to_owned()
    } else {
        format!("{place}:443")
    };
    // Nothing is sent.
    let probe = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect(&host)?;
        socket.local_addr()
    });
    let probe = probe.or_else(|_| {
        let socket = UdpSocket::bind("[::]:0")?;
        socket.connect(&host)?;
        socket.local_addr()
    });
    Ok(probe.with_context(|| format!("{host} cannot be reached from here"))?.ip())
}
