//! Turns kept runs into tables and plots, and writes them to their places. Called by `mod`.
//!
//! Never: measures, or leaves a number in a page that is not in the JSON beside it.

// SPDX-License-Identifier: Apache-2.0

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::figures::{Better, FIGURES, Figure, most_disturbed};
use super::plot::{BarRow, Bars};
use super::record::{Comparison, Machine, Scale};
use super::table::{markdown, number};
use super::{pretty, read, scale};

/// Against whom every peer's ratio is taken.
const OURS: &str = "myelin";

/// File name, title, and the figures that one plot shows, each with the name of its bars.
type Shown = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const PLOTS: [Shown; 8] = [
    ("bulk-rate", "Bulk download", &[("bulk1_rate", "1 stream"), ("bulk8_rate", "8 streams")]),
    ("bulk-cpu", "CPU of bulk download", &[("bulk1_cpu", "1 stream"), ("bulk8_cpu", "8 streams")]),
    ("requests-cpu", "CPU of a 1 KiB request, 32 kept connections", &[("kept_cpu", "")]),
    (
        "requests-latency",
        "Latency of 1,000 requests a second",
        &[("paced_p50", "p50"), ("paced_p99", "p99")],
    ),
    ("connections-cpu", "CPU of a new connection, 32 at a time", &[("fresh_cpu", "")]),
    (
        "connections-latency",
        "New connection to its answer, 100 a second",
        &[("connect_p50", "p50"), ("connect_p99", "p99")],
    ),
    (
        "memory",
        "Memory of an idle connection in one proxy",
        &[("idle_1000", "of 1,000"), ("idle_5000", "of 5,000")],
    ),
    (
        "start",
        "Start of both proxies to the first answer",
        &[("first_start", "nothing on disk"), ("start", "again")],
    ),
];

/// The tables of a comparison, as they stand in the README.
pub(crate) fn comparison(all: &Comparison) -> String {
    let mut text = where_and_when(&all.machine, all.quick);
    let peers: Vec<&str> = all.peers.iter().map(|peer| peer.name.as_str()).collect();
    let rounds = all.visits.iter().map(|visit| visit.round + 1).max().unwrap_or_default();
    let head = |first: &str, names: &[&str]| -> Vec<String> {
        [first].iter().chain(names).map(|&name| name.to_owned()).collect()
    };
    let _ = writeln!(
        text,
        "Medians over {rounds} round(s); in brackets the smallest and the largest.\n"
    );
    let filled = rows(&peers, |figure, peer| {
        let spread = figure.spread(all, peer)?;
        let [median, least, most] = [spread.median, spread.least, spread.most].map(number);
        Some(format!("{median} ({least} to {most})"))
    });
    text.push_str(&markdown(&head("", &peers), &filled));
    let others: Vec<&str> = peers.iter().copied().filter(|peer| *peer != OURS).collect();
    if peers.contains(&OURS) && !others.is_empty() {
        let against: Vec<String> = others.iter().map(|peer| format!("to {peer}")).collect();
        let against: Vec<&str> = against.iter().map(String::as_str).collect();
        text.push_str(
            "\nMyelin's figure as a multiple of theirs, median of the rounds' own ratios.\n\n",
        );
        let filled = rows(&others, |figure, peer| {
            Some(format!("{:.2}", figure.ratio(all, OURS, peer)?.median))
        });
        text.push_str(&markdown(&head("", &against), &filled));
    }
    text.push_str(&who(all));
    text
}

/// One row for each figure that somebody has.
fn rows(peers: &[&str], cell: impl Fn(&Figure, &str) -> Option<String>) -> Vec<Vec<String>> {
    let one = |figure: &Figure| {
        let cells: Vec<Option<String>> = peers.iter().map(|peer| cell(figure, peer)).collect();
        cells.iter().any(Option::is_some).then(|| {
            let way = match figure.is_better_when {
                Better::Less => "less",
                Better::More => "more",
            };
            let name = format!("{}: {} ({way} is better)", figure.title, figure.unit);
            let cells = cells.into_iter().map(|cell| cell.unwrap_or_else(|| "-".to_owned()));
            [name].into_iter().chain(cells).collect()
        })
    };
    FIGURES.iter().filter_map(one).collect()
}

