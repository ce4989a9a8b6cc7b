//! The gates of the root ladder on a real journal: opened by what was issued, not by today's
//! setting; and records that cannot be read, which are stragglers and no obstacle.
//!
//! Never: a sidecar; acknowledgements come from certificates that were really issued.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::issuance::BundleAck;
use myelin_identity::verify::{self, Peer, Role};

use super::*;
use crate::journal::{AckRecord, Batch, LivesRecord, Record as _};
use crate::rotation::ladder::{Move, Refusal};
use crate::store::Write;

async fn moves(authority: &Authority, asked: Move, broken: &[&str]) -> Result<Moved, Refusal> {
    let broken = broken.iter().map(|name| (*name).to_owned()).collect();
    match authority.rotate(asked, &broken).await {
        Ok(moved) => Ok(moved),
        Err(AuthorityError::Rotation(RotationError::Refused(refusal))) => Err(refusal),
        Err(other) => panic!("{asked}: {other}"),
    }
}

/// Whom a refusal names, and when the gate opens by itself.
fn stranded(refused: Result<Moved, Refusal>) -> (Vec<String>, u64) {
    match refused {
        Err(Refusal::Strands { who, opens_at, .. }) => (who, opens_at),
        other => panic!("{other:?}"),
    }
}

fn peer(authority: &Authority, issued: &Issued) -> Peer {
    let now = authority.clock().now();
    verify::peer(&issued.chain, &authority.bundle(), now, Role::Client).unwrap()
}

/// Writes what nobody can read in place of a record.
async fn damage(authority: &Authority, key: &str) {
    let write = Write::Put(key.to_owned(), b"{\"v\":1,".to_vec());
    let _ = authority.journal().raw().commit(vec![], vec![write]).await.unwrap();
}

#[tokio::test]
async fn a_gate_waits_for_what_was_issued_under_longer_lives_than_todays() {
    let time = Arc::new(AtomicU64::new(NOW));
    let (dir, one) = authority(&time).await;
    let journal = one.journal().clone();
    let issued = join(&one).await.unwrap();
    drop(one);
    // The operator shortens the lives, and rotates at once.
    time.store(NOW + 1_000, Ordering::SeqCst);
    let one = giving(MIN_LIFETIME, dir.path(), journal, 1, &time).await;
    time.store(NOW + 1_010, Ordering::SeqCst);
    moves(&one, Move::Prepare, &[]).await.unwrap();
    let shortest = MIN_LIFETIME.as_secs();
    for at in [NOW + 1_010 + shortest, issued.not_after - 1] {
        time.store(at, Ordering::SeqCst);
        let (who, opens_at) = stranded(moves(&one, Move::Activate, &[]).await);
        assert_eq!(who, [grant().spiffe_id], "at {at}");
        assert!(opens_at > issued.not_after, "{opens_at}");
        let shown = one.ladder().await.unwrap();
        assert_eq!(shown.opens_at, Some(opens_at));
    }
    time.store(NOW + 1_000 + MAX_LIFETIME.as_secs(), Ordering::SeqCst);
    moves(&one, Move::Activate, &[]).await.unwrap();
}

#[tokio::test]
async fn whoever_holds_an_svid_that_outlives_its_last_one_is_a_holder() {
    let time = Arc::new(AtomicU64::new(NOW));
    let (dir, one) = authority(&time).await;
    let journal = one.journal().clone();
    let first = join(&one).await.unwrap();
    drop(one);
    time.store(NOW + 1_000, Ordering::SeqCst);
    let one = giving(MIN_LIFETIME, dir.path(), journal, 1, &time).await;
    // The reply to this one is lost, and it ends long before the one that is in use.
    let proven = Proven::assumed(Claimed::HostAlone, hex(1), key(), hex(6));
    let remote = RemoteAddr("10.0.0.1:5".parse().unwrap());
    let caller = Caller { remote, peer: None, exporter: [0; 32] };
    let last = one.issue(&caller, &proven).await.unwrap();
    assert!(last.not_after < first.not_after);
    moves(&one, Move::Prepare, &[]).await.unwrap();
    time.store(last.not_after + 1, Ordering::SeqCst);
    let (who, opens_at) = stranded(moves(&one, Move::Activate, &[]).await);
    assert_eq!(who, [grant().spiffe_id]);
    time.store(opens_at, Ordering::SeqCst);
    assert_eq!(one.ladder().await.unwrap().holders, 0, "all of it has ended");
    moves(&one, Move::Activate, &[]).await.unwrap();
}

