//! All objects, the one counter of resource versions, and what happened lately. Called by the verbs,
//! the watches, and tests by [`crate::FakeApi`].
//!
//! Never: waits, or reads a clock: creation times are counted.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::path::{Key, Resource};

/// Events that are kept for watches; beyond, the oldest are forgotten.
const MAX_HISTORY: usize = 100_000;

/// Lists that are kept for their further pages; beyond, the oldest are forgotten.
const MAX_LISTS: usize = 64;

/// One change of one object.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) version: u64,
    pub(crate) key: Key,
    pub(crate) before: Option<Value>,
    pub(crate) after: Option<Value>,
}

/// A list as it was when its first page was read.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    pub(crate) name: String,
    pub(crate) version: u64,
    pub(crate) items: Arc<Vec<Value>>,
}

#[derive(Default)]
pub(crate) struct Objects {
    stored: BTreeMap<Key, Value>,
    version: u64,
    history: VecDeque<Arc<Event>>,
    /// Nothing is known of what happened up to this version.
    forgotten: u64,
    /// Lists that are read in pages, the newest last.
    lists: VecDeque<Pages>,
    /// Watches that began under an earlier number end.
    pub(crate) cut: u64,
    pub(crate) bookmarks: u64,
    made: u64,
}

impl Objects {
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    pub(crate) fn read(&self, key: &Key) -> Option<&Value> {
        self.stored.get(key)
    }

    /// Those of one namespace; of all if it is empty.
    pub(crate) fn all<'a>(
        &'a self,
        resource: &'a Resource,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Value> {
        let ours = move |key: &Key| {
            key.group == resource.group
                && key.resource == resource.name
                && (namespace.is_empty() || key.namespace == namespace)
        };
        self.stored.iter().filter(move |(key, _)| ours(key)).map(|(_, object)| object)
    }

    /// Stores an object under a new version, which it then says.
    pub(crate) fn store(&mut self, key: Key, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let before = self.stored.insert(key.clone(), object.clone());
        self.happened(key, before, Some(object.clone()));
        object
    }

    /// The object as it was, under the version of its deletion.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Value> {
        let before = self.stored.remove(key)?;
        self.version += 1;
        let mut last = before;
        last["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.happened(key.clone(), Some(last.clone()), None);
        Some(last)
    }

    fn happened(&mut self, key: Key, before: Option<Value>, after: Option<Value>) {
        let event = Event { version: self.version, key, before, after };
        self.history.push_back(Arc::new(event));
        if self.history.len() > MAX_HISTORY
            && let Some(oldest) = self.history.pop_front()
        {
            self.forgotten = oldest.version;
        }
    }

    /// What happened after a version, as far as it is known.
    pub(crate) fn since(&self, version: u64) -> Vec<Arc<Event>> {
        let newer = self.history.partition_point(|event| event.version <= version);
        self.history.range(newer..).cloned().collect()
    }

    /// Keeps a list for its further pages, under a name.
    pub(crate) fn keep(&mut self, items: Arc<Vec<Value>>) -> String {
        let (version, suffix) = (self.version, self.suffix());
        let name = format!("page-{version}-{suffix}");
        if self.lists.len() >= MAX_LISTS {
            self.lists.pop_front();
        }
        self.lists.push_back(Pages { name: name.clone(), version, items });
        name
    }

    pub(crate) fn kept(&self, name: &str) -> Option<Pages> {
        self.lists.iter().find(|list| list.name == name).cloned()
    }

    pub(crate) fn forget(&mut self) {
        self.history.clear();
        self.lists.clear();
        self.forgotten = self.version;
    }

    pub(crate) fn cut_watches(&mut self) {
        self.cut += 1;
    }

    pub(crate) fn bookmark(&mut self) {
        self.bookmarks += 1;
    }

    /// What is new about a new object: its uid and its time, both counted.
    pub(crate) fn newborn(&mut self, object: &mut Value) {
        self.made += 1;
        let made = self.made;
        let metadata = &mut object["metadata"];
        metadata["uid"] = json!(format!("00000000-0000-4000-8000-{made:012x}"));
        let (hours, minutes, seconds) = (made / 3600 % 24, made / 60 % 60, made % 60);
        metadata["creationTimestamp"] =
            json!(format!("2026-01-01T{hours:02}:{minutes:02}:{seconds:02}Z"));
        metadata["generation"] = json!(1);
    }

    /// A suffix for `generateName`.
    pub(crate) fn suffix(&mut self) -> String {
        self.made += 1;
        let mut rest = self.made * 7_919 + 104_729;
        let letters = b"bcdfghjklmnpqrstvwxz2456789";
        let mut letter = || {
            let at = usize::try_from(rest % letters.len() as u64).unwrap_or_default();
            rest /= letters.len() as u64;
            char::from(letters[at])
        };
        (0..5).map(|_| letter()).collect()
    }

    /// See [`crate::FakeApi::put`].
    pub(crate) fn put_whole(&mut self, resource: &Resource, mut object: Value) -> Value {
        let text = |pointer: &str| {
            object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let key = resource.key(&text("/metadata/namespace"), &text("/metadata/name"));
        let given = text("/metadata/uid");
        object["apiVersion"] = json!(resource.api_version());
        object["kind"] = json!(resource.kind());
        match self.stored.get(&key).cloned() {
            None => self.newborn(&mut object),
            Some(before) => {
                for field in ["uid", "creationTimestamp", "generation"] {
                    object["metadata"][field] = before["metadata"][field].clone();
                }
                if object["spec"] != before["spec"] {
                    let generation = before["metadata"]["generation"].as_u64().unwrap_or(0);
                    object["metadata"]["generation"] = json!(generation + 1);
                }
            }
        }
        if !given.is_empty() {
            object["metadata"]["uid"] = json!(given);
        }
        self.store(key, object)
    }
}
