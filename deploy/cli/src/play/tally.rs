//! What clients count, and how they tell the demo: one JSON line a few times a second on standard
//! output. Called by the clients; read by the demo.
//! Never: loses a failure.

// SPDX-License-Identifier: Apache-2.0

use std::cell::RefCell;
use std::fmt::Display;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// Often enough for a live view, rare enough to cost nothing.
const TOLD_EVERY: Duration = Duration::from_millis(200);

/// Requests that were answered rightly, those that were not, and why the last one was not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

/// The counter that the clients of one process share.
#[derive(Debug, Default)]
pub(super) struct Counter(RefCell<Tally>);

impl Counter {
    pub(super) fn count<E: Display>(&self, requests: u64, result: Result<(), E>) {
        let mut tally = self.0.borrow_mut();
        match result {
            Ok(()) => tally.ok += requests,
            Err(why) => {
                tally.failed += requests;
                tally.why = Some(format!("{why:#}"));
            }
        }
    }

    /// Tells the tally until the process is killed.
    pub(super) async fn tell(&self) {
        loop {
            self.print();
            tokio::time::sleep(TOLD_EVERY).await;
        }
    }

    /// Tells the tally once; any failure is the process's.
    pub(super) fn conclude(&self) -> Result<()> {
        self.print();
        let tally = self.0.borrow();
        let why = tally.why.as_deref().unwrap_or("nothing was asked");
        ensure!(tally.failed == 0 && tally.ok > 0, "{why}");
        Ok(())
    }

    #[expect(clippy::print_stdout, reason = "the demo reads the tally there")]
    fn print(&self) {
        let line = serde_json::to_string(&*self.0.borrow());
        println!("{}", line.expect("a tally is numbers and text"));
    }
}
