//! Progress while it measures, and the figures at the end: a table for people, one JSON object for
//! machines. Called by all measurements.
//!
//! Never: with JSON, anything else on standard output.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

/// A line redrawn more often than this is only work.
const REDRAW_EVERY: Duration = Duration::from_millis(100);

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

pub(crate) struct Figure {
    bench: &'static str,
    name: String,
    value: f64,
    unit: &'static str,
    bound: Option<Bound>,
}

impl Figure {
    pub(crate) fn new(
        bench: &'static str,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
    ) -> Self {
        Self { bench, name: name.into(), value, unit, bound: None }
    }

    pub(crate) fn bound(self, bound: Bound) -> Self {
        Self { bound: Some(bound), ..self }
    }

    fn verdict(&self) -> Option<bool> {
        self.bound.map(|bound| match bound {
            Bound::AtLeast(least) => self.value >= least,
            Bound::AtMost(most) => self.value <= most,
        })
    }
}

pub(crate) struct Show {
    json: bool,
    live: bool,
    drawn: Mutex<Option<Instant>>,
}

impl Show {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, live: std::io::stderr().is_terminal(), drawn: Mutex::new(None) }
    }

    /// What happens now.
    pub(crate) fn step(&self, what: &str) {
        self.clear();
        eprintln!("{what}");
    }

    pub(crate) fn progress(&self, what: &str, done: usize, all: usize) {
        let Ok(mut drawn) = self.drawn.lock() else { return };
        let now = Instant::now();
        if !self.live || drawn.is_some_and(|last| now < last + REDRAW_EVERY) {
            return;
        }
        *drawn = Some(now);
        eprint!("\r\x1b[K  {what}: {done} of {all}");
        // A terminal that is gone needs no picture.
        let _ = std::io::stderr().flush();
    }

    pub(crate) fn figures(&self, figures: &[Figure]) {
        self.clear();
        if self.json {
            let figures: Vec<_> = figures.iter().map(as_json).collect();
            println!("{}", json!({ "figures": figures }));
            return;
        }
        println!("| bench | figure | measured | target | |\n|---|---|---:|---:|---|");
        for it in figures {
            let target = it.bound.map_or(String::new(), |bound| match bound {
                Bound::AtLeast(least) => format!(">= {}", number(least)),
                Bound::AtMost(most) => format!("<= {}", number(most)),
            });
            let verdict = it.verdict().map_or("", |met| if met { "met" } else { "MISSED" });
            let (bench, name, unit, value) = (it.bench, &it.name, it.unit, number(it.value));
            println!("| {bench} | {name} | {value} {unit} | {target} | {verdict} |");
        }
    }

    fn clear(&self) {
        let drawn = self.drawn.lock().map(|mut drawn| drawn.take());
        if let Ok(Some(_)) = drawn {
            eprint!("\r\x1b[K");
        }
    }
}

fn as_json(it: &Figure) -> serde_json::Value {
    let bound = it.bound.map(|bound| match bound {
        Bound::AtLeast(least) => json!({ "at_least": least }),
        Bound::AtMost(most) => json!({ "at_most": most }),
    });
    json!({
        "bench": it.bench, "figure": it.name, "value": it.value, "unit": it.unit,
        "target": bound, "met": it.verdict(),
    })
}

/// Three digits that count, or all before the point.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}
