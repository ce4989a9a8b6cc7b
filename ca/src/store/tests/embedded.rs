//! The promises, kept by the embedded store, and what only a file can promise.
//!
//! Never: more than one process.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use super::{committed, put};
use crate::store::embedded::Embedded;
use crate::store::{Store, StoreError};

super::keeps_all!(scratch);

async fn scratch() -> (tempfile::TempDir, Arc<dyn Store>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(&dir.path().join("store.redb")).unwrap();
    (dir, Arc::new(store))
}

#[tokio::test]
async fn second_opener_is_told_who_holds_it_and_reopening_finds_everything() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = Embedded::open(&path).unwrap();
    committed(store.commit(vec![], vec![put("a", "1")]).await.unwrap());
    assert!(matches!(Embedded::open(&path), Err(StoreError::HeldElsewhere(_))));
    drop(store);
    let store = Embedded::open(&path).unwrap();
    assert_eq!(store.read("a").await.unwrap().unwrap().value, b"1");
}

#[tokio::test]
async fn closed_store_is_free_for_the_next_though_somebody_still_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = Embedded::open(&path).unwrap();
    let last = store.commit(vec![], vec![put("a", "1")]);
    committed(last.await.unwrap());
    store.close().await;
    let next = Embedded::open(&path).unwrap();
    assert_eq!(next.read("a").await.unwrap().unwrap().value, b"1");
    let refused = [
        store.read("a").await.map(drop),
        store.revision().await.map(drop),
        store.commit(vec![], vec![put("a", "2")]).await.map(drop),
    ];
    for refused in refused {
        assert!(matches!(refused, Err(StoreError::Ended)), "{refused:?}");
    }
}
