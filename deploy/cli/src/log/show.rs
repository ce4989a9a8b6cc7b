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

use super::find::Found;

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

    pub(super) fn odd(&mut self, log: &str, index: u64, why: &str) {
        if self.json {
            println!("{}", json!({ "event": "odd", "log": log, "index": index, "why": why }));
        } else {
            println!("WARNING: {log}, entry {index}: {why}");
        }
    }

    pub(super) fn found(&mut self, id: &SpiffeId, found: &[Found]) {
        self.found += found.len();
        self.objections += found.iter().filter(|it| it.objection.is_some()).count();
        if self.json {
            found.iter().for_each(|it| println!("{}", as_json(id, it)));
            return;
        }
        if !found.is_empty() {
            println!("\n{id}\n{}", table(found));
        }
        for it in found {
            if let Some(why) = it.objection {
                println!("WARNING: serial {} ({}, entry {}): {why}", it.serial, it.log, it.index);
            }
        }
    }

    pub(super) fn end(&mut self, id: &SpiffeId) {
        let (found, objections) = (self.found, self.objections);
        if self.json {
            let id = id.as_str();
            println!(
                "{}",
                json!({ "event": "end", "id": id, "found": found, "unexpected": objections })
            );
        } else {
            let s = if found == 1 { "" } else { "s" };
            println!("\n{found} certificate{s} ever issued for {id}; {objections} to look at");
        }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            eprint!("\r\x1b[K");
        }
    }
}

fn table(found: &[Found]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["serial", "valid from", "until", "addresses", "issuer", "log, entry"]);
    for it in found {
        let mark = if it.objection.is_some() { "! " } else { "" };
        table.add_row([
            format!("{mark}{}", it.serial),
            date(it.not_before),
            date(it.not_after),
            it.addresses.join(" "),
            it.issuer.clone(),
            format!("{}, {}", it.log, it.index),
        ]);
    }
    table
}

fn as_json(id: &SpiffeId, found: &Found) -> serde_json::Value {
    json!({
        "event": "certificate",
        "id": id.as_str(),
        "serial": found.serial,
        "not_before": found.not_before,
        "not_after": found.not_after,
        "addresses": found.addresses,
        "issuer": found.issuer,
        "log": found.log,
        "index": found.index,
        "unexpected": found.objection,
    })
}

fn date(seconds: u64) -> String {
    let time: SystemTime = UNIX_EPOCH + Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(time).to_string()
}
