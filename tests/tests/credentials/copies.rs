//! T56: somebody copied what this host proves itself by.
//!
//! Never: takes the copy's word for who was first.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use myelin_identity::bundle::DenySubject;
use myelin_sidecar::credentials::Snapshot;

use crate::ca::{Ca, DB, WEB};
use crate::sidecar::Sidecar;

#[tokio::test]
async fn a_copied_host_raises_the_alarm_and_both_lineages_are_denied() {
    let ca = Ca::start(Duration::from_secs(8)).await;
    let dirs = tempfile::tempdir().unwrap();
    let (genuine, copy) = (dirs.path().join("genuine"), dirs.path().join("copy"));
    let of_bystander = ca.token(DB, "10.0.0.2").await;
    let bystander = Sidecar::start(ca.address(), &dirs.path().join("db"), Some(of_bystander));
    let token = ca.token(WEB, "10.0.0.1").await;
    let victim = Sidecar::start(ca.address(), &genuine, Some(token));
    let of_victim = victim.first_svid().await;
    assert_eq!(ca.deny_epoch(), 0);

    copy_state(&genuine, &copy);
    let thief = Sidecar::start(ca.address(), &copy, None);
    let of_thief = thief.first_svid().await;
    // The victim renews from a lineage that the copy has superseded: that is the alarm.
    bystander.until(|held| denies(held, &of_victim) && denies(held, &of_thief)).await;
    assert!(ca.deny_epoch() > 0);
    for sidecar in [&victim, &thief] {
        sidecar.until_metric(r#"myelin_renewals_total{outcome="host_denied"}"#).await;
        assert!(sidecar.is_running());
    }
    assert!(bystander.store.usable(bystander.now()).is_ok(), "nobody else is concerned");
}

fn denies(held: &Snapshot, other: &Snapshot) -> bool {
    held.deny.entries().any(|entry| match entry.subject {
        DenySubject::Serial(serial) => serial == *other.svid.serial(),
        DenySubject::Id(id) => id == *other.svid.id(),
    })
}

fn copy_state(from: &Path, to: &Path) {
    fs::DirBuilder::new().mode(0o700).create(to).unwrap();
    for name in ["seal.key", "host.key", "bundle.pem"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
        let mode = fs::metadata(from.join(name)).unwrap().permissions().mode();
        fs::set_permissions(to.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}
