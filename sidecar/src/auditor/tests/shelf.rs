//! Evidence that was kept, and what is left of it when the file is damaged.
//!
//! Never: sockets.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::fs;

use myelin_identity::log::{Hash, LogKey};

use crate::auditor::Histories;
use crate::auditor::shelf::Shelf;
use crate::proofs::{Seen, Suspect};

fn histories(log: &LogKey) -> Histories {
    let state = |root| Seen { log: log.clone(), size: 5, root: Hash([root; 32]), note: vec![b'n'] };
    Histories { first: state(1), second: state(2), tiles: BTreeMap::new() }
}

#[test]
fn evidence_that_cannot_be_read_any_more_counts_by_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("logs");
    let shelf = Shelf::open(&path).unwrap();
    assert!(shelf.forks().is_empty());
    let log = LogKey::new("example.org/log/1", [7; 32]).unwrap();
    let file = shelf.keep_fork(&histories(&log), 1_700_000_000).unwrap();
    let [fork] = &shelf.forks()[..] else { panic!("one fork") };
    assert_eq!((&fork.log, &fork.evidence), (&Suspect::Log(log.clone()), &file));
    let whole = fs::read(&file).unwrap();
    for damaged in [b"".to_vec(), whole[..whole.len() / 2].to_vec(), b"{\"log\":\"x\"}".to_vec()] {
        fs::write(&file, &damaged).unwrap();
        let [fork] = &shelf.forks()[..] else { panic!("the evidence is forgotten") };
        assert_eq!(fork.log, Suspect::KeyId(log.as_note_key().id()));
        assert_eq!(fork.evidence, file);
    }
    // Only the operator forgets.
    fs::remove_file(&file).unwrap();
    assert!(shelf.forks().is_empty());
}

#[test]
fn evidence_is_found_among_any_number_of_other_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("logs");
    let shelf = Shelf::open(&path).unwrap();
    for number in 0..300 {
        fs::write(path.join(format!("a{number}")), b"").unwrap();
    }
    let log = LogKey::new("example.org/log/1", [7; 32]).unwrap();
    shelf.keep_fork(&histories(&log), 1_700_000_000).unwrap();
    assert_eq!(shelf.forks().len(), 1);
}
