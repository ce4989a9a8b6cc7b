//! What drivers rely on: sending, fates, budgets, retirement, clean ends.
//!
//! Never: random input (see `interleavings`).

// SPDX-License-Identifier: Apache-2.0

use super::{Said, acceptor, acceptor_with, ample, budget, dialer, encoded, feed, number};
use crate::wire::{
    Acceptor, Action, Dialer, Event, Fate, Frame, MAX_DISCARDED, MAX_PAYLOAD, MAX_PROOF, Phase,
    Received, Refuse, Side, Violation,
};

#[test]
fn data_may_follow_open_at_once_and_the_acceptors_only_its_answer() {
    assert!(dialer("HhO").course().may_send_data());
    assert!(!acceptor("Hho").course().may_send_data());
    assert!(acceptor("HhoA").course().may_send_data());
    for script in ["", "H", "Hh", "HhOF", "HhOaF", "HhOaFf", "HhOaFfIi", "HhOr", "HhOp", "HhOaS"] {
        let mut side = dialer(script);
        assert!(!side.course().may_send_data(), "{script}");
        assert!(side.course_mut().data(1).is_err(), "{script}");
    }
}

#[test]
fn no_open_before_the_peers_hello_or_beside_a_running_use() {
    for script in ["", "H", "h", "HhO", "HhOa", "HhOaFf", "HhOaFfI", "HhOaFfi", "HhOr", "Hht"] {
        let mut side = dialer(script);
        let mut out = Vec::new();
        assert!(side.open(&mut out).is_err(), "{script}");
        assert!(out.is_empty(), "{script}: a misuse sends nothing");
    }
    assert_eq!(dialer("HhOaFfIi").open(&mut Vec::new()), Ok(number(2)));
}

#[test]
fn early_data_stays_in_the_drivers_buffer_until_the_open_is_answered() {
    let bytes = encoded(&Frame::Data(b"early"));
    let mut side = acceptor("Hho");
    assert_eq!(side.receive(&bytes), Ok(Received::Undecided));
    side.accept(&mut Vec::new()).expect("the use waits for an answer");
    let event = Event::Data { of: number(1), bytes: b"early" };
    assert_eq!(side.receive(&bytes), Ok(Received::Event { event, consumed: bytes.len() }));

    let mut side = acceptor("Hho");
    assert_eq!(side.receive(&bytes), Ok(Received::Undecided));
    side.refuse(Refuse::PolicyDenied, &mut Vec::new()).expect("the use waits for an answer");
    let dropped = Received::Event { event: Event::Discarded, consumed: bytes.len() };
    assert_eq!(side.receive(&bytes), Ok(dropped));
}

#[test]
fn a_flood_after_a_refusal_is_cut() {
    let flood = Frame::Data(&[0; MAX_PAYLOAD]);
    let mut side = acceptor("HhoR");
    let mut dropped = 0;
    let violation = loop {
        match feed(&mut side, &flood) {
            Ok(said) => assert_eq!(said, Said::Discarded),
            Err(violation) => break violation,
        }
        dropped += MAX_PAYLOAD as u64;
    };
    assert_eq!(violation, Violation::TooMuchDiscarded { limit: MAX_DISCARDED });
    assert!(dropped <= MAX_DISCARDED && dropped + MAX_PAYLOAD as u64 > MAX_DISCARDED);
}

#[test]
fn an_unanswered_use_is_never_replayed_unless_retiring_came_first() {
    let refused = Fate::Refused(Refuse::PolicyDenied);
    let table = [
        ("Hh", Fate::NeverSent, true),
        ("Hht", Fate::NeverSent, true),
        ("HhO", Fate::Unknown, false),
        ("HhOD", Fate::Unknown, false),
        ("HhOt", Fate::Unknown, false),
        ("HhOs", Fate::Unknown, false),
        ("HhOS", Fate::Unknown, false),
        ("HhOz", Fate::Unknown, false),
        ("HhOp", Fate::Replayable, true),
        ("HhODFp", Fate::Replayable, true),
        ("HhOr", refused, false),
        ("HhOa", Fate::Taken, false),
        ("HhOas", Fate::Taken, false),
        ("HhOaFz", Fate::Taken, false),
        ("HhOaFf", Fate::Complete, false),
        ("HhOaFfz", Fate::Complete, false),
        ("HhOaFfIi", Fate::Complete, false),
    ];
    for (script, fate, may_replay) in table {
        let side = dialer(script);
        assert_eq!(side.fate(number(1)), fate, "{script}");
        assert_eq!(fate.may_replay(), may_replay, "{script}");
        assert_eq!(side.fate(number(2)), Fate::NeverSent, "{script}");
    }
    let second = dialer("HhOaFfIiO");
    assert_eq!(second.fate(number(1)), Fate::Complete);
    assert_eq!(second.fate(number(2)), Fate::Unknown);
}

#[test]
fn each_open_may_be_refused_whatever_was_accepted_before() {
    let mut out = Vec::new();
    let mut side = acceptor("HhoAFfIio");
    assert_eq!(side.refuse(Refuse::IdentityDenied, &mut out), Ok(number(2)));
    assert_eq!(out, encoded(&Frame::Refused(number(2), Refuse::IdentityDenied)));
    assert_eq!((side.course().phase(), side.action()), (Phase::Discarding, Action::Close));
    side.accept(&mut out).expect_err("a refused use is not accepted");
}

