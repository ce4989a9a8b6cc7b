//! A process that is killed between any two requests: what it had been told is there, what it was
//! doing is there whole or not at all, and whoever comes next goes on.
//!
//! Never: a crash that is left out because it is unlikely.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use myelin_fake_api::FakeApi;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Duration, timeout};

use super::{client, committed, long, open, put, scratch, secrets};
use crate::store::kubernetes::Kubernetes;
use crate::store::{Commit, Store, Write};

/// Until here each commit is of two keys that must always say the same.
async fn pairs(store: &dyn Store) -> Option<(u64, Vec<u8>)> {
    let read = store.read_many(&["left".to_owned(), "right".to_owned()]).await.unwrap();
    let (left, right) = (read[0].clone(), read[1].clone());
    assert_eq!(left, right, "one commit, one value in both");
    left.map(|it| (it.revision, it.value))
}

async fn open_unswept(api: &FakeApi) -> Kubernetes {
    Kubernetes::open_unswept(client(api), "myelin-system", "myelin-ca").await.unwrap()
}

/// Commits until the API server is gone; how far it was told to have come.
async fn until_it_is_killed(store: &Arc<dyn Store>, from: usize, bytes: usize) -> usize {
    for number in from.. {
        let value = long(number, bytes);
        let commit = store.commit(vec![], vec![put("left", &value), put("right", &value)]);
        // It is killed, so nobody waits for what becomes of it.
        match timeout(Duration::from_millis(300), commit).await {
            Ok(Ok(Commit::Committed { .. })) => {}
            _ => return number,
        }
    }
    unreachable!("it is killed before")
}

/// A process of its own, as far as tasks go: nothing of it runs on once it is killed.
struct Process(Option<Runtime>);

impl Process {
    fn start() -> Self {
        let threads = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self(Some(threads.unwrap()))
    }

    /// Commits from this number on until the API server is gone for it; how far it was told to have
    /// come.
    async fn runs_until_it_is_killed(self, api: &FakeApi, from: usize, bytes: usize) -> usize {
        let api = api.clone();
        let running = self.0.as_ref().unwrap().spawn(async move {
            let store: Arc<dyn Store> = Arc::new(open(&api).await);
            until_it_is_killed(&store, from, bytes).await
        });
        running.await.unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

async fn killed_after_any_request(bytes: usize, crashes: usize) {
    let (api, first) = scratch().await;
    let mut number = until_some_are_there(&first, bytes).await;
    drop(first);
    for requests in 1..=crashes {
        // What a start asks comes first.
        let start = 2 + api.all(&secrets()).len();
        api.vanish_after(start + requests);
        let reached = Process::start().runs_until_it_is_killed(&api, number, bytes).await;
        api.heal();
        let next = open(&api).await;
        let found = pairs(&next).await.map(|(_, value)| value);
        let told = Some(long(reached - 1, bytes).into_bytes());
        let one_more = Some(long(reached, bytes).into_bytes());
        assert!(found == told || found == one_more, "killed after {requests} requests");
        // What it was killed in may have happened; then it is not done again.
        number = reached + usize::from(found == one_more);
    }
}

async fn until_some_are_there(store: &Arc<dyn Store>, bytes: usize) -> usize {
    for number in 0..3 {
        let value = long(number, bytes);
        let both = vec![put("left", &value), put("right", &value)];
        committed(store.commit(vec![], both).await.unwrap());
    }
    3
}

#[tokio::test]
async fn killed_after_any_request_of_commits_and_spills_it_leaves_whole_commits_only() {
    // A spill every third commit, so that each request of one is hit.
    killed_after_any_request(12_000, 14).await;
}

#[tokio::test]
async fn killed_after_any_request_of_long_commits_it_leaves_whole_commits_only() {
    killed_after_any_request(100_000, 16).await;
}

#[tokio::test]
async fn parts_that_a_crash_left_are_swept_at_the_next_start() {
    let (api, store) = scratch().await;
    let value = long(1, 100_000);
    committed(store.commit(vec![], vec![put("left", "1"), put("right", "1")]).await.unwrap());
    drop(store);
    // The head twice at its start, and two parts.
    api.vanish_after(5);
    Process::start().runs_until_it_is_killed(&api, 7, 100_000).await;
    api.heal();
    let looked = open_unswept(&api).await;
    assert!(looked.parts() > 0, "a crash left some");
    let next = open(&api).await;
    assert_eq!(next.parts(), 0);
    assert_eq!(pairs(&next).await.unwrap().1, b"1");
    committed(next.commit(vec![], vec![put("a", &value)]).await.unwrap());
    assert_eq!(next.read("a").await.unwrap().unwrap().value, value.into_bytes());
}

/// Cleaning as well: the log goes round while it is killed again and again.
#[tokio::test]
async fn killed_again_and_again_while_the_log_is_cleaned_it_loses_nothing() {
    let api = FakeApi::start().await.unwrap();
    let first = open(&api).await;
    for number in 0..30 {
        let cold = put(&format!("cold/{number:02}"), &long(number, 30_000));
        committed(first.commit(vec![], vec![cold]).await.unwrap());
    }
    let gone = (0..10).map(|number| Write::Delete(format!("cold/{number:02}"))).collect();
    committed(first.commit(vec![], gone).await.unwrap());
    let mut number = until_some_are_there(&(Arc::new(first) as Arc<dyn Store>), 28_000).await;
    for crash in 0..12 {
        api.vanish_after(33 + crash);
        number = Process::start().runs_until_it_is_killed(&api, number, 28_000).await + 1;
        api.heal();
        let store = open(&api).await;
        pairs(&store).await;
        let cold = store.list("cold/", None, 100).await.unwrap();
        assert_eq!(cold.len(), 20, "after crash {crash}");
        for (at, (key, it)) in cold.iter().enumerate() {
            assert_eq!(*key, format!("cold/{:02}", at + 10));
            assert_eq!(it.value, long(at + 10, 30_000).into_bytes());
        }
    }
}
