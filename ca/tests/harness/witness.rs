//! A test witness: it speaks `add-checkpoint` of c2sp.org/tlog-witness over plain HTTP on loopback,
//! with real signatures, and keeps the newest checkpoint of each log that it knows. It refuses what
//! the protocol says must be refused: unknown logs, foreign signatures, rollbacks and forks.
//!
//! Never: a witness for anything but tests: its state ends with the process, and how it misbehaves
//! can be chosen.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use myelin_ca::https::HttpsUrl;
use myelin_ca::log::witness::Witness;
use myelin_identity::log::{
    Checkpoint, Hash, LogKey, WitnessKey, cosignature_line, cosigned_message, verify_consistency,
};
use tokio::time::Instant;

/// What it does with a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Honest,
    /// Takes the connection and says nothing.
    Hung,
    /// Signs something else than the checkpoint.
    Forger,
    /// Says that it knows a larger log.
    Ahead,
    /// Answers without end.
    Talkative,
    /// Answers no HTTP.
    Garbled,
    /// Is honest, but only when it is told to be anything else.
    Late,
    /// Knows no log: refuses at once.
    Stranger,
}

pub struct TestWitness {
    pub key: WitnessKey,
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    pair: Ed25519KeyPair,
    key: WitnessKey,
    state: Mutex<State>,
}

struct State {
    manner: Manner,
    logs: HashMap<String, LogKey>,
    /// By origin.
    seen: HashMap<String, (u64, Hash)>,
    /// Status and the old size of every question, in order.
    asked: Vec<(u16, String, u64)>,
    /// When these came, and about which log.
    at: Vec<(Instant, String)>,
}