/// Who was measured, what they negotiated, what went wrong, and how quiet the machine was.
fn who(all: &Comparison) -> String {
    let mut text = "\nWho was measured:\n\n".to_owned();
    for peer in &all.peers {
        let _ = write!(text, "- **{}** ({}): {}.", peer.name, peer.version, peer.about);
        if let Some(wire) = &peer.wire {
            let join = |counts: &std::collections::BTreeMap<String, u64>| {
                counts.keys().cloned().collect::<Vec<_>>().join(", ")
            };
            let (groups, ciphers) = (join(&wire.groups), join(&wire.ciphers));
            let resumed = 100.0 * wire.resumed as f64 / wire.handshakes.max(1) as f64;
            let _ = write!(
                text,
                " On the wire: {}, {groups}, {ciphers}; {resumed:.0} % of the handshakes resumed.",
                join(&wire.versions)
            );
        }
        text.push('\n');
    }
    for (peer, why) in &all.skipped {
        let _ = writeln!(text, "- **{peer}** was skipped: {why}.");
    }
    let mut faults = Vec::new();
    for visit in &all.visits {
        let at = format!("{} in round {}", visit.peer, visit.round + 1);
        faults.extend(visit.failed.iter().map(|why| format!("{at} failed: {why}")));
        for (name, window) in visit.windows.iter().filter(|(_, window)| window.errors > 0) {
            let why = window.first_error.as_deref().unwrap_or("unknown");
            faults.push(format!("{at}, {name}: {} errors, first: {why}", window.errors));
        }
        let memory = visit.memory.as_ref().map_or(0, |memory| memory.errors);
        if memory > 0 {
            faults.push(format!("{at}, memory: {memory} connections did not open"));
        }
    }
    text.push_str(&if faults.is_empty() {
        "\nNo request failed in any window.\n".to_owned()
    } else {
        format!("\nWhat went wrong:\n\n- {}\n", faults.join("\n- "))
    });
    let disturbed = all.visits.iter().map(most_disturbed).fold(0.0, f64::max);
    let _ = writeln!(
        text,
        "\nOther processes and the host took at most {:.0} % of the machine in any window.",
        100.0 * disturbed
    );
    text
}

fn where_and_when(machine: &Machine, quick: bool) -> String {
    let arguments = machine.arguments.join(" ");
    let mut text = format!(
        "{}, {} cores of {}, {} MiB, Linux {}; `compare {arguments}`.\n\n",
        machine.date, machine.cores, machine.cpu, machine.memory_mib, machine.kernel
    );
    if quick {
        text.push_str("**Made with `--quick`: a look whether it works, not a result.**\n\n");
    }
    text
}

/// The table of a scale measurement.
pub(crate) fn scale(all: &Scale) -> String {
    where_and_when(&all.machine, all.quick) + &scale::table(all)
}

pub(crate) fn keep_comparison(all: &Comparison) -> Result<()> {
    write("results/compare.json", &json(all)?)?;
    for peer in &all.peers {
        for (name, text) in &peer.configuration {
            write(&format!("results/peers/{}/{name}", peer.name), text)?;
        }
    }
    render_comparison(all)
}

pub(crate) fn keep_scale(all: &Scale) -> Result<()> {
    write("results/scale.json", &json(all)?)?;
    render_scale(all)
}

/// Tables and plots of what is kept.
pub(crate) fn render() -> Result<()> {
    render_comparison(&read(&place("results/compare.json"))?)?;
    render_scale(&read(&place("results/scale.json"))?)
}

fn render_comparison(all: &Comparison) -> Result<()> {
    let mut images = String::new();
    for shown in &PLOTS {
        let name = format!("compare-{}", shown.0);
        write(&format!("plots/{name}.svg"), &bars(all, shown).svg())?;
        let _ = writeln!(images, "![{}](plots/{name}.svg)\n", shown.1);
    }
    embed("compare", &format!("{images}{}", comparison(all)))
}

fn render_scale(all: &Scale) -> Result<()> {
    let mut images = String::new();
    for (name, title, svg) in scale::plots(all) {
        write(&format!("plots/scale-{name}.svg"), &svg)?;
        let _ = writeln!(images, "![{title}](plots/scale-{name}.svg)\n");
    }
    embed("scale", &format!("{images}{}", scale(all)))
}

