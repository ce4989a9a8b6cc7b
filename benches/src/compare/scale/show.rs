//! The table and the plots of a scale measurement. Called by `report`.
//!
//! Never: joins what was measured under different loads.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::super::figures::{cpu_gb, cpu_us, rate, rate_gb};
use super::super::plot::{BarRow, Bars, Line, Lines};
use super::super::record::{Point, Scale, Window};
use super::super::stats::{Spread, ratios};
use super::super::table::{mark, markdown, number};

/// How a point of some load is read: the figure, its unit, and the throughput beside it.
struct Reading {
    unit: &'static str,
    of: fn(&Window) -> Option<f64>,
    beside: fn(&Window) -> Option<f64>,
    beside_unit: &'static str,
}

/// Series and load, in the order of the table.
const SHOWN: [(&str, &str); 8] = [
    ("connections", "requests"),
    ("connections", "new connections"),
    ("endpoints", "requests"),
    ("endpoints", "new connections"),
    ("named", "requests"),
    ("named", "new connections"),
    ("streams", "bulk"),
    ("renewals", "1,000 requests a second"),
];

fn reading(load: &str) -> Reading {
    match load {
        "requests" => {
            Reading { unit: "CPU-µs per request", of: cpu_us, beside: rate, beside_unit: "req/s" }
        }
        "new connections" => Reading {
            unit: "CPU-µs per connection",
            of: cpu_us,
            beside: rate,
            beside_unit: "conn/s",
        },
        "bulk" => {
            Reading { unit: "CPU-s per GB", of: cpu_gb, beside: rate_gb, beside_unit: "GB/s" }
        }
        _ => Reading {
            unit: "µs, p99",
            of: |window| window.p99_us.map(f64::from),
            beside: |window| window.p50_us.map(f64::from),
            beside_unit: "µs, p50",
        },
    }
}

/// What was varied, in words.
pub(crate) fn varied() -> BTreeMap<String, String> {
    let words = [
        (
            "connections",
            "connections of one client to one server that are open; requests go over all of them \
             in turn, 32 under way at once; new connections are opened 32 at a time beside them",
        ),
        (
            "endpoints",
            "distinct addresses and ports of five servers with five identities and sidecars (16 \
             addresses each, up to 64 ports), all on CPU 1; one connection kept to each, or new connections to \
             all of them in turn. The client's sidecar asks the CA's directory about each, and \
             about 4,096 at most: connections to the others are refused, which are the errors at \
             5,000; \
             the figure there is of those that were not",
        ),
        (
            "named",
            "the same endpoints, with their 80 addresses named in the client's configuration \
             (`outbound.peer` without a port), so that the directory is not asked",
        ),
        ("streams", "downloads at once from one server"),
        (
            "renewals",
            "1,000 requests a second while SVIDs live for a day, and while they live for 4 s, the \
             shortest that the CA issues: each sidecar renews after 2.0 to 2.4 s, once a second is \
             not reached",
        ),
    ];
    words.map(|(series, text)| (series.to_owned(), text.to_owned())).into()
}

/// For whoever watches.
pub(super) fn in_one_line(point: &Point) -> String {
    let reading = reading(&point.load);
    let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
    format!(
        "round {} {} {}, {}: {} {}, {} {}, errors {}, others {:.0} %",
        point.round,
        point.series,
        point.at,
        point.load,
        shown((reading.of)(&point.window)),
        reading.unit,
        shown((reading.beside)(&point.window)),
        reading.beside_unit,
        point.window.errors,
        100.0 * point.window.disturbance(),
    )
}

/// One row for each point, and what was varied below.
pub(crate) fn table(all: &Scale) -> String {
    let head = ["what grows", "to", "load", "figure", "beside it", "to the first", "errors"];
    let mut rows = Vec::new();
    for (series, load) in SHOWN {
        let numbers = numbers(all, series, load);
        for at in &numbers {
            rows.push(row(all, (series, load), *at, numbers[0]));
        }
    }
    let mut text = format!(
        "{}. Medians over the rounds, in brackets the smallest and the largest. *To the first*: \
         the figure as a multiple of that of the smallest number, in the same round.\n\n",
        all.version
    );
    text.push_str(&markdown(&head.map(str::to_owned), &rows));
    text.push_str("\nWhat was varied:\n\n");
    for (series, words) in &all.varied {
        let _ = writeln!(text, "- **{series}**: {words}.");
    }
    for what in &all.left_out {
        let _ = writeln!(text, "- Left out: {what}.");
    }
    let first_error = all.points.iter().find_map(|point| point.window.first_error.as_deref());
    if let Some(why) = first_error {
        let _ = writeln!(text, "\nThe first error: {why}.");
    }
    let disturbed = all.points.iter().map(|point| point.window.disturbance());
    let _ = writeln!(
        text,
        "\nOther processes and the host took at most {:.0} % of the machine in any window (the CA \
         among them).",
        100.0 * disturbed.fold(0.0, f64::max)
    );
    text
}

fn row(all: &Scale, shown: (&str, &str), at: f64, first: f64) -> Vec<String> {
    let (series, load) = shown;
    let reading = reading(load);
    let spread = |of| Spread::of(&values(all, shown, at, of).into_values().collect::<Vec<_>>());
    let figure = spread(reading.of).map_or_else(
        || "-".to_owned(),
        |s| {
            format!(
                "{} ({} to {}) {}",
                number(s.median),
                number(s.least),
                number(s.most),
                reading.unit
            )
        },
    );
    let beside = spread(reading.beside).map_or_else(
        || "-".to_owned(),
        |s| format!("{} {}", number(s.median), reading.beside_unit),
    );
    let here = values(all, shown, at, reading.of);
    let ratio = Spread::of(&ratios(&here, &values(all, shown, first, reading.of)));
    let errors: u64 = of(all, series, load).filter(|p| p.at == at).map(|p| p.window.errors).sum();
    vec![
        series.to_owned(),
        named(all, series, at),
        load.to_owned(),
        figure,
        beside,
        ratio.map_or_else(|| "-".to_owned(), |s| format!("{:.2}", s.median)),
        errors.to_string(),
    ]
}

