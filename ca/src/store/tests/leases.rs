//! Promises about leases. Time is real, since some stores keep it elsewhere; lives are the shortest
//! that every implementation can keep.
//!
//! Never: asserts that something was fast.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::time::Duration;

use super::{committed, put};
use crate::store::{Commit, Lease, Store};

const TTL: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(60);

async fn acquired(store: &Arc<dyn Store>, holder: &str, ttl: Duration) -> Option<Lease> {
    store.acquire("sweep", holder, ttl).await.unwrap()
}

/// Asks until it gets the lease, which must be within several of its lives.
async fn acquired_at_last(store: &Arc<dyn Store>, holder: &str) -> Lease {
    for _ in 0..100 {
        if let Some(lease) = acquired(store, holder, TTL).await {
            return lease;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    panic!("a lost lease is free again");
}

pub(super) async fn lease_has_one_holder_until_it_is_released(store: Arc<dyn Store>) {
    let first = acquired(&store, "one", LONG).await.unwrap();
    assert_eq!((first.name.as_str(), first.holder.as_str()), ("sweep", "one"));
    assert_eq!(acquired(&store, "two", LONG).await, None);
    assert!(store.acquire("other", "two", LONG).await.unwrap().is_some(), "another name");
    store.release(&first).await.unwrap();
    let second = acquired(&store, "two", LONG).await.unwrap();
    assert_ne!(first.fence, second.fence);
    // A late second release is nobody's.
    store.release(&first).await.unwrap();
    assert!(store.keep(&second).await.unwrap());
    assert!(!store.keep(&first).await.unwrap());
}

pub(super) async fn lease_that_is_not_kept_is_lost_and_one_that_is_kept_is_not(
    store: Arc<dyn Store>,
) {
    let kept = store.acquire("kept", "one", TTL).await.unwrap().unwrap();
    let lost = acquired(&store, "one", TTL).await.unwrap();
    for _ in 0..8 {
        tokio::time::sleep(TTL / 4).await;
        assert!(store.keep(&kept).await.unwrap(), "kept in time");
    }
    acquired_at_last(&store, "two").await;
    assert!(!store.keep(&lost).await.unwrap());
    assert_eq!(store.acquire("kept", "two", TTL).await.unwrap(), None);
}

pub(super) async fn holder_that_asks_again_gets_a_new_fence(store: Arc<dyn Store>) {
    let before = acquired(&store, "one", LONG).await.unwrap();
    let after = acquired(&store, "one", LONG).await.unwrap();
    assert_ne!(before.fence, after.fence);
    assert!(!store.keep(&before).await.unwrap());
    assert!(store.keep(&after).await.unwrap());
}

pub(super) async fn write_under_a_lost_lease_fails(store: Arc<dyn Store>) {
    let first = acquired(&store, "one", LONG).await.unwrap();
    committed(store.commit(vec![first.held()], vec![put("a", "1")]).await.unwrap());
    store.release(&first).await.unwrap();
    let orphaned = store.commit(vec![first.held()], vec![put("a", "2")]).await.unwrap();
    assert_eq!(orphaned, Commit::Conflict);
    let second = acquired(&store, "two", LONG).await.unwrap();
    let late = store.commit(vec![first.held()], vec![put("a", "3")]).await.unwrap();
    assert_eq!(late, Commit::Conflict, "a lease that somebody else holds is not ours");
    committed(store.commit(vec![second.held()], vec![put("a", "4")]).await.unwrap());
    assert_eq!(store.read("a").await.unwrap().unwrap().value, b"4");
}
