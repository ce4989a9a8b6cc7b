//! Promises about watches.
//!
//! Never: waits for luck: every wait ends with an event or a deadline that only a bug reaches.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;

use super::{committed, put};
use crate::store::{Change, Changes, Store, Write};

/// Longest wait for an event that must come.
const PATIENCE: Duration = Duration::from_secs(10);

async fn next(changes: &mut Changes) -> Change {
    let change = tokio::time::timeout(PATIENCE, changes.next()).await;
    change.expect("a change comes").expect("the watch goes on").unwrap()
}

pub(super) async fn watch_tells_every_change_of_its_prefix_in_order_and_nothing_else(
    store: Arc<dyn Store>,
) {
    let before = store.revision().await.unwrap();
    let mut changes = store.watch("p/", before).await.unwrap();
    let first = committed(store.commit(vec![], vec![put("p/1", "a")]).await.unwrap());
    committed(store.commit(vec![], vec![put("q/1", "x")]).await.unwrap());
    let second = committed(store.commit(vec![], vec![Write::Delete("p/1".into())]).await.unwrap());
    let third =
        committed(store.commit(vec![], vec![put("p/2", "b"), put("p/3", "c")]).await.unwrap());
    let change = next(&mut changes).await;
    assert_eq!((change.key.as_str(), change.revision), ("p/1", first));
    let now = change.now.unwrap();
    assert_eq!((now.revision, now.value.as_slice()), (first, b"a".as_slice()));
    let change = next(&mut changes).await;
    assert_eq!((change.key.as_str(), change.revision, change.now), ("p/1", second, None));
    for key in ["p/2", "p/3"] {
        let change = next(&mut changes).await;
        assert_eq!((change.key.as_str(), change.revision), (key, third));
    }
}

pub(super) async fn watch_from_an_earlier_revision_misses_nothing(store: Arc<dyn Store>) {
    let before = store.revision().await.unwrap();
    committed(store.commit(vec![], vec![put("a", "1")]).await.unwrap());
    let between = store.revision().await.unwrap();
    let last = committed(store.commit(vec![], vec![put("a", "2")]).await.unwrap());
    assert_eq!(store.revision().await.unwrap(), last);
    let mut all = store.watch("", before).await.unwrap();
    let mut later = store.watch("", between).await.unwrap();
    assert_eq!(next(&mut all).await.now.unwrap().value, b"1");
    assert_eq!(next(&mut all).await.now.unwrap().value, b"2");
    assert_eq!(next(&mut later).await.now.unwrap().value, b"2");
}
