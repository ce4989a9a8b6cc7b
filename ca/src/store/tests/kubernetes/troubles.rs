//! An API server that refuses, loses answers, forgets its history, or is away.
//!
//! Never: trouble that no real API server makes.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use myelin_fake_api::{FakeApi, Fault, Trouble};

use super::{absent, client, committed, long, open, put, role, scratch, secrets};
use crate::store::kubernetes::Kubernetes;
use crate::store::{Commit, Store, StoreError};

#[tokio::test]
async fn conflicts_and_refusals_in_a_row_are_survived_and_nothing_is_written_twice() {
    let (api, store) = scratch().await;
    for (at, fault) in [
        Fault::Answer(409),
        Fault::Answer(429),
        Fault::Answer(500),
        Fault::Answer(503),
        Fault::Drop,
        Fault::LoseAnswer,
    ]
    .into_iter()
    .enumerate()
    {
        api.trouble(Trouble::next(4, fault.clone()).on("PUT"));
        let key = format!("k/{at}");
        let revision =
            committed(store.commit(vec![absent(&key)], vec![put(&key, "1")]).await.unwrap());
        let stored = store.read(&key).await.unwrap().unwrap();
        assert_eq!(stored.revision, revision, "{fault:?}");
        // And again, expecting what is no more: no conflict of its own making hides it.
        let again = store.commit(vec![absent(&key)], vec![put(&key, "2")]).await.unwrap();
        assert_eq!(again, Commit::Conflict, "{fault:?}");
    }
    assert_eq!(store.revision().await.unwrap(), 6);
}

#[tokio::test]
async fn head_that_somebody_labels_is_still_the_head() {
    let (api, store) = scratch().await;
    for at in 0..3 {
        let key = format!("k/{at}");
        let revision =
            committed(store.commit(vec![absent(&key)], vec![put(&key, "1")]).await.unwrap());
        let mut head = api.read(&secrets(), "myelin-system", "myelin-ca-head").unwrap();
        head["metadata"]["labels"]["backup"] = at.to_string().into();
        api.put(&secrets(), head);
        assert_eq!(store.read(&key).await.unwrap().unwrap().revision, revision);
    }
    assert_eq!(store.revision().await.unwrap(), 3);
}

#[tokio::test]
async fn replicas_that_commit_at_once_all_get_through_and_count_right() {
    let (api, one) = scratch().await;
    let two: Arc<dyn Store> = Arc::new(open(&api).await);
    committed(one.commit(vec![absent("n")], vec![put("n", "0")]).await.unwrap());
    let add = |store: Arc<dyn Store>| async move {
        for _ in 0..25 {
            loop {
                let now = store.read("n").await.unwrap().unwrap();
                let value: u64 = String::from_utf8(now.value).unwrap().parse().unwrap();
                let expect = vec![crate::store::Expect::Revision("n".into(), now.revision)];
                let next = vec![put("n", &(value + 1).to_string())];
                if store.commit(expect, next).await.unwrap() != Commit::Conflict {
                    break;
                }
            }
        }
    };
    api.trouble(Trouble::next(20, Fault::Answer(409)).on("PUT"));
    api.trouble(Trouble::next(10, Fault::LoseAnswer).on("PUT"));
    let (one_adds, two_adds) = (tokio::spawn(add(Arc::clone(&one))), tokio::spawn(add(two)));
    one_adds.await.unwrap();
    two_adds.await.unwrap();
    assert_eq!(one.read("n").await.unwrap().unwrap().value, b"50");
}

#[tokio::test]
async fn watch_goes_on_over_cuts_and_a_history_that_is_forgotten() {
    let (api, one) = scratch().await;
    let two = open(&api).await;
    let mut heard = two.watch("", two.revision().await.unwrap()).await.unwrap();
    for (number, as_status) in [(0, false), (1, true), (2, false)] {
        api.too_old_is_a_status(as_status);
        api.disconnect_watches();
        api.forget_history();
        let key = format!("k/{number}");
        committed(one.commit(vec![], vec![put(&key, "1")]).await.unwrap());
        api.forget_history();
        let change = tokio::time::timeout(Duration::from_secs(20), heard.next()).await;
        assert_eq!(change.expect("heard in the end").unwrap().unwrap().key, key);
    }
}

