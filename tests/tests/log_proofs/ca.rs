//! A CA in the test's hands: it issues as the real one does and logs what it issues, and its keys are for
//! whoever asks. It also serves its logs, honestly or not.
//!
//! Never: attests, renews by lineage, or keeps anything on disk.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::Result;
use myelin_ca::api::ca_server::{Ca, CaServer};
use myelin_identity::bundle::{ForeignBundles, SignedStep, TrustBundle};
use myelin_identity::id::TrustDomain;
use myelin_identity::issuance::{Attestation, IssueRequest, JoinToken, TokenSecret, proto};
use myelin_identity::log::{LOG_OID, LogProof, Resource, entry_of, named_log_extension};
use myelin_lab::Pod;
use myelin_sidecar::tls;
use myelin_tests::forge::{Credential, now, pkcs8, svid, valid};
use myelin_tests::mesh::TRUST_DOMAIN;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, IsCa, KeyPair,
    KeyUsagePurpose, PublicKeyData, SubjectPublicKeyInfo,
};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::book::Book;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// By their secrets: the ID and the addresses that they stand for.
type Tokens = HashMap<Vec<u8>, (String, Vec<IpAddr>)>;

/// The same port as the real one's, so that sidecars find the logs where they look by default.
const OPS_PORT: u16 = 15_011;
const PORT: u16 = 15_010;

/// Where in the root's log the intermediate is; before it are its predecessors.
pub(crate) const OWN_PLACE: u64 = 3;

pub(crate) struct Shared {
    pub(crate) root: CertifiedIssuer<'static, KeyPair>,
    pub(crate) intermediate: CertifiedIssuer<'static, KeyPair>,
    /// The log that the intermediate names, and the one that the root names.
    pub(crate) leaves: Book,
    pub(crate) issuers: Book,
    /// What the server shows of the first log instead of the truth.
    pub(crate) shown: Mutex<Option<Book>>,
    /// Whether its tiles are of nothing.
    pub(crate) lies: AtomicBool,
    /// Who lives where, and what he speaks.
    pub(crate) residents: Mutex<HashMap<IpAddr, (String, String)>>,
    tokens: Mutex<Tokens>,
    /// What sidecars are told when they begin to watch.
    foreign: Option<ForeignBundles>,
    /// What it announces beside its own root, and what it says vouches for that.
    announced: watch::Sender<Announced>,
}

#[derive(Clone, Default)]
struct Announced {
    bundle: Option<TrustBundle>,
    steps: Vec<SignedStep>,
}

/// Another replica's intermediate, with a log of its own.
pub(crate) struct OtherIssuer {
    intermediate: CertifiedIssuer<'static, KeyPair>,
    pub(crate) leaves: Book,
    place: u64,
}

#[derive(Clone)]
pub(crate) struct LogCa {
    pub(crate) shared: Arc<Shared>,
    pub(crate) endpoint: SocketAddr,
}

impl LogCa {
    pub(crate) async fn start(pod: &Pod, foreign: Option<ForeignBundles>) -> Result<Self> {
        let leaves = Book::new("mesh.test/log/one", 1, 300);
        let issuers = Book::new("mesh.test/root-log/root", 2, 0);
        let root = CertifiedIssuer::self_signed(issuer("root", &issuers)?, KeyPair::generate()?)?;
        for name in ["first", "second", "third"] {
            let earlier = issuer(name, &leaves)?;
            let earlier = CertifiedIssuer::signed_by(earlier, KeyPair::generate()?, &root)?;
            issuers.append(entry_of(earlier.der(), root.der()));
        }
        let intermediate = issuer("intermediate", &leaves)?;
        let intermediate = CertifiedIssuer::signed_by(intermediate, KeyPair::generate()?, &root)?;
        issuers.append(entry_of(intermediate.der(), root.der()));
        let shared = Shared {
            root,
            intermediate,
            leaves,
            issuers,
            shown: Mutex::default(),
            lies: AtomicBool::default(),
            residents: Mutex::default(),
            tokens: Mutex::default(),
            foreign,
            announced: watch::Sender::default(),
        };
        let endpoint = SocketAddr::new(pod.v4(), PORT);
        let ca = Self { shared: Arc::new(shared), endpoint };
        let listener = pod.tcp_listen(endpoint).await?;
        tokio::spawn(ca.clone().serve(listener, ca.server_config()?));
        let listener = pod.tcp_listen(SocketAddr::new(pod.v4(), OPS_PORT)).await?;
        tokio::spawn(ca.clone().serve_logs(listener));
        Ok(ca)
    }

    pub(crate) fn bundle(&self) -> Arc<TrustBundle> {
        let domain = TrustDomain::parse(TRUST_DOMAIN).unwrap();
        Arc::new(TrustBundle::new(domain, 1, vec![self.shared.root.der().clone()]).unwrap())
    }

    /// Every sidecar is told of this bundle, and whoever asks of these steps.
    pub(crate) fn announce(&self, bundle: TrustBundle, steps: Vec<SignedStep>) {
        self.shared.announced.send_replace(Announced { bundle: Some(bundle), steps });
    }

