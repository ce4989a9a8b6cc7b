//! Plots as SVG: bars for peers, lines for what grows. Each brings its own background, light or
//! dark as the reader's, and labels what it shows where it shows it. Called by `report`.
//!
//! Never: a plot without a title and a unit, or an axis that does not start at zero.

// SPDX-License-Identifier: Apache-2.0

use std::fmt::Write as _;

use super::stats::Spread;
use super::table::{mark, number};

const WIDTH: f64 = 760.0;
const LEFT: f64 = 96.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 62.0;
const BAR: f64 = 18.0;
const LINES_HEIGHT: f64 = 360.0;
const BOTTOM: f64 = 52.0;
/// A number of five digits and some room.
const MARK_WIDTH: f64 = 56.0;

/// Colours of the dark and light theme; text classes; `o` is our own, `p` are the others.
const STYLE: &str = "<style>\
    .bg{fill:#fff}.t{fill:#111827}.s{fill:#4b5563}.g{stroke:#e5e7eb}.w{stroke:#111827}\
    .o0{fill:#1d4ed8}.o1{fill:#7ea6f4}.p0{fill:#6b7280}.p1{fill:#b6bcc6}\
    .l0{stroke:#1d4ed8}.l1{stroke:#b45309}.l2{stroke:#047857}.l3{stroke:#7c3aed}\
    .f0{fill:#1d4ed8}.f1{fill:#b45309}.f2{fill:#047857}.f3{fill:#7c3aed}\
    text{font:13px system-ui,sans-serif}.h{font-size:16px;font-weight:600}\
    @media(prefers-color-scheme:dark){.bg{fill:#0d1117}.t{fill:#e6edf3}.s{fill:#9da7b3}\
    .g{stroke:#30363d}.w{stroke:#e6edf3}.o0{fill:#4c8dff}.o1{fill:#2b4f8f}.p0{fill:#8b949e}\
    .p1{fill:#4d5560}.l0{stroke:#4c8dff}.l1{stroke:#f0a04b}.l2{stroke:#3fb68b}.l3{stroke:#a98bf5}\
    .f0{fill:#4c8dff}.f1{fill:#f0a04b}.f2{fill:#3fb68b}.f3{fill:#a98bf5}}</style>";

/// One bar for each series of each peer, with its smallest and largest round.
pub(crate) struct Bars {
    pub(crate) title: String,
    pub(crate) unit: String,
    /// Said at each bar; one series needs no name.
    pub(crate) series: Vec<String>,
    pub(crate) rows: Vec<BarRow>,
}

pub(crate) struct BarRow {
    pub(crate) name: String,
    pub(crate) is_ours: bool,
    pub(crate) values: Vec<Option<Spread>>,
}

/// Lines over a logarithmic axis.
pub(crate) struct Lines {
    pub(crate) title: String,
    pub(crate) unit: String,
    pub(crate) across: String,
    /// At most four.
    pub(crate) lines: Vec<Line>,
}

pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, Spread)>,
}

impl Bars {
    pub(crate) fn svg(&self) -> String {
        let most = self.rows.iter().flat_map(|row| row.values.iter().flatten());
        let axis = Axis::up_to(most.map(|value| value.most).fold(0.0, f64::max));
        let group = BAR * self.series.len() as f64 + 14.0;
        let bottom = TOP + group * self.rows.len() as f64;
        let scale = (WIDTH - LEFT - RIGHT) / axis.end;
        let mut svg = open(bottom + 34.0, &self.title, &self.unit);
        for tick in axis.ticks() {
            let x = LEFT + tick * scale;
            line(&mut svg, "g", (x, TOP - 6.0), (x, bottom));
            text(&mut svg, "s", "middle", (x, bottom + 18.0), &mark(tick));
        }
        for (index, row) in self.rows.iter().enumerate() {
            let top = TOP + group * index as f64;
            let middle = top + (group - 14.0) / 2.0 + 5.0;
            text(&mut svg, "t", "end", (LEFT - 10.0, middle), &row.name);
            for (series, value) in row.values.iter().enumerate() {
                let y = top + BAR * series as f64;
                let Some(value) = value else {
                    text(&mut svg, "s", "start", (LEFT + 6.0, y + 13.0), "not measured");
                    continue;
                };
                let class = format!("{}{}", if row.is_ours { "o" } else { "p" }, series.min(1));
                let (width, height) = (value.median * scale, BAR - 3.0);
                let _ = writeln!(
                    svg,
                    "<rect class=\"{class}\" x=\"{LEFT:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
                     height=\"{height:.1}\"/>"
                );
                let half = y + height / 2.0;
                let ends = [value.least, value.most].map(|value| LEFT + value * scale);
                line(&mut svg, "w", (ends[0], half), (ends[1], half));
                let said = match self.series.len() {
                    1 => number(value.median),
                    _ => format!("{} {}", number(value.median), self.series[series]),
                };
                let at = (ends[1].max(LEFT + width) + 7.0, y + 12.5);
                text(&mut svg, "t", "start", at, &said);
            }
        }
        svg + "</svg>\n"
    }
}

