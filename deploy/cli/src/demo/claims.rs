//! What the demo claims, what it measured, and whether that suffices. Made by the chapters, shown as
//! a table at the end.
//! Never: a claim without a measurement.

// SPDX-License-Identifier: Apache-2.0

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;

/// One claim and its fate.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Claim {
    /// A stable word for machines.
    pub(super) name: &'static str,
    pub(super) claim: &'static str,
    pub(super) measured: String,
    pub(super) holds: bool,
}

pub(super) fn all_hold(claims: &[Claim]) -> bool {
    !claims.is_empty() && claims.iter().all(|claim| claim.holds)
}

/// The verdict as a table of `width` columns.
pub(super) fn table(claims: &[Claim], width: u16, with_color: bool) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    table.set_header(["claim", "measured", ""]);
    for claim in claims {
        let (word, color) =
            if claim.holds { ("holds", Color::Green) } else { ("FAILS", Color::Red) };
        let mut verdict = Cell::new(word);
        if with_color {
            verdict = verdict.fg(color).add_attribute(Attribute::Bold);
        }
        table.add_row([Cell::new(claim.claim), Cell::new(&claim.measured), verdict]);
    }
    table.to_string()
}
