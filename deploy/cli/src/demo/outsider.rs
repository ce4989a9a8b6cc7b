//! What a stranger on the wire can try: plain bytes, silence, and TLS with a certificate of another
//! trust domain, from a CA of its own. Called by the chapters about strangers.
//! Never: verifies the server (an attacker would not care), or holds anything that the mesh issued.

// SPDX-License-Identifier: Apache-2.0

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use myelin_lab::Pod;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Refusals come at once; a busy machine may take a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// How much a stranger reads before it stops: more than any refusal and any greeting.
const MOST_HEARD: usize = 4096;

/// A TLS record that is an alert: type 21, version 3.3, two bytes.
const ALERT_HEAD: [u8; 5] = [21, 3, 3, 0, 2];

/// What came back, and how it ended.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) bytes: Vec<u8>,
    pub(super) end: String,
}

impl Heard {
    /// Nothing, or nothing but a TLS alert.
    pub(super) fn nothing(&self) -> bool {
        self.bytes.is_empty() || self.is_alert()
    }

    pub(super) fn words(&self) -> String {
        match (self.bytes.len(), self.is_alert()) {
            (0, _) => format!("heard nothing ({})", self.end),
            (_, true) => format!("heard a TLS alert ({})", self.end),
            (count, false) => format!("HEARD {count} BYTES ({})", self.end),
        }
    }

    fn is_alert(&self) -> bool {
        self.bytes.len() == ALERT_HEAD.len() + 2 && self.bytes.starts_with(&ALERT_HEAD)
    }
}

/// Speaks to a port as if nothing protected it.
pub(super) async fn speak_plaintext(pod: &Pod, to: SocketAddr, words: &str) -> Result<Heard> {
    let mut stream = pod.tcp_connect(to).await?;
    // A reset may already be there; what can be read says it all.
    stream.write_all(words.as_bytes()).await.ok();
    Ok(listen(&mut stream, PATIENCE).await)
}

/// Connects and waits for the other side's first word.
pub(super) async fn say_nothing(pod: &Pod, to: SocketAddr, patience: Duration) -> Result<Heard> {
    let mut stream = pod.tcp_connect(to).await?;
    Ok(listen(&mut stream, patience).await)
}

/// Speaks the mesh's TLS with a flawless certificate of another trust domain.
pub(super) async fn present_foreign_svid(pod: &Pod, to: SocketAddr, id: &str) -> Result<Heard> {
    let connector = TlsConnector::from(Arc::new(foreign_config(id, pod.v4())?));
    let stream = pod.tcp_connect(to).await?;
    let name = ServerName::IpAddress(to.ip().into());
    let (bytes, end) = match timeout(PATIENCE, connector.connect(name, stream)).await {
        Err(_) => (Vec::new(), "no end of the handshake".to_owned()),
        Ok(Err(error)) => (Vec::new(), error.to_string()),
        Ok(Ok(mut session)) => {
            // In TLS 1.3 the client is done before the server has judged its certificate.
            let Heard { bytes, end } = listen(&mut session, PATIENCE).await;
            (bytes, end)
        }
    };
    Ok(Heard { bytes, end })
}

async fn listen(stream: &mut (impl AsyncRead + Unpin), patience: Duration) -> Heard {
    let mut bytes = Vec::new();
    let mut limited = stream.take(MOST_HEARD as u64);
    let end = match timeout(patience, limited.read_to_end(&mut bytes)).await {
        Err(_) => "still waiting".to_owned(),
        Ok(Ok(_)) => "closed".to_owned(),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionReset => "reset".to_owned(),
        Ok(Err(error)) => error.to_string(),
    };
    Heard { bytes, end }
}

/// A CA of its own, and a certificate that would be right in every detail if that CA were ours.
fn foreign_config(id: &str, address: IpAddr) -> Result<ClientConfig> {
    let made = || -> Result<_, rcgen::Error> {
        let mut root = CertificateParams::new(Vec::new())?;
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = Issuer::new(root, KeyPair::generate()?);
        let mut leaf = CertificateParams::new(Vec::new())?;
        leaf.subject_alt_names = vec![SanType::URI(id.try_into()?), SanType::IpAddress(address)];
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok((leaf.signed_by(&key, &issuer)?, key))
    };
    let (certificate, key) = made().context("cannot make a foreign certificate")?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Careless(provider)))
        .with_client_auth_cert(vec![certificate.der().clone()], key)?;
    config.alpn_protocols = vec![b"myelin/1".to_vec()];
    Ok(config)
}

/// Believes everybody: an attacker has no reason not to.
#[derive(Debug)]
struct Careless(Arc<CryptoProvider>);

impl ServerCertVerifier for Careless {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_tls13_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
