//! A text of many documents, YAML or JSON, taken apart and written again.
//!
//! Never: a document that is guessed at: what cannot be read is an error with its number.

// SPDX-License-Identifier: Apache-2.0

use serde_json::Value;

use super::{ManifestError, yaml};

/// One of them.
#[derive(Debug)]
pub(super) struct Document {
    /// As it came, with the line that begins it.
    pub(super) raw: String,
    /// Null: nothing but comments.
    pub(super) value: Value,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Yaml,
}

pub(super) fn split(text: &str) -> Result<Vec<Document>, ManifestError> {
    if let Some(documents) = json(text) {
        return Ok(documents);
    }
    let mut documents = Vec::new();
    for (index, raw) in pieces(text).into_iter().enumerate() {
        let value = if is_blank(&raw) {
            Value::Null
        } else {
            yaml::read(&raw).map_err(|why| ManifestError::Unreadable { number: index + 1, why })?
        };
        documents.push(Document { raw, value, form: Form::Yaml });
    }
    Ok(documents)
}

/// One JSON document after another. None: it is no JSON; YAML can begin like it.
fn json(text: &str) -> Option<Vec<Document>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let mut documents: Vec<Document> = Vec::new();
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let mut begin = 0;
    while let Some(value) = values.next() {
        let end = values.byte_offset();
        let raw = text.get(begin..end)?.to_owned();
        documents.push(Document { raw, value: value.ok()?, form: Form::Json });
        begin = end;
    }
    if let Some(last) = documents.last_mut() {
        last.raw.push_str(text.get(begin..)?);
    }
    Some(documents)
}

/// Each begins at its own `---`, but for the first.
fn pieces(text: &str) -> Vec<String> {
    let mut pieces = vec![String::new()];
    for line in text.split_inclusive('\n') {
        let begins = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        let so_far = pieces.last().is_some_and(|piece| !piece.is_empty());
        if begins && so_far {
            pieces.push(String::new());
        }
        if let Some(piece) = pieces.last_mut() {
            piece.push_str(line);
        }
    }
    pieces
}

/// Nothing but comments, markers and white space.
fn is_blank(piece: &str) -> bool {
    let mut lines = piece.lines().map(str::trim);
    lines.all(|line| line.is_empty() || line.starts_with('#') || line == "---" || line == "...")
}

impl Document {
    /// With this in its place, in its own form; comments at its head stay.
    pub(super) fn written(&self, value: &Value) -> String {
        if self.form == Form::Json {
            let text = serde_json::to_string_pretty(value).unwrap_or_default();
            return format!("{text}\n");
        }
        let is_head = |line: &&str| {
            let text = line.trim();
            text.is_empty() || text.starts_with('#') || text == "---"
        };
        let head: String = self.raw.split_inclusive('\n').take_while(is_head).collect();
        // Content on the marker's own line goes with the rest.
        let marker =
            if self.raw.starts_with("---") && !head.starts_with("---") { "---\n" } else { "" };
        format!("{marker}{head}{}", yaml::write(value))
    }
}
