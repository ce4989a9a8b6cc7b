//! Steps of the root ladder as values: whoever knows any earlier bundle finds the present one, and
//! whatever is forged, left out, replayed or reordered leads nowhere.
//! Never: a store; the CA's rotation has those tests.

// SPDX-License-Identifier: Apache-2.0

use rcgen::SigningKey as _;

use super::*;
use crate::testing::{Authority, NOW};

pub(super) fn signed(step: TrustStep, by: &Authority) -> SignedStep {
    let signature = by.issuer.key().sign(&step.signed_bytes()).unwrap();
    SignedStep { step, signer: RootId::of(&by.der), signature }
}

fn next(
    before: Option<&SignedStep>,
    roots: &[&Authority],
    active: &Authority,
    rung: Rung,
    by: &Authority,
) -> SignedStep {
    let ders = roots.iter().map(|root| root.der.clone()).collect();
    let (number, held) =
        before.map_or((1, 0), |before| (before.step.number + 1, before.step.bundle.generation()));
    let bundle = TrustBundle::new(domain(), held + 1, ders).unwrap();
    // The generation follows the roots.
    let same = before.is_some_and(|before| before.step.bundle.hash() == bundle.hash());
    let ders = bundle.roots().cloned().collect();
    let bundle = TrustBundle::new(domain(), if same { held } else { held + 1 }, ders).unwrap();
    let step = TrustStep {
        number,
        bundle,
        rung,
        active: RootId::of(&active.der),
        since: NOW,
        before: before.map_or([0; 32], |before| before.step.digest()),
    };
    signed(step, by)
}

/// One whole rotation.
fn ladder(old: &Authority, new: &Authority) -> Vec<SignedStep> {
    let first = next(None, &[old], old, Rung::Settled, old);
    let prepared = next(Some(&first), &[old, new], old, Rung::Prepared, old);
    let activated = next(Some(&prepared), &[old, new], new, Rung::Activated, old);
    let retired = next(Some(&activated), &[new], new, Rung::Settled, new);
    vec![first, prepared, activated, retired]
}

#[test]
fn every_earlier_bundle_leads_to_the_present_one() {
    let (old, new) = (root("old"), root("new"));
    let steps = ladder(&old, &new);
    let present = steps[3].step.bundle.clone();
    for (known, expected) in [
        (make(&[&old.der]), Some(present.clone())),
        (make(&[&new.der, &old.der]), Some(present)),
        (make(&[&new.der]), None),
    ] {
        assert_eq!(follow(&steps, &domain(), known.unwrap().hash(), 0), Ok(expected));
    }
    let stranger = make(&[&root("other").der]).unwrap().hash();
    assert_eq!(follow(&steps, &domain(), stranger, 0), Err(SuccessionError::Unknown));
    let other = TrustDomain::parse("other").unwrap();
    let known = make(&[&old.der]).unwrap().hash();
    assert_eq!(follow(&steps, &other, known, 0), Err(StepError::OtherTrustDomain.into()));
}

#[test]
fn whoever_holds_roots_that_came_back_is_not_led_to_those_that_were_given_up() {
    let (old, new) = (root("old"), root("new"));
    let first = next(None, &[&old], &old, Rung::Settled, &old);
    let prepared = next(Some(&first), &[&old, &new], &old, Rung::Prepared, &old);
    let aborted = next(Some(&prepared), &[&old], &old, Rung::Settled, &old);
    let again = next(Some(&aborted), &[&old, &root("third")], &old, Rung::Prepared, &old);
    // The root that was given up is in other hands, and signs a history of its own.
    let grafted = next(Some(&prepared), &[&old, &root("x")], &old, Rung::Prepared, &new);
    let (known, held) = (make(&[&old.der]).unwrap().hash(), aborted.step.bundle.generation());
    let led = |steps: &[&SignedStep], generation| {
        let steps: Vec<SignedStep> = steps.iter().map(|step| (*step).clone()).collect();
        follow(&steps, &domain(), known, generation)
    };
    let older = Err(SuccessionError::Older { told: 1, held });
    assert_eq!(led(&[&first, &prepared], held), older);
    assert_eq!(led(&[&first, &prepared, &grafted], held), older);
    assert_eq!(led(&[&first, &prepared, &aborted], held), Ok(None));
    let present = Some(again.step.bundle.clone());
    assert_eq!(led(&[&first, &prepared, &aborted, &again], held), Ok(present));
    // Whoever knows no generation cannot tell.
    let to = Some(prepared.step.bundle.clone());
    assert_eq!(led(&[&first, &prepared], 0), Ok(to));
}

