//! Two replicas at once, each held before each of its requests while the other goes on: whatever the
//! order, long values are whole, and nothing of them lies about.
//!
//! Never: an order that is left to chance.

// SPDX-License-Identifier: Apache-2.0

use kube::config::Config;
use myelin_fake_api::{Door, FakeApi};
use tokio::task::JoinHandle;

use super::{absent, committed, long, open, put};
use crate::store::kubernetes::Kubernetes;
use crate::store::{Commit, Store, StoreError, Write};

/// More requests than one long commit, or a start with its sweep, makes undisturbed.
const STEPS: usize = 5;
/// Three parts.
const BYTES: usize = 120_000;

async fn through(door: &Door) -> Kubernetes {
    let client = kube::Client::try_from(Config::new(door.url().parse().unwrap())).unwrap();
    Kubernetes::open(client, "myelin-system", "myelin-ca").await.unwrap()
}

/// Until it stands before its next request, or has ended.
async fn as_far_as_it_may<T>(task: &mut JoinHandle<T>, door: &Door) -> Option<T> {
    tokio::select! {
        ended = task => Some(ended.unwrap()),
        () = door.holds() => None,
    }
}

async fn rest<T>(ended: Option<T>, task: JoinHandle<T>) -> T {
    match ended {
        Some(ended) => ended,
        None => task.await.unwrap(),
    }
}

/// A replica that comes in later finds each of these whole, and no part of anything else.
async fn is_whole(api: &FakeApi, parts: usize, key: &str, expected: &str, case: &str) {
    let store = Kubernetes::open_unswept(super::client(api), "myelin-system", "myelin-ca").await;
    let store = store.unwrap();
    let found = store.read(key).await.unwrap().unwrap_or_else(|| panic!("{case}: {key} is gone"));
    assert!(found.value == expected.as_bytes(), "{case}: {key} is another");
    assert_eq!((store.parts(), store.unnamed()), (parts, 0), "{case}: left over");
}

#[tokio::test]
async fn start_of_one_replica_takes_nothing_from_the_long_commit_of_another() {
    for (ahead, behind, first) in orders() {
        let case = format!("committer at {ahead}, starter at {behind}, first: {first}");
        let api = FakeApi::start().await.unwrap();
        committed(open(&api).await.commit(vec![], vec![put("b", "1")]).await.unwrap());
        let doors = (api.door().await.unwrap(), api.door().await.unwrap());
        let (one, value) = (through(&doors.0).await, long(1, BYTES));
        doors.0.hold_after(ahead);
        doors.1.hold_after(behind);
        let mut commit = tokio::spawn(one.commit(vec![absent("a")], vec![put("a", &value)]));
        let committed_yet = as_far_as_it_may(&mut commit, &doors.0).await;
        let [ours, theirs] = [&doors.0, &doors.1];
        let start = async {
            let client = Config::new(theirs.url().parse().unwrap());
            let client = kube::Client::try_from(client).unwrap();
            Kubernetes::open(client, "myelin-system", "myelin-ca").await.unwrap()
        };
        let committing = async {
            let verdict = rest(committed_yet, commit).await.unwrap();
            assert!(verdict != Commit::Conflict, "{case}: nobody else wrote it");
            theirs.release();
        };
        let starting = async {
            let mut start = Box::pin(start);
            let early = tokio::select! {
                store = &mut start => Some(store),
                () = theirs.holds() => None,
            };
            if first == "committer" {
                ours.release();
            } else {
                theirs.release();
            }
            let store = match early {
                Some(store) => store,
                None => start.await,
            };
            ours.release();
            drop(store);
        };
        tokio::join!(committing, starting);
        is_whole(&api, 3, "a", &value, &case).await;
    }
}

#[tokio::test]
async fn of_two_long_commits_one_happens_and_the_other_leaves_nothing() {
    for (ahead, behind, first) in orders() {
        let case = format!("one at {ahead}, two at {behind}, first: {first}");
        let api = FakeApi::start().await.unwrap();
        let doors = [api.door().await.unwrap(), api.door().await.unwrap()];
        let stores = [through(&doors[0]).await, through(&doors[1]).await];
        let values = [long(1, BYTES), long(2, BYTES)];
        doors[0].hold_after(ahead);
        doors[1].hold_after(behind);
        let commit = |of: usize| {
            tokio::spawn(stores[of].commit(vec![absent("a")], vec![put("a", &values[of])]))
        };
        let (mut one, mut two) = (commit(0), commit(1));
        let ended_one = as_far_as_it_may(&mut one, &doors[0]).await;
        let ended_two = as_far_as_it_may(&mut two, &doors[1]).await;
        let verdicts: [Result<Commit, StoreError>; 2] = if first == "committer" {
            doors[0].release();
            let one = rest(ended_one, one).await;
            doors[1].release();
            [one, rest(ended_two, two).await]
        } else {
            doors[1].release();
            let two = rest(ended_two, two).await;
            doors[0].release();
            [rest(ended_one, one).await, two]
        };
        let won = verdicts.map(|verdict| verdict.unwrap() != Commit::Conflict);
        assert!(won[0] != won[1], "{case}: {won:?}");
        let value = &values[usize::from(won[1])];
        is_whole(&api, 3, "a", value, &case).await;
        let gone = vec![Write::Delete("a".to_owned())];
        committed(stores[0].commit(vec![], gone).await.unwrap());
        assert_eq!((stores[0].parts(), stores[0].unnamed()), (0, 0), "{case}");
    }
}

fn orders() -> impl Iterator<Item = (usize, usize, &'static str)> {
    (0..STEPS).flat_map(|ahead| {
        (0..STEPS).flat_map(move |behind| {
            ["committer", "other"].map(|first| (ahead, behind, first)).into_iter()
        })
    })
}

#[tokio::test]
async fn value_of_which_a_part_is_missing_is_an_error_and_not_an_absence() {
    use futures_util::StreamExt as _;
    let api = FakeApi::start().await.unwrap();
    let store = open(&api).await;
    let before = store.revision().await.unwrap();
    let mut heard = store.watch("", before).await.unwrap();
    committed(store.commit(vec![], vec![put("a", &long(1, BYTES)), put("b", "1")]).await.unwrap());
    for _ in 0..2 {
        heard.next().await.unwrap().unwrap();
    }
    store.lose_a_part().await;
    for store in [store, open(&api).await] {
        let many = ["b", "a"].map(str::to_owned);
        for failed in [
            store.read("a").await.map(drop),
            store.read_many(&many).await.map(drop),
            store.list("", None, 10).await.map(drop),
        ] {
            let error = failed.unwrap_err();
            assert!(matches!(error, StoreError::KubernetesState(_)), "{error}");
            assert!(error.to_string().contains("a part of \"a\" is missing"), "{error}");
        }
        assert_eq!(store.read("b").await.unwrap().unwrap().value, b"1");
        // It can be written anew.
        committed(store.commit(vec![], vec![put("a", "2")]).await.unwrap());
        assert_eq!(store.read("a").await.unwrap().unwrap().value, b"2");
        committed(store.commit(vec![], vec![put("a", &long(3, BYTES))]).await.unwrap());
        store.lose_a_part().await;
    }
}
