//! The monitor against a server that lies: a log of our own making behind a loopback port, read whole,
//! followed, and then changed, shortened and forked.
//! Never: a CA; the end-to-end suite has one.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use myelin_identity::id::SpiffeId;
use myelin_identity::log::{
    Checkpoint, Frontier, LogKey, Resource, encode_bundle, entry_of, leaf_hash, signature_line,
};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use tokio::net::TcpListener;

use super::fetch::Server;
use super::find::{Issuers, UNLOGGED_ISSUER, UNREADABLE, known_serials};
use super::reader::{Contradiction, Reader, State};

const ORIGIN: &str = "example.org/log";
const ID: &str = "spiffe://example.org/ns/shop/sa/web";

/// A log and what its server shows of it, which need not be the same.
struct Log {
    key: Ed25519KeyPair,
    entries: Arc<Mutex<Vec<Vec<u8>>>>,
    note: Arc<Mutex<Vec<u8>>>,
    url: String,
}

impl Log {
    async fn serve(entries: Vec<Vec<u8>>) -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
        let entries = Arc::new(Mutex::new(entries));
        let note = Arc::new(Mutex::new(Vec::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let log = Self { key, entries, note, url };
        log.sign();
        let (entries, note) = (Arc::clone(&log.entries), Arc::clone(&log.note));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (entries, note) = (Arc::clone(&entries), Arc::clone(&note));
                let service = service_fn(move |request: hyper::Request<_>| {
                    let body = answer(request.uri().path(), &entries, &note);
                    async move { Ok::<_, Infallible>(body) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(tcp), service));
            }
        });
        log
    }

    fn name(&self) -> LogKey {
        LogKey::new(ORIGIN, self.key.public_key().as_ref().try_into().unwrap()).unwrap()
    }

    /// Signs what is there now.
    fn sign(&self) {
        let mut frontier = Frontier::default();
        for entry in self.entries.lock().unwrap().iter() {
            frontier.append(leaf_hash(entry));
        }
        let (size, root) = (frontier.size(), frontier.root());
        let text = Checkpoint { origin: ORIGIN.to_owned(), size, root }.text();
        let signature = self.key.sign(text.as_bytes()).as_ref().try_into().unwrap();
        let note = format!("{text}\n{}", signature_line(&self.name(), &signature));
        *self.note.lock().unwrap() = note.into_bytes();
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
        change(&mut self.entries.lock().unwrap());
    }

    async fn read(&self, reader: &mut Reader) -> anyhow::Result<Vec<(u64, Vec<u8>)>> {
        let mut read = Vec::new();
        let mut server = Server::new(&self.url)?;
        reader
            .advance(&mut server, |index, entry| read.push((index, entry.to_vec())), |_, _| ())
            .await?;
        Ok(read)
    }

    async fn state(&self) -> State {
        let mut reader = Reader::new(self.name(), None);
        self.read(&mut reader).await.unwrap();
        reader.now.unwrap()
    }
}

fn answer(
    path: &str,
    entries: &Mutex<Vec<Vec<u8>>>,
    note: &Mutex<Vec<u8>>,
) -> Response<Full<Bytes>> {
    let resource = path.split_once("/log/").and_then(|(_, it)| Resource::parse(it));
    let body = match resource {
        Some(Resource::Checkpoint) => Some(note.lock().unwrap().clone()),
        Some(Resource::Entries { index, width }) => {
            let first = usize::try_from(index).unwrap() * 256;
            let entries = entries.lock().unwrap();
            let end = first + usize::from(width);
            entries.get(first..end).and_then(|some| encode_bundle(some.iter().map(Vec::as_slice)))
        }
        _ => None,
    };
    let status = if body.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let mut response = Response::new(Full::new(Bytes::from(body.unwrap_or_default())));
    *response.status_mut() = status;
    response
}

fn some(count: u32) -> Vec<Vec<u8>> {
    (0..count).map(|number| format!("entry {number}").into_bytes()).collect()
}

fn is_contradiction<T>(read: anyhow::Result<T>) -> bool {
    read.is_err_and(|error| error.is::<Contradiction>())
}