    /// A token for this ID at these addresses, which the directory then knows.
    pub(crate) fn token(&self, id: &str, addresses: &[IpAddr]) -> String {
        let secret = TokenSecret::random().unwrap();
        let record = (id.to_owned(), addresses.to_vec());
        self.shared.tokens.lock().unwrap().insert(secret.reveal().to_vec(), record);
        self.lives(id, addresses, "myelin/1");
        JoinToken { secret, bundle_hash: self.bundle().hash() }.reveal()
    }

    /// The directory says so from now on.
    pub(crate) fn lives(&self, id: &str, addresses: &[IpAddr], protocol: &str) {
        let mut residents = self.shared.residents.lock().unwrap();
        residents.extend(addresses.iter().map(|at| (*at, (id.to_owned(), protocol.to_owned()))));
    }

    /// A leaf as the CA issues it, for a key of the caller's; in no log.
    pub(crate) fn sign(&self, id: &str, addresses: &[IpAddr]) -> Result<Credential> {
        let key = KeyPair::generate()?;
        let leaf = self.sign_for(id, addresses, &key)?;
        let chain = vec![leaf, self.shared.intermediate.der().clone()];
        Ok(Credential { chain, key: pkcs8(&key) })
    }

    fn sign_for(
        &self,
        id: &str,
        addresses: &[IpAddr],
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>> {
        Ok(svid(id, addresses)?.signed_by(key, &self.shared.intermediate)?.der().clone())
    }

    /// Puts a leaf into the log and proves it.
    pub(crate) fn log(&self, leaf: &[u8]) -> Vec<u8> {
        self.log_in(&self.shared.leaves, leaf)
    }

    /// The same with a log that need not be the one that the intermediate names.
    pub(crate) fn log_in(&self, book: &Book, leaf: &[u8]) -> Vec<u8> {
        let index = book.append(entry_of(leaf, self.shared.intermediate.der()));
        let issuer = self.shared.issuers.inclusion(OWN_PLACE);
        LogProof { leaf: book.inclusion(index), issuer }.encode().unwrap()
    }

    /// The root has signed another intermediate, and logged it.
    pub(crate) fn other_issuer(&self) -> Result<OtherIssuer> {
        let leaves = Book::new("mesh.test/log/two", 3, 100);
        let intermediate = CertifiedIssuer::signed_by(
            issuer("other intermediate", &leaves)?,
            KeyPair::generate()?,
            &self.shared.root,
        )?;
        let entry = entry_of(intermediate.der(), self.shared.root.der());
        let place = self.shared.issuers.append(entry);
        Ok(OtherIssuer { intermediate, leaves, place })
    }

    /// A leaf of the other issuer, and the proof that it is in this history of its log.
    pub(crate) fn issue_by(
        &self,
        other: &OtherIssuer,
        book: &Book,
        id: &str,
        addresses: &[IpAddr],
    ) -> Result<(Credential, Vec<u8>)> {
        let key = KeyPair::generate()?;
        let leaf = svid(id, addresses)?.signed_by(&key, &other.intermediate)?.der().clone();
        let index = book.append(entry_of(&leaf, other.intermediate.der()));
        let issuer = self.shared.issuers.inclusion(other.place);
        let proof = LogProof { leaf: book.inclusion(index), issuer }.encode().unwrap();
        let chain = vec![leaf, other.intermediate.der().clone()];
        Ok((Credential { chain, key: pkcs8(&key) }, proof))
    }

    fn server_config(&self) -> Result<ServerConfig> {
        let own = self.sign("spiffe://mesh.test/myelin/ca", &[self.endpoint.ip()])?;
        let mut chain = own.chain;
        chain.push(self.shared.root.der().clone());
        let mut config = ServerConfig::builder_with_provider(tls::provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(chain, own.key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    async fn serve(self, listener: TcpListener, config: ServerConfig) -> Result<()> {
        let (ready, incoming) = mpsc::channel(16);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, ready) = (acceptor.clone(), ready.clone());
                tokio::spawn(async move {
                    let mut tls = acceptor.accept(tcp).await?;
                    // Tonic knows this type and not the other.
                    let (near, mut far) = duplex(64 * 1024);
                    let _ = ready.send(Ok::<_, std::io::Error>(near)).await;
                    copy_bidirectional(&mut tls, &mut far).await
                });
            }
        });
        let (service, incoming) = (CaServer::new(self), ReceiverStream::new(incoming));
        Ok(tonic::transport::Server::builder().serve_with_incoming(service, incoming).await?)
    }

    async fn serve_logs(self, listener: TcpListener) {
        while let Ok((tcp, _)) = listener.accept().await {
            let ca = self.clone();
            tokio::spawn(async move { ca.answer(tcp).await });
        }
    }