/// A number, or for renewals how many there were.
fn named(all: &Scale, series: &str, at: f64) -> String {
    if series != "renewals" {
        return mark(at);
    }
    let points = all.points.iter().filter(|point| point.series == series && point.at == at);
    let rates: Vec<f64> = points.filter_map(|point| point.renewals).collect();
    Spread::of(&rates).map_or_else(
        || "unknown".to_owned(),
        |rate| format!("{} a second, both sidecars", number(rate.median)),
    )
}

pub(crate) fn plots(all: &Scale) -> Vec<(&'static str, &'static str, String)> {
    let way = "less is better; median, and a line from the smallest to the largest round";
    let lines = |title: &str, across: &str, wanted: &[((&str, &str), &str)]| {
        let unit = format!("{}, {way}", reading(wanted[0].0.1).unit);
        let lines = wanted.iter().map(|(shown, name)| line(all, *shown, name));
        Lines {
            title: title.to_owned(),
            unit,
            across: across.to_owned(),
            lines: lines.filter(|line| !line.points.is_empty()).collect(),
        }
        .svg()
    };
    let requests = [
        (("connections", "requests"), "one endpoint"),
        (("endpoints", "requests"), "one each"),
        (("named", "requests"), "one each, named"),
    ];
    let connections = [
        (("connections", "new connections"), "kept beside"),
        (("endpoints", "new connections"), "endpoints"),
        (("named", "new connections"), "named endpoints"),
    ];
    vec![
        (
            "requests",
            "CPU of a request against kept connections",
            lines(
                "CPU of a request",
                "kept connections: all to one endpoint, or one to each",
                &requests,
            ),
        ),
        (
            "connections",
            "CPU of a new connection",
            lines(
                "CPU of a new connection",
                "connections kept beside it, or endpoints",
                &connections,
            ),
        ),
        (
            "streams",
            "CPU of bulk against streams",
            lines("CPU of bulk download", "streams at once", &[(("streams", "bulk"), "bulk")]),
        ),
        ("renewals", "Latency of 1,000 requests a second with and without renewals", renewals(all)),
    ]
}

fn line(all: &Scale, shown: (&str, &str), name: &str) -> Line {
    let point = |at: f64| {
        let values = values(all, shown, at, reading(shown.1).of);
        Some((at, Spread::of(&values.into_values().collect::<Vec<_>>())?))
    };
    let points = numbers(all, shown.0, shown.1).into_iter().filter_map(point).collect();
    Line { name: name.to_owned(), points }
}

fn renewals(all: &Scale) -> String {
    let (series, load) = SHOWN[7];
    let row = |at: f64| {
        let reading = reading(load);
        let spread =
            |of| Spread::of(&values(all, (series, load), at, of).into_values().collect::<Vec<_>>());
        BarRow {
            name: if at == 0.0 { "none" } else { "every 2 s" }.to_owned(),
            is_ours: at != 0.0,
            values: vec![spread(reading.beside), spread(reading.of)],
        }
    };
    Bars {
        title: "1,000 requests a second while SVIDs are renewed".to_owned(),
        unit: "µs, less is better; median, and a line from the smallest to the largest round"
            .to_owned(),
        series: vec!["p50".to_owned(), "p99".to_owned()],
        rows: numbers(all, series, load).into_iter().map(row).collect(),
    }
    .svg()
}

fn of<'a>(all: &'a Scale, series: &'a str, load: &'a str) -> impl Iterator<Item = &'a Point> {
    all.points.iter().filter(move |point| point.series == series && point.load == load)
}

/// The numbers that were reached, in order.
fn numbers(all: &Scale, series: &str, load: &str) -> Vec<f64> {
    let mut found: Vec<f64> = of(all, series, load).map(|point| point.at).collect();
    found.sort_by(f64::total_cmp);
    found.dedup();
    found
}

fn values(
    all: &Scale,
    (series, load): (&str, &str),
    at: f64,
    read: fn(&Window) -> Option<f64>,
) -> BTreeMap<usize, f64> {
    let points = of(all, series, load).filter(|point| point.at == at);
    points.filter_map(|point| Some((point.round, read(&point.window)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(round: usize, at: f64, cpu: f64) -> Point {
        let window = Window {
            seconds: 1.0,
            done: 1_000_000,
            cpu_s: BTreeMap::from([("server".to_owned(), cpu)]),
            ..Window::default()
        };
        let (series, load) = ("connections".to_owned(), "requests".to_owned());
        Point { round, series, load, at, window, renewals: None }
    }

    /// Round 1 ran on a machine half as fast; growth is what a round itself saw.
    #[test]
    fn growth_is_taken_within_a_round() {
        let points = vec![
            point(0, 10.0, 10.0),
            point(0, 1e3, 11.0),
            point(1, 10.0, 20.0),
            point(1, 1e3, 22.0),
        ];
        let all = Scale { points, varied: varied(), ..Scale::default() };
        let text = table(&all);
        assert!(text.contains("| connections | 1,000 | requests |"), "{text}");
        assert!(text.contains("| 1.10 | 0 |"), "{text}");
        assert!(plots(&all)[0].2.contains("one endpoint"));
    }
}
