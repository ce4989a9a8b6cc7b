//! The interception rules in real network namespaces: what `nft` says is there, and where
//! connections go. Run by `cargo test`; needs root, or a user namespace around it.
//!
//! Never: a look inside the room; everything here goes through its door.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod lab;
mod traffic;

use std::process::Command;

use clap::Parser;
use lab::{in_new_netns, nft_ruleset, run as sh, without_counts};
use myelin_sidecar::intercept::{
    Applying, Config, InterceptArgs, Plan, Removal, State, apply, parse_cidr, remove, run, state,
};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    intercept: InterceptArgs,
}

/// What the command line would do, in the namespace of this thread.
fn intercept(words: &str) -> String {
    let cli = Cli::parse_from(["intercept"].into_iter().chain(words.split_whitespace()));
    run(&cli.intercept).unwrap()
}

fn smallest() -> Plan {
    Plan::new(Config::default()).unwrap()
}

fn fullest() -> Plan {
    let ranges = ["10.0.0.0/9", "10.128.0.0/9", "10.1.0.0/16", "192.0.2.1", "240.0.0.0/4"];
    let more = ["fd00::/8", "192.0.2.2/31", "ff00::/8"];
    Plan::new(Config {
        exclude_outbound_ports: vec![53, 22, 53],
        exclude_inbound_ports: vec![22],
        exclude_cidrs: ranges.iter().chain(&more).map(|text| parse_cidr(text).unwrap()).collect(),
        exclude_uids: vec![1000, 100],
        ..Config::default()
    })
    .unwrap()
}

#[test]
fn smallest_plan_reads_in_nft_exactly_as_promised() {
    in_new_netns(|| {
        assert_eq!(apply(&smallest()).unwrap(), Applying::Written);
        assert_eq!(nft_ruleset(), include_str!("smallest.nft"));
    });
}

#[test]
fn fullest_plan_reads_in_nft_exactly_as_promised() {
    in_new_netns(|| {
        assert_eq!(apply(&fullest()).unwrap(), Applying::Written);
        assert_eq!(nft_ruleset(), include_str!("fullest.nft"));
    });
}

#[test]
fn plan_without_mark_exempts_by_uid_alone() {
    in_new_netns(|| {
        intercept("apply --mark 0 --proxy-uid 7");
        let ruleset = nft_ruleset();
        assert!(ruleset.contains("\t\tmeta skuid 7 counter return"), "{ruleset}");
        assert!(!ruleset.contains("meta mark"), "{ruleset}");
    });
}

#[test]
fn applied_twice_removed_and_applied_again_is_the_same_ruleset() {
    in_new_netns(|| {
        sh("nft", "add table ip somebody_else");
        let before = nft_ruleset();
        for plan in [smallest(), fullest()] {
            assert_eq!(apply(&plan).unwrap(), Applying::Written);
            let first = nft_ruleset();
            assert_eq!(apply(&plan).unwrap(), Applying::Unchanged);
            assert_eq!(nft_ruleset(), first);
            assert_eq!(remove().unwrap(), Removal::Removed);
            assert_eq!(nft_ruleset(), before, "only our table goes");
            assert_eq!(apply(&plan).unwrap(), Applying::Written);
            assert_eq!(nft_ruleset(), first);
            assert_eq!(remove().unwrap(), Removal::Removed);
            assert_eq!(remove().unwrap(), Removal::WasAbsent);
        }
    });
}

#[test]
fn another_plan_replaces_the_rules_whole() {
    in_new_netns(|| {
        assert_eq!(apply(&fullest()).unwrap(), Applying::Written);
        assert_eq!(apply(&smallest()).unwrap(), Applying::Replaced);
        assert_eq!(nft_ruleset(), include_str!("smallest.nft"));
    });
}

