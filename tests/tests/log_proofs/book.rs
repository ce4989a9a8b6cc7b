//! A log in the test's hands: entries, checkpoints, proofs, tiles, over the project's own arithmetic
//! (whose independent reading is another suite's).
//!
//! Never: honest by necessity; a copy of it may grow in another direction.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Mutex;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use myelin_identity::log::{
    Checkpoint, Frontier, Hash, Inclusion, LogKey, Node, Resource, encode_bundle, inclusion_proof,
    leaf_hash, signature_line,
};

pub(crate) struct Book {
    origin: String,
    seed: [u8; 32],
    entries: Mutex<Vec<Vec<u8>>>,
}

impl Book {
    /// A log with entries that are nobody's certificates, so that it has some history.
    pub(crate) fn new(origin: &str, seed: u8, filling: usize) -> Self {
        let entries =
            (0..filling).map(|number| format!("{origin} {number}").into_bytes()).collect();
        Self { origin: origin.to_owned(), seed: [seed; 32], entries: Mutex::new(entries) }
    }

    /// The same log with the same key, whose history differs from entry `at` on.
    pub(crate) fn fork(&self, at: usize) -> Self {
        let mut entries = self.entries.lock().unwrap()[..at].to_vec();
        entries.push(b"another history".to_vec());
        Self { origin: self.origin.clone(), seed: self.seed, entries: Mutex::new(entries) }
    }

    pub(crate) fn key(&self) -> LogKey {
        let public = self.signer().public_key().as_ref().try_into().unwrap();
        LogKey::new(&self.origin, public).unwrap()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.lock().unwrap().len()
    }

    pub(crate) fn append(&self, entry: Vec<u8>) -> u64 {
        let mut entries = self.entries.lock().unwrap();
        entries.push(entry);
        entries.len() as u64 - 1
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
        change(&mut self.entries.lock().unwrap());
    }

    /// The signed state of now.
    pub(crate) fn note(&self) -> Vec<u8> {
        let (frontier, _) = self.tree();
        let (size, root) = (frontier.size(), frontier.root());
        let text = Checkpoint { origin: self.origin.clone(), size, root }.text();
        let signature = self.signer().sign(text.as_bytes()).as_ref().try_into().unwrap();
        format!("{text}\n{}", signature_line(&self.key(), &signature)).into_bytes()
    }

    pub(crate) fn inclusion(&self, index: u64) -> Inclusion {
        let (frontier, nodes) = self.tree();
        let read = |node: Node| Ok::<_, Infallible>(nodes[&node]);
        let Ok(path) = inclusion_proof(index, frontier.size(), read).unwrap();
        Inclusion { index, path, checkpoint: self.note() }
    }

    /// What its server shows.
    pub(crate) fn resource(&self, resource: Resource) -> Option<Vec<u8>> {
        let (frontier, nodes) = self.tree();
        if !resource.exists_at(frontier.size()) {
            return None;
        }
        match resource {
            Resource::Checkpoint => Some(self.note()),
            Resource::Hashes(tile) => {
                let first = tile.index * 256;
                let hashes = (first..first + u64::from(tile.width))
                    .map(|index| nodes[&Node { level: tile.level * 8, index }]);
                Some(hashes.flat_map(|hash| hash.0).collect())
            }
            Resource::Entries { index, width } => {
                let first = usize::try_from(index * 256).unwrap();
                let entries = self.entries.lock().unwrap();
                encode_bundle(entries[first..first + usize::from(width)].iter().map(Vec::as_slice))
            }
        }
    }

    fn tree(&self) -> (Frontier, HashMap<Node, Hash>) {
        let (mut frontier, mut nodes) = (Frontier::default(), HashMap::new());
        for entry in self.entries.lock().unwrap().iter() {
            nodes.extend(frontier.append(leaf_hash(entry)));
        }
        (frontier, nodes)
    }

    fn signer(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&self.seed).unwrap()
    }
}
