//! Which log counts below a root that names none: requested with each intermediate, so that the root
//! signs it, and held against what the store says.
//!
//! Never: entries of a log.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::bundle::SignedStep;

use super::*;
use crate::journal::{BundleRecord, CURRENT};
use crate::rotation::RotationError;

#[tokio::test]
async fn request_asks_for_the_root_s_log_and_an_intermediate_without_it_is_refused() {
    let below = Below::start().await;
    let csr = below.request().await;
    let [asked] = &check::request(&csr, "prod.example").unwrap().extensions[..] else { panic!() };
    assert_eq!(
        asked.to_string().split(" (").next(),
        Some(&*format!("names its root's log {}", kept()))
    );
    let other = LogKey::new("prod.example/other", [7; 32]).unwrap();
    let named = |log: &LogKey| {
        vec![CustomExtension::from_oid_content(&ISSUER_LOG_OID, named_log_extension(log))]
    };
    for extensions in [Vec::new(), named(&other), [named(&kept()), named(&kept())].concat()] {
        let pem = signed(&csr, &below.root, |params| params.custom_extensions = extensions);
        let refused = below.import(pem).await.unwrap_err();
        assert!(matches!(refused, IssuerError::Unfit(Unfit::OtherExtensions)), "{refused}");
    }
    below.import(signed(&csr, &below.root, |_| {})).await.unwrap();
}

/// The store is not trusted: what it says of the root's log must be what the root has signed.
#[tokio::test]
async fn replica_without_a_pin_believes_no_log_that_the_root_has_not_signed() {
    let below = Below::start().await;
    let csr = below.request().await;
    below.import(signed(&csr, &below.root, |_| {})).await.unwrap();
    let Issuers { journal, vault, bundle, .. } = &below.issuers;
    let scratch = tempfile::tempdir().unwrap();
    let started = async |name: &str| {
        let home = Home { replica: replica(), pin: Pin::at(scratch.path().join(name)) };
        let vault = vault.clone().unwrap();
        Rotation::start(journal.clone(), bundle.trust_domain(), vault, home, NOW).await
    };
    let genuine = journal.read::<BundleRecord>(CURRENT).await.unwrap().unwrap().record;
    let other = LogKey::new("prod.example/other", [9; 32]).unwrap();
    let [mut changed, mut removed] = [genuine.clone(), genuine.clone()];
    changed.root_logs[0].log = other.to_string();
    removed.root_logs.clear();
    for (n, forged) in [changed, removed].iter().enumerate() {
        put(journal, forged).await;
        let refused = started(&n.to_string()).await.err().unwrap();
        assert!(matches!(refused, RotationError::NoAnchor(_)), "{refused}");
        let refused = adopt(journal, bundle).await.unwrap_err();
        assert!(matches!(refused, RotationError::OtherRoot { .. }), "{refused}");
    }
    put(journal, &genuine).await;
    adopt(journal, bundle).await.unwrap();
    assert_eq!(started("genuine").await.unwrap().bundle().hash(), bundle.hash());
    assert!(SignedStep::try_from(&genuine).unwrap().step.bundle.stated_logs().count() == 1);
}

async fn put(journal: &Journal, record: &BundleRecord) {
    let held = journal.read::<BundleRecord>(CURRENT).await.unwrap();
    let mut batch = crate::journal::Batch::default();
    batch.put(CURRENT, held.as_ref(), record);
    let _ = journal.commit(batch).await.unwrap();
}
