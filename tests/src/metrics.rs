//! The metrics page of a sidecar or a CA, read into samples that a test can add up.
//!
//! Never: guesses at a line that it cannot read.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// One page.
#[derive(Clone, Debug)]
pub struct Metrics {
    samples: Vec<Sample>,
}

/// One line of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Metrics {
    pub fn parse(page: &str) -> Result<Self> {
        let lines = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines
            .map(|line| sample(line).with_context(|| format!("cannot read the metric {line:?}")))
            .collect::<Result<_>>()?;
        Ok(Self { samples })
    }

    /// The sum of all samples of this name whose labels have these values; 0 if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |sample: &&Sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|seen| seen == value))
        };
        self.samples.iter().filter(fits).map(|sample| sample.value).sum()
    }

    /// All samples of this name.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.name == name)
    }

    /// How many connections of this direction ended with this outcome word.
    pub fn outcome(&self, direction: &str, word: &str) -> f64 {
        let labels = [("direction", direction), ("outcome", word)];
        self.sum("myelin_connections_closed_total", &labels)
    }

    /// Every outcome word with its count, for error messages.
    pub fn outcomes(&self) -> BTreeMap<String, f64> {
        let mut found = BTreeMap::new();
        for sample in self.named("myelin_connections_closed_total") {
            let label = |key: &str| sample.labels.get(key).cloned().unwrap_or_default();
            *found.entry(format!("{} {}", label("direction"), label("outcome"))).or_insert(0.0) +=
                sample.value;
        }
        found
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, rest)) => (name, labels(rest.strip_suffix('}')?)?),
        None => (series, BTreeMap::new()),
    };
    Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
}

/// `key="value",...`; our label values hold neither quotes nor commas.
fn labels(text: &str) -> Option<BTreeMap<String, String>> {
    text.split(',')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=')?;
            Some((key.to_owned(), value.trim_matches('"').to_owned()))
        })
        .collect()
}
