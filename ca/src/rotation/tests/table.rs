//! The ladder as a table of values: rung, move, who has acknowledged, how late it is, whom somebody
//! has named, to a permit or a refusal.
//!
//! Never: a store.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;

use myelin_identity::bundle::Rung;

use super::super::ladder::*;
use crate::journal::LivesRecord;
use crate::template::Validity;

const SINCE: u64 = 1_000;
const LONGEST: u64 = 100;
const LIVES: [LivesRecord; 1] = [LivesRecord { longest: LONGEST, earlier: 0, earlier_end: 0 }];
const BEFORE: u64 = SINCE + LONGEST - 1;
const AFTER: u64 = SINCE + LONGEST;

fn holder(name: &str, trusts: bool, under_active: bool) -> Holder {
    Holder { name: name.to_owned(), trusts, under_active, issued_elsewhere: false }
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

/// In short: `ok` with the kind of permit, or the kind of refusal with whom it names.
fn said(judged: &Result<Permit, Refusal>) -> String {
    match judged {
        Ok(Permit::Harmless) => "harmless".to_owned(),
        Ok(Permit::Acknowledged) => "acknowledged".to_owned(),
        Ok(Permit::TimePassed) => "time".to_owned(),
        Ok(Permit::Forced(who)) => format!("forced {}", who.join(" ")),
        Err(Refusal::WrongRung { .. }) => "wrong rung".to_owned(),
        Err(Refusal::Strands { who, .. }) => format!("strands {}", who.join(" ")),
        Err(Refusal::NotBroken { who, .. }) => format!("not broken {}", who.join(" ")),
    }
}

#[test]
fn each_move_has_its_rungs() {
    use {Move::*, Rung::*};
    for (rung, allowed) in
        [(Settled, &[Prepare][..]), (Prepared, &[Activate, Abort]), (Activated, &[Retire, Abort])]
    {
        for asked in Move::ALL {
            let view = View {
                rung,
                since: SINCE,
                now: BEFORE,
                lives: &LIVES,
                holders: &[],
                lagging: &[],
                federated: &[],
            };
            let judged = judge(asked, &view, &BTreeSet::new());
            let misplaced = matches!(judged, Err(Refusal::WrongRung { .. }));
            assert_eq!(misplaced, !allowed.contains(&asked), "{asked} on {rung:?}: {judged:?}");
            if let Err(refusal) = judged {
                assert!(!refusal.to_string().contains('\n'), "{refusal}");
            }
        }
    }
}

#[test]
fn a_move_waits_for_acknowledgements_or_a_life_and_names_whom_it_would_strand() {
    use {Move::*, Rung::*};
    let holders = [holder("a", true, true), holder("b", true, false), holder("c", false, false)];
    let all_trust = [holder("a", true, true), holder("b", true, false)];
    let all_under = [holder("a", true, true)];
    let old = [Holder { issued_elsewhere: true, ..holder("o", true, true) }];
    let (none, replica): (&[String], &[String]) = (&[], &["ca-replica/1".to_owned()]);
    for (rung, asked, holders, lagging, now, named, expected) in [
        (Prepared, Activate, &holders[..], none, BEFORE, &[][..], "strands c"),
        (Prepared, Activate, &holders, none, AFTER, &[], "time"),
        (Prepared, Activate, &all_trust, none, BEFORE, &[], "acknowledged"),
        (Prepared, Activate, &[], none, BEFORE, &[], "acknowledged"),
        (Prepared, Activate, &holders, none, BEFORE, &["c"], "forced c"),
        (Prepared, Activate, &holders, none, BEFORE, &["b"], "not broken b"),
        (Prepared, Activate, &holders, none, BEFORE, &["b", "c"], "not broken b"),
        (Prepared, Activate, &holders, none, AFTER, &["c"], "not broken c"),
        (Prepared, Activate, &all_trust, replica, BEFORE, &[], "acknowledged"),
        (Prepared, Abort, &holders, none, BEFORE, &[], "harmless"),
        (Activated, Retire, &holders, none, BEFORE, &[], "strands b c"),
        (Activated, Retire, &holders, none, BEFORE, &["c"], "strands b"),
        (Activated, Retire, &holders, none, BEFORE, &["b", "c"], "forced b c"),
        (Activated, Retire, &holders, none, AFTER, &[], "time"),
        (Activated, Retire, &all_under, none, BEFORE, &[], "acknowledged"),
        // An unexpired SVID under the old root is not cured by time, but by its own end.
        (Activated, Retire, &old, none, AFTER, &[], "strands o"),
        (Prepared, Activate, &old, none, BEFORE, &[], "acknowledged"),
        (Activated, Retire, &all_under, replica, BEFORE, &[], "strands ca-replica/1"),
        (Activated, Retire, &all_under, replica, BEFORE, &["ca-replica/1"], "forced ca-replica/1"),
        // A dead replica does not hold up the ladder for longer than an SVID lives.
        (Activated, Retire, &all_under, replica, AFTER, &[], "acknowledged"),
        (Activated, Retire, &holders, replica, AFTER, &[], "time"),
        (Activated, Abort, &holders, replica, BEFORE, &[], "harmless"),
        (Settled, Prepare, &holders, none, BEFORE, &[], "harmless"),
        (Settled, Prepare, &holders, none, BEFORE, &["c"], "not broken c"),
    ] {
        let view =
            View { rung, since: SINCE, now, lives: &LIVES, holders, lagging, federated: &[] };
        let judged = judge(asked, &view, &names(named));
        assert_eq!(said(&judged), expected, "{asked} on {rung:?} at {now} naming {named:?}");
    }
}

#[test]
fn only_activation_waits_for_federated_domains_and_for_a_life_at_most() {
    use {Move::*, Rung::*};
    let shop = federated_name(&"shop.example");
    let federated = [shop.clone(), federated_name(&"bank.example")];
    let holders = [holder("a", true, true)];
    let both = ["trust-domain/bank.example", "trust-domain/shop.example"];
    for (rung, asked, now, named, expected) in [
        (Prepared, Activate, BEFORE, &[][..], format!("strands {}", both.join(" "))),
        (Prepared, Activate, BEFORE, &both[1..], format!("strands {}", both[0])),
        (Prepared, Activate, BEFORE, &both, format!("forced {}", both.join(" "))),
        (Prepared, Activate, AFTER, &[], "time".to_owned()),
        (Prepared, Activate, AFTER, &both[1..], "time".to_owned()),
        (
            Prepared,
            Activate,
            BEFORE,
            &["trust-domain/shop"],
            "not broken trust-domain/shop".to_owned(),
        ),
        (Activated, Retire, BEFORE, &both[1..], format!("not broken {shop}")),
        (Prepared, Abort, BEFORE, &[], "harmless".to_owned()),
        (Activated, Retire, BEFORE, &[], "acknowledged".to_owned()),
        (Settled, Prepare, BEFORE, &[], "harmless".to_owned()),
    ] {
        let (holders, federated) = (&holders[..], &federated[..]);
        let view =
            View { rung, since: SINCE, now, lives: &LIVES, holders, lagging: &[], federated };
        let judged = judge(asked, &view, &names(named));
        assert_eq!(said(&judged), expected, "{asked} on {rung:?} at {now} naming {named:?}");
    }
}

#[test]
fn a_gate_opens_when_what_any_replica_issued_before_has_ended_whatever_lives_are_given_now() {
    let holders = [holder("c", false, false)];
    let one = LivesRecord::new(LONGEST);
    // Shortened just before the move: what was issued until then lives on.
    let shortened = one.changed(10, SINCE - 1);
    for (lives, opens) in [
        (&[one][..], SINCE + LONGEST),
        (&[LivesRecord::new(10)], SINCE + 10),
        (&[shortened], SINCE - 1 + LONGEST),
        (&[LivesRecord::new(10), shortened], SINCE - 1 + LONGEST),
        (&[LivesRecord::new(10), one], SINCE + LONGEST),
        (&[one.changed(10, SINCE - LONGEST - 1)], SINCE + 10),
        (&[one.changed(10, SINCE + 5)], SINCE + LONGEST),
    ] {
        for (now, expected) in [(opens - 1, "strands c"), (opens, "time")] {
            let (rung, holders) = (Rung::Prepared, &holders[..]);
            let view =
                View { rung, since: SINCE, now, lives, holders, lagging: &[], federated: &[] };
            let judged = judge(Move::Activate, &view, &BTreeSet::new());
            assert_eq!(said(&judged), expected, "{lives:?} at {now}");
        }
    }
}

#[test]
fn a_refusal_counts_more_names_than_it_shows() {
    let holders: Vec<Holder> =
        (0..MAX_NAMED + 5).map(|n| holder(&format!("h{n:03}"), false, false)).collect();
    let (rung, now) = (Rung::Prepared, BEFORE);
    let view = View {
        rung,
        since: SINCE,
        now,
        lives: &LIVES,
        holders: &holders,
        lagging: &[],
        federated: &[],
    };
    let Err(refusal) = judge(Move::Activate, &view, &BTreeSet::new()) else { panic!() };
    let line = refusal.to_string();
    assert!(line.contains("strand 37: h000,") && line.contains("h031 and 5 more"), "{line}");
}

#[test]
fn schedule_goes_rung_by_rung_and_only_if_there_is_one() {
    let root = Validity { not_before: 1_000, not_after: 9_000 };
    for (rung, every, now, expected) in [
        (Rung::Settled, None, 8_000, None),
        (Rung::Settled, Some(500), 1_499, None),
        (Rung::Settled, Some(500), 1_500, Some(Move::Prepare)),
        (Rung::Prepared, Some(500), 0, Some(Move::Activate)),
        (Rung::Activated, Some(500), 0, Some(Move::Retire)),
        (Rung::Prepared, None, 8_000, None),
    ] {
        assert_eq!(scheduled(rung, root, every, now), expected, "{rung:?} {every:?} {now}");
    }
}