#[test]
fn a_running_use_can_be_cut_from_either_side_until_its_idle() {
    for script in ["HhoA", "HhoAF", "HhoAf", "HhoAFf", "HhoAFfi"] {
        let mut side = acceptor(script);
        let mut out = Vec::new();
        side.course_mut().reset(&mut out).expect("a use is running");
        assert_eq!(out, encoded(&Frame::Reset), "{script}");
        assert_eq!(side.action(), Action::Abort, "{script}");
    }
    for script in ["Hh", "HhoAFfI", "HhoAFfIi", "HhoR"] {
        assert!(acceptor(script).course_mut().reset(&mut Vec::new()).is_err(), "{script}");
    }
}

#[test]
fn keys_are_refreshed_after_both_fins_and_only_then_idle_is_sent() {
    let table = [
        ("HhoA", Action::Wait),
        ("HhoAF", Action::Wait),
        ("HhoAf", Action::Wait),
        ("HhoAFf", Action::RefreshKeys),
        ("HhoAFfi", Action::RefreshKeys),
        ("HhoAFfI", Action::Wait),
        ("HhoAFfIi", Action::Wait),
    ];
    for (script, action) in table {
        let mut side = acceptor(script);
        assert_eq!(side.action(), action, "{script}");
        let sent = side.course_mut().keys_refreshed(&mut Vec::new());
        assert_eq!(sent.is_ok(), action == Action::RefreshKeys, "{script}");
    }
}

#[test]
fn a_spent_acceptor_retires_and_accepts_nothing_past_its_budget() {
    let mut out = Vec::new();
    let mut side = acceptor_with(budget(1, 1 << 40), "HhoAFfIi");
    assert!(side.course().is_spent());
    assert_eq!(side.action(), Action::Retire);
    feed(&mut side, &Frame::Open(number(2))).expect("the dialer need not know our budget");
    assert_eq!(side.action(), Action::Retire);
    side.accept(&mut out).expect_err("the budget is spent");
    assert!(out.is_empty());
    assert_eq!(side.retire(&mut out), Ok(number(1)));
    assert_eq!(out, encoded(&Frame::Retiring(number(1))));
    side.retire(&mut out).expect_err("retiring is said once");
}

#[test]
fn bytes_of_both_directions_spend_the_budget_and_cut_no_running_use() {
    let mut side = acceptor_with(budget(9, 6), "HhoADd");
    assert_eq!(side.course().bytes(), 6);
    assert_eq!((side.course().is_spent(), side.action()), (true, Action::Wait));
    side.course_mut().data(MAX_PAYLOAD).expect("a running use goes on");
    assert!(!acceptor_with(budget(9, 7), "HhoADd").course().is_spent());
}

#[test]
fn a_spent_dialer_opens_nothing_more_and_closes() {
    let mut by_age = dialer("HhOa");
    by_age.retire();
    assert_eq!((by_age.course().phase(), by_age.action()), (Phase::Running, Action::Wait));
    let mut aged = dialer("Hh");
    aged.retire();
    assert_eq!((aged.may_open(), aged.action()), (false, Action::Close));

    let mut once = Dialer::new(budget(1, 1 << 40));
    let mut peer = Acceptor::new(ample());
    let mut out = Vec::new();
    once.course_mut().hello(b"", &mut out).expect("first");
    peer.course_mut().hello(b"", &mut out).expect("first");
    feed(&mut once, &Frame::Hello { version: 1, proof: b"" }).expect("legal");
    assert_eq!(once.open(&mut out), Ok(number(1)));
    assert!(once.course().is_spent() && !once.may_open());
}

#[test]
fn close_notify_is_a_clean_end_only_where_no_use_is_cut() {
    let table = [
        ("", false),
        ("Hh", true),
        ("HhO", false),
        ("HhOa", false),
        ("HhOaF", false),
        ("HhOaf", false),
        ("HhOaFf", true),
        ("HhOaFfI", true),
        ("HhOaFfIi", true),
        ("HhOr", true),
        ("HhOp", true),
        ("HhOas", false),
        ("Hhz", false),
    ];
    for (script, clean) in table {
        assert_eq!(dialer(script).course().eof_is_clean(0), clean, "{script}");
        assert!(!dialer(script).course().eof_is_clean(1), "{script}: half a frame was cut");
    }
    assert!(acceptor("HhoR").course().eof_is_clean(1), "what is dropped may be cut");
}

#[test]
fn hello_states_the_lower_version_and_carries_a_bounded_proof() {
    let mut side = Dialer::new(ample());
    let bytes = encoded(&Frame::Hello { version: 9, proof: b"pp" });
    let event = Event::Hello { version: 1, proof: b"pp" };
    assert_eq!(side.receive(&bytes), Ok(Received::Event { event, consumed: bytes.len() }));

    let mut out = Vec::new();
    side.course_mut().hello(&[0; MAX_PROOF + 1], &mut out).expect_err("the proof is too long");
    side.course_mut().hello(&[0; MAX_PROOF], &mut out).expect("the proof fits");
    side.course_mut().hello(&[], &mut out).expect_err("hello is said once");
}
