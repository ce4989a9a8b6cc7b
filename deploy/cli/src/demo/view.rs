//! What the demo shows while it runs: a small picture that redraws itself on a terminal, plain lines
//! elsewhere, JSON for machines. Called by the story.
//! Never: measures; and with JSON, never writes anything else to standard output.

// SPDX-License-Identifier: Apache-2.0

use std::collections::VecDeque;
use std::fmt::Arguments;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use serde_json::{Value, json};
use terminal_size::{Width, terminal_size};
use tokio::time::Instant;

use super::claims::{self, Claim};
use super::sample::{Sample, grouped};

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const CYAN: &str = "\x1b[36m";
const END: &str = "\x1b[0m";

/// Rates are averages over this time, so that they can be read.
const RATE_OVER: Duration = Duration::from_secs(2);

/// Where nobody redraws, a line this often shows that the demo lives.
const PLAIN_EVERY: Duration = Duration::from_secs(4);
const JSON_EVERY: Duration = Duration::from_secs(1);

/// Wider lines are hard to read; narrower terminals get shorter ones.
const WIDEST: usize = 110;
/// Cargo runs in terminals of unknown width where nothing else is known.
const WIDTH_ELSEWHERE: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Live,
    Plain,
    Json,
}

#[derive(Debug)]
pub(super) struct View {
    form: Form,
    /// Lines of the live picture that stand on the terminal now.
    drawn: usize,
    chapter: String,
    began: Option<Instant>,
    told: Option<Instant>,
    recent: VecDeque<Sample>,
}

/// Whatever ends the demo, no half picture stays behind.
impl Drop for View {
    fn drop(&mut self) {
        self.clear_live();
    }
}

impl View {
    pub(super) fn new(is_json: bool) -> Self {
        let form = match (is_json, std::io::stdout().is_terminal()) {
            (true, _) => Form::Json,
            (false, true) => Form::Live,
            (false, false) => Form::Plain,
        };
        let (chapter, recent) = (String::new(), VecDeque::new());
        Self { form, drawn: 0, chapter, began: None, told: None, recent }
    }

    /// One crate of the build has begun. Called before the runtime starts.
    pub(super) fn building(&mut self, count: usize, what: &str) {
        match self.form {
            Form::Live => self.draw(&[format!(
                "{DIM}building myelin-ca and myelin-sidecar (once; linking takes minutes): {count} {what}{END}"
            )]),
            Form::Plain if count == 1 => self.line("building myelin-ca and myelin-sidecar (once)"),
            Form::Plain if count.is_multiple_of(50) => {
                self.line(&format!("  {count} crates: {what}"))
            }
            Form::Json if count == 1 => self.event(&json!({"event": "building"})),
            Form::Plain | Form::Json => {}
        }
    }

    pub(super) fn built(&mut self, count: usize) {
        self.clear_live();
        if count > 0 && self.form == Form::Json {
            self.event(&json!({"event": "built", "crates": count}));
        }
    }

    /// The demo's first words.
    pub(super) fn open(&mut self, lines: &[String], facts: &Value) {
        self.began = Some(Instant::now());
        match self.form {
            Form::Json => self.event(&json!({"event": "begin", "facts": facts})),
            _ => lines.iter().for_each(|line| self.line(line)),
        }
    }

    /// A chapter begins.
    pub(super) fn chapter(&mut self, name: &str, title: &str, what: &str) {
        self.clear_live();
        title.clone_into(&mut self.chapter);
        self.told = None;
        match self.form {
            Form::Json => self.event(&json!({"event": "chapter", "name": name, "title": title})),
            _ => {
                self.line("");
                self.line(&format!("{BOLD}{CYAN}{:>5}  {title}{END}", self.clock()));
                self.line(&format!("       {DIM}{what}{END}"));
            }
        }
    }

    /// Something that deserves a line of its own.
    pub(super) fn note(&mut self, text: &str) {
        self.clear_live();
        match self.form {
            Form::Json => self.event(&json!({"event": "note", "text": text})),
            _ => self.line(&format!("       {text}")),
        }
    }

