//! Promises about values: reading, listing, compare-and-swap, bounds.
//!
//! Never: reaches around the trait.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use super::{absent, committed, put};
use crate::store::{
    Commit, Expect, MAX_COMMIT_BYTES, MAX_VALUE_BYTES, MAX_WRITES, Store, StoreError, Write,
};

pub(super) async fn written_value_is_read_with_its_revision(store: Arc<dyn Store>) {
    assert_eq!(store.read("a").await.unwrap(), None);
    let revision = committed(store.commit(vec![absent("a")], vec![put("a", "1")]).await.unwrap());
    let read = store.read("a").await.unwrap().unwrap();
    assert_eq!((read.revision, read.value.as_slice()), (revision, b"1".as_slice()));
}

pub(super) async fn commit_with_stale_expectation_writes_nothing(store: Arc<dyn Store>) {
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

pub(super) async fn deleted_and_rewritten_key_does_not_match_its_old_revision(
    store: Arc<dyn Store>,
) {
    let first = committed(store.commit(vec![], vec![put("a", "1")]).await.unwrap());
    committed(store.commit(vec![], vec![Write::Delete("a".into())]).await.unwrap());
    committed(store.commit(vec![absent("a")], vec![put("a", "1")]).await.unwrap());
    let stale = vec![Expect::Revision("a".into(), first)];
    assert_eq!(store.commit(stale, vec![put("a", "2")]).await.unwrap(), Commit::Conflict);
}

pub(super) async fn list_is_ordered_bounded_paged_and_stays_within_its_prefix(
    store: Arc<dyn Store>,
) {
    let writes = ["p/3", "p/1", "q/1", "p/2", "o"].iter().map(|key| put(key, key)).collect();
    committed(store.commit(vec![], writes).await.unwrap());
    let keys =
        |listed: Vec<(String, _)>| listed.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys(store.list("p/", None, 10).await.unwrap()), ["p/1", "p/2", "p/3"]);
    assert_eq!(keys(store.list("p/", None, 2).await.unwrap()), ["p/1", "p/2"]);
    assert_eq!(keys(store.list("p/", Some("p/2"), 2).await.unwrap()), ["p/3"]);
    assert!(store.list("x/", None, 2).await.unwrap().is_empty());
}

pub(super) async fn of_many_concurrent_swaps_exactly_one_wins(store: Arc<dyn Store>) {
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

pub(super) async fn several_values_are_read_at_once_in_the_asked_for_order(store: Arc<dyn Store>) {
    let revision =
        committed(store.commit(vec![], vec![put("a", "1"), put("b", "2")]).await.unwrap());
    let keys = ["b", "none", "a"].map(str::to_owned);
    let read = store.read_many(&keys).await.unwrap();
    let values: Vec<_> = read.iter().map(|v| v.as_ref().map(|v| v.value.as_slice())).collect();
    assert_eq!(values, [Some(b"2".as_slice()), None, Some(b"1".as_slice())]);
    assert!(read.iter().flatten().all(|value| value.revision == revision));
    let many: Vec<_> = (0..=MAX_WRITES).map(|i| i.to_string()).collect();
    assert!(matches!(store.read_many(&many).await, Err(StoreError::Bound { .. })));
}

pub(super) async fn many_commits_at_once_have_each_their_own_verdict_and_revision(
    store: Arc<dyn Store>,
) {
    // Every second one expects what does not hold; pairs meet on one key.
    let commits: Vec<_> = (0..200)
        .map(|i| {
            let key = format!("k/{}", i / 2);
            tokio::spawn(store.commit(vec![absent(&key)], vec![put(&key, &i.to_string())]))
        })
        .collect();
    let mut revisions = std::collections::BTreeSet::new();
    let mut conflicts = 0;
    for commit in commits {
        match commit.await.unwrap().unwrap() {
            Commit::Committed { revision } => assert!(revisions.insert(revision)),
            Commit::Conflict => conflicts += 1,
        }
    }
    assert_eq!((revisions.len(), conflicts), (100, 100));
    let listed = store.list("k/", None, 1000).await.unwrap();
    let stored = listed.iter().map(|(_, versioned)| versioned.revision).collect();
    assert_eq!((listed.len(), revisions), (100, stored));
}

pub(super) async fn oversized_commit_is_refused(store: Arc<dyn Store>) {
    let many = (0..=MAX_WRITES).map(|i| put(&i.to_string(), "")).collect();
    let big = vec![Write::Put("a".into(), vec![0; MAX_VALUE_BYTES + 1])];
    let heavy = ["a", "b"].map(|key| Write::Put(key.into(), vec![0; MAX_COMMIT_BYTES / 2 + 1]));
    let twice = vec![put("a", "1"), Write::Delete("a".into())];
    for writes in [many, big, heavy.to_vec(), twice] {
        let refused = store.commit(vec![], writes).await;
        assert!(matches!(refused, Err(StoreError::Bound { .. })), "{refused:?}");
    }
    let whole = vec![Write::Put("a".into(), vec![7; MAX_VALUE_BYTES])];
    committed(store.commit(vec![], whole).await.unwrap());
    assert_eq!(store.read("a").await.unwrap().unwrap().value.len(), MAX_VALUE_BYTES);
}
