//! What the monitor says: lines and a table for people, one JSON object a line for machines, progress
//! on a terminal. Called by `monitor`.
//! Never: with JSON, anything else on standard output.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::io::{IsTerminal, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comfy_table::{Table, presets};
use myelin_identity::id::SpiffeId;
use serde_json::json;

use super::find::{Found, MAX_FOUND, Matches, Odds};
use super::reader::Contradiction;

pub(super) struct Show {
    json: bool,
    /// Somebody watches: progress redraws its line.
    live: bool,
    drawn: bool,
    /// Certificates shown so far, and those that their owner should look at.
    found: usize,
    objections: usize,
}

impl Show {
    pub(super) fn new(json: bool) -> Self {
        let live = !json && std::io::stderr().is_terminal();
        Self { json, live, drawn: false, found: 0, objections: 0 }
    }

    pub(super) fn unpinned(&mut self, hash: &str) {
        eprintln!(
            "note: the trust bundle came from the CA that is watched; compare its hash with a join \
             token's, or give --bundle: {hash}"
        );
    }

    pub(super) fn unlogged(&mut self, roots: usize) {
        eprintln!(
            "note: for {roots} of the bundle's roots no log is named or stated; what is issued below those \
             is not watched"
        );
    }

    pub(super) fn progress(&mut self, log: &str, read: u64, all: u64) {
        if !self.live {
            return;
        }
        const WIDTH: u64 = 30;
        let done = (read * WIDTH).checked_div(all).unwrap_or(WIDTH);
        let bar: String = (0..WIDTH).map(|at| if at < done { '#' } else { '.' }).collect();
        eprint!("\r\x1b[K[{bar}] {read} of {all}  {log}");
        // A terminal that is gone needs no picture.
        let _ = std::io::stderr().flush();
        self.drawn = true;
    }

    pub(super) fn read(&mut self, log: &str, before: u64, now: u64, what: &str) {
        self.clear();
        if self.json {
            println!("{}", json!({ "event": "log", "log": log, "from": before, "size": now }));
        } else if before == 0 || now > before {
            println!("read {log}: {now} {what}, all of them below its signed root");
        }
    }

    pub(super) fn odd(&mut self, log: &str, odds: &Odds) {
        for (index, why) in &odds.shown {
            if self.json {
                println!("{}", json!({ "event": "odd", "log": log, "index": index, "why": why }));
            } else {
                println!("WARNING: {log}, entry {index}: {why}");
            }
        }
        if odds.left_out > 0 {
            eprintln!("note: {} more entries of {log} are odd and not shown", odds.left_out);
        }
    }

    pub(super) fn found(&mut self, id: &SpiffeId, log: &str, matches: &Matches<'_>) {
        let (all, objections) = matches.counts();
        self.found += all;
        self.objections += objections;
        let found = &matches.found;
        if self.json {
            found.iter().for_each(|it| println!("{}", as_json(id, log, it)));
        } else if !found.is_empty() {
            println!("\n{id}\n{}", table(log, found));
        }
        for it in found.iter().filter(|_| !self.json) {
            if let Some(why) = it.objection {
                println!("WARNING: serial {} ({log}, entry {}): {why}", it.serial, it.index);
            }
        }
        if matches.left_out > 0 {
            eprintln!(
                "note: {} more certificates are in {log}; at most {MAX_FOUND} are listed at a time, and \
                 as many that are unexpected",
                matches.left_out
            );
        }
    }

    /// What could not be read, or an alarm, in one line; standard output has no part in it.
    pub(super) fn trouble(&mut self, error: &anyhow::Error) {
        self.clear();
        let mark = if error.is::<Contradiction>() { "ALARM: " } else { "" };
        eprintln!("myelin log monitor: {mark}{error:#}");
    }

    /// `whole`: nothing was left unread.
    pub(super) fn end(&mut self, id: &SpiffeId, whole: bool) {
        self.clear();
        let (found, objections) = (self.found, self.objections);
        if self.json {
            let id = id.as_str();
            println!(
                "{}",
                json!({
                    "event": "end", "id": id, "found": found, "unexpected": objections, "whole": whole
                })
            );
            return;
        }
        let s = if found == 1 { "" } else { "s" };
        let so_far = if whole { "ever issued" } else { "seen, in what could be read," };
        println!("\n{found} certificate{s} {so_far} for {id}; {objections} to look at");
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            eprint!("\r\x1b[K");
        }
    }
}

fn table(log: &str, found: &[Found]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["serial", "valid from", "until", "addresses", "issuer", "log, entry"]);
    for it in found {
        let mark = if it.objection.is_some() { "! " } else { "" };
        table.add_row([
            format!("{mark}{}", it.serial),
            date(it.not_before),
            date(it.not_after),
            it.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            it.issuer.clone(),
            format!("{log}, {}", it.index),
        ]);
    }
    table
}

fn as_json(id: &SpiffeId, log: &str, found: &Found) -> serde_json::Value {
    json!({
        "event": "certificate",
        "id": id.as_str(),
        "serial": found.serial,
        "not_before": found.not_before,
        "not_after": found.not_after,
        "addresses": found.addresses,
        "issuer": found.issuer,
        "log": log,
        "index": found.index,
        "unexpected": found.objection,
    })
}

fn date(seconds: u64) -> String {
    let time: SystemTime = UNIX_EPOCH + Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(time).to_string()
}
