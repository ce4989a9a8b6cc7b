//! Somebody who writes the store and has not the seal key: nothing of it is told, all of it is
//! named, and what is genuine goes on.
//!
//! Never: the seal key in the forger's hands.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use super::*;
use crate::clock::Clock;
use crate::federation::roll::MAX_LYING;
use crate::federation::seal::{sealed, what_counts};
use crate::journal::{Blob, CURRENT, Entry, FederationRecord, Hex, RollRecord};
use crate::metrics::Metrics;
use crate::store::Write;

const B: &str = "b.example";
const C: &str = "c.example";

/// A store with one genuine federation.
async fn one() -> (tempfile::TempDir, Roll, RollRecord, Entry<FederationRecord>) {
    let (directory, roll) = replica();
    add(&roll, &request(), NOW).await.unwrap();
    let view = roll.view().await.unwrap();
    let genuine = view.member("b.example").unwrap().1.clone();
    (directory, roll, view.roll, genuine)
}

async fn write(roll: &Roll, forged: Vec<(&str, Vec<u8>)>) {
    let writes = forged.into_iter().map(|(key, value)| Write::Put(key.to_owned(), value));
    let _ = roll.journal().raw().commit(Vec::new(), writes.collect()).await.unwrap();
}

fn form(version: u32, record: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(&serde_json::json!({ "v": version, "record": record })).unwrap()
}

fn words(view: &View) -> Vec<(String, &'static str)> {
    view.passed_over.iter().map(|it| (it.name(), it.word)).collect()
}

fn domains(set: &ForeignBundles) -> Vec<&str> {
    set.bundles().iter().map(|it| it.bundle.trust_domain().as_str()).collect()
}

fn clock() -> Clock {
    Clock::new(|| rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(NOW)))
}

/// A record as the forger would like it, and a roll that names it.
fn rogue(of: &RollRecord) -> (FederationRecord, RollRecord) {
    let bundle = TrustBundle::new(TrustDomain::parse(C).unwrap(), 1, vec![root("rogue")]).unwrap();
    let request = AddRequest {
        trust_domain: C.to_owned(),
        bundle: Some(bundle.to_spiffe_json()),
        unlogged: true,
        ..request()
    };
    let record = entry::record(bundle.trust_domain(), &request, NOW).unwrap();
    let mut roll = RollRecord { epoch: of.epoch + 1, ..of.clone() };
    roll.members.insert(C.to_owned(), what_counts(C, &record));
    (record, roll)
}

const ROLL: &str = "federation-epoch/current";
const GENUINE: &str = "federation/b.example";
const OTHER: &str = "federation/c.example";