impl TestWitness {
    pub fn start(name: &str, manner: Manner) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").unwrap(), name, manner)
    }

    /// The key of the witness of this name: it is the same whenever that is started.
    pub fn key_of(name: &str) -> WitnessKey {
        let public = pair_of(name).public_key().as_ref().try_into().unwrap();
        WitnessKey::new(name, public).unwrap()
    }

    pub fn start_on(listener: TcpListener, name: &str, manner: Manner) -> Self {
        let (pair, key) = (pair_of(name), Self::key_of(name));
        let address = listener.local_addr().unwrap();
        let (logs, seen) = (HashMap::new(), HashMap::new());
        let state = Mutex::new(State { manner, logs, seen, asked: Vec::new(), at: Vec::new() });
        let shared = Arc::new(Shared { pair, key: key.clone(), state });
        let served = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = served.clone();
                std::thread::spawn(move || served.serve(stream));
            }
        });
        Self { key, address, shared }
    }

    /// As the CA names it.
    pub fn named(&self) -> Witness {
        let url = format!("http://{}/add-checkpoint", self.address);
        Witness { key: self.key.clone(), url: HttpsUrl::parse_or_loopback(&url).unwrap() }
    }

    /// Its operator was told about this log.
    pub fn know(&self, log: &LogKey) {
        self.state(|state| state.logs.insert(log.name().to_owned(), log.clone()));
    }

    pub fn behave(&self, manner: Manner) {
        self.state(|state| state.manner = manner);
    }

    /// What it cosigned last of this log.
    pub fn size_of(&self, log: &LogKey) -> Option<u64> {
        self.state(|state| state.seen.get(log.name()).map(|(size, _)| *size))
    }

    /// It saw another history of this log, with so many entries.
    pub fn saw(&self, log: &LogKey, size: u64) {
        self.saw_tree(log, size, myelin_identity::log::leaf_hash(b"another history"));
    }

    /// It saw this tree, of whomever.
    pub fn saw_tree(&self, log: &LogKey, size: u64, root: Hash) {
        self.state(|state| state.seen.insert(log.name().to_owned(), (size, root)));
    }

    /// The pauses between the questions about this log.
    pub fn pauses(&self, log: &LogKey) -> Vec<Duration> {
        let about = |state: &mut State| {
            let about = state.at.iter().filter(|(_, origin)| origin == log.name());
            about.map(|(at, _)| *at).collect::<Vec<_>>()
        };
        self.state(about).windows(2).map(|two| two[1] - two[0]).collect()
    }

    /// Status and old size of each question about this log.
    pub fn asked(&self, log: &LogKey) -> Vec<(u16, u64)> {
        self.state(|state| {
            let about = state.asked.iter().filter(|(_, origin, _)| origin == log.name());
            about.map(|(status, _, old)| (*status, *old)).collect()
        })
    }

    fn state<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.shared.state.lock().unwrap())
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) {
        let manner = self.state.lock().unwrap().manner;
        let Some(body) = read_request(&stream) else { return };
        match manner {
            Manner::Hung => {
                // Until the other end has had enough.
                let _ = stream.read(&mut [0]);
                return;
            }
            Manner::Talkative => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n");
                let _ = stream.write_all(&[b'a'; 100_000]);
                return;
            }
            Manner::Garbled => {
                let _ = stream.write_all(b"\0\0\0\x12\x04 no HTTP");
                return;
            }
            Manner::Late => {
                while self.state.lock().unwrap().manner == Manner::Late {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            Manner::Honest | Manner::Forger | Manner::Ahead | Manner::Stranger => {}
        }
        let (status, answer) = self.answer(manner, &body);
        let kind = if status == 409 { "text/x.tlog.size" } else { "text/plain" };
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(answer.as_bytes());
    }

    /// Checks and keeps in one step, as the protocol demands.
    fn answer(&self, manner: Manner, body: &str) -> (u16, String) {
        let mut state = self.state.lock().unwrap();
        let Some((old, proof, note)) = parse(body) else { return (400, String::new()) };
        let origin = note.lines().next().unwrap_or_default().to_owned();
        let (status, answer) = self.judged(&mut state, manner, old, &proof, note);
        state.at.push((Instant::now(), origin.clone()));
        state.asked.push((status, origin, old));
        (status, answer)
    }

    fn judged(
        &self,
        state: &mut State,
        manner: Manner,
        old: u64,
        proof: &[Hash],
        note: &str,
    ) -> (u16, String) {
        let origin = note.lines().next().unwrap_or_default();
        let known = state.logs.get(origin).filter(|_| manner != Manner::Stranger);
        let Some(log) = known else { return (404, String::new()) };
        let Ok(checkpoint) = Checkpoint::open(note.as_bytes(), log) else {
            return (403, String::new());
        };
        if old > checkpoint.size {
            return (400, String::new());
        }
        if manner == Manner::Ahead {
            return (409, format!("{}\n", checkpoint.size + 1000));
        }
        let empty = (0, myelin_identity::log::empty_root());
        let (size, root) = state.seen.get(origin).copied().unwrap_or(empty);
        if old != size || (old == checkpoint.size && root != checkpoint.root) {
            return (409, format!("{size}\n"));
        }
        if !verify_consistency(size, &root, checkpoint.size, &checkpoint.root, proof) {
            return (422, String::new());
        }
        state.seen.insert(origin.to_owned(), (checkpoint.size, checkpoint.root));
        let now = 1_800_000_000 + checkpoint.size;
        let mut text = checkpoint.text();
        if manner == Manner::Forger {
            text.push_str("something else\n");
        }
        let signature = self.pair.sign(cosigned_message(&text, now).as_bytes());
        let signature = signature.as_ref().try_into().unwrap();
        (200, cosignature_line(&self.key, now, signature))
    }
}

fn pair_of(name: &str) -> Ed25519KeyPair {
    let seed: Vec<u8> = name.bytes().cycle().take(32).collect();
    Ed25519KeyPair::from_seed_unchecked(&seed).unwrap()
}

/// The body of a POST to `/add-checkpoint`.
fn read_request(stream: &TcpStream) -> Option<String> {
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    if !line.starts_with("POST /add-checkpoint HTTP/1.1") {
        return None;
    }
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    String::from_utf8(body).ok()
}

fn parse(body: &str) -> Option<(u64, Vec<Hash>, &str)> {
    let (head, note) = body.split_once("\n\n")?;
    let mut lines = head.split('\n');
    let old = lines.next()?.strip_prefix("old ")?.parse().ok()?;
    let proof: Option<Vec<Hash>> = lines.map(Hash::from_base64).collect();
    Some((old, proof.filter(|proof| proof.len() <= 63)?, note))
}
