//! A small controller in the test's own process: mutual TLS under a genuine SVID, HTTP/2, and of the
//! contract just what a policy watch needs, so that it can also say what no controller would.
//!
//! Never: the real controller; what it says is what the test told it to.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::{Stream, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use myelin_identity::policy::{EncodedPolicy, PolicyQuestion, PolicyVersion, PolicyView, proto};
use myelin_lab::Pod;
use myelin_tests::Mesh;
use myelin_tests::genuine::Genuine;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

pub(crate) const ID: &str = "spiffe://mesh.test/ns/myelin-system/sa/myelin-controller";
const PORT: u16 = 15_014;

/// What is said next.
#[derive(Clone)]
pub(crate) enum Word {
    Policy(EncodedPolicy),
    /// A message as it is, whatever it is.
    Raw(Bytes),
}

pub(crate) struct Controller {
    pod: Pod,
    voice: Arc<Voice>,
    running: Mutex<Option<JoinHandle<()>>>,
}

struct Voice {
    identity: Genuine,
    word: watch::Sender<Word>,
    /// What each question said that its asker holds.
    asked: Mutex<Vec<Option<PolicyVersion>>>,
}

impl Controller {
    /// Has an identity and this to say, and is not there yet.
    pub(crate) async fn new(mesh: &Mesh, policy: &PolicyView) -> Result<Self> {
        let pod = mesh.pod("controller")?;
        let identity = Genuine::enrol(mesh, &pod, ID).await?;
        let word = watch::Sender::new(Word::Policy(EncodedPolicy::new(policy)?));
        let voice = Arc::new(Voice { identity, word, asked: Mutex::default() });
        Ok(Self { pod, voice, running: Mutex::default() })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.pod.v4(), PORT)
    }

    pub(crate) async fn start(&self) -> Result<()> {
        let listener = self.pod.tcp_listen(self.address()).await?;
        let running = tokio::spawn(serve(listener, Arc::clone(&self.voice)));
        *self.running.lock().expect("no holder of the lock panics") = Some(running);
        Ok(())
    }

    /// Gone, with every connection.
    pub(crate) async fn stop(&self) {
        let running = self.running.lock().expect("no holder of the lock panics").take();
        if let Some(running) = running {
            running.abort();
            let _ = running.await;
        }
    }

    pub(crate) fn says(&self, policy: &PolicyView) -> Result<PolicyVersion> {
        let encoded = EncodedPolicy::new(policy)?;
        let version = encoded.version();
        self.voice.word.send_replace(Word::Policy(encoded));
        Ok(version)
    }

    pub(crate) fn says_raw(&self, message: Bytes) {
        self.voice.word.send_replace(Word::Raw(message));
    }

    pub(crate) fn asked(&self) -> Vec<Option<PolicyVersion>> {
        self.voice.asked.lock().expect("no holder of the lock panics").clone()
    }
}

async fn serve(listener: TcpListener, voice: Arc<Voice>) {
    // Connections end with the task that holds the set.
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let voice = Arc::clone(&voice);
        connections.spawn(async move {
            // A sidecar that goes away, or that this is not for, says so itself.
            let _ = converse(tcp, voice).await;
        });
    }
}

async fn converse(tcp: TcpStream, voice: Arc<Voice>) -> Result<()> {
    let own = voice.identity.snapshot()?;
    let config = own.tls.accept_plain(Some(b"h2")).context("h2 is declared")?;
    let tls = TlsAcceptor::from(Arc::clone(config)).accept(tcp).await?;
    let service = service_fn(move |request: Request<Incoming>| {
        let voice = Arc::clone(&voice);
        async move {
            anyhow::ensure!(request.uri().path() == "/myelin.policy.v1.Policies/WatchPolicy");
            let question = request.into_body().collect().await?.to_bytes();
            let known = read(&question)?;
            voice.asked.lock().expect("no holder of the lock panics").push(known);
            let answers = answers(known, voice.word.subscribe());
            let response = Response::builder().header("content-type", "application/grpc");
            Ok::<_, anyhow::Error>(response.body(StreamBody::new(answers))?)
        }
    });
    let http = http2::Builder::new(TokioExecutor::new());
    Ok(http.serve_connection(TokioIo::new(tls), service).await?)
}

/// A gRPC message with one field of bytes, or none.
fn read(question: &[u8]) -> Result<Option<PolicyVersion>> {
    let message = question.get(5..).context("no gRPC message")?;
    let known = match message {
        [] => Vec::new(),
        [0x0a, 16, known @ ..] => known.to_vec(),
        other => anyhow::bail!("no question: {other:?}"),
    };
    Ok(PolicyQuestion::try_from(proto::PolicyQuestion { known })?.known)
}

/// The word that holds, and each that follows.
fn answers(
    known: Option<PolicyVersion>,
    words: watch::Receiver<Word>,
) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
    stream::unfold((words, known, true), async move |(mut words, known, is_first)| {
        if !is_first {
            words.changed().await.ok()?;
        }
        let word = words.borrow_and_update().clone();
        let message = match word {
            Word::Policy(policy) => encode(&policy.answer(known)),
            Word::Raw(message) => message,
        };
        let mut framed = vec![0];
        framed.extend(u32::try_from(message.len()).ok()?.to_be_bytes());
        framed.extend_from_slice(&message);
        Some((Ok(Frame::data(framed.into())), (words, None, false)))
    })
}

/// Both fields, written out: no message library is needed for two.
pub(crate) fn encode(answer: &proto::PolicyAnswer) -> Bytes {
    let mut message = Vec::new();
    for (tag, field) in [(0x0a, &answer.version[..]), (0x12, &answer.policy[..])] {
        if field.is_empty() {
            continue;
        }
        message.push(tag);
        let mut length = field.len();
        while length > 0x7f {
            message.push(u8::try_from(length & 0x7f).expect("seven bits") | 0x80);
            length >>= 7;
        }
        message.push(u8::try_from(length).expect("seven bits"));
        message.extend_from_slice(field);
    }
    message.into()
}