#[test]
fn generation_rises_over_roots_that_came_back_only_if_each_step_is_vouched_for() {
    let (old, new, thief) = (root("old"), root("new"), root("thief"));
    let first = next(None, &[&old], &old, Rung::Settled, &old);
    let prepared = next(Some(&first), &[&old, &new], &old, Rung::Prepared, &old);
    let aborted = next(Some(&prepared), &[&old], &old, Rung::Settled, &old);
    let by_a_thief = next(Some(&prepared), &[&old], &old, Rung::Settled, &thief);
    let mut higher = aborted.clone();
    higher.step.bundle = TrustBundle::new(domain(), u64::MAX, vec![old.der.clone()]).unwrap();
    let held = first.step.bundle.clone();
    let rises = |steps: &[&SignedStep], generation| {
        let steps: Vec<SignedStep> = steps.iter().map(|step| (*step).clone()).collect();
        came_back(&steps, &held, generation)
    };
    assert!(rises(&[&first, &prepared, &aborted], 3));
    assert!(!rises(&[&first, &prepared, &aborted], u64::MAX), "said, and not in the steps");
    assert!(!rises(&[&first, &prepared, &higher], u64::MAX), "changed after it was signed");
    assert!(!rises(&[&first, &prepared, &by_a_thief], 3));
    assert!(!rises(&[&prepared, &aborted], 3), "they do not know what is held");
    assert!(!rises(&[&first, &aborted], 3), "a step was left out");
    assert!(!rises(&[&first, &prepared], 2), "other roots");
    assert!(!rises(&[], 3));
}

#[test]
fn forged_replayed_and_reordered_steps_are_refused() {
    let (old, new, thief) = (root("old"), root("new"), root("thief"));
    let steps = ladder(&old, &new);
    let known = make(&[&old.der]).unwrap().hash();
    let after = |third: SignedStep| {
        follow(&[steps[0].clone(), steps[1].clone(), third], &domain(), known, 0).map(drop)
    };
    let refused = |error: StepError| Err(SuccessionError::Step(error));
    let second = &steps[1];

    let by_itself = next(Some(second), &[&old, &new, &thief], &thief, Rung::Prepared, &thief);
    assert_eq!(after(by_itself), refused(StepError::UntrustedSigner { number: 3 }));
    let mut in_anothers_name = next(Some(second), &[&old, &thief], &old, Rung::Prepared, &thief);
    in_anothers_name.signer = RootId::of(&old.der);
    assert_eq!(after(in_anothers_name), refused(StepError::BadSignature { number: 3 }));
    let mut moved = steps[2].clone();
    moved.step.rung = Rung::Settled;
    assert_eq!(after(moved), refused(StepError::BadSignature { number: 3 }));
    assert_eq!(after(second.clone()), refused(StepError::OutOfOrder { held: 2, found: 2 }));
    assert_eq!(after(steps[3].clone()), refused(StepError::OutOfOrder { held: 2, found: 4 }));
    let elsewhere = next(Some(&steps[0]), &[&old, &root("x")], &old, Rung::Prepared, &old);
    let beside = next(Some(&elsewhere), &[&old, &root("y")], &old, Rung::Prepared, &old);
    assert_eq!(after(beside), refused(StepError::OtherPast { number: 3 }));
    let mut back = next(Some(second), &[&new], &new, Rung::Settled, &old).step;
    back.bundle = TrustBundle::new(domain(), 2, vec![new.der.clone()]).unwrap();
    let error = StepError::Generation { number: 3, held: 2, found: 2 };
    assert_eq!(after(signed(back, &old)), refused(error));
    let absent = next(Some(second), &[&old, &thief], &new, Rung::Settled, &old);
    assert_eq!(after(absent), refused(StepError::ActiveNotThere { number: 3 }));
    let many: Vec<_> = std::iter::repeat_n(steps[0].clone(), MAX_STEPS + 1).collect();
    let count = MAX_STEPS + 1;
    assert_eq!(follow(&many, &domain(), known, 0), Err(SuccessionError::TooMany { count }));
}

#[test]
fn a_p384_root_signs_steps_too() {
    let p384 = root_from("p384", KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(), |_| {});
    let new = root("new");
    let first = next(None, &[&p384], &p384, Rung::Settled, &p384);
    let second = next(Some(&first), &[&p384, &new], &p384, Rung::Prepared, &p384);
    assert_eq!(second.follows(&first.step), Ok(()));
    assert_eq!(first.signed_under(&first.step.bundle), Ok(()));
}