impl Lines {
    pub(crate) fn svg(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let axis = Axis::up_to(points().map(|(_, value)| value.most).fold(0.0, f64::max));
        let positions = points().map(|(at, _)| at.log10());
        let (from, to) =
            positions.fold((f64::MAX, f64::MIN), |(low, high), at| (low.min(at), high.max(at)));
        let width = WIDTH - LEFT - RIGHT;
        let height = LINES_HEIGHT - TOP - BOTTOM;
        let x = |at: f64| LEFT + width * (at.log10() - from) / (to - from).max(1e-9);
        let y = |value: f64| TOP + height * (1.0 - value / axis.end);
        let mut svg = open(LINES_HEIGHT, &self.title, &self.unit);
        for tick in axis.ticks() {
            line(&mut svg, "g", (LEFT, y(tick)), (LEFT + width, y(tick)));
            text(&mut svg, "s", "end", (LEFT - 8.0, y(tick) + 4.5), &mark(tick));
        }
        let marks = readable(points().map(|(at, _)| *at).collect(), x);
        let below = TOP + height + 18.0;
        for at in marks {
            text(&mut svg, "s", "middle", (x(at), below), &mark(at));
        }
        text(&mut svg, "s", "middle", (LEFT + width / 2.0, below + 20.0), &self.across);
        let ends = self.lines.iter().map(|line| line.points.last().map_or(0.0, |p| y(p.1.median)));
        let labels = apart(&ends.collect::<Vec<_>>(), 16.0);
        for (index, one) in self.lines.iter().enumerate() {
            let class = index.min(3);
            let path: Vec<String> = one
                .points
                .iter()
                .map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(value.median)))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline class=\"l{class}\" fill=\"none\" stroke-width=\"2\" points=\"{}\"/>",
                path.join(" ")
            );
            for (at, value) in &one.points {
                let (x, y, low, high) = (x(*at), y(value.median), y(value.least), y(value.most));
                line(&mut svg, &format!("l{class}"), (x, low), (x, high));
                let _ = writeln!(
                    svg,
                    "<circle class=\"f{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"/>"
                );
            }
            let at = (LEFT + width + 10.0, labels[index] + 4.5);
            text(&mut svg, &format!("f{class}"), "start", at, &one.name);
        }
        svg + "</svg>\n"
    }
}

/// From zero to a round number, in four to eight steps.
struct Axis {
    step: f64,
    end: f64,
}

impl Axis {
    fn up_to(most: f64) -> Self {
        let most = if most > 0.0 { most } else { 1.0 };
        let decade = 10_f64.powf((most / 5.0).log10().floor());
        let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * decade);
        let step = steps.into_iter().find(|step| most / step <= 6.0).unwrap_or(10.0 * decade);
        Self { step, end: (most / step).ceil() * step }
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let count = (self.end / self.step).round() as usize;
        (0..=count).map(|tick| tick as f64 * self.step)
    }
}

