//! New roots are believed only step by step: the CA's trust records, each signed by a root that was
//! trusted before it, followed from what we hold. That is how a bundle that the CA announces is
//! checked, and how a sidecar that slept through a rotation finds the present roots. Called by
//! `keeper` and `watch`.
//!
//! Never: takes a root over because the CA says so, or tells a stranger anything.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::time::Duration;

use myelin_identity::bundle::{
    BundleHash, SignedStep, SuccessionError, TrustBundle, came_back, follow,
};
use myelin_identity::id::TrustDomain;
use myelin_identity::issuance::{IssuanceError, proto, read_succession};
use tokio::time::timeout;

use super::ca_client::{CaStub, ConnectError, Connector, Trust};
use crate::addr::Endpoint;

/// The answer is a hundred kilobytes at most, from memory.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Why an announced bundle is not believed, or no way was found to the present one.
#[derive(Debug, thiserror::Error)]
pub enum Unproven {
    #[error("the CA's trust records cannot be had: {0}")]
    Connect(#[from] ConnectError),
    #[error("the CA does not tell its trust records: {0}")]
    Status(#[from] tonic::Status),
    #[error("the CA did not tell its trust records within {after:?}")]
    Silent { after: Duration },
    #[error("the CA's trust records make no sense: {0}")]
    Malformed(#[from] IssuanceError),
    #[error("the CA announced other roots, and no root that we trust vouches for them")]
    NotVouchedFor,
    #[error(transparent)]
    Succession(#[from] SuccessionError),
}

/// The bundle to hold instead of `held`, now that the CA has announced another one.
pub(super) async fn confirm(
    stub: &mut CaStub,
    held: &TrustBundle,
    announced: TrustBundle,
) -> Result<TrustBundle, Unproven> {
    if only_rises(held, &announced) {
        let generation = announced.generation();
        if came_back(&ask(stub).await?, held, generation) {
            return Ok(announced);
        }
        tracing::warn!(
            generation,
            held = held.generation(),
            "the CA says a later generation of the roots that we hold, and its trust records do not \
             lead there; the one that we hold stays"
        );
        return Ok(held.clone());
    }
    if needs_no_vouching(held, &announced) {
        return Ok(announced);
    }
    let steps = ask(stub).await?;
    let found = follow(&steps, held.trust_domain(), held.hash(), held.generation())?;
    found.ok_or(Unproven::NotVouchedFor)
}

/// The roots are those that we hold, and only the generation is a later one: by the CA's word alone that
/// would make each true bundle to come an older one, in the file as well. Where none is known (0), what
/// the CA says is where it begins.
fn only_rises(held: &TrustBundle, announced: &TrustBundle) -> bool {
    announced.hash() == held.hash()
        && held.generation() > 0
        && announced.generation() > held.generation()
}

/// Nothing new is to be believed; what is older is passed over by whoever holds the newer. Or what we
/// held, perhaps from a file of roots alone, knew of no log of a root, and from now on demands proofs.
fn needs_no_vouching(held: &TrustBundle, announced: &TrustBundle) -> bool {
    announced.generation() < held.generation()
        || announced.hash() == held.hash()
        || announced.only_adds_logs_to(held)
}

/// The present bundle, found from whatever of `known` leads there, with nobody's word but the
/// roots'. `None`: what is known is the present.
pub(super) async fn learn(
    connector: &Connector,
    ca: Endpoint,
    known: &[Trust],
    trust_domain: &TrustDomain,
    within: Duration,
) -> Result<Option<Arc<TrustBundle>>, Unproven> {
    let link = connector.connect(ca, &Trust::Stranger, None, within).await?;
    let mut stub = link.stub;
    let steps = ask(&mut stub).await?;
    let mut last = Err(Unproven::NotVouchedFor);
    for (hash, generation) in known.iter().filter_map(Trust::known) {
        last = found(&steps, trust_domain, hash, generation);
        if last.is_ok() {
            break;
        }
    }
    last
}

fn found(
    steps: &[SignedStep],
    trust_domain: &TrustDomain,
    hash: BundleHash,
    generation: u64,
) -> Result<Option<Arc<TrustBundle>>, Unproven> {
    Ok(follow(steps, trust_domain, hash, generation)?.map(Arc::new))
}

async fn ask(stub: &mut CaStub) -> Result<Vec<SignedStep>, Unproven> {
    let after = ANSWER_WITHIN;
    let asked = timeout(after, stub.succession(proto::SuccessionRequest {}));
    let answer = asked.await.map_err(|_| Unproven::Silent { after })??;
    Ok(read_succession(answer.into_inner())?)
}

#[cfg(test)]
mod tests {
    use myelin_identity::log::LogKey;

    use super::*;
    use crate::credentials::testing::Root;

    #[test]
    fn a_later_generation_of_the_same_roots_is_looked_into_unless_none_is_known() {
        let [root, other] = [Root::new(), Root::new()];
        for (held, announced, expected) in [
            (root.bundle(1), root.bundle(2), true),
            (root.bundle(1), root.bundle(u64::MAX), true),
            (root.bundle(0), root.bundle(7), false),
            (root.bundle(2), root.bundle(2), false),
            (root.bundle(2), root.bundle(1), false),
            (root.bundle(1), root.bundle_with(&other, 2), false),
        ] {
            assert_eq!(only_rises(&held, &announced), expected, "{held:?} {announced:?}");
        }
    }

    #[test]
    fn a_root_s_log_is_added_on_the_ca_s_word_and_never_taken_back_on_it() {
        let [root, stranger] = [Root::new(), Root::new()];
        let plain = root.bundle(1);
        let stating = |name: &str| plain.clone().stating(&LogKey::new(name, [7; 32]).unwrap());
        for (held, announced, expected) in [
            (&plain, &stating("kept"), true),
            (&stating("kept"), &stating("kept"), true),
            (&stating("kept"), &plain, false),
            (&stating("kept"), &stating("other"), false),
            (&plain, &stranger.bundle(1), false),
        ] {
            assert_eq!(needs_no_vouching(held, announced), expected, "{held:?} {announced:?}");
        }
    }
}