#[tokio::test]
async fn api_that_is_away_is_said_in_time_and_goes_on_when_it_is_back() {
    let (api, store) = scratch().await;
    committed(store.commit(vec![], vec![put("a", "1")]).await.unwrap());
    api.vanish();
    let read = store.read("a").await;
    assert!(matches!(read, Err(StoreError::KubernetesUnreachable { .. })), "{read:?}");
    let gone = store.commit(vec![absent("b")], vec![put("b", "1")]).await;
    assert!(matches!(gone, Err(StoreError::KubernetesUnreachable { .. })), "{gone:?}");
    let text = gone.unwrap_err().to_string();
    assert!(text.contains("check the API server"), "{text}");
    api.heal();
    committed(store.commit(vec![absent("b")], vec![put("b", "1")]).await.unwrap());
    assert_eq!(store.read("a").await.unwrap().unwrap().value, b"1");
}

/// However many read at once, and whenever they came: each waits for its own time, not for the others'.
#[tokio::test]
async fn reads_that_wait_together_for_an_api_that_is_away_wait_no_longer_than_one() {
    for fault in [Fault::Drop, Fault::Delay(Duration::from_secs(3600))] {
        let (api, store) = scratch().await;
        committed(store.commit(vec![], vec![put("a", "1")]).await.unwrap());
        api.trouble(Trouble::next(usize::MAX, fault.clone()));
        tokio::time::pause();
        let readers = (0..40).map(|at| {
            let store = Arc::clone(&store);
            async move {
                tokio::time::sleep(Duration::from_millis(at * 200)).await;
                let came = tokio::time::Instant::now();
                let read = store.read("a").await;
                assert!(matches!(read, Err(StoreError::KubernetesUnreachable { .. })), "{read:?}");
                came.elapsed()
            }
        });
        let waited = futures_util::future::join_all(readers).await;
        let longest = waited.iter().max().unwrap();
        // The timer's own grain is a millisecond.
        assert!(*longest <= Duration::from_millis(5_010), "{fault:?}: {longest:?}");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn missing_role_is_told_with_what_to_do_and_a_short_one_is_not_enough() {
    let api = FakeApi::start().await.unwrap();
    for left_out in 0..2 {
        let mut rules = role();
        rules.remove(left_out);
        api.allow_only(rules);
        let opened = Kubernetes::open(client(&api), "myelin-system", "myelin-ca").await;
        let error = opened.err().unwrap().to_string();
        assert!(error.contains("docs/operate/kubernetes-store.md"), "{error}");
    }
}

#[tokio::test]
async fn head_that_went_back_or_is_gone_is_refused_and_never_made_anew_while_it_runs() {
    let (api, store) = scratch().await;
    committed(store.commit(vec![], vec![put("a", "1")]).await.unwrap());
    let old = api.read(&secrets(), "myelin-system", "myelin-ca-head").unwrap();
    committed(store.commit(vec![], vec![put("a", "2")]).await.unwrap());
    api.put(&secrets(), old);
    for refused in [
        store.read("a").await.map(drop),
        store.commit(vec![absent("b")], vec![put("b", "1")]).await.map(drop),
    ] {
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("went back"), "{text}");
    }
    api.remove(&secrets(), "myelin-system", "myelin-ca-head");
    let gone = store.read("a").await.unwrap_err().to_string();
    assert!(gone.contains("is gone"), "{gone}");
    assert!(api.read(&secrets(), "myelin-system", "myelin-ca-head").is_none());
}

#[tokio::test]
async fn segment_that_was_tampered_with_is_named_and_nothing_is_served() {
    let (api, store) = scratch().await;
    for number in 0..10 {
        let value = long(number, 20_000);
        committed(store.commit(vec![], vec![put(&format!("k/{number}"), &value)]).await.unwrap());
    }
    api.remove(&secrets(), "myelin-system", "myelin-ca-0").unwrap();
    let opened = Kubernetes::open(client(&api), "myelin-system", "myelin-ca").await;
    let error = opened.err().unwrap().to_string();
    assert!(error.contains("segment 0 is not what the head says"), "{error}");
}