    async fn answer(&self, mut tcp: TcpStream) -> Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tcp.read_u8().await?);
        }
        let head = String::from_utf8(head)?;
        let path = head.split(' ').nth(1).unwrap_or_default();
        let body = match path {
            "/bundle.pem" => Some(self.bundle().to_pem().into_bytes()),
            path => self.resource(path),
        };
        let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
        let body = body.unwrap_or_default();
        let length = body.len();
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
        tcp.write_all(head.as_bytes()).await?;
        tcp.write_all(&body).await?;
        Ok(tcp.shutdown().await?)
    }

    fn resource(&self, path: &str) -> Option<Vec<u8>> {
        let shared = &self.shared;
        for (prefix, book) in [("/log/", &shared.leaves), ("/root-log/", &shared.issuers)] {
            let Some(resource) = path.strip_prefix(prefix).and_then(Resource::parse) else {
                continue;
            };
            let shown = shared.shown.lock().unwrap();
            let shown = shown.as_ref().filter(|shown| shown.key() == book.key());
            let mut bytes = shown.unwrap_or(book).resource(resource)?;
            if matches!(resource, Resource::Hashes(_)) && shared.lies.load(Ordering::Relaxed) {
                bytes[0] ^= 1;
            }
            return Some(bytes);
        }
        None
    }
}

#[tonic::async_trait]
impl Ca for LogCa {
    async fn succession(
        &self,
        _request: Request<proto::SuccessionRequest>,
    ) -> Result<Response<proto::SuccessionResponse>, Status> {
        let steps = self.shared.announced.borrow().steps.iter().map(Into::into).collect();
        Ok(Response::new(proto::SuccessionResponse { steps }))
    }

    async fn issue(
        &self,
        request: Request<proto::IssueRequest>,
    ) -> Result<Response<proto::IssueResponse>, Status> {
        let wrong = |why: &dyn std::fmt::Display| Status::invalid_argument(why.to_string());
        let request = IssueRequest::try_from(request.into_inner()).map_err(|why| wrong(&why))?;
        let Attestation::Join { secret, .. } = &request.attestation else {
            return Err(wrong(&"SVIDs of this CA live longer than its tests"));
        };
        let record = self.shared.tokens.lock().unwrap().get(&secret.reveal()[..]).cloned();
        let (id, addresses) = record.ok_or_else(|| wrong(&"no such token"))?;
        let key = SubjectPublicKeyInfo::from_der(request.csr.key().as_bytes());
        let key = key.map_err(|why| wrong(&why))?;
        let leaf = self.sign_for(&id, &addresses, &key).map_err(|why| wrong(&why))?;
        let log_proof = self.log(&leaf);
        Ok(Response::new(proto::IssueResponse {
            chain_der: vec![leaf.to_vec(), self.shared.intermediate.der().to_vec()],
            lineage: Some(proto::Lineage { id: vec![1; 16], generation: 1 }),
            bundle: Some((&*self.bundle()).into()),
            log_proof,
        }))
    }

    type WatchBundleStream = Answers<proto::BundleUpdate>;

    async fn watch_bundle(
        &self,
        _acks: Request<Streaming<proto::BundleAck>>,
    ) -> Result<Response<Self::WatchBundleStream>, Status> {
        let (own, mut announced) = (self.bundle(), self.shared.announced.subscribe());
        let foreign = self.shared.foreign.clone();
        let (sender, updates) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                let bundle = announced.borrow_and_update().bundle.clone();
                let bundle = bundle.as_ref().unwrap_or(&own);
                let update = proto::BundleUpdate {
                    bundle: Some(bundle.into()),
                    heartbeat_seconds: 3_600,
                    foreign: foreign.as_ref().map(Into::into),
                    ..Default::default()
                };
                if sender.send(Ok(update)).await.is_err() || announced.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(updates))))
    }

    type WatchDirectoryStream = Answers<proto::DirectoryAnswer>;

    async fn watch_directory(
        &self,
        questions: Request<Streaming<proto::DirectoryQuestion>>,
    ) -> Result<Response<Self::WatchDirectoryStream>, Status> {
        let shared = Arc::clone(&self.shared);
        let answers = questions.into_inner().map(move |question| {
            let proto::DirectoryQuestion { address, port, .. } = question?;
            let at = match <[u8; 4]>::try_from(address.as_slice()) {
                Ok(v4) => IpAddr::from(v4),
                Err(_) => {
                    IpAddr::from(<[u8; 16]>::try_from(address.as_slice()).unwrap_or_default())
                }
            };
            let resident = shared.residents.lock().unwrap().get(&at).cloned();
            let (spiffe_id, protocol) = resident.unwrap_or_default();
            Ok(proto::DirectoryAnswer { address, port, spiffe_id, protocol })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// The template of an issuer that names a log.
pub(crate) fn issuer(name: &str, log: &Book) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let named = named_log_extension(&log.key());
    params.custom_extensions = vec![CustomExtension::from_oid_content(&LOG_OID, named)];
    valid(&mut params, now() - 3_600, now() + 86_400);
    Ok(params)
}
