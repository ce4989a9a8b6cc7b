//! JSON read strictly: every field known, every list bounded, each error with its place. Called by
//! `authentication` and `authorization`.
//!
//! Never: skips what it does not know (a newer schema may mean more than we read); repeats a value.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// The most targets of one policy, as in the schema.
const MAX_TARGETS: usize = 16;

/// Where something is wrong, and what is expected there: one line for the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong(pub(super) String);

/// One object, with the place where it stands.
pub(super) struct Fields<'v> {
    at: String,
    map: &'v Map<String, Value>,
}

/// Whom a policy is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Targets {
    /// None is named: its namespace, or the mesh.
    All,
    These(BTreeSet<Target>),
    /// They cannot be read: anybody in its namespace may be meant, or in the mesh.
    Unknown,
}

/// Both are of the policy's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Service(String),
    Account(String),
}

impl Wrong {
    pub(super) fn new(at: &str, expected: &str) -> Self {
        Self(format!("{at}: expected {expected}"))
    }

    /// Keeps the first of several.
    pub(super) fn or_keep(self, first: &mut Option<Self>) {
        first.get_or_insert(self);
    }
}

impl<'v> Fields<'v> {
    pub(super) fn of(at: &str, value: &'v Value) -> Result<Self, Wrong> {
        let map = value.as_object().ok_or_else(|| Wrong::new(at, "an object"))?;
        Ok(Self { at: at.to_owned(), map })
    }

    /// One with these fields and no others.
    pub(super) fn only(at: &str, value: &'v Value, known: &[&str]) -> Result<Self, Wrong> {
        let fields = Self::of(at, value)?;
        fields.knows(known)?;
        Ok(fields)
    }

    pub(super) fn knows(&self, known: &[&str]) -> Result<(), Wrong> {
        match self.map.keys().all(|key| known.contains(&key.as_str())) {
            true => Ok(()),
            false => Err(Wrong::new(&self.at, &format!("no fields but {}", known.join(", ")))),
        }
    }

    pub(super) fn at(&self, field: &str) -> String {
        format!("{}.{field}", self.at)
    }

    fn value(&self, field: &str) -> Option<&'v Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    pub(super) fn text(&self, field: &str) -> Result<Option<&'v str>, Wrong> {
        let Some(value) = self.value(field) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| Wrong::new(&self.at(field), "a text"))
    }

    /// Absent is no.
    pub(super) fn flag(&self, field: &str) -> Result<bool, Wrong> {
        let Some(value) = self.value(field) else { return Ok(false) };
        value.as_bool().ok_or_else(|| Wrong::new(&self.at(field), "true or false"))
    }

    pub(super) fn port(&self, field: &str) -> Result<u16, Wrong> {
        port(&self.at(field), self.value(field).unwrap_or(&Value::Null))
    }

    /// `None`: there is no such list. One that is there has an entry.
    pub(super) fn list(&self, field: &str, most: usize) -> Result<Option<&'v [Value]>, Wrong> {
        let Some(value) = self.value(field) else { return Ok(None) };
        match value.as_array().map(Vec::as_slice) {
            Some(list) if (1..=most).contains(&list.len()) => Ok(Some(list)),
            _ => Err(Wrong::new(&self.at(field), &format!("a list of 1 to {most}"))),
        }
    }

    /// The texts of a list; none where there is no list.
    pub(super) fn texts(&self, field: &str, most: usize) -> Result<Vec<(String, &'v str)>, Wrong> {
        let list = self.list(field, most)?.unwrap_or_default();
        let placed = list.iter().enumerate().map(|(index, value)| {
            let at = format!("{}[{index}]", self.at(field));
            let text = value.as_str().ok_or_else(|| Wrong::new(&at, "a text"))?;
            Ok((at, text))
        });
        placed.collect()
    }

    pub(super) fn targets(&self) -> Result<Targets, Wrong> {
        let Some(list) = self.list("targetRefs", MAX_TARGETS)? else { return Ok(Targets::All) };
        let read = list.iter().enumerate().map(|(index, value)| {
            let at = format!("{}[{index}]", self.at("targetRefs"));
            let fields = Self::only(&at, value, &["group", "kind", "name"])?;
            let name = fields.text("name")?.filter(|name| !name.is_empty());
            let name = name.ok_or_else(|| Wrong::new(&fields.at("name"), "a name"))?.to_owned();
            match (fields.text("group")?.unwrap_or_default(), fields.text("kind")?) {
                ("", Some("Service")) => Ok(Target::Service(name)),
                ("", Some("ServiceAccount")) => Ok(Target::Account(name)),
                _ => Err(Wrong::new(&at, "a Service or a ServiceAccount of the core group")),
            }
        });
        read.collect::<Result<_, _>>().map(Targets::These)
    }
}

pub(super) fn port(at: &str, value: &Value) -> Result<u16, Wrong> {
    let number = value.as_u64().and_then(|number| u16::try_from(number).ok());
    number.filter(|port| *port != 0).ok_or_else(|| Wrong::new(at, "a port from 1 to 65535"))
}
