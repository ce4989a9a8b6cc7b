//! T41: the CA is gone for a while, for longer than an SVID lives, and comes back.
//!
//! Never: restarts the sidecar.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use myelin_sidecar::credentials::Answer;
use myelin_sidecar::directory::Known;

use crate::ca::{Ca, WEB};
use crate::sidecar::{Sidecar, eventually};

#[tokio::test]
async fn it_goes_on_until_expiry_then_refuses_and_recovers_when_the_ca_is_back() {
    let mut ca = Ca::start(Duration::from_secs(5)).await;
    let state = tempfile::tempdir().unwrap();
    let token = ca.token(WEB, "10.0.0.1").await;
    let sidecar = Sidecar::start(ca.address(), &state.path().join("s"), Some(token));
    let first = sidecar.first_svid().await;
    let here = "10.0.0.1".parse().unwrap();
    assert_eq!(sidecar.desk.ask(here, 80).await, Answer::Learned);

    ca.stop().await;
    assert!(sidecar.store.usable(sidecar.now()).is_ok(), "an SVID outlives its CA");
    eventually("the SVID expires", async || {
        let now = sidecar.now();
        let usable = sidecar.store.usable(now);
        let until = sidecar.store.load().unwrap().usable_until();
        assert_eq!(usable.is_ok(), now <= until, "usable to the last second and not beyond");
        usable.is_err_and(|none| none.word() == "identity_expired")
    })
    .await;
    assert!(sidecar.is_running());
    assert_eq!(sidecar.desk.ask("10.0.0.8".parse().unwrap(), 80).await, Answer::Unreachable);
    let learned = sidecar.learned.load();
    assert!(matches!(learned.lookup(here, 80), Known::Meshed { .. }), "last known good stays");

    ca.come_back().await;
    eventually("it recovers", async || sidecar.store.usable(sidecar.now()).is_ok()).await;
    let after = sidecar.store.load().unwrap();
    assert_ne!(after.svid.leaf().key, first.svid.leaf().key);
    assert_eq!(ca.deny_epoch(), 0, "coming back is no alarm");
    // By the host key alone: it was not a renewal.
    sidecar.until_metric(r#"myelin_renewals_total{outcome="attested"} 2"#).await;
    eventually("the watch is back too", async || {
        sidecar.desk.ask("10.0.0.8".parse().unwrap(), 80).await == Answer::Learned
    })
    .await;
    sidecar.renewed_after(&after).await;
}

#[tokio::test]
async fn a_start_before_the_ca_waits_for_it() {
    let mut ca = Ca::start(Duration::from_secs(60)).await;
    let state = tempfile::tempdir().unwrap();
    let token = ca.token(WEB, "10.0.0.1").await;
    ca.stop().await;
    let sidecar = Sidecar::start(ca.address(), &state.path().join("s"), Some(token));
    sidecar.until_metric(r#"myelin_renewals_total{outcome="ca_unreachable"}"#).await;
    let pending = sidecar.store.usable(sidecar.now()).unwrap_err();
    assert_eq!(pending.word(), "identity_pending");
    ca.come_back().await;
    sidecar.first_svid().await;
}