    /// A claim was judged.
    pub(super) fn claim(&mut self, claim: &Claim) {
        self.clear_live();
        let mark = if claim.holds { format!("{GREEN}✓{END}") } else { format!("{RED}✗{END}") };
        match self.form {
            Form::Json => self.event(&json!({"event": "claim", "claim": claim})),
            _ => self.line(&format!("     {mark} {}", claim.measured)),
        }
    }

    /// The newest sample.
    pub(super) fn tick(&mut self, sample: &Sample) {
        self.recent.push_back(sample.clone());
        while self.recent.len() > 2 && sample.at - self.recent[1].at >= RATE_OVER {
            self.recent.pop_front();
        }
        let due = |every| self.told.is_none_or(|told| sample.at - told >= every);
        match self.form {
            Form::Live => self.draw(&self.picture(sample)),
            Form::Plain if due(PLAIN_EVERY) => {
                self.told = Some(sample.at);
                self.line(&format!("       {}", self.one_line(sample)));
            }
            Form::Json if due(JSON_EVERY) => {
                self.told = Some(sample.at);
                self.event(&self.tick_event(sample));
            }
            Form::Plain | Form::Json => {}
        }
    }

    /// The verdict.
    pub(super) fn verdict(&mut self, claims: &[Claim]) {
        self.clear_live();
        let holds = claims::all_hold(claims);
        let seconds = self.began.map_or(0, |began| began.elapsed().as_secs());
        if self.form == Form::Json {
            let verdict =
                json!({"event": "verdict", "holds": holds, "seconds": seconds, "claims": claims});
            return self.event(&verdict);
        }
        let width = u16::try_from(width()).unwrap_or(u16::MAX);
        self.line("");
        self.line(&claims::table(claims, width, self.form == Form::Live));
        let failed = claims.iter().filter(|claim| !claim.holds).count();
        self.line(&if holds {
            format!("{BOLD}{GREEN}All {} claims hold{END} after {seconds} s.", claims.len())
        } else {
            format!("{BOLD}{RED}{failed} of {} claims FAIL{END} after {seconds} s.", claims.len())
        });
    }

    /// Takes the live picture off the terminal.
    pub(super) fn clear_live(&mut self) {
        if self.drawn > 0 {
            say(format_args!("\x1b[{}F\x1b[J", self.drawn));
            self.drawn = 0;
        }
    }

    fn clock(&self) -> String {
        let seconds = self.began.map_or(0, |began| began.elapsed().as_secs());
        format!("{}:{:02}", seconds / 60, seconds % 60)
    }

    fn line(&self, text: &str) {
        // Colours leave by themselves where they are not wanted.
        say(format_args!("{text}\n"));
    }

    fn event(&self, event: &Value) {
        say(format_args!("{event}\n"));
    }

    fn draw(&mut self, lines: &[String]) {
        self.clear_live();
        for line in lines {
            say(format_args!("{}\n", shortened(line, width())));
        }
        self.drawn = lines.len();
    }

    fn rate(&self, name: &str, ok: u64, at: Instant) -> u64 {
        let Some(oldest) = self.recent.front() else { return 0 };
        let before = oldest.loads.iter().find(|(other, _)| *other == name);
        let grown = ok.saturating_sub(before.map_or(0, |(_, tally)| tally.ok));
        let millis = u64::try_from((at - oldest.at).as_millis()).unwrap_or(u64::MAX).max(1);
        grown * 1000 / millis
    }

    fn picture(&self, sample: &Sample) -> Vec<String> {
        let mut lines = vec![String::new()];
        for (name, tally) in &sample.loads {
            let rate = self.rate(name, tally.ok, sample.at);
            let color = if tally.failed == 0 { GREEN } else { RED };
            lines.push(format!(
                "       {name:<9}{BOLD}{:>7}{END}/s {:>10} answered  {color}{} failed{END}",
                grouped(rate),
                grouped(tally.ok),
                tally.failed
            ));
        }
        for state in &sample.sidecars {
            let left = state.seconds_left.max(0);
            let bar = "█".repeat(usize::try_from(left.min(15)).unwrap_or(0));
            let failed = match state.failed_attempts {
                0 => String::new(),
                count => format!("  {count} attempts failed"),
            };
            lines.push(format!(
                "       {:<9}SVID no. {:<3} {GREEN}{bar:░<15}{END} {left:>2} s left{DIM}{failed}{END}",
                state.name, state.issued
            ));
        }
        if let Some(wire) = &sample.wire {
            lines.push(format!("       wire     {}", wire_in_short(wire)));
        }
        if !sample.sidecars.is_empty() && !sample.ca_is_up {
            lines.push(format!("       CA       {RED}{BOLD}dead{END}"));
        }
        lines.push(format!("       {DIM}{} · Ctrl-C ends and cleans up{END}", self.clock()));
        lines
    }

