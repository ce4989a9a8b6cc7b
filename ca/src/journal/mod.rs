//! What the CA remembers, as typed records over `store`: read with a revision, written in batches
//! that hold only if nothing they were decided on has changed. `authority` and `rotation` decide;
//! this room writes down.
//!
//! A batch that issues a certificate holds its `Issued` record, so that nobody ever holds a
//! certificate that the journal does not know, whenever the process dies.
//!
//! Never: decides anything, or stores a secret in the clear (tokens are hashes, CA keys are
//! sealed).

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::store::{Change, Commit, Expect, Lease, MAX_LIST, Store, StoreError, Versioned, Write};

mod companion;
mod denials;
mod federation;
mod found;
mod lives;
mod log;
mod pod;
mod records;
mod registration;
mod trust;

pub use companion::CompanionRecord;
pub use denials::*;
pub use federation::*;
pub use found::{Found, Readable, shown};
pub use lives::*;
pub use log::*;
pub use pod::PodRecord;
pub use records::*;
pub use registration::*;
pub use trust::*;

/// What most records come to, so that their bytes need not move while they are written.
const USUAL_BYTES: usize = 1024;

/// A kind of record: where its keys live and which version of its form this binary writes.
pub trait Record: Serialize + DeserializeOwned {
    /// Key prefix, with its closing slash.
    const PREFIX: &'static str;
    const VERSION: u32 = 1;
}

/// A record as it was read, with what is needed to replace it.
#[derive(Clone, Debug)]
pub struct Entry<R> {
    pub key: String,
    pub revision: u64,
    pub record: R,
}

/// A record after a commit of any replica.
#[derive(Clone, Debug)]
pub struct Noticed<R> {
    /// Without the kind's prefix.
    pub name: String,
    pub revision: u64,
    /// None: it was removed.
    pub entry: Option<Entry<R>>,
}

/// What a watch of one kind of record yields. After an error it has ended.
pub type Notices<R> = BoxStream<'static, Result<Noticed<R>, JournalError>>;

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "the journal's {key} cannot be read: {why}; this store was written by a newer myelin-ca or is damaged: run that version, or restore a backup"
    )]
    Unreadable { key: String, why: String },
}

#[derive(Clone)]
pub struct Journal {
    store: Arc<dyn Store>,
}

impl Journal {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// The store itself, for tests that write past every rule.
    #[cfg(test)]
    pub(crate) fn raw(&self) -> &dyn Store {
        &*self.store
    }

    /// The record of this kind under `name`, if there is one.
    pub async fn read<R: Record>(&self, name: &str) -> Result<Option<Entry<R>>, JournalError> {
        let key = format!("{}{name}", R::PREFIX);
        match self.store.read(&key).await? {
            Some(versioned) => parse(key, &versioned).map(Some),
            None => Ok(None),
        }
    }

    /// Two records of different kinds, at one instant.
    pub async fn read_both<A: Record, B: Record>(
        &self,
        one: &str,
        other: &str,
    ) -> Result<(Option<Entry<A>>, Option<Entry<B>>), JournalError> {
        let keys = [format!("{}{one}", A::PREFIX), format!("{}{other}", B::PREFIX)];
        let mut found = self.store.read_many(&keys).await?.into_iter();
        let [one, other] = keys;
        let (first, second) = (found.next().flatten(), found.next().flatten());
        let first = first.map(|versioned| parse(one, &versioned)).transpose()?;
        Ok((first, second.map(|versioned| parse(other, &versioned)).transpose()?))
    }

    /// The records of this kind under `names` (at most the store's bound), in their order.
    pub async fn read_many<R: Record>(
        &self,
        names: &[&str],
    ) -> Result<Vec<Option<Entry<R>>>, JournalError> {
        let keys: Vec<String> = names.iter().map(|name| format!("{}{name}", R::PREFIX)).collect();
        let found = self.store.read_many(&keys).await?;
        let read = keys.into_iter().zip(found);
        read.map(|(key, versioned)| versioned.map(|it| parse(key, &it)).transpose()).collect()
    }

    /// One page (at most the store's bound) of the records whose name starts with `within`, after
    /// the key `after`.
    pub async fn page<R: Record>(
        &self,
        within: &str,
        after: Option<&str>,
    ) -> Result<Vec<Entry<R>>, JournalError> {
        let prefix = format!("{}{within}", R::PREFIX);
        let listed = self.store.list(&prefix, after, MAX_LIST).await?;
        listed.into_iter().map(|(key, versioned)| parse(key, &versioned)).collect()
    }