#[tokio::test]
async fn a_store_that_says_nothing_of_lives_counts_the_longest_and_a_new_one_does_not() {
    let time = Arc::new(AtomicU64::new(NOW));
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(&dir.path().join("store.redb")).unwrap();
    let journal = Journal::new(Arc::new(store));
    let one = giving(MIN_LIFETIME, dir.path(), journal.clone(), 1, &time).await;
    assert_eq!(one.lives().await.unwrap()[0], LivesRecord::new(MIN_LIFETIME.as_secs()));
    join(&one).await.unwrap();
    let name = one.replica().to_string();
    let stated = journal.read::<LivesRecord>(&name).await.unwrap().unwrap();
    let longest = MAX_LIFETIME.as_secs();
    let unsure = LivesRecord { earlier: longest, earlier_end: NOW + longest, ..stated.record };
    // It was written before there was such a record.
    let mut batch = Batch::default();
    batch.remove(&stated);
    let _ = journal.commit(batch).await.unwrap();
    drop(one);
    let one = giving(MIN_LIFETIME, dir.path(), journal.clone(), 1, &time).await;
    assert_eq!(one.lives().await.unwrap()[0], unsure);
    // Or it is damaged: while the server runs, and when it starts again.
    damage(&one, &stated.key).await;
    assert!(one.lives().await.unwrap().contains(&LivesRecord::new(longest)));
    drop(one);
    let one = giving(MIN_LIFETIME, dir.path(), journal, 1, &time).await;
    assert_eq!(one.lives().await.unwrap()[0], unsure);
}

#[tokio::test]
async fn the_lives_of_a_replica_that_is_gone_count_until_all_that_it_issued_has_ended() {
    let time = Arc::new(AtomicU64::new(NOW));
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(&dir.path().join("store.redb")).unwrap();
    let journal = Journal::new(Arc::new(store));
    let one = giving(MIN_LIFETIME, dir.path(), journal.clone(), 1, &time).await;
    let leaving = replica(dir.path(), journal.clone(), 2, &time).await;
    let name = leaving.replica().to_string();
    let last = leaving.rotation.signer().validity().not_after + MAX_LIFETIME.as_secs();
    drop(leaving);
    let long = LivesRecord::new(MAX_LIFETIME.as_secs());
    for (at, counts) in [(NOW, true), (last - 1, true), (last, false), (last + 9, false)] {
        time.store(at, Ordering::SeqCst);
        assert_eq!(one.lives().await.unwrap().contains(&long), counts, "at {at}");
    }
    // One that cannot be read counts as little, and its twin as much, as one that can.
    damage(&one, &format!("{}{name}", LivesRecord::PREFIX)).await;
    assert!(!one.lives().await.unwrap().contains(&long));
    time.store(last - 1, Ordering::SeqCst);
    assert!(one.lives().await.unwrap().contains(&long));
    // It was not gone: with its next intermediate it counts again.
    time.store(last, Ordering::SeqCst);
    let back = replica(dir.path(), journal, 2, &time).await;
    back.rotation.tick(last).await.unwrap();
    assert!(one.lives().await.unwrap().contains(&long));
    drop(back);
}

#[tokio::test]
async fn an_acknowledgement_that_cannot_be_read_is_a_straggler_and_stops_no_move() {
    let time = Arc::new(AtomicU64::new(NOW));
    let (_dir, one) = authority(&time).await;
    join(&one).await.unwrap();
    let id = grant().spiffe_id;
    let key = format!("{}{}", AckRecord::PREFIX, hex(1));
    moves(&one, Move::Prepare, &[]).await.unwrap();
    damage(&one, &key).await;
    let shown = one.ladder().await.unwrap();
    assert_eq!(
        (&shown.outstanding_ids, &shown.unreadable),
        (&vec![id.clone()], &vec![key.clone()])
    );
    assert_eq!(stranded(moves(&one, Move::Activate, &[]).await).0, std::slice::from_ref(&id));
    // Back; and again, broken by name; and again, opened by time.
    moves(&one, Move::Abort, &[]).await.unwrap();
    moves(&one, Move::Prepare, &[]).await.unwrap();
    let forced = moves(&one, Move::Activate, &[&id]).await.unwrap();
    assert_eq!(forced.broken, [id]);
    moves(&one, Move::Abort, &[]).await.unwrap();
    time.store(NOW + MAX_LIFETIME.as_secs() + 1, Ordering::SeqCst);
    moves(&one, Move::Retire, &[]).await.unwrap();
    // And the sweep goes on past it.
    time.store(NOW + 20 * 24 * 3600, Ordering::SeqCst);
    assert!(one.sweep().await.unwrap() > 0);
}

#[tokio::test]
async fn a_damaged_acknowledgement_is_replaced_by_what_was_heard_or_is_heard_next() {
    let time = Arc::new(AtomicU64::new(NOW));
    let (dir, one) = authority(&time).await;
    let two = replica(dir.path(), one.journal().clone(), 2, &time).await;
    let issued = join(&one).await.unwrap();
    two.recall().await.unwrap();
    moves(&one, Move::Prepare, &[]).await.unwrap();
    two.refresh_trust().await.unwrap();
    let ack = BundleAck { generation: 2, deny_epoch: 0 };
    assert_eq!(one.acknowledge(&peer(&one, &issued), ack), Heard::Noted);
    one.write_acks().await.unwrap();
    assert_eq!(two.ladder().await.unwrap().outstanding, 0, "written, and known to the other");
    let key = format!("{}{}", AckRecord::PREFIX, hex(1));
    damage(&one, &key).await;
    assert_eq!(two.ladder().await.unwrap().outstanding, 1);
    assert_eq!(one.ladder().await.unwrap().outstanding, 0, "whoever heard it knows it still");
    one.write_acks().await.unwrap();
    let healed = two.ladder().await.unwrap();
    assert_eq!((healed.outstanding, healed.unreadable.len()), (0, 0));
}
