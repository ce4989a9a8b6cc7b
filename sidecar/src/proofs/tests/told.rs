//! Checkpoints of genuine proofs reach whoever compares them, if not the first time then later.
//!
//! Never: compares them; `auditor` does.

// SPDX-License-Identifier: Apache-2.0

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use myelin_identity::log::{
    Checkpoint, Inclusion, LogProof, entry_of, leaf_hash, root_of, signature_line,
};
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc::Receiver;

use super::super::judge::MAX_UNTOLD;
use super::*;

/// A log that holds nothing but what it is asked to prove.
struct OneLeaf {
    pair: Ed25519KeyPair,
    key: LogKey,
}

impl OneLeaf {
    fn new(name: &str, seed: u8) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let key = LogKey::new(name, pair.public_key().as_ref().try_into().unwrap()).unwrap();
        Self { pair, key }
    }

    fn inclusion(&self, certificate: &[u8], issuer: &[u8]) -> Inclusion {
        let leaf = leaf_hash(&entry_of(certificate, issuer));
        let root = root_of(1, |_| Ok::<_, ()>(leaf)).unwrap();
        let text = Checkpoint { origin: self.key.name().to_owned(), size: 1, root }.text();
        let signature = self.pair.sign(text.as_bytes()).as_ref().try_into().unwrap();
        let note = format!("{text}\n{}", signature_line(&self.key, &signature));
        Inclusion { index: 0, path: Vec::new(), checkpoint: note.into_bytes() }
    }
}

/// A mesh whose every certificate is logged, and any number of peers in it.
struct Mesh {
    leaves: OneLeaf,
    roots: OneLeaf,
    bundle: TrustBundle,
    root: CertificateDer<'static>,
    intermediate: CertificateDer<'static>,
}

impl Mesh {
    fn new() -> Self {
        let (leaves, roots) = (OneLeaf::new("td/log/1", 1), OneLeaf::new("td/root-log/1", 2));
        let bundle = bundle(Some(&roots.key));
        let root = bundle.roots().next().unwrap().clone();
        let other = super::bundle(Some(&leaves.key));
        let intermediate = other.roots().next().unwrap().clone();
        Self { leaves, roots, bundle, root, intermediate }
    }

    /// Only a path that was verified comes to the judge, so any bytes do for a leaf.
    fn judged(&self, judge: &Judge, peer: u8) -> &'static str {
        let leaf = CertificateDer::from(vec![peer; 9]);
        let proof = LogProof {
            leaf: self.leaves.inclusion(&leaf, &self.intermediate),
            issuer: self.roots.inclusion(&self.intermediate, &self.root),
        };
        let root = self.bundle.root_ids().next().unwrap();
        let chain = [leaf, self.intermediate.clone()];
        let proof = proof.encode().unwrap();
        let (_, word) = judge.judged(&self.bundle, &root, &chain, &proof).unwrap();
        word
    }
}

fn drain(seen: &mut Receiver<Seen>) -> usize {
    std::iter::from_fn(|| seen.try_recv().ok()).count()
}

#[test]
fn a_peer_whose_checkpoints_were_passed_over_tells_them_when_it_comes_again() {
    let mesh = Mesh::new();
    let (judge, mut seen) = Judge::new(Witnesses::default(), Arc::new(Metrics::new()));
    let most = u8::try_from(MAX_UNTOLD / 2).unwrap();
    for peer in 0..most {
        assert_eq!(mesh.judged(&judge, peer), "verified");
    }
    // Nobody has listened so far; it is a good proof all the same.
    for _ in 0..2 {
        assert_eq!(mesh.judged(&judge, most), "verified", "remembered without being told");
    }
    assert_eq!(drain(&mut seen), MAX_UNTOLD);
    assert_eq!(mesh.judged(&judge, most), "verified");
    assert_eq!(drain(&mut seen), 2);
    // The twin: whoever was heard is remembered, and says nothing more.
    for peer in 0..=most {
        assert_eq!(mesh.judged(&judge, peer), "remembered");
    }
    assert_eq!(drain(&mut seen), 0);
}

#[test]
fn a_log_that_is_asked_for_again_is_told_again_and_no_other() {
    let mesh = Mesh::new();
    let (judge, mut seen) = Judge::new(Witnesses::default(), Arc::new(Metrics::new()));
    assert_eq!(mesh.judged(&judge, 1), "verified");
    judge.tell_again(&log("other"));
    assert_eq!(mesh.judged(&judge, 1), "remembered");
    judge.tell_again(&mesh.leaves.key);
    assert_eq!(mesh.judged(&judge, 1), "verified");
    assert_eq!(drain(&mut seen), 4);
}
