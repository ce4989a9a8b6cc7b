//! Renewals with lifetimes of seconds.
//!
//! Never: waits for a time instead of for an event.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashSet;
use std::time::Duration;

use crate::ca::{Ca, WEB};
use crate::relay::Relay;
use crate::sidecar::{Sidecar, eventually};

const LIFE: Duration = Duration::from_secs(4);

#[tokio::test]
async fn every_renewal_has_a_new_key_and_there_is_always_a_usable_svid() {
    let ca = Ca::start(LIFE).await;
    let state = tempfile::tempdir().unwrap();
    let token = ca.token(WEB, "10.0.0.1").await;
    let sidecar = Sidecar::start(ca.address(), &state.path().join("s"), Some(token));
    let mut held = sidecar.first_svid().await;
    let (mut keys, mut serials) = (HashSet::new(), HashSet::new());
    for _ in 0..4 {
        keys.insert(held.svid.leaf().key);
        serials.insert(held.svid.serial().clone());
        held = sidecar.renewed_after(&held).await;
        assert!(sidecar.store.usable(sidecar.now()).is_ok());
        assert_eq!(held.svid.id().as_str(), WEB);
    }
    assert_eq!((keys.len(), serials.len()), (4, 4));
    sidecar.until_metric(r#"myelin_renewals_total{outcome="renewed"} 4"#).await;
    let rendered = sidecar.metrics.render();
    let attempts: Vec<&str> =
        rendered.lines().filter(|line| line.starts_with("myelin_renewals_total")).collect();
    assert_eq!(attempts.len(), 2, "only attested and renewed, no failure: {attempts:?}");
}

#[tokio::test]
async fn the_watch_brings_bundle_and_deny_list_and_their_age_is_visible() {
    let ca = Ca::start(Duration::from_secs(60)).await;
    let state = tempfile::tempdir().unwrap();
    let token = ca.token(WEB, "10.0.0.1").await;
    let sidecar = Sidecar::start(ca.address(), &state.path().join("s"), Some(token));
    sidecar.first_svid().await;
    let said_at = || {
        let rendered = sidecar.metrics.render();
        let line = rendered.lines().find(|line| line.starts_with("myelin_deny_list_said_at"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or_default()
    };
    eventually("the CA says its deny list", async || said_at() > 0.0).await;
    let first = said_at();
    eventually("a heartbeat renews it", async || said_at() > first).await;
}

/// T56: the reply to a first contact and to a renewal is lost; asking again is no second renewal.
#[tokio::test]
async fn a_lost_reply_is_asked_for_again_and_raises_no_alarm() {
    let ca = Ca::start(Duration::from_secs(12)).await;
    let relay = Relay::start(ca.address()).await;
    let state = tempfile::tempdir().unwrap();
    let token = ca.token(WEB, "10.0.0.1").await;

    relay.swallow_answers();
    let sidecar = Sidecar::start(relay.address(), &state.path().join("s"), Some(token));
    eventually("the CA issues", async || ca.svids().await.len() == 1).await;
    let issued = ca.svids().await.remove(0).serial;
    relay.cut_and_pass_on();
    let first = sidecar.first_svid().await;
    assert_eq!(first.svid.serial().to_string(), issued, "the very certificate that was lost");

    relay.swallow_answers();
    relay.cut();
    eventually("the CA renews", async || ca.svids().await[0].serial != issued).await;
    let renewed = ca.svids().await.remove(0).serial;
    relay.cut_and_pass_on();
    let second = sidecar.renewed_after(&first).await;
    assert_eq!(second.svid.serial().to_string(), renewed, "the very certificate that was lost");
    assert_eq!(ca.deny_epoch(), 0, "an alarm was raised");

    let third = sidecar.renewed_after(&second).await;
    assert!(sidecar.store.usable(sidecar.now()).is_ok());
    assert_ne!(third.svid.leaf().key, second.svid.leaf().key);
}
