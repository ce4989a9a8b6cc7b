//! T60 at a sidecar: whoever speaks for the CA, because he stole an issuer's key or sits in its place,
//! announces another root. It counts only if a root that the sidecar trusts has signed for it.
//!
//! Never: a second rotation; the real CA's are in the ladder suite.

// SPDX-License-Identifier: Apache-2.0

use anyhow::{Context, Result, ensure};
use myelin_identity::bundle::{RootId, Rung, SignedStep, TrustBundle, TrustStep};
use myelin_identity::log::{LogProof, entry_of};
use myelin_tests::Spec;
use myelin_tests::forge::{Credential, pkcs8, svid};
use myelin_tests::programs::eventually;
use rcgen::{CertifiedIssuer, KeyPair, SigningKey as _};
use rustls::pki_types::CertificateDer;

use crate::ca::issuer;
use crate::stage::{SOON, STRANGER, Said, Stage};

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// Another root with an intermediate, both with the logs of the first, and a leaf below.
struct Second {
    root: Issuer,
    intermediate: Issuer,
    leaf: Credential,
}

impl Second {
    fn new(stage: &Stage) -> Result<Self> {
        let shared = &stage.ca.shared;
        let root = CertifiedIssuer::self_signed(
            issuer("second root", &shared.issuers)?,
            KeyPair::generate()?,
        )?;
        let below = issuer("below it", &shared.leaves)?;
        let intermediate = CertifiedIssuer::signed_by(below, KeyPair::generate()?, &root)?;
        let key = KeyPair::generate()?;
        let leaf = svid(STRANGER, stage.stranger.addresses())?.signed_by(&key, &intermediate)?;
        let chain = vec![leaf.der().clone(), intermediate.der().clone()];
        Ok(Self { root, intermediate, leaf: Credential { chain, key: pkcs8(&key) } })
    }

    /// Logged as the first root's leaves are.
    fn proof(&self, stage: &Stage) -> Vec<u8> {
        let shared = &stage.ca.shared;
        let leaf = entry_of(&self.leaf.chain[0], self.intermediate.der());
        let leaf = shared.leaves.inclusion(shared.leaves.append(leaf));
        let place = shared.issuers.append(entry_of(self.intermediate.der(), self.root.der()));
        LogProof { leaf, issuer: shared.issuers.inclusion(place) }.encode().unwrap()
    }
}

/// The step that adds a root, signed by this one.
fn adding(
    first: &Issuer,
    second: &Issuer,
    signer: &Issuer,
) -> Result<(TrustBundle, [SignedStep; 2])> {
    let bundle = |generation, roots: Vec<CertificateDer<'static>>| {
        let domain = myelin_identity::id::TrustDomain::parse(myelin_tests::mesh::TRUST_DOMAIN)?;
        anyhow::Ok(TrustBundle::new(domain, generation, roots)?)
    };
    let one = bundle(1, vec![first.der().clone()])?;
    let two = bundle(2, vec![first.der().clone(), second.der().clone()])?;
    let active = RootId::of(first.der());
    let step = |number, bundle: &TrustBundle, rung, before| TrustStep {
        number,
        bundle: bundle.clone(),
        rung,
        active,
        since: 0,
        before,
    };
    let sign = |step: TrustStep, by: &Issuer| {
        let signature = by.key().sign(&step.signed_bytes())?;
        anyhow::Ok(SignedStep { step, signer: RootId::of(by.der()), signature })
    };
    let begun = sign(step(1, &one, Rung::Settled, [0; 32]), first)?;
    let digest = begun.step.digest();
    let added = sign(step(2, &two, Rung::Prepared, digest), signer)?;
    Ok((two, [begun, added]))
}

async fn rejected(stage: &Stage, at_least: f64) -> Result<()> {
    eventually("the sidecar refuses it", SOON, async || {
        let metrics = stage.server.metrics().await?;
        let seen = metrics.sum("myelin_trust_updates_total", &[("outcome", "bundle_rejected")]);
        ensure!(metrics.sum("myelin_bundle_generation", &[]) == 1.0, "it was taken over");
        Ok(seen >= at_least)
    })
    .await
}

#[tokio::test]
async fn a_root_that_no_trusted_root_signed_for_is_refused_and_one_that_is_signed_for_counts()
-> Result<()> {
    let Some(stage) = Stage::set(Spec::new("server")).await? else { return Ok(()) };
    let first = &stage.ca.shared.root;
    let second = Second::new(&stage)?;
    let proof = second.proof(&stage);
    let (bundle, genuine) = adding(first, &second.root, first)?;
    let (_, by_itself) = adding(first, &second.root, &second.root)?;
    let mut altered = genuine.clone();
    altered[1].step.since += 1;
    let forgeries = [
        ("nobody signs", Vec::new()),
        ("the new root signs for itself", by_itself.to_vec()),
        ("the signature is over something else", altered.to_vec()),
        ("the way begins elsewhere", genuine[1..].to_vec()),
    ];
    for (number, (what, steps)) in forgeries.into_iter().enumerate() {
        stage.ca.announce(bundle.clone(), steps);
        rejected(&stage, number as f64 + 1.0).await.context(what)?;
        let before = stage.server.metrics().await?.outcome("inbound", "untrusted_root");
        ensure!(stage.knock(&second.leaf, &proof).await.is_err(), "{what}: was let in");
        stage.server.outcome("inbound", "untrusted_root", before + 1.0).await.context(what)?;
    }
    ensure!(stage.server.log()?.contains("is not believed"), "nobody said anything");
    // The twin: the same bundle, with the signature of the root that is trusted.
    stage.ca.announce(bundle, genuine.to_vec());
    eventually("the sidecar takes it over", SOON, async || {
        Ok(stage.server.metrics().await?.sum("myelin_bundle_generation", &[]) == 2.0)
    })
    .await?;
    ensure!(stage.knock(&second.leaf, &proof).await? == Said::Accepted);
    Ok(())
}