#[tokio::test]
async fn a_log_is_read_whole_and_followed_as_it_grows() {
    let log = Log::serve(some(600)).await;
    let mut reader = Reader::new(log.name(), None);
    let read = log.read(&mut reader).await.unwrap();
    assert_eq!(read.len(), 600);
    assert!(read.iter().enumerate().all(|(at, (index, _))| at as u64 == *index));
    assert!(log.read(&mut reader).await.unwrap().is_empty(), "nothing is new");
    log.change(|entries| entries.extend(some(3)));
    log.sign();
    let indices: Vec<u64> = log.read(&mut reader).await.unwrap().iter().map(|it| it.0).collect();
    assert_eq!(indices, [600, 601, 602]);
}

#[tokio::test]
async fn an_entry_that_was_changed_under_a_signed_root_is_a_contradiction() {
    let log = Log::serve(some(300)).await;
    log.change(|entries| entries[7] = b"another".to_vec());
    assert!(is_contradiction(log.read(&mut Reader::new(log.name(), None)).await));
    log.sign();
    assert!(
        log.read(&mut Reader::new(log.name(), None)).await.is_ok(),
        "the twin: signed as it is"
    );
}

#[tokio::test]
async fn a_history_that_was_rewritten_since_the_last_run_is_a_contradiction() {
    let log = Log::serve(some(300)).await;
    let before = log.state().await;
    log.change(|entries| entries.push(b"one more".to_vec()));
    log.sign();
    let mut reader = Reader::new(log.name(), Some(before.clone()));
    assert!(log.read(&mut reader).await.is_ok(), "the twin: it only grew");
    log.change(|entries| entries[299] = b"rewritten".to_vec());
    log.sign();
    let mut reader = Reader::new(log.name(), Some(before.clone()));
    assert!(is_contradiction(log.read(&mut reader).await), "rewritten and grown");
    log.change(|entries| entries.truncate(300));
    log.sign();
    let mut reader = Reader::new(log.name(), Some(before.clone()));
    assert!(is_contradiction(log.read(&mut reader).await), "two roots for one size");
    log.change(|entries| entries.truncate(299));
    log.sign();
    let mut reader = Reader::new(log.name(), Some(before));
    assert!(is_contradiction(log.read(&mut reader).await), "shrunk");
}

#[tokio::test]
async fn a_checkpoint_by_another_key_and_a_missing_bundle_are_errors() {
    let log = Log::serve(some(3)).await;
    let other = LogKey::new(ORIGIN, [5; 32]).unwrap();
    assert!(log.read(&mut Reader::new(other, None)).await.is_err());
    log.change(Vec::clear);
    assert!(log.read(&mut Reader::new(log.name(), None)).await.is_err());
}

fn svid(uris: &[&str]) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.subject_alt_names =
        uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

#[test]
fn certificates_of_the_id_are_found_and_what_hides_it_as_well() {
    let (id, other) = (SpiffeId::parse(ID).unwrap(), "spiffe://example.org/ns/shop/sa/website");
    let issuer = b"an issuer".to_vec();
    let mut issuers = Issuers::default();
    let _ = issuers.read(&entry_of(&issuer, b"root"));
    for (certificate, issuer, expected) in [
        (svid(&[ID]), issuer.as_slice(), Some(None)),
        (svid(&[other]), &issuer, None),
        (svid(&[ID]), b"a secret issuer", Some(Some(UNLOGGED_ISSUER))),
        (svid(&[other, ID]), &issuer, Some(Some(UNREADABLE))),
        (ID.as_bytes().to_vec(), &issuer, Some(Some(UNREADABLE))),
    ] {
        let found = issuers.find(&id, "l", 4, &entry_of(&certificate, issuer));
        assert_eq!(found.map(|found| found.objection), expected);
    }
    assert!(issuers.find(&id, "l", 4, b"junk").is_none());
    assert!(issuers.find(&id, "l", 4, format!("junk {ID}").as_bytes()).is_some());
}

#[test]
fn known_serials_are_read_one_a_line() {
    let known = known_serials("# mine\n0A0b\n\n ff # the second\n");
    assert_eq!(known.into_keys().collect::<Vec<_>>(), ["0a0b", "ff"]);
}

#[test]
fn only_an_http_url_without_a_path_is_a_server() {
    for (url, good) in [
        ("http://ca:15011", true),
        ("http://10.0.0.2:15011/", true),
        ("http://[fd00::1]:15011", true),
        ("http://ca", true),
        ("https://ca:15011", false),
        ("ca:15011", false),
        ("http://ca:15011/log", false),
        ("", false),
    ] {
        assert_eq!(Server::new(url).is_ok(), good, "{url}");
    }
}
