//! The file's text as complaints quote it: the place of a byte, and the words that stand there, cut
//! to one line. Called by `config`, `section` and `field`.
//!
//! Never: parses, or quotes a control character as it is.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use super::error::At;

/// The file's text, to turn a byte range into a place and into the words that stand there.
pub(super) struct Source<'t> {
    pub(super) name: Arc<str>,
    pub(super) text: &'t str,
}

impl Source<'_> {
    pub(super) fn at(&self, offset: usize) -> At {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        At {
            file: Arc::clone(&self.name),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// Of a value or a key, as much as one line of an error takes.
pub(super) fn shortened(text: &str) -> String {
    const MAX_CHARS: usize = 60;
    let mut line: String = text
        .chars()
        .take(MAX_CHARS)
        .flat_map(|c| {
            let keep = !c.is_control();
            if keep { vec![c] } else { c.escape_default().collect() }
        })
        .collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        line.push_str("..");
    }
    line
}