#[test]
fn tampered_rules_are_repaired() {
    in_new_netns(|| {
        apply(&fullest()).unwrap();
        let promised = nft_ruleset();
        for tampering in [
            "insert rule inet myelin outbound accept",
            "add chain inet myelin bypass",
            "add element inet myelin outbound_direct_v4 { 198.51.100.0/24 }",
            "flush chain inet myelin inbound",
            "add rule inet myelin outbound_guard meta nftrace set 1",
        ] {
            sh("nft", tampering);
            let found = state(&fullest()).unwrap();
            assert!(matches!(found, State::Different(_)), "{tampering}: {found:?}");
            assert_eq!(apply(&fullest()).unwrap(), Applying::Replaced, "{tampering}");
            assert_eq!(nft_ruleset(), promised, "{tampering}");
        }
    });
}

#[test]
fn state_tells_applied_absent_and_different_apart() {
    in_new_netns(|| {
        assert_eq!(state(&smallest()).unwrap(), State::Absent);
        apply(&smallest()).unwrap();
        assert_eq!(state(&smallest()).unwrap(), State::Applied);
        let State::Different(line) = state(&fullest()).unwrap() else { panic!("not different") };
        assert_eq!(
            line,
            "the kernel has `set outbound_direct_v6 {`, the plan says `set outbound_direct_uids {`"
        );
    });
}

#[test]
fn show_reads_as_nft_does() {
    in_new_netns(|| {
        // Other tables, with things in them that we cannot read, are nobody's concern.
        sh("nft", "add table netdev n");
        sh("nft", "add chain netdev n c { type filter hook ingress device lo priority 0 ; }");
        sh("nft", "add table inet x");
        sh(
            "nft",
            "add map inet x m { type ipv4_addr . inet_service : verdict ; flags interval ; }",
        );
        for plan in [smallest(), fullest()] {
            apply(&plan).unwrap();
            let words = |text: &str| -> Vec<String> {
                text.split_whitespace().map(str::to_owned).collect()
            };
            let nft = sh("nft", "list table inet myelin");
            assert_eq!(words(&intercept("show")), words(&nft));
        }
    });
}

#[test]
fn commands_say_what_they_did() {
    in_new_netns(|| {
        assert_eq!(intercept("show"), "no rules of ours here (no table inet myelin)\n");
        assert_eq!(intercept("show --json"), "{\n  \"present\": false\n}\n");
        let promised = intercept("apply --dry-run");
        assert_eq!(nft_ruleset(), "", "a dry run writes nothing");
        assert!(intercept("apply").starts_with("rules written: table inet myelin, outbound TCP"));
        assert_eq!(without_counts(&intercept("show")), without_counts(&promised));
        assert!(intercept("apply").starts_with("rules were in place already"));
        assert!(intercept("apply --exclude-uid 5,6").starts_with("rules replaced"));
        let json: serde_json::Value = serde_json::from_str(&intercept("show --json")).unwrap();
        assert_eq!(json["present"], true);
        assert_eq!(
            json["chains"][0]["rules"][0]["rule"],
            "meta skuid 1337 meta mark 0x00006d79 return"
        );
        assert_eq!(json["sets"][0]["elements"], serde_json::json!(["5", "6"]));
        sh("nft", "add rule inet myelin outbound notrack");
        assert!(intercept("show").contains("(unknown expression notrack)"));
        assert!(intercept("remove").starts_with("rules removed"));
        assert!(intercept("remove").starts_with("nothing to remove"));
    });
}

/// Runs itself once more without a capability; `setpriv` also works inside a user namespace.
#[test]
fn unprivileged_caller_is_told_which_capability_is_missing() {
    const CHILD: &str = "MYELIN_TEST_AS_NOBODY";
    if std::env::var_os(CHILD).is_some() {
        let plan = smallest();
        for refused in [apply(&plan).unwrap_err(), remove().unwrap_err(), state(&plan).unwrap_err()]
        {
            let line = refused.to_string();
            assert!(line.contains("(EPERM)") && line.contains("CAP_NET_ADMIN"), "{line}");
            assert!(!line.contains('\n'), "{line}");
        }
        return;
    }
    in_new_netns(|| {
        let status = Command::new("setpriv")
            .args(["--bounding-set=-all", "--inh-caps=-all"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "unprivileged_caller_is_told_which_capability_is_missing"])
            .env(CHILD, "1")
            .status()
            .unwrap();
        assert!(status.success());
        assert_eq!(nft_ruleset(), "");
    });
}
