//! The ladder on a store that dies: before each commit, after each commit whose answer is lost, and
//! in between. A new start finds the rung before or the rung after, with the keys that belong to
//! it, and the ladder goes on to its end.
//!
//! Never: a store that is repaired by hand.

// SPDX-License-Identifier: Apache-2.0

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use myelin_identity::bundle::Rung;

use super::ladder::Move;
use super::*;
use crate::store::{Changes, Expect, Lease, Store, StoreError, Versioned, Write};

/// Fails at one commit: without doing it, or after doing it.
struct Dying {
    inner: Embedded,
    left: AtomicUsize,
    done: bool,
}

impl Dying {
    fn gone() -> StoreError {
        StoreError::Disk("the power is gone".to_owned())
    }
}

impl Store for Dying {
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>> {
        if self.left.load(Ordering::SeqCst) == 0 {
            return Box::pin(async { Err(Self::gone()) });
        }
        self.inner.read(key)
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        bound: usize,
    ) -> BoxFuture<'a, Result<Vec<(String, Versioned)>, StoreError>> {
        self.inner.list(prefix, after, bound)
    }

    fn read_many<'a>(
        &'a self,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<Option<Versioned>>, StoreError>> {
        self.inner.read_many(keys)
    }

    fn revision(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        self.inner.revision()
    }

    fn watch<'a>(
        &'a self,
        prefix: &'a str,
        after: u64,
    ) -> BoxFuture<'a, Result<Changes, StoreError>> {
        self.inner.watch(prefix, after)
    }

    fn acquire<'a>(
        &'a self,
        name: &'a str,
        holder: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Option<Lease>, StoreError>> {
        self.inner.acquire(name, holder, ttl)
    }

    fn keep<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<bool, StoreError>> {
        self.inner.keep(lease)
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<(), StoreError>> {
        self.inner.release(lease)
    }

    fn commit(
        &self,
        expects: Vec<Expect>,
        writes: Vec<Write>,
    ) -> BoxFuture<'static, Result<Commit, StoreError>> {
        let left = self.left.load(Ordering::SeqCst).saturating_sub(1);
        self.left.store(left, Ordering::SeqCst);
        if left > 0 {
            return self.inner.commit(expects, writes);
        }
        let (inner, done) = (self.inner.clone(), self.done);
        Box::pin(async move {
            if done {
                let _ = inner.commit(expects, writes).await?;
            }
            Err(Self::gone())
        })
    }
}

/// The whole of a rotation, from whatever rung it is on; ends at the first error.
async fn ascend(rotation: &Rotation, goal: u64) -> Result<(), RotationError> {
    while rotation.bundle().generation() < goal || rotation.step().step.rung != Rung::Settled {
        let asked = match rotation.step().step.rung {
            Rung::Settled => Move::Prepare,
            Rung::Prepared => Move::Activate,
            Rung::Activated => Move::Retire,
        };
        climb(rotation, asked, NOW).await?;
        rotation.tick(NOW).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_rotation_that_dies_at_any_commit_is_resumed_to_its_end() {
    // Three steps and one new intermediate.
    for (dies_at, done) in (1..=4).flat_map(|at| [(at, false), (at, true)]) {
        let dir = tempfile::tempdir().unwrap();
        let inner = Embedded::open(&dir.path().join("store.redb")).unwrap();
        let sound = Place { journal: Journal::new(Arc::new(inner.clone())), dir };
        let old = ours(&sound, NOW).await.step().step.active;
        let dying = Dying { inner, left: AtomicUsize::new(dies_at), done };
        let place = Place { journal: Journal::new(Arc::new(dying)), dir: sound.dir };
        let doomed = ours(&place, NOW).await;
        let died = ascend(&doomed, 3).await;
        assert!(matches!(died, Err(RotationError::Journal(_))), "{dies_at} {done}: {died:?}");
        let before = doomed.step();
        drop(doomed);

        let sound = Place { journal: sound.journal, dir: place.dir };
        let resumed = ours(&sound, NOW + 1).await;
        let number = resumed.step().step.number;
        let step_was_written = done && dies_at != 3;
        assert_eq!(number, before.step.number + u64::from(step_was_written), "{dies_at} {done}");
        // Whatever rung it is: the signer hangs under the active root, and the bundle holds it.
        let active = resumed.step().step.active;
        assert_eq!(resumed.root_of(resumed.signer().certificate()), Some(active));
        ascend(&resumed, 3).await.unwrap();
        assert_ne!(resumed.step().step.active, old, "{dies_at} {done}");
        assert_eq!(resumed.bundle().roots().len(), 1);
        let again = ours(&sound, NOW + 2).await;
        assert_eq!(again.step(), resumed.step());
    }
}

#[tokio::test]
async fn a_pin_that_is_behind_the_store_catches_up_and_one_without_a_store_says_so() {
    let place = scratch();
    let rotation = ours(&place, NOW).await;
    let behind = std::fs::read(place.pin().path()).unwrap();
    ascend(&rotation, 3).await.unwrap();
    std::fs::write(place.pin().path(), &behind).unwrap();
    assert_eq!(ours(&place, NOW).await.step(), rotation.step());

    let empty = scratch();
    std::fs::write(empty.pin().path(), &behind).unwrap();
    let refused = started(&empty, "prod.example", 1, NOW).await.err().unwrap();
    assert!(matches!(refused, RotationError::StoreEmptied(_)), "{refused}");
    std::fs::write(place.pin().path(), b"{").unwrap();
    let refused = started(&place, "prod.example", 1, NOW).await.err().unwrap();
    assert!(matches!(refused, RotationError::PinDamaged { .. }), "{refused}");
}
