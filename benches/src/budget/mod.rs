//! The instruction counts that are kept, and the verdict over new ones. Called by the command
//! `budget`, which takes the counts and owns the file.
//!
//! Never: I/O; a verdict that depends on how fast a machine is.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;

use crate::ROUNDS;

/// What a count may grow before somebody has to say yes: below it, one changed inlining decision
/// looks like a regression; above it, small steps add up unseen.
pub const GROWTH: f64 = 0.03;

/// Where a bench's own spread is larger than fits into `GROWTH`, it may grow by this many spreads:
/// five runs show most of the spread, not all.
const SPREADS: f64 = 2.0;

/// Instructions of one round, by bench: what a run brought.
pub type Counts = BTreeMap<String, u64>;

/// The file's content.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// What the counts were taken with; another compiler makes other instructions.
    pub rustc: String,
    pub valgrind: String,
    pub bench: BTreeMap<String, Kept>,
}

/// One bench's budget.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Of one round: the median of the runs that were accepted.
    pub instructions: u64,
    /// How much more is still within the budget, as a fraction.
    pub growth: f64,
}

/// What became of one bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Kept,
    /// Cheaper by more than its budget may grow: worth accepting, or it creeps back unseen.
    Shrunk,
    Grown,
    /// It has no budget.
    New,
    /// It has a budget and was not counted.
    Gone,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub bench: String,
    pub kept: Option<Kept>,
    pub now: Option<u64>,
    pub verdict: Verdict,
}

/// Why text is no budget or no result.
#[derive(Debug, thiserror::Error)]
pub enum BudgetError {
    #[error("the budget cannot be read: {0}; mend the file, or write it anew with --accept")]
    File(#[from] toml::de::Error),
    #[error("gungraun's output is not JSON: {0}; is gungraun-runner of the library's version?")]
    Json(#[from] serde_json::Error),
    #[error("gungraun's output has no {0}; is gungraun-runner of the library's version?")]
    Shape(&'static str),
}

impl Budget {
    pub fn parse(text: &str) -> Result<Self, BudgetError> {
        Ok(toml::from_str(text)?)
    }

    /// The budget that holds for several runs: the median, and room for what was seen.
    pub fn of(runs: &[Counts], rustc: String, valgrind: String) -> Self {
        let mut all: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (bench, count) in runs.iter().flatten() {
            all.entry(bench.clone()).or_default().push(*count);
        }
        let bench = all.into_iter().map(|(bench, counts)| (bench, Kept::of(counts))).collect();
        Self { rustc, valgrind, bench }
    }

    /// The file's text.
    pub fn write(&self) -> String {
        let mut text = String::from(concat!(
            "# SPDX-License-Identifier: Apache-2.0\n",
            "# Instructions of one round of each bench, both sides together, and by what fraction\n",
            "# they may grow. Written by `target/release/budget --accept`;\n",
            "# README.md says what is counted and when to accept.\n\n",
        ));
        // Writing into a String cannot fail.
        let _ = writeln!(text, "rustc = {:?}", self.rustc);
        let _ = writeln!(text, "valgrind = {:?}\n\n[bench]", self.valgrind);
        for (bench, kept) in &self.bench {
            let Kept { instructions, growth } = kept;
            let _ = writeln!(
                text,
                "{bench:?} = {{ instructions = {instructions}, growth = {growth:.3} }}"
            );
        }
        text
    }

    /// A row for each bench that has a budget or was counted.
    pub fn judge(&self, now: &Counts) -> Vec<Row> {
        let mut benches: Vec<&String> = self.bench.keys().chain(now.keys()).collect();
        benches.sort_unstable();
        benches.dedup();
        benches
            .into_iter()
            .map(|bench| {
                let (kept, now) = (self.bench.get(bench).copied(), now.get(bench).copied());
                Row { bench: bench.clone(), kept, now, verdict: verdict(kept, now) }
            })
            .collect()
    }
}

impl Kept {
    fn of(mut counts: Vec<u64>) -> Self {
        counts.sort_unstable();
        let instructions = counts[counts.len() / 2];
        let spread = (counts[counts.len() - 1] - counts[0]) as f64 / instructions as f64;
        Self { instructions, growth: GROWTH.max(SPREADS * spread) }
    }
}

impl Verdict {
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Grown | Self::New | Self::Gone)
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Kept => "ok",
            Self::Shrunk => "shrunk",
            Self::Grown => "GROWN",
            Self::New => "NEW",
            Self::Gone => "GONE",
        }
    }
}

fn verdict(kept: Option<Kept>, now: Option<u64>) -> Verdict {
    match (kept, now) {
        (Some(kept), Some(now)) => {
            let ratio = now as f64 / kept.instructions as f64;
            if ratio > 1.0 + kept.growth {
                Verdict::Grown
            } else if ratio < 1.0 - kept.growth {
                Verdict::Shrunk
            } else {
                Verdict::Kept
            }
        }
        (None, _) => Verdict::New,
        (_, None) => Verdict::Gone,
    }
}

/// Reads what gungraun prints with `--output-format=json`: one object a bench.
pub fn read_counts(printed: &str) -> Result<Counts, BudgetError> {
    let mut counts = Counts::new();
    for summary in serde_json::Deserializer::from_str(printed).into_iter::<Value>() {
        let summary = summary?;
        let word = |field| summary.get(field).and_then(Value::as_str);
        let function = word("function_name").ok_or(BudgetError::Shape("function_name"))?;
        let id = word("id").ok_or(BudgetError::Shape("id"))?;
        let count = instructions(&summary).ok_or(BudgetError::Shape("count of instructions"))?;
        counts.insert(format!("{function}.{id}"), count / ROUNDS as u64);
    }
    Ok(counts)
}

/// gungraun's own words: Ir is an instruction that was executed.
fn instructions(summary: &Value) -> Option<u64> {
    let profiles = summary.get("profiles")?.as_array()?;
    profiles.iter().find_map(|one| one.pointer("/data/total/metrics/Ir/values/new")?.as_u64())
}

#[cfg(test)]
mod tests;
