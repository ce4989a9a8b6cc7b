//! What fills the log: many commits, long values, cleaning, and replicas that come late.
//!
//! Never: asserts on how a Secret is encoded.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt as _;
use myelin_fake_api::FakeApi;

use super::{committed, long, open, put, scratch, secrets};
use crate::store::{Commit, Expect, Store, StoreError, Write};

/// Everything that a store holds.
async fn all(store: &dyn Store) -> BTreeMap<String, (u64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut after: Option<String> = None;
    loop {
        let page = store.list("", after.as_deref(), 100).await.unwrap();
        let Some((last, _)) = page.last() else { return found };
        after = Some(last.clone());
        found.extend(page.into_iter().map(|(key, it)| (key, (it.revision, it.value))));
    }
}

fn count_of_secrets(api: &FakeApi) -> usize {
    api.all(&secrets()).len()
}

#[tokio::test]
async fn store_larger_than_a_secret_is_read_whole_by_whoever_comes_later() {
    let (api, store) = scratch().await;
    for number in 0..300 {
        let value = long(number, 8_000);
        committed(
            store.commit(vec![], vec![put(&format!("k/{number:03}"), &value)]).await.unwrap(),
        );
        if number % 3 == 0 {
            let gone = vec![Write::Delete(format!("k/{number:03}"))];
            committed(store.commit(vec![], gone).await.unwrap());
        }
    }
    let known = all(store.as_ref()).await;
    assert_eq!(known.len(), 200);
    assert!(count_of_secrets(&api) > 2, "a head and several segments");
    assert_eq!(all(&open(&api).await).await, known);
}

#[tokio::test]
async fn log_is_cleaned_so_that_what_is_written_again_and_again_takes_no_more_room() {
    let (api, store) = scratch().await;
    // Cold values that are written once, and hot ones that are written for ever.
    for number in 0..40 {
        let cold = put(&format!("cold/{number:02}"), &long(number, 30_000));
        committed(store.commit(vec![], vec![cold]).await.unwrap());
    }
    committed(store.commit(vec![], vec![Write::Delete("cold/00".into())]).await.unwrap());
    for number in 0..400 {
        let hot = put(&format!("hot/{}", number % 7), &long(number, 40_000));
        committed(store.commit(vec![], vec![hot]).await.unwrap());
    }
    // 16 MB were written, 1.5 MB live.
    assert!(count_of_secrets(&api) <= 12, "{}", count_of_secrets(&api));
    let known = all(store.as_ref()).await;
    assert_eq!(known.len(), 39 + 7);
    assert_eq!(all(&open(&api).await).await, known);
    assert_eq!(store.read("cold/00").await.unwrap(), None);
}

#[tokio::test]
async fn replica_that_heard_nothing_for_long_catches_up_and_ends_its_watches() {
    let (api, one) = scratch().await;
    let two = open(&api).await;
    committed(one.commit(vec![], vec![put("gone", "1")]).await.unwrap());
    let mut heard = two.watch("", two.revision().await.unwrap()).await.unwrap();
    // Its own watch is held up, and breaks when it is let go.
    for (rounds, cleaned) in [(10, false), (400, true)] {
        use myelin_fake_api::{Fault, Trouble};
        api.disconnect_watches();
        api.trouble(Trouble::next(usize::MAX, Fault::Answer(503)).on("GET").at("watch"));
        committed(one.commit(vec![], vec![Write::Delete("gone".into())]).await.unwrap());
        for number in 0..rounds {
            let value = long(number, 40_000);
            committed(
                one.commit(vec![], vec![put(&format!("k/{}", number % 5), &value)]).await.unwrap(),
            );
        }
        let known = all(one.as_ref()).await;
        assert_eq!(all(&two).await, known, "cleaned: {cleaned}");
        assert_eq!(two.read("gone").await.unwrap(), None);
        api.heal();
        committed(one.commit(vec![], vec![put("gone", "2")]).await.unwrap());
    }
    let ended = loop {
        match heard.next().await.expect("an end with a reason") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(ended, StoreError::Behind(_)), "{ended:?}");
}

#[tokio::test]
async fn long_values_are_committed_whole_or_not_at_all_and_leave_nothing_behind() {
    let (api, store) = scratch().await;
    let value = |number: usize| long(number, 400_000);
    let first = committed(
        store
            .commit(vec![], vec![put("a", &value(1)), put("b", &value(2)), put("c", "3")])
            .await
            .unwrap(),
    );
    for (key, expected) in [("a", value(1)), ("b", value(2)), ("c", "3".to_owned())] {
        let read = store.read(key).await.unwrap().unwrap();
        assert_eq!((read.revision, read.value), (first, expected.into_bytes()), "{key}");
    }
    let stale = vec![Expect::Revision("a".into(), first + 1)];
    let conflict = store.commit(stale, vec![put("a", &value(4))]).await.unwrap();
    assert_eq!(conflict, Commit::Conflict);
    let ours = vec![Expect::Revision("a".into(), first)];
    let second = committed(store.commit(ours, vec![put("a", &value(5))]).await.unwrap());
    let two = open(&api).await;
    assert_eq!(two.read("a").await.unwrap().unwrap().revision, second);
    // Only keys are listed, and what was replaced has left nothing.
    assert_eq!(all(&two).await.len(), 3);
    committed(
        store
            .commit(vec![], ["a", "b", "c"].map(|key| Write::Delete(key.into())).to_vec())
            .await
            .unwrap(),
    );
    assert_eq!(two.parts(), 0);
}

#[tokio::test]
async fn watchers_hear_a_long_value_whole() {
    let (_api, store) = scratch().await;
    let mut heard = store.watch("a", store.revision().await.unwrap()).await.unwrap();
    let value = long(1, 200_000);
    let revision = committed(store.commit(vec![], vec![put("a", &value)]).await.unwrap());
    let change = heard.next().await.unwrap().unwrap();
    assert_eq!((change.revision, change.now.unwrap().value), (revision, value.into_bytes()));
}

#[tokio::test]
async fn concurrent_commits_share_their_requests() {
    let (api, store) = scratch().await;
    api.forget_requests();
    let commits: Vec<_> = (0..200)
        .map(|number| {
            let store: Arc<dyn Store> = Arc::clone(&store);
            tokio::spawn(async move {
                let key = format!("k/{number}");
                store.commit(vec![], vec![put(&key, "1")]).await
            })
        })
        .collect();
    for commit in commits {
        committed(commit.await.unwrap().unwrap());
    }
    let puts = api.requests().iter().filter(|request| request.method == "PUT").count();
    assert!(puts < 40, "{puts} writes for 200 commits");
}
