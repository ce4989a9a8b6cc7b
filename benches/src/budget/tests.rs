//! The verdict and the file, as tables of values.
//!
//! Never: valgrind, or a file.

// SPDX-License-Identifier: Apache-2.0

use serde_json::json;

use super::*;

fn counts(of: &[(&str, u64)]) -> Counts {
    of.iter().map(|(bench, count)| ((*bench).to_owned(), *count)).collect()
}

fn budget(runs: &[Counts]) -> Budget {
    Budget::of(runs, "rustc 1".to_owned(), "valgrind-3".to_owned())
}

#[test]
fn growth_beyond_the_limit_is_a_failure_and_within_it_is_not() {
    let kept = budget(&[counts(&[("handshake", 1_000)])]);
    for (now, expected) in [
        (900, Verdict::Shrunk),
        (971, Verdict::Kept),
        (1_000, Verdict::Kept),
        (1_030, Verdict::Kept),
        (1_031, Verdict::Grown),
    ] {
        let rows = kept.judge(&counts(&[("handshake", now)]));
        assert_eq!(rows[0].verdict, expected, "{now}");
    }
    assert!(Verdict::Grown.is_failure());
    assert!(!Verdict::Kept.is_failure() && !Verdict::Shrunk.is_failure());
}

#[test]
fn bench_without_a_budget_and_budget_without_a_bench_are_failures() {
    let kept = budget(&[counts(&[("gone", 1)])]);
    let verdicts: Vec<_> = kept
        .judge(&counts(&[("new", 1)]))
        .into_iter()
        .map(|row| (row.bench, row.verdict))
        .collect();
    assert_eq!(verdicts, [("gone".to_owned(), Verdict::Gone), ("new".to_owned(), Verdict::New)]);
    assert!(verdicts.iter().all(|(_, verdict)| verdict.is_failure()));
}

#[test]
fn unsteady_bench_gets_room_for_its_own_spread() {
    let runs = [1_000, 1_040, 1_010].map(|count| counts(&[("relay", count), ("wire", 500)]));
    let kept = budget(&runs).bench;
    assert_eq!(kept["relay"].instructions, 1_010);
    assert!(kept["relay"].growth > 2.0 * 0.039 && kept["relay"].growth < 2.0 * 0.040);
    assert_eq!(kept["wire"], Kept { instructions: 500, growth: GROWTH });
}

#[test]
fn file_says_what_was_written() {
    let kept = budget(&[counts(&[("handshake.x25519", 1_000), ("verifier.chain", 7)])]);
    assert_eq!(Budget::parse(&kept.write()).unwrap(), kept);
    assert!(Budget::parse("rustc = 1").is_err());
}

#[test]
fn count_is_of_one_round() {
    let printed = json!({
        "function_name": "handshake",
        "id": "x25519",
        "profiles": [{ "data": { "total": { "metrics": {
            "Ir": { "change": null, "values": { "new": 1_600, "old": 3_200 } }
        } } } }]
    });
    let counted = read_counts(&format!("{printed}\n{printed}\n")).unwrap();
    assert_eq!(counted, counts(&[("handshake.x25519", 1_600 / ROUNDS as u64)]));
}

#[test]
fn output_without_a_count_is_refused() {
    let nameless = json!({ "function_name": "handshake" }).to_string();
    let countless =
        json!({ "function_name": "handshake", "id": "x25519", "profiles": [] }).to_string();
    for printed in ["no JSON", &nameless, &countless] {
        assert!(read_counts(printed).is_err(), "{printed}");
    }
    assert_eq!(read_counts("").unwrap(), Counts::new());
}
