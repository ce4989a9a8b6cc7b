//! One log read from one server or several: what is accepted, and what contradicts it.
//! Never: what the entries say.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::log::LogKey;

use super::{Log, Replica, is_contradiction, read, some, state};
use crate::log::reader::Reader;

const ORIGIN: &str = "example.org/log";

/// A log of so many entries, and the server of it.
async fn served(entries: u32) -> (Log, Replica) {
    let log = Log::new(ORIGIN, 9, some(entries));
    let replica = Replica::serve([("/log/", log.shown.clone())]).await;
    (log, replica)
}

async fn fresh(log: &Log, replicas: &[&Replica]) -> anyhow::Result<Vec<(u64, Vec<u8>)>> {
    read(&mut Reader::new(log.name(), None), replicas).await
}

#[tokio::test]
async fn a_log_is_read_whole_and_followed_as_it_grows() {
    let (log, replica) = served(600).await;
    let mut reader = Reader::new(log.name(), None);
    let all = read(&mut reader, &[&replica]).await.unwrap();
    assert_eq!(all.len(), 600);
    assert!(all.iter().enumerate().all(|(at, (index, _))| at as u64 == *index));
    assert!(read(&mut reader, &[&replica]).await.unwrap().is_empty(), "nothing is new");
    log.change(|entries| entries.extend(some(3)));
    log.sign();
    let new = read(&mut reader, &[&replica]).await.unwrap();
    assert_eq!(new.iter().map(|it| it.0).collect::<Vec<_>>(), [600, 601, 602]);
}

#[tokio::test]
async fn an_entry_that_was_changed_under_a_signed_root_is_a_contradiction() {
    let (log, replica) = served(300).await;
    log.change(|entries| entries[7] = b"another".to_vec());
    assert!(is_contradiction(fresh(&log, &[&replica]).await));
    log.sign();
    assert!(fresh(&log, &[&replica]).await.is_ok(), "the twin: signed as it is");
}

#[tokio::test]
async fn a_history_that_was_rewritten_since_the_last_run_is_a_contradiction() {
    let (log, replica) = served(300).await;
    let before = state(&log, &replica).await;
    let again =
        async || read(&mut Reader::new(log.name(), Some(before.clone())), &[&replica]).await;
    log.change(|entries| entries.push(b"one more".to_vec()));
    log.sign();
    assert!(again().await.is_ok(), "the twin: it only grew");
    log.change(|entries| entries[299] = b"rewritten".to_vec());
    log.sign();
    assert!(is_contradiction(again().await), "rewritten and grown");
    log.change(|entries| entries.truncate(300));
    log.sign();
    assert!(is_contradiction(again().await), "two roots for one size");
    log.change(|entries| entries.truncate(299));
    log.sign();
    assert!(is_contradiction(again().await), "shrunk");
}

#[tokio::test]
async fn a_checkpoint_by_another_key_and_a_missing_bundle_are_errors() {
    let (log, replica) = served(3).await;
    let other = LogKey::new(ORIGIN, [5; 32]).unwrap();
    assert!(read(&mut Reader::new(other, None), &[&replica]).await.is_err());
    log.change(Vec::clear);
    assert!(fresh(&log, &[&replica]).await.is_err());
}

#[tokio::test]
async fn each_log_is_read_from_the_server_that_has_its_signature_whatever_their_order() {
    let (first, one) = served(5).await;
    let second = Log::new("example.org/another-log", 8, some(7));
    let other = Replica::serve([("/log/", second.shown.clone())]).await;
    for order in [[&one, &other], [&other, &one]] {
        assert_eq!(fresh(&first, &order).await.unwrap().len(), 5);
        assert_eq!(fresh(&second, &order).await.unwrap().len(), 7);
    }
    let refused = fresh(&second, &[&one]).await.unwrap_err();
    assert!(!refused.is::<crate::log::reader::Contradiction>());
    assert!(refused.to_string().contains("one more --url"), "{refused}");
}

#[tokio::test]
async fn of_a_log_and_its_copy_the_newer_is_read_and_the_older_must_be_a_part_of_it() {
    let (log, replica) = served(280).await;
    let copy = Replica::serve([("/log/", log.copy())]).await;
    log.change(|entries| entries.extend(some(4)));
    log.sign();
    assert_eq!(fresh(&log, &[&copy, &replica]).await.unwrap().len(), 284);
    // A copy of another past, signed with the same key.
    let another = Log::new(ORIGIN, 9, some(270));
    another.change(|entries| entries[3] = b"only in the copy".to_vec());
    another.sign();
    let copy = Replica::serve([("/log/", another.shown.clone())]).await;
    assert!(is_contradiction(fresh(&log, &[&copy, &replica]).await), "an older fork");
    another.change(|entries| entries.extend(some(14)));
    another.sign();
    assert!(is_contradiction(fresh(&log, &[&copy, &replica]).await), "two roots for one size");
}

#[tokio::test]
async fn a_copy_that_is_behind_what_was_read_elsewhere_is_no_contradiction() {
    let (log, replica) = served(280).await;
    let copy = Replica::serve([("/log/", log.copy())]).await;
    log.change(|entries| entries.extend(some(4)));
    log.sign();
    let before = state(&log, &replica).await;
    let mut reader = Reader::new(log.name(), Some(before.clone()));
    let behind = read(&mut reader, &[&copy]).await.unwrap_err();
    assert!(behind.to_string().contains("behind"), "{behind}");
    assert!(!is_contradiction::<()>(Err(behind)));
    // The twin: the one that showed the longer log takes something back.
    log.change(|entries| entries.truncate(280));
    log.sign();
    assert!(is_contradiction(read(&mut Reader::new(log.name(), Some(before)), &[&replica]).await));
}

#[tokio::test]
async fn what_could_not_be_read_to_its_end_is_read_again_from_its_beginning() {
    let (log, replica) = served(600).await;
    let mut reader = Reader::new(log.name(), None);
    log.shown.lock().unwrap().broken = Some(2);
    let refused = read(&mut reader, &[&replica]).await;
    assert!(refused.as_ref().is_err_and(|error| error.to_string().contains("500")), "{refused:?}");
    assert_eq!(reader.size(), 0, "nothing counts before the root is verified");
    log.shown.lock().unwrap().broken = None;
    assert_eq!(read(&mut reader, &[&replica]).await.unwrap().len(), 600);
}

#[tokio::test]
async fn a_full_bundle_serves_where_the_part_of_it_is_gone() {
    let log = Log::new(ORIGIN, 9, some(100));
    log.shown.lock().unwrap().full_only = true;
    let copy = Replica::serve([("/log/", log.shown.clone())]).await;
    assert!(fresh(&log, &[&copy]).await.is_err(), "the twin: the full one is not there either");
    // Its checkpoint is of 100, its files are those of 256.
    log.change(|entries| entries.extend(some(256).split_off(100)));
    assert_eq!(fresh(&log, &[&copy]).await.unwrap().len(), 100);
}
