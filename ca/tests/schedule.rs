//! The ladder on a whole server: `--rotate-root-every` replaces the root unattended, rung by rung, and a
//! holder that says nothing is waited for as an operator would have to; moves without a pause.
//!
//! Never: waits for real days; the server's clock is set forward.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod harness;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use harness::*;
use myelin_ca::rotation::ladder::Move;
use myelin_ca::template::MAX_LIFETIME;
use myelin_identity::bundle::Rung;
use myelin_identity::verify::CaVerifier;

const HOUR: Duration = Duration::from_secs(3_600);
/// The clock looks at the schedule every 5 s.
const LOOKED_WITHIN: Duration = Duration::from_secs(30);

/// Waits until everybody is told of the bundle with this generation.
async fn told(ca: &TestCa, generation: u64) {
    let mut statements = ca.running.authority().statements();
    let told = statements
        .wait_for(|said| said.as_ref().is_some_and(|said| said.bundle.generation() == generation));
    tokio::time::timeout(LOOKED_WITHIN, told).await.expect("told in time").unwrap();
}

#[tokio::test]
async fn a_root_that_is_old_enough_is_replaced_unattended_and_strands_nobody() {
    let every = 10 * MAX_LIFETIME;
    let ca = TestCa::start_rotating(every).await;
    let old = ca.running.authority().step().step.active;
    ca.advance(every - HOUR);
    // With an SVID of its own that is valid now.
    let ca = ca.restart().await;
    let authority = ca.running.authority().clone();
    assert_eq!(authority.rotate_by_schedule().await.unwrap(), None, "not old enough");
    // It holds an SVID and never says what it trusts.
    let _silent = join(&ca, WEB, "10.0.0.7").await;
    ca.advance(2 * HOUR);
    told(&ca, 2).await;
    assert_eq!(authority.step().step.rung, Rung::Prepared);
    assert_eq!(
        authority.rotate_by_schedule().await.unwrap(),
        None,
        "it would strand the silent one"
    );
    assert_eq!(authority.ladder().await.unwrap().outstanding_ids, [WEB]);
    ca.advance(MAX_LIFETIME);
    told(&ca, 3).await;
    let step = authority.step();
    assert_eq!((step.step.rung, step.step.bundle.roots().len()), (Rung::Settled, 1));
    assert_ne!(step.step.active, old);
    assert_eq!(authority.dress().1, Some(step.step.active), "the intermediate has followed");
}

#[tokio::test]
async fn a_root_without_a_schedule_stays() {
    let ca = TestCa::start().await;
    ca.advance(100 * MAX_LIFETIME);
    let authority = ca.running.authority();
    assert_eq!(authority.rotate_by_schedule().await.unwrap(), None);
    assert_eq!(authority.step().step.number, 1);
}

/// A move while the port is being dressed for the one before: it is dressed once more.
#[tokio::test]
async fn moves_without_a_pause_leave_the_port_under_the_new_root() {
    let ca = TestCa::start().await;
    let authority = ca.running.authority();
    for round in 1..=3 {
        for asked in [Move::Prepare, Move::Activate, Move::Retire] {
            authority.rotate(asked, &BTreeSet::new()).await.unwrap();
        }
        // It trusts the new root alone.
        let target = ca.target();
        let reached = async {
            let verifier = || Arc::new(CaVerifier::new(target.bundle.clone()));
            while target.try_connect(verifier(), None).await.is_err() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let reached = tokio::time::timeout(LOOKED_WITHIN, reached).await;
        assert!(reached.is_ok(), "round {round}: the port still stands under a retired root");
    }
}
