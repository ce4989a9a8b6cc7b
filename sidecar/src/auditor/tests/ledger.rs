//! What the ledger makes of states in any order, made-up ones among them.
//!
//! Never: sockets, or real time.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use myelin_identity::log::{Hash, LogKey};
use tokio::time::Instant;

use crate::auditor::ledger::{Ahead, Compared, Entered, Ledger, MAX_LOGS, MAX_WAITING, PORTION};
use crate::proofs::Seen;

/// Larger than any log.
const HUGE: u64 = 1 << 40;

fn seen(log: &str, size: u64, root: u8) -> Seen {
    let log = LogKey::new(log, [3; 32]).unwrap();
    Seen { log, size, root: Hash([root; 32]), note: Vec::new() }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The next comparison of log `l`, in which its server shows a tree of this size.
fn compare(ledger: &mut Ledger, shown: u64, now: Instant) -> Compared {
    let portion = ledger.portion(&seen("l", 0, 0).log);
    ledger.compared(&portion, seen("l", shown, 1), now)
}

fn sizes(ledger: &Ledger) -> Vec<u64> {
    ledger.portion(&seen("l", 0, 0).log).iter().map(|seen| seen.size).collect()
}

#[tokio::test(start_paused = true)]
async fn two_roots_for_one_size_are_a_fork_at_once() {
    let mut ledger = Ledger::default();
    let now = Instant::now();
    assert_eq!(ledger.enter(seen("l", 5, 1), now), Entered::Waits);
    assert_eq!(ledger.enter(seen("other", 5, 2), now), Entered::Waits);
    let Entered::Contradicts(fork) = ledger.enter(seen("l", 5, 2), now) else {
        panic!("two roots for one size")
    };
    assert_eq!(*fork, (seen("l", 5, 1), seen("l", 5, 2)));
}

#[tokio::test(start_paused = true)]
async fn only_what_was_compared_is_known() {
    let mut ledger = Ledger::default();
    let now = Instant::now();
    for _ in 0..2 {
        assert_eq!(ledger.enter(seen("l", 5, 1), now), Entered::Waits, "not compared yet");
    }
    assert_eq!(compare(&mut ledger, 9, now).consistent, 1);
    for size in [5, 9] {
        assert_eq!(ledger.enter(seen("l", size, 1), now), Entered::Known);
    }
    // Another root for a size that was compared is for the next comparison to find, with both notes.
    assert_eq!(ledger.enter(seen("l", 5, 2), now), Entered::Waits);
}

#[tokio::test(start_paused = true)]
async fn states_are_gathered_compared_together_and_then_rest() {
    let mut ledger = Ledger::default();
    let now = Instant::now();
    assert_eq!(ledger.next_due(), None);
    for size in [7, 5, 9] {
        ledger.enter(seen("l", size, 1), now);
    }
    let due = ledger.next_due().unwrap();
    assert_eq!(due, now + seconds(1));
    let log = seen("l", 0, 0).log;
    assert!(ledger.due(now).is_empty());
    assert_eq!(ledger.due(due), std::slice::from_ref(&log));
    assert_eq!(sizes(&ledger), [5, 7, 9]);
    assert_eq!(
        compare(&mut ledger, 12, due),
        Compared { consistent: 3, missed: false, ahead: None }
    );
    assert_eq!(ledger.next_due(), None);
    assert_eq!(sizes(&ledger), [12]);
    // The next question waits for its pause.
    ledger.enter(seen("l", 13, 1), due);
    assert_eq!(ledger.next_due().unwrap(), due + seconds(10));
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_asked_less_and_less_often() {
    let mut ledger = Ledger::default();
    let now = Instant::now();
    ledger.enter(seen("l", 7, 1), now);
    let log = seen("l", 0, 0).log;
    let pauses: Vec<u64> = (0..8).map(|_| ledger.postpone(&log, now).as_secs()).collect();
    assert_eq!(pauses, [10, 20, 40, 80, 160, 300, 300, 300]);
    assert_eq!(sizes(&ledger), [7], "nothing is forgotten");
    // Nor does news hurry it.
    ledger.enter(seen("l", 8, 1), now);
    assert_eq!(ledger.next_due(), Some(now + seconds(300)));
}

#[tokio::test(start_paused = true)]
async fn a_made_up_size_holds_nobody_up_and_is_an_alarm_after_an_hour() {
    let mut ledger = Ledger::default();
    let now = Instant::now();
    ledger.enter(seen("l", HUGE, 7), now);
    ledger.enter(seen("l", 5, 1), now);
    let ahead = |is_overdue| Some(Ahead { size: HUGE, shown: 9, is_overdue });
    let compared = compare(&mut ledger, 9, now);
    assert_eq!(compared, Compared { consistent: 1, missed: false, ahead: ahead(false) });
    assert_eq!(sizes(&ledger), [9, HUGE], "it waits for its tree");
    // What comes later has its turn in the usual time.
    ledger.enter(seen("l", 7, 1), now);
    assert_eq!(ledger.next_due(), Some(now + seconds(10)));
    assert_eq!(compare(&mut ledger, 9, now + seconds(10)).consistent, 1);
    let later = now + seconds(3600);
    assert_eq!(compare(&mut ledger, 9, later).ahead, ahead(true));
}

#[tokio::test(start_paused = true)]
async fn made_up_sizes_do_not_take_the_places_of_others() {
    let mut ledger = Ledger::default();
    let now = Instant::now();
    for more in 0..MAX_WAITING as u64 {
        assert_eq!(ledger.enter(seen("l", HUGE + more, 7), now), Entered::Waits);
    }
    assert_eq!(ledger.enter(seen("l", 5, 1), now), Entered::NoRoom, "something gave way");
    assert_eq!(sizes(&ledger)[..2], [5, HUGE]);
    let compared = compare(&mut ledger, 9, now);
    assert_eq!((compared.consistent, compared.missed), (1, true));
    assert!(!compare(&mut ledger, 9, now).missed, "said once");
}

#[tokio::test(start_paused = true)]
async fn what_was_passed_over_is_asked_for_again_and_each_gets_its_turn() {
    let mut ledger = Ledger::default();
    let mut now = Instant::now();
    let all: Vec<u64> = (1..=MAX_WAITING as u64 + 40).collect();
    // Peers come again as long as they are asked to.
    let mut missed = true;
    let mut rounds = 0;
    while missed || ledger.next_due().is_some() {
        if std::mem::take(&mut missed) {
            for size in &all {
                ledger.enter(seen("l", *size, 1), now);
            }
        }
        now = ledger.next_due().unwrap();
        missed = compare(&mut ledger, 1_000, now).missed;
        rounds += 1;
        assert!(rounds < 100, "without an end");
    }
    assert!(all.len() > PORTION);
    for size in all {
        assert_eq!(ledger.enter(seen("l", size, 1), now), Entered::Known, "{size}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_shows_less_than_before_must_fit_it_later() {
    let mut ledger = Ledger::default();
    let now = Instant::now();
    ledger.enter(seen("l", 5, 1), now);
    compare(&mut ledger, 100, now);
    ledger.enter(seen("l", 20, 1), now);
    let compared = compare(&mut ledger, 50, now);
    assert_eq!(compared.ahead, Some(Ahead { size: 100, shown: 50, is_overdue: false }));
    assert_eq!(compared.consistent, 1);
    assert_eq!(sizes(&ledger), [100, 50]);
    assert_eq!(ledger.newest_trees().map(|seen| seen.size).collect::<Vec<_>>(), [100]);
    // Replayed ever smaller trees are not collected without end, and settle nothing then.
    for shown in (30..50).rev() {
        compare(&mut ledger, shown, now);
    }
    assert_eq!(sizes(&ledger).len(), 4);
    ledger.enter(seen("l", 21, 1), now);
    assert_eq!(compare(&mut ledger, 29, now).consistent, 0);
    // The twin: a tree that continues them all settles them all.
    let compared = compare(&mut ledger, 101, now);
    assert_eq!((compared.consistent, compared.ahead), (1, None));
    assert_eq!(sizes(&ledger), [101]);
}

#[tokio::test(start_paused = true)]
async fn the_ledger_is_bounded_in_logs() {
    let mut ledger = Ledger::default();
    let now = Instant::now();
    ledger.enter(seen("l", 1, 1), now);
    for number in 0..MAX_LOGS {
        ledger.enter(seen(&format!("l{number}"), 1, 1), now);
    }
    assert!(sizes(&ledger).is_empty(), "seen longest ago");
    assert_eq!(ledger.portion(&seen("l0", 0, 0).log).len(), 1);
}
