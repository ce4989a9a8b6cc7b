//! The directory's own port, spoken to by callers that no sidecar is: without a certificate, of another
//! trust domain, denied while they listen, silent.
//!
//! Never: a refusal without the same caller in its right shape being answered.

// SPDX-License-Identifier: Apache-2.0

use std::io;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use hyper_util::rt::TokioIo;
use myelin_identity::services::{MAX_ASKED, ServiceQuestion, proto};
use myelin_identity::verify::PeerVerifier;
use myelin_lab::Pod;
use myelin_sidecar::tls;
use myelin_tests::forge::{Credential, Forge, pkcs8, svid, valid};
use myelin_tests::programs::{LIMIT, eventually};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};

use crate::stage::{Stage, WEB, at};

const ID: &str = "spiffe://mesh.test/ns/test/sa/caller";
const STREAMS: &str = "myelin_controller_service_streams";

/// Somebody with a place in the network, and the mesh's own keys.
struct Caller {
    stage: Stage,
    pod: Pod,
    forge: Forge,
}

/// An open stream; it ends with its sender.
struct Open {
    questions: mpsc::Sender<proto::ServiceQuestion>,
    answers: Streaming<proto::ServiceAnswer>,
}

async fn caller() -> Result<Option<Caller>> {
    let Some(stage) = Stage::new().await? else { return Ok(None) };
    stage.service("web", &WEB);
    let (pod, forge) = (stage.mesh.pod("caller")?, Forge::of(&stage.mesh.ca).await?);
    let caller = Caller { stage, pod, forge };
    let own = caller.genuine()?;
    // Until the controller has its SVID and has read the cluster, nobody is answered.
    eventually("the genuine caller is answered", LIMIT, async || {
        let mut open = caller.open(&own).await?;
        open.ask(at(WEB[0])).await?;
        open.answers.message().await?.context("no answer")?;
        Ok(true)
    })
    .await?;
    Ok(Some(caller))
}

impl Caller {
    fn genuine(&self) -> Result<Credential> {
        self.forge.svid(ID, &[self.pod.v4()])
    }

    async fn shake(&self, own: Option<&Credential>) -> Result<TlsStream<TcpStream>> {
        let builder = ClientConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PeerVerifier::new(self.forge.bundle()?)));
        let mut config = match own {
            Some(own) => {
                let own = CertifiedKey::new(own.chain.clone(), any_supported_type(&own.key)?);
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let directory = self.stage.directory();
        let tcp = self.pod.tcp_connect(directory).await?;
        let name = ServerName::from(directory.ip());
        Ok(TlsConnector::from(Arc::new(config)).connect(name, tcp).await?)
    }

    async fn open(&self, own: &Credential) -> Result<Open> {
        let mut once = Some(TokioIo::new(self.shake(Some(own)).await?));
        let connector = tower::service_fn(move |_| {
            let stream = once.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
            async move { stream }
        });
        let endpoint = Endpoint::from_static("http://myelin-controller");
        let channel = endpoint.connect_with_connector(connector).await?;
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await?;
        let codec =
            tonic_prost::ProstCodec::<proto::ServiceQuestion, proto::ServiceAnswer>::default();
        let path = "/myelin.services.v1.Services/WatchServices".parse()?;
        let (questions, asked) = mpsc::channel(16);
        let asked = tonic::Request::new(ReceiverStream::new(asked));
        let answers = grpc.streaming(asked, path, codec).await?.into_inner();
        Ok(Open { questions, answers })
    }

    async fn streams(&self) -> Result<f64> {
        self.stage.controller_counts(STREAMS).await
    }

    /// Somebody who says nothing after the handshake, or the first words of HTTP/2, is told nothing and cut.
    async fn demand_cut(&self, mut tls: TlsStream<TcpStream>) -> Result<Vec<u8>> {
        let mut heard = Vec::new();
        // An alert, or the end.
        let _ =
            tokio::time::timeout(LIMIT, tls.read_to_end(&mut heard)).await.context("not cut")?;
        Ok(heard)
    }
}

impl Open {
    async fn ask(&self, place: std::net::SocketAddr) -> Result<()> {
        let question = ServiceQuestion { place, forget: false, known: None };
        self.questions.send(question.into()).await.context("the stream is over")
    }

