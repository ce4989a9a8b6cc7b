//! One table of the file: its known keys, and the way from a key to its value with its place.
//! Called by the readers of each section.
//!
//! Never: lets an unknown key pass, or hands out a value without its place.

// SPDX-License-Identifier: Apache-2.0

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use super::field::Field;
use super::source::{Source, shortened};

/// A table, or the defaults of one that is not there.
pub(super) struct Section<'t> {
    source: &'t Source<'t>,
    table: Option<&'t DeTable<'t>>,
    span: Range<usize>,
    /// `inbound.port[1]`, empty for the root.
    path: String,
}

impl<'t> Section<'t> {
    pub(super) fn root(
        source: &'t Source<'t>,
        table: &'t DeTable<'t>,
        known: &[&str],
    ) -> Result<Self, ConfigError> {
        Self::of_somebody(source, table).checked(known)
    }

    /// The root for whoever reads a part of it: other keys are somebody else's.
    pub(super) fn of_somebody(source: &'t Source<'t>, table: &'t DeTable<'t>) -> Self {
        Self { source, table: Some(table), span: 0..0, path: String::new() }
    }

    /// The table under `key`; one that is absent has no keys.
    pub(super) fn child(&self, key: &str, known: &[&str]) -> Result<Self, ConfigError> {
        match self.field(key) {
            Some(field) => self.table_of(&field, known),
            None => {
                let (source, span) = (self.source, self.span.clone());
                Ok(Self { source, table: None, span, path: self.full(key) })
            }
        }
    }

    /// The tables of the array under `key`, at most `max`.
    pub(super) fn children(
        &self,
        key: &str,
        known: &[&str],
        max: usize,
    ) -> Result<Vec<Self>, ConfigError> {
        let Some(field) = self.field(key) else { return Ok(Vec::new()) };
        let header = format!("[[{}]]", self.full(key));
        if field.value.as_array().is_none() {
            return Err(field.wrong(
                format!("tables under {header} headers"),
                format!("write {header} above each of them"),
            ));
        }
        field.list(max)?.iter().map(|entry| self.table_of(entry, known)).collect()
    }

    pub(super) fn field(&self, key: &str) -> Option<Field<'t>> {
        let value = self.table?.get(key)?;
        Some(Field {
            source: self.source,
            key: self.full(key),
            span: value.span(),
            value: value.get_ref(),
        })
    }

    /// A key that has no default.
    pub(super) fn required(
        &self,
        key: &str,
        expected: &str,
        example: &str,
    ) -> Result<Field<'t>, ConfigError> {
        self.field(key).ok_or_else(|| self.missing(key, expected, &format!("{key} = {example}")))
    }

    /// The complaint that something is not there.
    pub(super) fn missing(&self, key: &str, expected: &str, line: &str) -> ConfigError {
        // Where the table itself is absent, its place says nothing.
        let below = match self.table {
            Some(_) => String::new(),
            None => format!(" below [{}]", self.path),
        };
        ConfigError::Missing {
            at: self.source.at(self.span.start),
            key: self.full(key).into(),
            expected: expected.into(),
            example: format!("`{line}`{below}").into(),
        }
    }

    pub(super) fn full(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn table_of(&self, field: &Field<'t>, known: &[&str]) -> Result<Self, ConfigError> {
        let DeValue::Table(table) = field.value else {
            let header = format!("[{}]", field.key);
            return Err(field.wrong("a table", format!("write its keys below a {header} header")));
        };
        let (source, span, path) = (self.source, field.span.clone(), field.key.clone());
        Self { source, table: Some(table), span, path }.checked(known)
    }

    /// Unknown keys are complained about before any value is read: a misspelt key is the cause of
    /// most missing ones.
    fn checked(self, known: &[&str]) -> Result<Self, ConfigError> {
        let unknown = self
            .table
            .into_iter()
            .flat_map(DeTable::keys)
            .filter(|key| !known.contains(&&**key.get_ref()))
            .min_by_key(|key| key.span().start);
        let Some(key) = unknown else { return Ok(self) };
        let fix = match nearest(key.get_ref(), known) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => "remove it".to_owned(),
        };
        Err(ConfigError::UnknownKey {
            at: self.source.at(key.span().start),
            key: self.full(&shortened(key.get_ref())).into(),
            known: known.join(", ").into(),
            fix: fix.into(),
        })
    }
}

/// The known word that differs least, if it differs by no more than a third of its letters.
pub(super) fn nearest<'k>(seen: &str, known: &[&'k str]) -> Option<&'k str> {
    let ranked = known.iter().map(|word| (distance(seen, word), *word));
    let (edits, word) = ranked.min_by_key(|(edits, _)| *edits)?;
    (edits <= word.len().div_ceil(3)).then_some(word)
}

/// Levenshtein's: insertions, deletions and replacements of one letter each.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    // A key longer than this resembles none of ours.
    for (index, letter) in from.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, wanted) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *wanted);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()] + from.chars().count().saturating_sub(64)
}