    fn one_line(&self, sample: &Sample) -> String {
        let mut parts: Vec<String> = Vec::new();
        for (name, tally) in &sample.loads {
            let rate = self.rate(name, tally.ok, sample.at);
            let failed =
                if tally.failed > 0 { format!(", {} failed", tally.failed) } else { String::new() };
            parts.push(format!("{name} {}/s{failed}", grouped(rate)));
        }
        if !sample.sidecars.is_empty() {
            parts.push(format!(
                "{} SVIDs issued, {} s left",
                sample.issued(),
                sample.seconds_left()
            ));
        }
        parts.join(" · ")
    }

    fn tick_event(&self, sample: &Sample) -> Value {
        let load = |(name, tally): &(&str, crate::play::Tally)| {
            json!({"name": name, "ok": tally.ok, "failed": tally.failed,
                "per_second": self.rate(name, tally.ok, sample.at)})
        };
        let sidecar = |state: &super::sample::SidecarState| {
            json!({"name": state.name, "svids_issued": state.issued,
                "failed_attempts": state.failed_attempts, "seconds_left": state.seconds_left})
        };
        json!({"event": "tick", "chapter": self.chapter, "ca_is_up": sample.ca_is_up,
            "loads": sample.loads.iter().map(load).collect::<Vec<_>>(),
            "sidecars": sample.sidecars.iter().map(sidecar).collect::<Vec<_>>(),
            "wire": sample.wire.as_ref().map(|wire| json!({"bytes": wire.bytes,
                "frames": wire.frames, "flows": wire.flows, "tls13_flows": wire.tls13_flows,
                "canary_hits": wire.canary_hits()}))})
    }
}

/// Writes what nobody may be left to read: a reader that goes (`| head`) must not end the demo before
/// it has cleaned up, so an error here is none.
pub(super) fn say(text: Arguments<'_>) {
    let mut out = anstream::stdout().lock();
    out.write_fmt(text).and_then(|()| out.flush()).ok();
}

/// The wire in one line.
pub(super) fn wire_words(wire: &myelin_lab::wire::WireReport) -> String {
    format!(
        "{} bytes in {} frames, {} flows of TLS 1.3, {} others, {} canaries readable",
        grouped(wire.bytes),
        grouped(wire.frames),
        grouped(wire.tls13_flows),
        grouped(wire.non_tls_flows + wire.older_tls_flows),
        wire.canary_hits()
    )
}

/// The wire on a narrow terminal.
fn wire_in_short(wire: &myelin_lab::wire::WireReport) -> String {
    format!(
        "{} kB, {} frames, {} TLS 1.3 flows, {} others, {} canaries readable",
        grouped(wire.bytes / 1000),
        grouped(wire.frames),
        grouped(wire.tls13_flows),
        grouped(wire.non_tls_flows + wire.older_tls_flows),
        wire.canary_hits()
    )
}

fn width() -> usize {
    let seen = terminal_size().map_or(WIDTH_ELSEWHERE, |(Width(width), _)| usize::from(width));
    seen.clamp(40, WIDEST)
}

/// Cut to `width` visible characters, so that a line of the picture never wraps.
fn shortened(line: &str, width: usize) -> String {
    let (mut text, mut visible, mut in_escape) = (String::new(), 0, false);
    for letter in line.chars() {
        in_escape |= letter == '\x1b';
        if in_escape || visible < width {
            text.push(letter);
        }
        visible += usize::from(!in_escape);
        in_escape &= !letter.is_ascii_alphabetic();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_line_is_cut_and_keeps_its_escapes() {
        let line = format!("ab{RED}cdef{END}");
        assert_eq!(shortened(&line, 4), format!("ab{RED}cd{END}"));
        assert_eq!(shortened("short", 10), "short");
    }
}