    /// What ended it.
    async fn end(mut self) -> Result<Status> {
        let ended = async {
            loop {
                match self.answers.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => anyhow::bail!("it ended without a word"),
                    Err(status) => return Ok(status),
                }
            }
        };
        tokio::time::timeout(LIMIT, ended).await.context("it goes on")?
    }
}

/// Whoever claims to be `id`, by roots of its own.
fn foreign(id: &str, at: &Pod) -> Result<Credential> {
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate()?;
    let issuer = Issuer::new(root, key);
    let key = KeyPair::generate()?;
    let leaf = svid(id, &[at.v4()])?.signed_by(&key, &issuer)?;
    Ok(Credential { chain: vec![leaf.der().clone()], key: pkcs8(&key) })
}

#[tokio::test]
async fn whoever_shows_no_valid_svid_of_this_trust_domain_is_told_nothing() -> Result<()> {
    let Some(caller) = caller().await? else { return Ok(()) };
    let now = crate::now();
    let mut expired = svid(ID, &[caller.pod.v4()])?;
    valid(&mut expired, now - 7_200, now - 3_600);
    let table = [
        ("no certificate", None),
        (
            "another trust domain",
            Some(foreign("spiffe://other.test/ns/test/sa/caller", &caller.pod)?),
        ),
        ("another root", Some(foreign(ID, &caller.pod)?)),
        (
            "our root, another trust domain",
            Some(caller.forge.svid("spiffe://other.test/ns/test/sa/caller", &[])?),
        ),
        ("expired", Some(caller.forge.leaf(expired)?)),
    ];
    for (name, own) in table {
        // In TLS 1.3 a client is done before the server has looked at its certificate.
        if let Ok(mut tls) = caller.shake(own.as_ref()).await {
            let _ = tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
            ensure!(caller.demand_cut(tls).await?.is_empty(), "{name}: it was told something");
        }
        ensure!(
            caller.open(own.as_ref().unwrap_or(&foreign(ID, &caller.pod)?)).await.is_err(),
            "{name}"
        );
    }
    // And the twin once more.
    let open = caller.open(&caller.genuine()?).await?;
    ensure!(caller.streams().await? >= 1.0);
    drop(open);
    Ok(())
}

#[tokio::test]
async fn whoever_is_denied_while_it_listens_hears_why_and_is_cut() -> Result<()> {
    let Some(caller) = caller().await? else { return Ok(()) };
    let other = caller.forge.svid("spiffe://mesh.test/ns/test/sa/other", &[])?;
    let (denied, stays) = (caller.open(&caller.genuine()?).await?, caller.open(&other).await?);
    let silent = caller.shake(Some(&caller.genuine()?)).await?;
    // The CA revokes whom it knows: a token that waits is enough.
    caller.stage.mesh.ca.token(ID, &[caller.pod.v4()]).await?;
    caller.stage.mesh.ca.operate(&["revoke", "--id", ID, "--reason", "a test"]).await?;
    let status = denied.end().await?;
    ensure!(status.code() == Code::PermissionDenied, "{status}");
    caller.demand_cut(silent).await?;
    stays.ask(at(WEB[0])).await?;
    let mut stays = stays;
    stays.answers.message().await?.context("the other one was cut as well")?;
    ensure!(caller.streams().await? == 1.0);
    Ok(())
}

#[tokio::test]
async fn whoever_has_no_stream_or_asks_too_much_is_cut() -> Result<()> {
    let Some(caller) = caller().await? else { return Ok(()) };
    let own = caller.genuine()?;
    let mut silent = caller.shake(Some(&own)).await?;
    // HTTP/2 as it should be, and nothing after it.
    silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await?;
    let stays = caller.open(&own).await?;
    caller.demand_cut(silent).await?;
    let greedy = caller.open(&own).await?;
    let questions = greedy.questions.clone();
    tokio::spawn(async move {
        for number in 1..=u32::try_from(MAX_ASKED).unwrap() + 1 {
            let place = std::net::SocketAddr::from((number.to_be_bytes(), 80));
            let question = ServiceQuestion { place, forget: false, known: None };
            let _ = questions.send(question.into()).await;
        }
    });
    let status = greedy.end().await?;
    ensure!(status.code() == Code::ResourceExhausted, "{status}");
    let mut stays = stays;
    stays.ask(at(WEB[0])).await?;
    stays.answers.message().await?.context("whoever behaves was cut")?;
    Ok(())
}