type Written = Vec<(&'static str, Vec<u8>)>;

/// What the forger writes; names and words of what is passed over; who is told all the same.
type Forgery = (&'static str, Written, Vec<(&'static str, &'static str)>, Vec<&'static str>);

/// What he makes without the record that is genuine.
fn strangers(roll: &RollRecord) -> Vec<Forgery> {
    let (record, listed) = rogue(roll);
    let with_roll = |roll: &RollRecord| vec![(OTHER, form(1, &record)), (ROLL, form(2, roll))];
    let unsealed = RollRecord { seal: None, ..listed.clone() };
    let key = SealKey::from_bytes([8; 32]);
    let his_own = sealed(&key, &own(), listed.epoch, listed.members.clone()).unwrap();
    let both = || vec![(ROLL, "unsealed"), (C, "unlisted")];
    let old_form = form(1, &serde_json::json!({ "epoch": 9 }));
    vec![
        ("a stranger", vec![(OTHER, form(1, &record))], vec![(C, "unlisted")], vec![B]),
        ("a stranger on the old roll, extended", with_roll(&listed), both(), vec![B]),
        ("a stranger on a roll under no seal", with_roll(&unsealed), both(), vec![B]),
        ("a stranger on a roll under his own key", with_roll(&his_own), both(), vec![B]),
        ("no roll", vec![(ROLL, b"{}".to_vec())], vec![(ROLL, "unreadable")], vec![B]),
        ("an older version's epoch", vec![(ROLL, old_form)], vec![(ROLL, "unreadable")], vec![B]),
    ]
}

/// What he makes of the genuine record.
fn changed(genuine: &FederationRecord) -> Vec<Forgery> {
    let mut rooted = genuine.clone();
    rooted.bundle.as_mut().unwrap().roots_der.push(Blob(root("rogue").to_vec()));
    let unlogged = FederationRecord { unlogged: true, ..genuine.clone() };
    let renamed = form(1, genuine);
    let in_place = |record| vec![(GENUINE, form(1, record))];
    vec![
        ("a root beside the genuine one", in_place(&rooted), vec![(B, "changed")], vec![]),
        ("without the duty of a log", in_place(&unlogged), vec![(B, "changed")], vec![]),
        ("under another name", vec![(OTHER, renamed)], vec![(C, "unlisted")], vec![B]),
        ("garbage", vec![(GENUINE, b"{}".to_vec())], vec![(B, "unreadable")], vec![]),
    ]
}

#[tokio::test]
async fn a_record_that_is_written_by_hand_is_passed_over_by_its_word() {
    let (_directory, _, roll, genuine) = one().await;
    let count = strangers(&roll).len() + changed(&genuine.record).len();
    for index in 0..count {
        // Each in a store of its own, whose genuine record is another one.
        let (_directory, roll, genuine_roll, genuine) = one().await;
        let mut all = strangers(&genuine_roll);
        all.extend(changed(&genuine.record));
        let (what, written, passed_over, told) = all.swap_remove(index);
        write(&roll, written).await;
        let view = roll.view().await.unwrap();
        let set = view.set().unwrap();
        assert_eq!(domains(&set), told, "{what}");
        assert_eq!(set.epoch(), 1, "{what}");
        let seen = words(&view);
        let seen: Vec<(&str, &str)> = seen.iter().map(|(name, word)| (&**name, *word)).collect();
        assert_eq!(seen, passed_over, "{what}");
        assert!(seen.iter().all(|(_, word)| PASSED_OVER_WORDS.contains(word)), "{what}");
        // It is not fetched for either, and the operator who asks hears why.
        for (name, word) in seen.iter().filter(|(name, _)| *name != ROLL) {
            let domain = TrustDomain::parse(name).unwrap();
            let refused = refresh(&roll, &domain, &clock()).await.unwrap_err().to_string();
            assert!(refused.contains("is not believed") && refused.contains(word), "{refused}");
        }
        // The twin: what the operator says counts, and nothing is passed over any more.
        if seen.iter().any(|(name, _)| *name == B) {
            add(&roll, &request(), NOW).await.unwrap();
        }
        let theirs = AddRequest { trust_domain: C.to_owned(), ..request() };
        add(&roll, &theirs, NOW).await.unwrap();
        let view = roll.view().await.unwrap();
        assert_eq!(domains(&view.set().unwrap()), [B, C], "{what}");
        assert!(view.passed_over.is_empty(), "{what}: {:?}", view.passed_over);
    }
}

#[tokio::test]
async fn a_federation_that_ended_does_not_come_back_with_an_older_roll() {
    let (directory, roll, old_roll, genuine) = one().await;
    remove(&roll, "b.example").await.unwrap();
    write(
        &roll,
        vec![
            ("federation-epoch/current", form(2, &old_roll)),
            ("federation/b.example", form(1, &genuine.record)),
        ],
    )
    .await;
    // Neither to who runs, nor to who starts again with its pin.
    let again = at(&directory, roll.journal(), "federation.pin");
    for roll in [&roll, &again] {
        let view = roll.view().await.unwrap();
        assert_eq!((domains(&view.set().unwrap()), view.roll.epoch), (vec![], 2));
        let current = format!("federation-epoch/{CURRENT}");
        assert_eq!(words(&view), [(current, "went_back"), ("b.example".to_owned(), "unlisted")]);
    }
    // The store is mended, so that a replica which knows nothing yet believes nothing old.
    again.mend(&again.view().await.unwrap()).await.unwrap();
    let newcomer = at(&directory, roll.journal(), "another.pin");
    let view = newcomer.view().await.unwrap();
    assert_eq!((domains(&view.set().unwrap()), view.roll.epoch), (vec![], 2));
    assert_eq!(words(&view), [("b.example".to_owned(), "unlisted")]);
    remove(&newcomer, "b.example").await.unwrap();
    assert!(roll.view().await.unwrap().passed_over.is_empty());
}

#[tokio::test]
async fn who_runs_goes_on_with_what_was_told_and_tells_nothing_of_what_was_written_in() {
    let (_directory, roll, genuine_roll, genuine) = one().await;
    let metrics = Metrics::new().unwrap();
    let keeper = Keeper::start(roll.clone(), clock(), metrics.clone()).await.unwrap();
    let mut told = keeper.told();
    let (stop, stopping) = tokio::sync::watch::channel(false);
    let running = tokio::spawn(keeper.run(stopping));
    let (record, forged_roll) = rogue(&genuine_roll);
    let lying = FederationRecord { unlogged: true, ..genuine.record.clone() };
    write(
        &roll,
        vec![
            ("federation/c.example", form(1, &record)),
            ("federation/b.example", form(1, &lying)),
            ("federation-epoch/current", form(2, &forged_roll)),
        ],
    )
    .await;
    // The keeper has seen it once the store is mended.
    let mended = async {
        while roll.journal().find::<RollRecord>(CURRENT).await.unwrap().unwrap().record
            != Ok(genuine_roll.clone())
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), mended).await.expect("mended in time");
    assert!(!told.has_changed().unwrap());
    let held = told.borrow_and_update().clone();
    assert_eq!(domains(&held), ["b.example"]);
    assert!(!held.bundles()[0].unlogged, "as it was told before");
    let shown = String::from_utf8(metrics.text()).unwrap();
    for word in ["unsealed", "unlisted", "changed"] {
        let line = format!("myelin_ca_federation_passed_over{{reason=\"{word}\"}} 1");
        assert!(shown.contains(&line), "{word}: {shown}");
    }
    // The twin: what the operator adds is told.
    let theirs = AddRequest { trust_domain: "d.example".to_owned(), ..request() };
    add(&roll, &theirs, NOW).await.unwrap();
    let more = told.wait_for(|set| domains(set).contains(&"d.example"));
    tokio::time::timeout(Duration::from_secs(10), more).await.expect("told in time").unwrap();
    stop.send(true).unwrap();
    running.await.unwrap();
}