fn bars(all: &Comparison, (_, title, keys): &Shown) -> Bars {
    let figures: Vec<(&Figure, &str)> =
        keys.iter().filter_map(|(key, name)| Some((Figure::named(key)?, *name))).collect();
    let row = |name: &str| BarRow {
        name: name.to_owned(),
        is_ours: name == OURS,
        values: figures.iter().map(|(figure, _)| figure.spread(all, name)).collect(),
    };
    let rows = all.peers.iter().map(|peer| row(&peer.name));
    let unit = figures.first().map_or("", |(figure, _)| figure.unit);
    let way = match figures.first().map(|(figure, _)| figure.is_better_when) {
        Some(Better::More) => "more is better",
        _ => "less is better",
    };
    Bars {
        title: (*title).to_owned(),
        unit: format!("{unit}, {way}; median, and a line from the smallest to the largest round"),
        series: figures.iter().map(|(_, name)| (*name).to_owned()).collect(),
        rows: rows.filter(|row| row.values.iter().any(Option::is_some)).collect(),
    }
}

fn json(of: &impl Serialize) -> Result<String> {
    Ok(pretty(of)? + "\n")
}

/// Below the crate's own folder.
fn place(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn write(name: &str, text: &str) -> Result<()> {
    let path = place(name);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn embed(section: &str, text: &str) -> Result<()> {
    let path = place("README.md");
    let page = fs::read_to_string(&path).context("cannot read benches/README.md")?;
    let made = embedded(&page, section, text)
        .with_context(|| format!("benches/README.md has no markers of the section {section}"))?;
    fs::write(&path, made).context("cannot write benches/README.md")
}

/// The page with this text between the section's markers.
fn embedded(page: &str, section: &str, text: &str) -> Option<String> {
    let (before, rest) = page.split_once(&format!("<!-- {section}:begin -->"))?;
    let end = format!("<!-- {section}:end -->");
    let (_, after) = rest.split_once(&end)?;
    let text = text.trim();
    Some(format!("{before}<!-- {section}:begin -->\n\n{text}\n\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::record::{PeerFacts, Visit, Window};
    use super::*;

    fn visit(peer: &str, round: usize, cpu: f64) -> Visit {
        let window = Window {
            seconds: 1.0,
            done: 1_000_000,
            cpu_s: BTreeMap::from([("client".to_owned(), cpu)]),
            ..Window::default()
        };
        let windows = BTreeMap::from([("kept".to_owned(), window)]);
        Visit { round, peer: peer.to_owned(), windows, ..Visit::default() }
    }

    fn two_peers() -> Comparison {
        let facts = |name: &str| PeerFacts { name: name.to_owned(), ..PeerFacts::default() };
        Comparison {
            peers: vec![facts("myelin"), facts("envoy")],
            visits: vec![
                visit("myelin", 0, 10.0),
                visit("envoy", 0, 20.0),
                visit("envoy", 1, 80.0),
                visit("myelin", 1, 40.0),
            ],
            ..Comparison::default()
        }
    }

    #[test]
    fn a_table_has_medians_and_ratios_of_what_was_measured_only() {
        let text = comparison(&two_peers());
        let row = "| requests on 32 kept connections: CPU-µs per request (less is better) |";
        assert!(
            text.contains(&format!("{row} 25.0 (10.0 to 40.0) | 50.0 (20.0 to 80.0) |")),
            "{text}"
        );
        assert!(text.contains(&format!("{row} 0.50 |")), "{text}");
        assert!(!text.contains("bulk"), "{text}");
    }

    #[test]
    fn a_failure_is_in_the_report() {
        let mut all = two_peers();
        all.visits[0].failed = Some("no answer".into());
        all.skipped.insert("nginx".into(), "not installed".into());
        let text = comparison(&all);
        assert!(text.contains("myelin in round 1 failed: no answer"), "{text}");
        assert!(text.contains("**nginx** was skipped: not installed"), "{text}");
    }

    #[test]
    fn every_plot_shows_figures_that_exist_in_one_unit() {
        for shown in &PLOTS {
            let units: Vec<&str> =
                shown.2.iter().map(|(key, _)| Figure::named(key).unwrap().unit).collect();
            assert!(units.windows(2).all(|two| two[0] == two[1]), "{}: {units:?}", shown.0);
        }
        assert!(bars(&two_peers(), &PLOTS[2]).svg().contains("CPU-µs per request"));
    }

    #[test]
    fn text_between_markers_is_replaced_and_the_rest_stays() {
        let page = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n";
        let made = embedded(page, "x", "new\n").unwrap();
        assert_eq!(made, "a\n<!-- x:begin -->\n\nnew\n\n<!-- x:end -->\nb\n");
        assert_eq!(embedded(&made, "x", "new").unwrap(), made);
        assert_eq!(embedded(page, "y", "new"), None);
    }
}
