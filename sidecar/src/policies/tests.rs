//! The desk's answers as tables: pending, taken, unchanged, merged with the file, never forgotten.
//! The line itself is tested with real sidecars in `tests/tests/policies`.
//!
//! Never: a socket, a sleep.

// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;

use myelin_identity::id::{SpiffeId, TrustDomain};
use myelin_identity::policy::{
    EncodedPolicy, Mode, PolicyAnswer, PolicyVersion, PolicyView, PortView, RuleView,
};

use super::*;
use crate::addr::Clock;
use crate::metrics::Metrics;
use crate::policy::{Config, Demand, PENDING};

const WEB: &str = "spiffe://td.example/ns/shop/sa/web";

fn desk(is_on: bool) -> std::sync::Arc<PolicyDesk> {
    let file = Config::strict(TrustDomain::parse("td.example").unwrap());
    PolicyDesk::new(file, is_on, std::sync::Arc::new(Metrics::new()), Clock::new(|| 1_800_000_000))
}

/// A policy that lets this namespace in, as it comes over the line.
fn allowing(namespace: &str) -> PolicyAnswer {
    let rule = RuleView {
        name: format!("{namespace}/only"),
        ports: [].into(),
        ids: [].into(),
        namespaces: [namespace.to_owned()].into(),
        cidrs: [].into(),
    };
    heard(&PolicyView { allow: [rule].into(), ..PolicyView::default() })
}

fn heard(view: &PolicyView) -> PolicyAnswer {
    PolicyAnswer::try_from(EncodedPolicy::new(view).unwrap().answer(None)).unwrap()
}

fn version(answer: &PolicyAnswer) -> PolicyVersion {
    match answer {
        PolicyAnswer::Policy(version, _) | PolicyAnswer::Unchanged(version) => *version,
    }
}

fn enters(desk: &PolicyDesk) -> Result<(), String> {
    let peer = SpiffeId::parse(WEB).unwrap();
    let from: IpAddr = "10.1.0.1".parse().unwrap();
    let verdict = desk.policy().load().authorize(&peer, from, 80);
    verdict.map(drop).map_err(|denied| denied.rule.to_string())
}

#[test]
fn nobody_enters_before_the_first_answer_and_without_controllers_the_file_alone_decides() {
    let pending = desk(true);
    assert_eq!(enters(&pending), Err(PENDING.to_owned()));
    assert_eq!(pending.policy().load().demand(80, 0), Demand::Pending);
    assert_eq!(pending.in_force().unwrap().version, None);
    pending.take(heard(&PolicyView::default())).unwrap();
    assert_eq!(enters(&pending), Ok(()), "a policy that says nothing is an answer");
    assert_eq!(pending.policy().load().demand(80, 0), Demand::Mtls);
    let alone = desk(false);
    assert_eq!((enters(&alone), alone.in_force()), (Ok(()), None));
}

#[test]
fn a_reload_of_the_file_keeps_what_the_controller_said_and_pending_stays_pending() {
    let desk = desk(true);
    let file = || Config::strict(TrustDomain::parse("td.example").unwrap());
    desk.reload(file());
    assert_eq!(enters(&desk), Err(PENDING.to_owned()));
    desk.take(allowing("other")).unwrap();
    desk.reload(file());
    assert!(enters(&desk).is_err(), "the controller's rule was forgotten");
    let mut permissive = file();
    permissive.default = Mode::Permissive { until: 2_000 };
    desk.reload(permissive);
    assert!(matches!(desk.policy().load().demand(80, 1_999), Demand::Permissive { .. }));
}

#[test]
fn what_was_said_stays_until_something_else_is_said() {
    let desk = desk(true);
    let mut changes = desk.subscribe();
    let allowed = allowing("shop");
    desk.take(allowed.clone()).unwrap();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    desk.connected(true);
    desk.connected(false);
    let in_force = desk.in_force().unwrap();
    assert_eq!(in_force.version, Some(version(&allowed)));
    assert_eq!((in_force.since, in_force.is_connected), (Some(1_800_000_000), false));
    assert_eq!(enters(&desk), Ok(()), "the controller is gone, and changes nothing");
    // The same again, in both of its forms, is no change.
    desk.take(allowed.clone()).unwrap();
    desk.take(PolicyAnswer::Unchanged(version(&allowed))).unwrap();
    assert!(!changes.has_changed().unwrap());
    desk.take(allowing("other")).unwrap();
    assert!(changes.has_changed().unwrap() && enters(&desk).is_err());
}

#[test]
fn an_answer_about_what_we_do_not_hold_changes_nothing() {
    let pending = desk(true);
    let unchanged = PolicyAnswer::Unchanged(version(&allowing("shop")));
    assert!(pending.take(unchanged.clone()).is_err());
    assert_eq!(enters(&pending), Err(PENDING.to_owned()));
    let held = desk(true);
    held.take(allowing("other")).unwrap();
    let line = held.take(unchanged).unwrap_err().to_string();
    assert!(line.contains("is still so; we hold "), "{line}");
    assert!(enters(&held).is_err());
}

#[test]
fn the_controllers_ports_win_over_the_files() {
    let desk = desk(true);
    let open = PortView {
        mode: Some(Mode::Permissive { until: 2_000 }),
        server_first: true,
        workload_tls: false,
    };
    desk.take(heard(&PolicyView { ports: [(25, open)].into(), ..PolicyView::default() })).unwrap();
    let expected = Demand::Permissive { server_first: true, workload_tls: false };
    assert_eq!(desk.policy().load().demand(25, 1_999), expected);
    assert_eq!(desk.policy().load().demand(25, 2_000), Demand::Mtls);
    assert_eq!(desk.policy().load().demand(26, 0), Demand::Mtls);
}
