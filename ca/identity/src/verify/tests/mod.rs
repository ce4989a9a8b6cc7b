//! The verifier against certificates with one thing wrong each (T3 to T9, T12, T43), and their
//! twins with nothing wrong. Chains are in `chain`, leaves in `leaf`, later uses in `uses`, two
//! domains in `federated`, rustls in `tls`.
//! Never: sockets or the real time.

// SPDX-License-Identifier: Apache-2.0

mod chain;
mod federated;
mod leaf;
mod tls;
mod uses;

use std::collections::HashSet;

use rustls_pki_types::CertificateDer;

use super::{Peer, Refusal, Role, peer};
use crate::bundle::TrustBundle;
use crate::testing::{Authority, bundle, now, root};

/// A root with its intermediate, and the bundle that trusts it.
struct Mesh {
    root: Authority,
    intermediate: Authority,
    bundle: TrustBundle,
}

impl Mesh {
    fn new() -> Self {
        let root = root("root");
        let intermediate = root.intermediate("intermediate");
        let bundle = bundle(&[&root]);
        Self { root, intermediate, bundle }
    }

    /// Verifies leaf and intermediate as a server's chain.
    fn judge(&self, leaf: &CertificateDer<'static>) -> Result<Peer, Refusal> {
        self.judge_as(leaf, Role::Server)
    }

    fn judge_as(&self, leaf: &CertificateDer<'static>, role: Role) -> Result<Peer, Refusal> {
        peer(&[leaf.clone(), self.intermediate.der.clone()], &self.bundle, now(), role)
    }
}

fn word(verdict: &Result<Peer, Refusal>) -> &'static str {
    match verdict {
        Ok(_) => "accepted",
        Err(refusal) => {
            assert!(Refusal::WORDS.contains(&refusal.word()), "{refusal:?}");
            assert!(!refusal.to_string().contains('\n'), "{refusal}");
            refusal.word()
        }
    }
}

#[test]
fn reason_words_are_distinct_and_snake_case() {
    let words: HashSet<_> = Refusal::WORDS.into_iter().collect();
    assert_eq!(words.len(), Refusal::WORDS.len());
    assert!(words.iter().all(|w| w.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_'))));
}