#[tokio::test]
async fn a_store_full_of_strangers_is_read_as_far_as_the_bound_and_hides_nobody() {
    let (_directory, roll, genuine_roll, _) = one().await;
    let (record, _) = rogue(&genuine_roll);
    // In the order of keys before the genuine one.
    let names: Vec<String> = (0..3 * MAX_LYING).map(|at| format!("a{at:03}.example")).collect();
    let keys: Vec<String> = names.iter().map(|name| format!("federation/{name}")).collect();
    for keys in keys.chunks(100) {
        write(&roll, keys.iter().map(|key| (key.as_str(), form(1, &record))).collect()).await;
    }
    let view = roll.view().await.unwrap();
    assert_eq!(domains(&view.set().unwrap()), [B]);
    assert_eq!(view.passed_over.len(), MAX_LYING + 1);
    let last = view.passed_over.last().unwrap();
    assert_eq!((last.key.as_str(), last.word), ("federation/", "unlisted"));
    // What lies beyond the bound can be removed, and written over by whom the operator adds.
    let [.., removed, added] = &names[..] else { panic!() };
    remove(&roll, removed).await.unwrap();
    assert_eq!(roll.lies(removed).await.unwrap(), None);
    add(&roll, &AddRequest { trust_domain: added.clone(), ..request() }, NOW).await.unwrap();
    assert_eq!(domains(&told(&roll).await), [added.as_str(), B]);
    for name in &names[..2 * MAX_LYING] {
        remove(&roll, name).await.unwrap();
    }
    // The twin: as many as the bound, with the genuine one and the one that was added.
    let view = roll.view().await.unwrap();
    assert_eq!(view.passed_over.len(), MAX_LYING - 2, "all of them are named");
    assert!(view.passed_over.iter().all(|it| !it.name().is_empty()));
}

#[test]
fn a_pin_that_another_seal_key_sealed_is_named_and_not_used() {
    let (directory, roll) = replica();
    let path = directory.path().join("other.pin");
    let key = SealKey::from_bytes([8; 32]);
    let members = std::collections::BTreeMap::from([(C.to_owned(), Hex(vec![0; 32]))]);
    let forged = sealed(&key, &own(), 9, members).unwrap();
    for bytes in [serde_json::to_vec(&forged).unwrap(), b"{}".to_vec(), Vec::new()] {
        std::fs::write(&path, bytes).unwrap();
        let key = SealKey::from_bytes([7; 32]);
        let opened = Roll::open(roll.journal().clone(), own(), key, path.clone());
        let refused = opened.map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains("other.pin is damaged"), "{refused}");
    }
}

#[test]
fn what_is_wrong_with_a_strangers_record_is_said_in_one_short_line() {
    let said = crate::journal::shown("unknown variant `x\n2026 audit\u{1b}[0m`");
    assert_eq!(said, "unknown variant `x\\n2026 audit\\u{1b}[0m`");
    assert!(crate::journal::shown(&"x".repeat(5_000)).len() < 1_000);
}
