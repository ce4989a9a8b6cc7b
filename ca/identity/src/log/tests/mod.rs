//! The room's tests: trees against a naive one and the values of the specifications, notes,
//! tiles, and the judgement of a whole proof.
//! Never: another implementation; those read a real CA's log in the workspace's `tests`.

// SPDX-License-Identifier: Apache-2.0

mod forms;
mod judge;
mod tree;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

use super::*;

/// A log in memory that signs.
pub(super) struct Log {
    pub(super) key: LogKey,
    pair: Ed25519KeyPair,
    leaves: Vec<Hash>,
}

/// A witness that signs whatever it is shown.
pub(super) struct Witness {
    pub(super) key: WitnessKey,
    pair: Ed25519KeyPair,
}

impl Log {
    pub(super) fn new(origin: &str, seed: u8) -> Self {
        let (pair, public) = pair(seed);
        Self { key: LogKey::new(origin, public).unwrap(), pair, leaves: Vec::new() }
    }

    pub(super) fn append(&mut self, entry: &[u8]) -> u64 {
        self.leaves.push(leaf_hash(entry));
        self.leaves.len() as u64 - 1
    }

    pub(super) fn note(&self) -> Vec<u8> {
        let origin = self.key.name().to_owned();
        let size = self.leaves.len() as u64;
        let root = root_of(size, |node| Ok::<_, ()>(self.node(node))).unwrap();
        let text = Checkpoint { origin, size, root }.text();
        let line = signature_line(&self.key, &sign(&self.pair, text.as_bytes()));
        format!("{text}\n{line}").into_bytes()
    }

    pub(super) fn prove(&self, index: u64) -> Inclusion {
        let read = |node| Ok::<_, ()>(self.node(node));
        let path = inclusion_proof(index, self.leaves.len() as u64, read).unwrap().unwrap();
        Inclusion { index, path, checkpoint: self.note() }
    }

    fn node(&self, node: Node) -> Hash {
        tree::naive_node(&self.leaves, node)
    }
}

impl Witness {
    pub(super) fn new(name: &str, seed: u8) -> Self {
        let (pair, public) = pair(seed);
        Self { key: WitnessKey::new(name, public).unwrap(), pair }
    }

    pub(super) fn cosign(&self, note: &mut Vec<u8>, seconds: u64) {
        let text = Note::parse(note).unwrap().text.to_owned();
        note.extend(self.line(&text, seconds).into_bytes());
    }

    pub(super) fn line(&self, text: &str, seconds: u64) -> String {
        let signature = sign(&self.pair, cosigned_message(text, seconds).as_bytes());
        cosignature_line(&self.key, seconds, &signature)
    }
}

fn pair(seed: u8) -> (Ed25519KeyPair, [u8; 32]) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    let public = pair.public_key().as_ref().try_into().unwrap();
    (pair, public)
}

fn sign(pair: &Ed25519KeyPair, message: &[u8]) -> [u8; 64] {
    pair.sign(message).as_ref().try_into().unwrap()
}