/// The marks of an axis that leave room for each other; the largest is always there.
fn readable(mut marks: Vec<f64>, x: impl Fn(f64) -> f64) -> Vec<f64> {
    marks.sort_by(|a, b| b.total_cmp(a));
    let mut kept: Vec<f64> = Vec::new();
    for at in marks {
        if kept.last().is_none_or(|above| x(*above) - x(at) >= MARK_WIDTH) {
            kept.push(at);
        }
    }
    kept
}

/// Moves labels down until none covers another; they stay in their order.
fn apart(wanted: &[f64], distance: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    let mut placed = wanted.to_vec();
    for pair in order.windows(2) {
        placed[pair[1]] = placed[pair[1]].max(placed[pair[0]] + distance);
    }
    placed
}

fn open(height: f64, title: &str, unit: &str) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\">\n<title>{}</title>\n{STYLE}\n\
         <rect class=\"bg\" width=\"100%\" height=\"100%\"/>\n",
        escape(title)
    );
    text(&mut svg, "t h", "start", (20.0, 26.0), title);
    text(&mut svg, "s", "start", (20.0, 46.0), unit);
    svg
}

fn line(svg: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        svg,
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

fn text(svg: &mut String, class: &str, anchor: &str, at: (f64, f64), said: &str) {
    let (x, y) = at;
    let said = escape(said);
    let _ = writeln!(
        svg,
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{said}</text>"
    );
}

fn escape(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    text.replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(median: f64) -> Spread {
        Spread { median, least: median * 0.9, most: median * 1.1 }
    }

    #[test]
    fn what_is_written_into_a_plot_stays_text() {
        assert_eq!(escape("<a & \"b\">"), "&lt;a &amp; &quot;b&quot;&gt;");
        let bars = Bars {
            title: "a < b".into(),
            unit: "MiB".into(),
            series: vec![String::new()],
            rows: vec![BarRow { name: "<x>".into(), is_ours: true, values: vec![None] }],
        };
        let svg = bars.svg();
        assert!(svg.contains("<title>a &lt; b</title>") && svg.contains("&lt;x&gt;"), "{svg}");
        assert!(!svg.contains("<x>"), "{svg}");
    }

    #[test]
    fn an_axis_starts_at_zero_ends_round_and_holds_everything() {
        for most in [0.07, 0.9, 1.0, 3.3, 62.0, 953.0, 62_497.0] {
            let axis = Axis::up_to(most);
            let ticks: Vec<f64> = axis.ticks().collect();
            assert_eq!(ticks[0], 0.0);
            assert!((3..=8).contains(&ticks.len()), "{most}: {ticks:?}");
            assert!(axis.end >= most && axis.end <= most * 1.6, "{most}: {}", axis.end);
        }
    }

    #[test]
    fn marks_leave_room_and_the_largest_stays() {
        let marks = readable(vec![10.0, 10.0, 1e3, 4e3, 5e3, 6.4e3], |at| 200.0 * at.log10());
        assert_eq!(marks, [6.4e3, 1e3, 10.0]);
    }

    #[test]
    fn labels_do_not_cover_each_other() {
        assert_eq!(apart(&[100.0, 102.0, 50.0], 16.0), [100.0, 116.0, 50.0]);
    }

    #[test]
    fn both_kinds_say_title_unit_and_values() {
        let rows = vec![BarRow {
            name: "myelin".into(),
            is_ours: true,
            values: vec![Some(spread(312.0)), Some(spread(1_150.0))],
        }];
        let series = vec!["p50".to_owned(), "p99".to_owned()];
        let bars = Bars { title: "Latency".into(), unit: "µs".into(), series, rows }.svg();
        assert!(["Latency", "µs", "312 p50", "1,150 p99"].iter().all(|t| bars.contains(t)));
        let one =
            Line { name: "requests".into(), points: vec![(10.0, spread(5.0)), (1e3, spread(6.0))] };
        let (title, unit, across) = ("Scale".into(), "CPU-µs".into(), "connections".into());
        let lines = Lines { title, unit, across, lines: vec![one] }.svg();
        assert!(["Scale", "CPU-µs", "connections", "1,000"].iter().all(|t| lines.contains(t)));
    }
}
