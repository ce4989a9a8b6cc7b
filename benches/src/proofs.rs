//! The proof of a log that travels in `hello`, as a CA with a million certificates makes it, and the
//! sidecar's own judge of it. Called by the proof benches.
//!
//! Never: a tree of a million entries: siblings are made up, and the root follows from them, so the
//! judge has as much to hash as with a real one.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use myelin_identity::bundle::{ForeignBundles, TrustBundles};
use myelin_identity::log::{
    Checkpoint, Hash, Inclusion, LogKey, LogProof, WitnessKey, Witnesses, cosignature_line,
    cosigned_message, entry_of, leaf_hash, node_hash, signature_line,
};
use myelin_sidecar::metrics::{Direction, Metrics};
use myelin_sidecar::proofs::{Judge, Path, Seen, Standing};
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc::Receiver;

use crate::credentials::{Domain, NOW};

/// Hashes from a leaf to the root of a log of 2^20, or 1,048,576, entries.
const ISSUED: u32 = 20;
/// Of the root's log: 16 intermediates, a year of a replica's.
const INTERMEDIATES: u32 = 4;

const GOOD: &str = "the proof is a good one";

/// A log or a witness, and its key.
struct Signs(Ed25519KeyPair);

/// A domain with logs, and who cosigns them.
pub struct Logged {
    domain: Domain,
    trust: TrustBundles,
    issuing: (LogKey, Signs),
    root: (LogKey, Signs),
    cosign: Vec<(WitnessKey, Signs)>,
}

/// An SVID's chain and its proof.
pub struct Proven {
    pub chain: Vec<CertificateDer<'static>>,
    pub proof: Vec<u8>,
}

/// A judge, and where it tells what it has seen.
pub struct Court {
    judge: Arc<Judge>,
    told: Receiver<Seen>,
}

impl Signs {
    fn new(seed: u8) -> (Self, [u8; 32]) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("32 bytes are a seed");
        let public = pair.public_key().as_ref().try_into().expect("a public key has 32 bytes");
        (Self(pair), public)
    }

    fn sign(&self, message: &str) -> [u8; 64] {
        self.0.sign(message.as_bytes()).as_ref().try_into().expect("a signature has 64 bytes")
    }
}

impl Logged {
    /// Every checkpoint has so many cosignatures, and each of them is demanded.
    pub fn new(cosignatures: u8) -> Self {
        let log = |name: &str, seed| {
            let (signs, public) = Signs::new(seed);
            (LogKey::new(name, public).expect("it is a name"), signs)
        };
        let issuing = log("bench.example/myelin/log/64abeac7", 1);
        let root = log("bench.example/myelin/root-log/ec83ea81", 2);
        let cosign = (0..cosignatures).map(|n| {
            let (signs, public) = Signs::new(3 + n);
            let name = format!("witness.example/w{n}");
            (WitnessKey::new(&name, public).expect("it is a name"), signs)
        });
        let domain = Domain::logged(&issuing.0, &root.0);
        let trust = TrustBundles::new(domain.bundle.clone(), Arc::new(ForeignBundles::default()));
        Self { trust, cosign: cosign.collect(), domain, issuing, root }
    }

    /// An SVID that the CA issued.
    pub fn svid(&self, account: &str) -> Proven {
        self.proven(self.domain.issue(account).chain)
    }

    /// The proof of this leaf: the judge looks at its bytes only.
    pub fn proven(&self, chain: Vec<CertificateDer<'static>>) -> Proven {
        let root = self.domain.bundle.roots().next().expect("it has a root");
        let leaf = self.place(&self.issuing, ISSUED, &entry_of(&chain[0], &chain[1]));
        let issuer = self.place(&self.root, INTERMEDIATES, &entry_of(&chain[1], root));
        Proven { chain, proof: LogProof { leaf, issuer }.encode().expect("it is not too big") }
    }

    /// Somewhere in a full tree.
    fn place(&self, (log, signs): &(LogKey, Signs), height: u32, entry: &[u8]) -> Inclusion {
        let (size, index) = (1_u64 << height, (1_u64 << height) / 3);
        let path: Vec<Hash> = (0..height).map(|at| leaf_hash(&at.to_be_bytes())).collect();
        let root = (0..).zip(&path).fold(leaf_hash(entry), |below, (level, sibling)| {
            match index >> level & 1 {
                0 => node_hash(&below, sibling),
                _ => node_hash(sibling, &below),
            }
        });
        let text = Checkpoint { origin: log.name().to_owned(), size, root }.text();
        let mut note = format!("{text}\n{}", signature_line(log, &signs.sign(&text)));
        for (key, signs) in &self.cosign {
            let signature = signs.sign(&cosigned_message(&text, NOW));
            note.push_str(&cosignature_line(key, NOW, &signature));
        }
        Inclusion { index, path, checkpoint: note.into_bytes() }
    }

    /// The sidecar's judge, which demands all cosignatures.
    pub fn court(&self) -> Court {
        let keys: Vec<WitnessKey> = self.cosign.iter().map(|(key, _)| key.clone()).collect();
        let witnesses = Witnesses { quorum: keys.len(), keys };
        let (judge, told) = Judge::new(witnesses, Arc::new(Metrics::new()));
        Court { judge, told }
    }

    /// What a sidecar does with a peer's `hello`.
    pub fn judged(&self, court: &Court, peer: &Proven) -> Standing {
        let root = self.domain.bundle.root_ids().next().expect("it has a root");
        let path = Path { trust_domain: self.domain.bundle.trust_domain(), root: &root };
        let Proven { chain, proof } = peer;
        let judged = court.judge.peer(self.trust.view(), path, chain, proof, Direction::Inbound);
        judged.expect(GOOD)
    }
}

impl Court {
    /// Reads what it told, as the auditor does.
    pub fn hear(&mut self) -> usize {
        std::iter::from_fn(|| self.told.try_recv().ok()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The figures of README.md.
    #[test]
    fn proof_of_a_million_certificates_has_the_documented_size_and_is_told_once() {
        for (cosignatures, bytes) in [(0, 1234), (2, 1746)] {
            let logged = Logged::new(cosignatures);
            let mut court = logged.court();
            let peer = logged.svid("web");
            assert_eq!(peer.proof.len(), bytes, "{cosignatures}");
            assert!(matches!(logged.judged(&court, &peer), Standing::Logged(_)));
            assert_eq!(court.hear(), 2, "both checkpoints, at first sight");
            assert!(matches!(logged.judged(&court, &peer), Standing::Logged(_)));
            assert_eq!(court.hear(), 0, "it is remembered");
        }
    }

    #[test]
    #[should_panic(expected = "the proof is a good one")]
    fn proof_of_another_svid_is_refused() {
        let logged = Logged::new(2);
        let (one, other) = (logged.svid("web"), logged.svid("orders"));
        logged.judged(&logged.court(), &Proven { chain: one.chain, proof: other.proof });
    }
}
