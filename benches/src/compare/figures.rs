//! What a visit's windows mean: each figure with its unit and which way is better. Called by
//! `report`.
//!
//! Never: a figure that is not in this list; tables and plots are made from it alone.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;

use super::record::{Comparison, Visit, Window};
use super::stats::{Spread, ratios};

const GIGABYTE: f64 = 1e9;

/// One number of a visit.
pub(crate) struct Figure {
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) is_better_when: Better,
    pub(crate) of: fn(&Visit) -> Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Less,
    More,
}

use Better::{Less, More};

pub(crate) const FIGURES: [Figure; 17] = [
    figure("bulk1_rate", "bulk, 1 stream", "GB/s", More, |v| rate_gb(window(v, "bulk1")?)),
    figure("bulk1_cpu", "bulk, 1 stream", "CPU-s per GB", Less, |v| cpu_gb(window(v, "bulk1")?)),
    figure("bulk8_rate", "bulk, 8 streams", "GB/s", More, |v| rate_gb(window(v, "bulk8")?)),
    figure("bulk8_cpu", "bulk, 8 streams", "CPU-s per GB", Less, |v| cpu_gb(window(v, "bulk8")?)),
    figure("kept_rate", "requests on 32 kept connections", "req/s", More, |v| {
        rate(window(v, "kept")?)
    }),
    figure("kept_cpu", "requests on 32 kept connections", "CPU-µs per request", Less, |v| {
        cpu_us(window(v, "kept")?)
    }),
    figure("paced_p50", "requests at 1,000/s, p50", "µs", Less, |v| {
        window(v, "paced")?.p50_us.map(f64::from)
    }),
    figure("paced_p99", "requests at 1,000/s, p99", "µs", Less, |v| {
        window(v, "paced")?.p99_us.map(f64::from)
    }),
    figure("fresh_rate", "new connections, 32 at a time", "conn/s", More, |v| {
        rate(window(v, "fresh")?)
    }),
    figure("fresh_cpu", "new connections, 32 at a time", "CPU-µs per connection", Less, |v| {
        cpu_us(window(v, "fresh")?)
    }),
    figure("connect_p50", "new connections at 100/s, to the answer, p50", "µs", Less, |v| {
        window(v, "fresh_paced")?.p50_us.map(f64::from)
    }),
    figure("connect_p99", "new connections at 100/s, to the answer, p99", "µs", Less, |v| {
        window(v, "fresh_paced")?.p99_us.map(f64::from)
    }),
    figure("idle", "memory of an idle proxy", "MiB", Less, |v| {
        Some(mean(v.memory.as_ref()?.idle_kib) / 1024.0)
    }),
    figure("idle_1000", "memory of an idle connection, at 1,000", "KiB", Less, |v| {
        each_idle(v, 1_000)
    }),
    figure("idle_5000", "memory of an idle connection, at 5,000", "KiB", Less, |v| {
        each_idle(v, 5_000)
    }),
    figure("first_start", "start to the first answer, nothing on disk", "ms", Less, |v| {
        v.first_start_ms
    }),
    figure("start", "start to the first answer, again", "ms", Less, |v| v.start_ms),
];

const fn figure(
    key: &'static str,
    title: &'static str,
    unit: &'static str,
    is_better_when: Better,
    of: fn(&Visit) -> Option<f64>,
) -> Figure {
    Figure { key, title, unit, is_better_when, of }
}

impl Figure {
    pub(crate) fn named(key: &str) -> Option<&'static Self> {
        FIGURES.iter().find(|figure| figure.key == key)
    }

    /// One peer's values by round.
    pub(crate) fn rounds(&self, all: &Comparison, peer: &str) -> BTreeMap<usize, f64> {
        let visits = all.visits.iter().filter(|visit| visit.peer == peer);
        visits.filter_map(|visit| Some((visit.round, (self.of)(visit)?))).collect()
    }

    pub(crate) fn spread(&self, all: &Comparison, peer: &str) -> Option<Spread> {
        Spread::of(&self.rounds(all, peer).into_values().collect::<Vec<_>>())
    }

    /// One peer's figure as a multiple of another's, round by round.
    pub(crate) fn ratio(&self, all: &Comparison, ours: &str, theirs: &str) -> Option<Spread> {
        Spread::of(&ratios(&self.rounds(all, ours), &self.rounds(all, theirs)))
    }
}

