//! Reading past what cannot be read: for whoever must not be stopped by one damaged record, or by
//! one that a stranger wrote. Part of the journal; everybody else reads through `read` and `page`.
//!
//! Never: leaves out that something cannot be read.

// SPDX-License-Identifier: Apache-2.0

use super::{Entry, Journal, JournalError, Record, parse};
use crate::store::{MAX_LIST, Versioned};

/// How much is shown of a text that the store's writer may have chosen: a few lines of a terminal.
const MAX_SHOWN_CHARACTERS: usize = 300;

/// What lies under a key, for whoever must not be stopped by what cannot be read.
#[derive(Clone, Debug)]
pub struct Found<R> {
    pub key: String,
    pub revision: u64,
    /// Why not, otherwise.
    pub record: Result<R, String>,
}

/// The same of many keys, put apart.
#[derive(Clone, Debug)]
pub struct Readable<R> {
    pub entries: Vec<Entry<R>>,
    /// The keys of those that cannot be read.
    pub unreadable: Vec<String>,
}

impl Journal {
    /// What lies under `name`, readable or not.
    pub async fn find<R: Record>(&self, name: &str) -> Result<Option<Found<R>>, JournalError> {
        let key = format!("{}{name}", R::PREFIX);
        Ok(self.store.read(&key).await?.map(|versioned| found(key, &versioned)))
    }

    /// One page as [`Self::page`] has it, readable or not.
    pub async fn page_found<R: Record>(
        &self,
        within: &str,
        after: Option<&str>,
    ) -> Result<Vec<Found<R>>, JournalError> {
        let prefix = format!("{}{within}", R::PREFIX);
        let listed = self.store.list(&prefix, after, MAX_LIST).await?;
        Ok(listed.into_iter().map(|(key, versioned)| found(key, &versioned)).collect())
    }

    /// The first of a kind, at most `bound`, readable or not.
    pub async fn first_found<R: Record>(
        &self,
        bound: usize,
    ) -> Result<Vec<Found<R>>, JournalError> {
        let listed = self.store.list(R::PREFIX, None, bound).await?;
        Ok(listed.into_iter().map(|(key, versioned)| found(key, &versioned)).collect())
    }

    /// All whose name starts with `within`, page after page, readable or not.
    pub async fn find_all<R: Record>(&self, within: &str) -> Result<Vec<Found<R>>, JournalError> {
        let mut all: Vec<Found<R>> = Vec::new();
        loop {
            let after = all.last().map(|found| found.key.as_str());
            let page = self.page_found(within, after).await?;
            if page.is_empty() {
                return Ok(all);
            }
            all.extend(page);
        }
    }

    /// What lies under `names` (at most the store's bound), in their order, readable or not.
    pub async fn find_many<R: Record>(
        &self,
        names: &[&str],
    ) -> Result<Vec<Option<Found<R>>>, JournalError> {
        let keys: Vec<String> = names.iter().map(|name| format!("{}{name}", R::PREFIX)).collect();
        let lies = self.store.read_many(&keys).await?;
        let both = keys.into_iter().zip(lies);
        Ok(both.map(|(key, lies)| lies.map(|versioned| found(key, &versioned))).collect())
    }
}

impl<R> From<Vec<Found<R>>> for Readable<R> {
    fn from(all: Vec<Found<R>>) -> Self {
        let mut apart = Self { entries: Vec::new(), unreadable: Vec::new() };
        for Found { key, revision, record } in all {
            match record {
                Ok(record) => apart.entries.push(Entry { key, revision, record }),
                Err(_) => apart.unreadable.push(key),
            }
        }
        apart
    }
}

/// A text that somebody else may have chosen (a key, what a library repeats of a value), for people:
/// bounded, and in one line.
pub fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN_CHARACTERS).collect::<String>().escape_debug().to_string()
}

fn found<R: Record>(key: String, versioned: &Versioned) -> Found<R> {
    let revision = versioned.revision;
    match parse(key.clone(), versioned) {
        Ok(Entry { record, .. }) => Found { key, revision, record: Ok(record) },
        Err(JournalError::Unreadable { why, .. }) => Found { key, revision, record: Err(why) },
        Err(other) => Found { key, revision, record: Err(other.to_string()) },
    }
}
