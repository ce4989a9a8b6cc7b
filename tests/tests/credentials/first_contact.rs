//! The first start, the second one without a token, and starts that cannot work.
//!
//! Never: reuses a token where the test is not about that.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use myelin_sidecar::credentials::{Answer, StartError};
use myelin_sidecar::directory::Known;

use crate::ca::{Ca, DB, WEB};
use crate::sidecar::Sidecar;

const LIFE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_token_yields_an_svid_and_the_next_start_needs_none() {
    let ca = Ca::start(LIFE).await;
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("sidecar");
    let token = ca.token(WEB, "10.0.0.1").await;
    let first = Sidecar::start(ca.address(), &path, Some(token));
    let snapshot = first.first_svid().await;
    assert_eq!(snapshot.svid.id().as_str(), WEB);
    assert_eq!(snapshot.svid.ip_sans(), ["10.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
    assert!(first.store.usable(first.now()).is_ok());
    first.kill().await;

    let second = Sidecar::start(ca.address(), &path, None);
    let again = second.first_svid().await;
    assert_eq!(again.svid.id(), snapshot.svid.id());
    assert_ne!(again.svid.leaf().key, snapshot.svid.leaf().key);
    second.until_metric(r#"myelin_renewals_total{outcome="attested"} 1"#).await;
}

#[tokio::test]
async fn a_token_that_stays_in_the_configuration_does_no_harm() {
    let ca = Ca::start(LIFE).await;
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("sidecar");
    let token = ca.token(WEB, "10.0.0.1").await;
    let first = Sidecar::start(ca.address(), &path, Some(token.clone()));
    first.first_svid().await;
    first.kill().await;
    let second = Sidecar::start(ca.address(), &path, Some(token));
    second.first_svid().await;
}

#[tokio::test]
async fn a_used_token_on_a_new_machine_ends_the_start_with_one_line() {
    let ca = Ca::start(LIFE).await;
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let token = ca.token(WEB, "10.0.0.1").await;
    let first = Sidecar::start(ca.address(), &one.path().join("s"), Some(token.clone()));
    first.first_svid().await;
    let second = Sidecar::start(ca.address(), &two.path().join("s"), Some(token));
    let error = second.ended().await.unwrap_err();
    assert!(matches!(error, StartError::TokenRefused { .. }), "{error}");
    let line = error.to_string();
    assert!(line.contains("used before") && !line.contains('\n'), "{line}");
}

#[tokio::test]
async fn a_host_key_that_the_ca_does_not_know_is_healed_by_a_token() {
    let (old, new) = (Ca::start(LIFE).await, Ca::start(LIFE).await);
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("sidecar");
    let token = old.token(WEB, "10.0.0.1").await;
    let before = Sidecar::start(old.address(), &path, Some(token));
    before.first_svid().await;
    before.kill().await;
    // Another CA altogether: the bundle on disk is not its own, and it never saw the host key.
    let token = new.token(DB, "10.0.0.1").await;
    let after = Sidecar::start(new.address(), &path, Some(token));
    assert_eq!(after.first_svid().await.svid.id().as_str(), DB);
}

#[tokio::test]
async fn a_clock_half_a_minute_off_works_and_one_an_hour_off_is_named() {
    let ca = Ca::start(LIFE).await;
    for (ahead, address) in [(-30, "10.0.0.4"), (30, "10.0.0.5")] {
        let state = tempfile::tempdir().unwrap();
        let token = ca.token(WEB, address).await;
        let path = state.path().join("s");
        let sidecar = Sidecar::start_with_clock(ca.address(), &path, Some(token), ahead);
        sidecar.first_svid().await;
        sidecar.kill().await;
    }
    let wrong_clock = r#"myelin_renewals_total{outcome="clock_wrong"}"#;
    for (ahead, address) in [(3_600, "10.0.0.2"), (-3_600, "10.0.0.3")] {
        let state = tempfile::tempdir().unwrap();
        let token = ca.token(WEB, address).await;
        let path = state.path().join("s");
        let sidecar = Sidecar::start_with_clock(ca.address(), &path, Some(token), ahead);
        sidecar.until_metric(wrong_clock).await;
        assert!(sidecar.store.load().is_none(), "{ahead}");
        assert!(sidecar.is_running(), "{ahead}");
        sidecar.kill().await;
    }
}

#[tokio::test]
async fn the_desk_learns_who_lives_where_and_that_nobody_does() {
    let ca = Ca::start(LIFE).await;
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (of_web, of_db) = (ca.token(WEB, "10.0.0.1").await, ca.token(DB, "10.0.0.2").await);
    let web = Sidecar::start(ca.address(), &one.path().join("s"), Some(of_web));
    let db = Sidecar::start(ca.address(), &two.path().join("s"), Some(of_db));
    let (_, of_db) = tokio::join!(web.first_svid(), db.first_svid());
    let there = "10.0.0.2".parse().unwrap();
    assert_eq!(web.desk.ask(there, 5432).await, Answer::Learned);
    match web.learned.load().lookup(there, 5432) {
        Known::Meshed { expected, .. } => {
            assert_eq!(expected.ids, [of_db.svid.id().clone()]);
            assert_eq!(expected.address, Some(there));
        }
        other => panic!("{other:?}"),
    }
    let empty = "10.0.0.9".parse().unwrap();
    assert_eq!(web.desk.ask(empty, 80).await, Answer::Learned);
    assert!(matches!(web.learned.load().lookup(empty, 80), Known::NotMeshed));
}
