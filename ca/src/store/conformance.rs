//! What every implementation of `Store` must do, written against the trait. Run here for the
//! embedded one.
//!
//! Never: reaches around the trait.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use super::embedded::Embedded;
use super::{Commit, Expect, MAX_VALUE_BYTES, MAX_WRITES, Store, StoreError, Write};

fn put(key: &str, value: &str) -> Write {
    Write::Put(key.to_owned(), value.as_bytes().to_vec())
}

fn absent(key: &str) -> Expect {
    Expect::Absent(key.to_owned())
}

fn committed(commit: Commit) -> u64 {
    match commit {
        Commit::Committed { revision } => revision,
        Commit::Conflict => panic!("expected to be committed"),
    }
}

fn scratch() -> (tempfile::TempDir, Arc<dyn Store>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(&dir.path().join("store.redb")).unwrap();
    (dir, Arc::new(store))
}

#[tokio::test]
async fn written_value_is_read_with_its_revision() {
    let (_dir, store) = scratch();
    assert_eq!(store.read("a").await.unwrap(), None);
    let revision = committed(store.commit(vec![absent("a")], vec![put("a", "1")]).await.unwrap());
    let read = store.read("a").await.unwrap().unwrap();
    assert_eq!((read.revision, read.value.as_slice()), (revision, b"1".as_slice()));
}

#[tokio::test]
async fn commit_with_stale_expectation_writes_nothing() {
    let (_dir, store) = scratch();
    let first = committed(store.commit(vec![], vec![put("a", "1")]).await.unwrap());
    let second = committed(store.commit(vec![], vec![put("a", "2")]).await.unwrap());
    assert!(second > first);
    for expect in
        [Expect::Revision("a".into(), first), absent("a"), Expect::Revision("b".into(), 1)]
    {
        let writes = vec![put("a", "3"), put("c", "3")];
        assert_eq!(store.commit(vec![expect], writes).await.unwrap(), Commit::Conflict);
    }
    assert_eq!(store.read("a").await.unwrap().unwrap().value, b"2");
    assert_eq!(store.read("c").await.unwrap(), None);
    committed(
        store
            .commit(vec![Expect::Revision("a".into(), second)], vec![put("a", "3")])
            .await
            .unwrap(),
    );
}

#[tokio::test]
async fn deleted_and_rewritten_key_does_not_match_its_old_revision() {
    let (_dir, store) = scratch();
    let first = committed(store.commit(vec![], vec![put("a", "1")]).await.unwrap());
    committed(store.commit(vec![], vec![Write::Delete("a".into())]).await.unwrap());
    committed(store.commit(vec![absent("a")], vec![put("a", "1")]).await.unwrap());
    let stale = vec![Expect::Revision("a".into(), first)];
    assert_eq!(store.commit(stale, vec![put("a", "2")]).await.unwrap(), Commit::Conflict);
}

#[tokio::test]
async fn list_is_ordered_bounded_paged_and_stays_within_its_prefix() {
    let (_dir, store) = scratch();
    let writes = ["p/3", "p/1", "q/1", "p/2", "o"].iter().map(|key| put(key, key)).collect();
    committed(store.commit(vec![], writes).await.unwrap());
    let keys =
        |listed: Vec<(String, _)>| listed.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys(store.list("p/", None, 10).await.unwrap()), ["p/1", "p/2", "p/3"]);
    assert_eq!(keys(store.list("p/", None, 2).await.unwrap()), ["p/1", "p/2"]);
    assert_eq!(keys(store.list("p/", Some("p/2"), 2).await.unwrap()), ["p/3"]);
    assert!(store.list("x/", None, 2).await.unwrap().is_empty());
}

#[tokio::test]
async fn of_many_concurrent_swaps_exactly_one_wins() {
    let (_dir, store) = scratch();
    let revision = committed(store.commit(vec![], vec![put("a", "0")]).await.unwrap());
    let swaps: Vec<_> = (0..50)
        .map(|i| {
            let expects = vec![Expect::Revision("a".into(), revision)];
            tokio::spawn(store.commit(expects, vec![put("a", &i.to_string())]))
        })
        .collect();
    let mut won = 0;
    for swap in swaps {
        won += usize::from(swap.await.unwrap().unwrap() != Commit::Conflict);
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn oversized_commit_is_refused() {
    let (_dir, store) = scratch();
    let many = (0..=MAX_WRITES).map(|i| put(&i.to_string(), "")).collect();
    let big = vec![Write::Put("a".into(), vec![0; MAX_VALUE_BYTES + 1])];
    for writes in [many, big] {
        let refused = store.commit(vec![], writes).await;
        assert!(matches!(refused, Err(StoreError::Bound { .. })), "{refused:?}");
    }
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