    /// All records of this kind, page after page. For start-up, the sweep and the operator's lists.
    pub async fn all<R: Record>(&self) -> Result<Vec<Entry<R>>, JournalError> {
        let mut all: Vec<Entry<R>> = Vec::new();
        loop {
            let page = self.page("", all.last().map(|entry| entry.key.as_str())).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    pub async fn commit(&self, batch: Batch) -> Result<Commit, JournalError> {
        Ok(self.store.commit(batch.expects, batch.writes).await?)
    }

    /// The revision of the latest commit: whoever watches after it and then reads misses nothing.
    pub async fn revision(&self) -> Result<u64, JournalError> {
        Ok(self.store.revision().await?)
    }

    /// Every change to records of this kind by commits after the revision `after`, by whichever
    /// replica. One that cannot be read is an error in the stream.
    pub async fn watch<R: Record + Send + 'static>(
        &self,
        after: u64,
    ) -> Result<Notices<R>, JournalError> {
        let changes = self.store.watch(R::PREFIX, after).await?;
        Ok(changes.map(|change| notice(change?)).boxed())
    }

    /// The right to do `name` alone: see [`Store::acquire`].
    pub async fn lease(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<Lease>, JournalError> {
        Ok(self.store.acquire(name, holder, ttl).await?)
    }

    pub async fn release(&self, lease: &Lease) -> Result<(), JournalError> {
        Ok(self.store.release(lease).await?)
    }

    /// Lets go of the store, whoever still holds this journal.
    pub async fn close(&self) {
        self.store.close().await;
    }
}

fn notice<R: Record>(change: Change) -> Result<Noticed<R>, JournalError> {
    let Change { key, revision, now } = change;
    let name = key.strip_prefix(R::PREFIX).unwrap_or(&key).to_owned();
    let entry = now.map(|versioned| parse(key, &versioned)).transpose()?;
    Ok(Noticed { name, revision, entry })
}

/// Changes that happen together or not at all.
#[derive(Debug, Default)]
pub struct Batch {
    expects: Vec<Expect>,
    writes: Vec<Write>,
}

impl Batch {
    /// Writes a record that must not exist yet.
    pub fn create<R: Record>(&mut self, name: &str, record: &R) {
        let key = format!("{}{name}", R::PREFIX);
        self.expects.push(Expect::Absent(key.clone()));
        self.writes.push(Write::Put(key, form(record)));
    }

    /// Replaces a record that must be as it was read.
    pub fn replace<R: Record>(&mut self, read: &Entry<R>, record: &R) {
        self.unchanged(read);
        self.writes.push(Write::Put(read.key.clone(), form(record)));
    }

    /// Creates, or replaces what was read: whichever fits what the reader saw.
    pub fn put<R: Record>(&mut self, name: &str, read: Option<&Entry<R>>, record: &R) {
        match read {
            Some(entry) => self.replace(entry, record),
            None => self.create(name, record),
        }
    }

    /// Writes a record whatever is there: for what the last writer knows best.
    pub fn overwrite<R: Record>(&mut self, name: &str, record: &R) {
        self.writes.push(Write::Put(format!("{}{name}", R::PREFIX), form(record)));
    }

    /// The decision rests on this key having been written last by the commit with this revision.
    pub fn unchanged_since<R: Record>(&mut self, name: &str, revision: u64) {
        self.expects.push(Expect::Revision(format!("{}{name}", R::PREFIX), revision));
    }

    /// Removes a record that must be as it was read.
    pub fn remove<R: Record>(&mut self, read: &Entry<R>) {
        self.unchanged(read);
        self.writes.push(Write::Delete(read.key.clone()));
    }

    /// Writes over whatever had this revision, readable or not; without one, there must be nothing.
    pub fn write_over<R: Record>(&mut self, name: &str, revision: Option<u64>, record: &R) {
        match revision {
            Some(revision) => self.unchanged_since::<R>(name, revision),
            None => self.absent::<R>(name),
        }
        self.overwrite(name, record);
    }

    /// Removes whatever lies under this name, also what cannot be read.
    pub fn erase<R: Record>(&mut self, name: &str) {
        self.writes.push(Write::Delete(format!("{}{name}", R::PREFIX)));
    }

    /// The decision rests on this record, which is not written.
    pub fn unchanged<R: Record>(&mut self, read: &Entry<R>) {
        self.expects.push(Expect::Revision(read.key.clone(), read.revision));
    }

    /// The batch holds only while this lease does.
    pub fn under(&mut self, lease: &Lease) {
        self.expects.push(lease.held());
    }

    /// The decision rests on there being no such record.
    pub fn absent<R: Record>(&mut self, name: &str) {
        self.expects.push(Expect::Absent(format!("{}{name}", R::PREFIX)));
    }

    pub fn len(&self) -> usize {
        self.writes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}

#[derive(Serialize)]
struct Outgoing<'a, R> {
    v: u32,
    record: &'a R,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

#[derive(Deserialize)]
struct Incoming<R> {
    v: u32,
    record: R,
}

fn form<R: Record>(record: &R) -> Vec<u8> {
    let mut form = Vec::with_capacity(USUAL_BYTES);
    serde_json::to_writer(&mut form, &Outgoing { v: R::VERSION, record })
        .expect("records are plain structures with string keys, which JSON can always hold");
    form
}

fn parse<R: Record>(key: String, versioned: &Versioned) -> Result<Entry<R>, JournalError> {
    let other = |v| format!("it has version {v}, this binary reads {}", R::VERSION);
    let why = match serde_json::from_slice::<Incoming<R>>(&versioned.value) {
        Ok(Incoming { v, record }) if v == R::VERSION => {
            return Ok(Entry { revision: versioned.revision, key, record });
        }
        Ok(Incoming { v, .. }) => other(v),
        // Another version may have another form: then that is what to say.
        Err(error) => match serde_json::from_slice::<Version>(&versioned.value) {
            Ok(Version { v }) if v != R::VERSION => other(v),
            _ => error.to_string(),
        },
    };
    Err(JournalError::Unreadable { key, why })
}
