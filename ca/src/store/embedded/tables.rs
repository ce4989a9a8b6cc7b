//! What one transaction does with the redb file. Called by `Embedded`, with a database that is open.
//!
//! Never: blocks on anything but the disk, or lets one commit of a group see another's conflict.

// SPDX-License-Identifier: Apache-2.0

use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition};

use crate::store::queue::Waiting;
use crate::store::{Commit, Expect, MAX_LIST, Versioned, Write};

/// key -> revision (8 bytes, little endian) and value.
const VALUES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("myelin.values.v1");
const REVISION: TableDefinition<'_, (), u64> = TableDefinition::new("myelin.revision.v1");

pub(super) fn make(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(VALUES)?;
    transaction.open_table(REVISION)?;
    Ok(transaction.commit()?)
}

pub(super) fn revision(database: &Database) -> Result<u64, redb::Error> {
    let table = database.begin_read()?.open_table(REVISION)?;
    Ok(table.get(())?.map_or(0, |guard| guard.value()))
}

pub(super) fn read(database: &Database, key: &str) -> Result<Option<Versioned>, redb::Error> {
    let table = database.begin_read()?.open_table(VALUES)?;
    Ok(table.get(key)?.map(|guard| parse(guard.value())))
}

pub(super) fn read_many(
    database: &Database,
    keys: &[String],
) -> Result<Vec<Option<Versioned>>, redb::Error> {
    let table = database.begin_read()?.open_table(VALUES)?;
    keys.iter().map(|key| Ok(table.get(key.as_str())?.map(|guard| parse(guard.value())))).collect()
}

pub(super) fn list(
    database: &Database,
    prefix: &str,
    after: Option<&str>,
    bound: usize,
) -> Result<Vec<(String, Versioned)>, redb::Error> {
    let table = database.begin_read()?.open_table(VALUES)?;
    let mut listed = Vec::new();
    for entry in table.range(after.unwrap_or(prefix)..)? {
        let (key, value) = entry?;
        if Some(key.value()) == after {
            continue;
        }
        if !key.value().starts_with(prefix) || listed.len() == bound.min(MAX_LIST) {
            break;
        }
        listed.push((key.value().to_owned(), parse(value.value())));
    }
    Ok(listed)
}

/// Commits a whole group with one fsync. Each has its own verdict, as if they had come one after
/// another; each that holds has its own revision.
pub(super) fn commit_group(
    database: &Database,
    group: &[Waiting],
    held: &dyn Fn(&str, u64) -> bool,
) -> Result<Vec<Commit>, redb::Error> {
    let transaction = database.begin_write()?;
    let mut verdicts = Vec::with_capacity(group.len());
    let written = {
        let mut values = transaction.open_table(VALUES)?;
        let mut counter = transaction.open_table(REVISION)?;
        let before = counter.get(())?.map_or(0, |guard| guard.value());
        let mut revision = before;
        for waiting in group {
            // All expectations are seen before the first write, so there is nothing to undo.
            if !holds(&values, &waiting.expects, held)? {
                verdicts.push(Commit::Conflict);
                continue;
            }
            revision += 1;
            write(&mut values, &waiting.writes, revision)?;
            verdicts.push(Commit::Committed { revision });
        }
        counter.insert((), revision)?;
        revision > before
    };
    // Dropped without commit otherwise: nothing was written.
    if written {
        transaction.commit()?;
    }
    Ok(verdicts)
}

fn holds(
    values: &Table<'_, &str, &[u8]>,
    expects: &[Expect],
    held: &dyn Fn(&str, u64) -> bool,
) -> Result<bool, redb::Error> {
    for expect in expects {
        let (key, wanted) = match expect {
            Expect::Absent(key) => (key, None),
            Expect::Revision(key, revision) => (key, Some(*revision)),
            Expect::Held { name, fence } if held(name, *fence) => continue,
            Expect::Held { .. } => return Ok(false),
        };
        let found = values.get(key.as_str())?.map(|guard| parse_revision(guard.value()));
        if found != wanted {
            return Ok(false);
        }
    }
    Ok(true)
}

fn write(
    values: &mut Table<'_, &str, &[u8]>,
    writes: &[Write],
    revision: u64,
) -> Result<(), redb::Error> {
    for write in writes {
        match write {
            Write::Put(key, value) => {
                let mut bytes = Vec::with_capacity(8 + value.len());
                bytes.extend_from_slice(&revision.to_le_bytes());
                bytes.extend_from_slice(value);
                values.insert(key.as_str(), bytes.as_slice())?;
            }
            Write::Delete(key) => {
                values.remove(key.as_str())?;
            }
        }
    }
    Ok(())
}

fn parse(bytes: &[u8]) -> Versioned {
    let value = bytes.get(8..).unwrap_or_default().to_vec();
    Versioned { revision: parse_revision(bytes), value }
}

fn parse_revision(bytes: &[u8]) -> u64 {
    let revision = bytes.first_chunk::<8>().expect("every value was written with its revision");
    u64::from_le_bytes(*revision)
}