/// For whoever watches.
pub(crate) fn in_one_line(visit: &Visit) -> String {
    let head = format!("round {} {}", visit.round, visit.peer);
    let shown = ["bulk1_cpu", "kept_cpu", "paced_p99", "fresh_cpu", "connect_p50", "start"];
    let figures = shown.iter().filter_map(|key| Figure::named(key));
    let mut parts: Vec<String> = figures
        .filter_map(|figure| Some(format!("{} {:.2}", figure.key, (figure.of)(visit)?)))
        .collect();
    let errors: u64 = visit.windows.values().map(|window| window.errors).sum();
    parts.push(format!("errors {errors}"));
    parts.push(format!("others {:.0} %", 100.0 * most_disturbed(visit)));
    parts.extend(visit.failed.iter().map(|why| format!("FAILED: {why}")));
    format!("{head}: {}", parts.join(", "))
}

/// The largest share of the machine that was somebody else's in any window.
pub(crate) fn most_disturbed(visit: &Visit) -> f64 {
    visit.windows.values().map(Window::disturbance).fold(0.0, f64::max)
}

/// CPU microseconds of both proxies for each request or connection.
pub(crate) fn cpu_us(window: &Window) -> Option<f64> {
    let spent = window.proxies_s();
    (spent > 0.0 && window.done > 0).then(|| spent * 1e6 / window.done as f64)
}

/// Requests or connections a second.
pub(crate) fn rate(window: &Window) -> Option<f64> {
    (window.done > 0).then(|| window.done as f64 / window.seconds)
}

pub(crate) fn rate_gb(window: &Window) -> Option<f64> {
    (window.bytes > 0).then(|| window.bytes as f64 / GIGABYTE / window.seconds)
}

pub(crate) fn cpu_gb(window: &Window) -> Option<f64> {
    let spent = window.proxies_s();
    (spent > 0.0 && window.bytes > 0).then(|| spent * GIGABYTE / window.bytes as f64)
}

fn window<'a>(visit: &'a Visit, name: &str) -> Option<&'a Window> {
    visit.windows.get(name)
}

fn each_idle(visit: &Visit, number: usize) -> Option<f64> {
    visit.memory.as_ref()?.per_connection_kib.get(&number).copied().map(mean)
}

/// Of the client's proxy and the server's.
fn mean(both: [f64; 2]) -> f64 {
    f64::midpoint(both[0], both[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_that_of_both_proxies_and_of_nobody_else() {
        let seconds = [("client", 1.0), ("server", 2.0), ("app", 9.0), ("load", 9.0)];
        let window = Window {
            seconds: 2.0,
            done: 1_000,
            bytes: 500_000_000,
            cpu_s: seconds.map(|(name, s)| (name.to_owned(), s)).into(),
            ..Window::default()
        };
        assert_eq!(cpu_us(&window), Some(3_000.0));
        assert_eq!(cpu_gb(&window), Some(6.0));
        assert_eq!(rate(&window), Some(500.0));
        assert_eq!(rate_gb(&window), Some(0.25));
    }

    #[test]
    fn nothing_done_is_no_figure() {
        assert_eq!(cpu_us(&Window::default()), None);
        assert_eq!(rate_gb(&Window { seconds: 1.0, ..Window::default() }), None);
    }

    #[test]
    fn every_figure_has_a_key_of_its_own() {
        for (index, figure) in FIGURES.iter().enumerate() {
            assert!(FIGURES[..index].iter().all(|other| other.key != figure.key), "{}", figure.key);
        }
    }
}
