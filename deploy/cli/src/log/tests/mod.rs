//! The monitor against servers that lie or fail: logs of our own making behind loopback ports, read whole,
//! followed, and then changed, shortened, forked and gone.
//! Never: a CA; the end-to-end suite has one.

// SPDX-License-Identifier: Apache-2.0

mod finding;
mod reading;
mod whole;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use myelin_identity::log::{
    Checkpoint, Frontier, LogKey, Resource, encode_bundle, leaf_hash, signature_line,
};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::reader::{Contradiction, Reader, State};
use super::servers::{Place, Servers, Survey};

const ID: &str = "spiffe://example.org/ns/shop/sa/web";

/// A log and what is shown of it, which need not be the same.
struct Log {
    key: Ed25519KeyPair,
    origin: &'static str,
    shown: Arc<Mutex<Files>>,
}

#[derive(Clone, Default)]
struct Files {
    entries: Vec<Vec<u8>>,
    note: Vec<u8>,
    /// The bundle that cannot be read just now.
    broken: Option<u64>,
    /// Bundles that are no longer there in part, as in a copy that was made before.
    full_only: bool,
}

/// A server: what lies at which place, and its address.
struct Replica {
    places: Arc<Mutex<Places>>,
    url: String,
    /// How often it was asked.
    asked: watch::Sender<u64>,
}

type Places = BTreeMap<&'static str, Arc<Mutex<Files>>>;

impl Log {
    fn new(origin: &'static str, seed: u8, entries: Vec<Vec<u8>>) -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let shown = Arc::new(Mutex::new(Files { entries, ..Files::default() }));
        let log = Self { key, origin, shown };
        log.sign();
        log
    }

    fn name(&self) -> LogKey {
        LogKey::new(self.origin, self.key.public_key().as_ref().try_into().unwrap()).unwrap()
    }

    /// Signs what is there now.
    fn sign(&self) {
        let mut files = self.shown.lock().unwrap();
        let mut frontier = Frontier::default();
        for entry in &files.entries {
            frontier.append(leaf_hash(entry));
        }
        let (size, root) = (frontier.size(), frontier.root());
        let text = Checkpoint { origin: self.origin.to_owned(), size, root }.text();
        let signature = self.key.sign(text.as_bytes()).as_ref().try_into().unwrap();
        files.note = format!("{text}\n{}", signature_line(&self.name(), &signature)).into_bytes();
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
        change(&mut self.shown.lock().unwrap().entries);
    }

    /// A copy as it is now, which is not kept up.
    fn copy(&self) -> Arc<Mutex<Files>> {
        Arc::new(Mutex::new(self.shown.lock().unwrap().clone()))
    }
}

impl Replica {
    async fn serve(places: impl IntoIterator<Item = (&'static str, Arc<Mutex<Files>>)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let places = Arc::new(Mutex::new(places.into_iter().collect::<Places>()));
        let shown = Arc::clone(&places);
        let asked = watch::Sender::new(0);
        let count = asked.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (places, count) = (Arc::clone(&shown), count.clone());
                let service = service_fn(move |request: hyper::Request<_>| {
                    count.send_modify(|count| *count += 1);
                    let answer = answer(request.uri().path(), &places.lock().unwrap());
                    async move { Ok::<_, Infallible>(answer) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(tcp), service));
            }
        });
        Self { places, url, asked }
    }

    /// Waits until it was asked so many times more.
    async fn is_asked(&self, more: u64) {
        let goal = *self.asked.borrow() + more;
        self.asked.subscribe().wait_for(|count| *count >= goal).await.unwrap();
    }
}

fn answer(path: &str, places: &Places) -> Response<Full<Bytes>> {
    let place = places.iter().find_map(|(place, files)| Some((path.strip_prefix(place)?, files)));
    let (status, body) = match place.map(|(path, files)| (Resource::parse(path), files)) {
        Some((Some(resource), files)) => file(resource, &files.lock().unwrap()),
        _ => (StatusCode::NOT_FOUND, Vec::new()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}

fn file(resource: Resource, files: &Files) -> (StatusCode, Vec<u8>) {
    let found = match resource {
        Resource::Checkpoint => Some(files.note.clone()),
        Resource::Entries { index, .. } if files.broken == Some(index) => {
            return (StatusCode::INTERNAL_SERVER_ERROR, Vec::new());
        }
        Resource::Entries { width, .. } if files.full_only && width < 256 => None,
        Resource::Entries { index, width } => {
            let first = usize::try_from(index).unwrap() * 256;
            let end = first + usize::from(width);
            let some = files.entries.get(first..end);
            some.and_then(|some| encode_bundle(some.iter().map(Vec::as_slice)))
        }
        Resource::Hashes(_) => None,
    };
    found.map_or((StatusCode::NOT_FOUND, Vec::new()), |body| (StatusCode::OK, body))
}

/// Reads `reader`'s log on from where these servers show it; the entries that are new.
async fn read(reader: &mut Reader, urls: &[&Replica]) -> anyhow::Result<Vec<(u64, Vec<u8>)>> {
    let urls: Vec<String> = urls.iter().map(|replica| replica.url.clone()).collect();
    let (mut servers, mut survey) = (Servers::new(&urls)?, Survey::default());
    for place in [Place::Issuer, Place::Root] {
        if let Some(error) = servers.survey(&mut survey, place).await.pop() {
            return Err(error);
        }
    }
    let shown = servers.showing(&survey, &reader.log)?;
    let mut read = Vec::new();
    reader.advance(shown, |index, entry| read.push((index, entry.to_vec())), |_, _| ()).await?;
    Ok(read)
}

fn some(count: u32) -> Vec<Vec<u8>> {
    (0..count).map(|number| format!("entry {number}").into_bytes()).collect()
}

fn is_contradiction<T>(read: anyhow::Result<T>) -> bool {
    read.is_err_and(|error| error.is::<Contradiction>())
}

async fn state(log: &Log, replica: &Replica) -> State {
    let mut reader = Reader::new(log.name(), None);
    read(&mut reader, &[replica]).await.unwrap();
    reader.state().unwrap().clone()
}
