//! The command line of `admission`, which is also its first page of documentation. Called by `mod`.
//!
//! Never: decides anything; every value is used where it is needed.

// SPDX-License-Identifier: Apache-2.0

use std::path::PathBuf;

use clap::Parser;

/// Measure how long an API server waits for the injection webhook, on this machine
///
/// Starts the `myelin-controller` that lies beside this program, on loopback and without a cluster, and
/// sends it admission reviews over TLS as an API server does. CPU time is that of the controller's process
/// alone; times on the clock count from when a review was due, and need an idle machine.
#[derive(Debug, Parser)]
#[command(
    name = "admission",
    after_help = "Examples:\n  \
    admission                  every figure of the webhook in benches/README.md: about a minute\n  \
    admission --scale 0.1      a tenth of it: does it work?\n  \
    admission --json           one JSON object on standard output, progress on standard error"
)]
pub(super) struct Args {
    /// All numbers of reviews times this
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    scale: f64,

    /// The myelin-controller to measure [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    pub(super) controller: Option<PathBuf>,

    /// Print one JSON object and nothing else on standard output
    #[arg(long)]
    pub(super) json: bool,
}

impl Args {
    /// `many` of something, as far as it is wanted.
    pub(super) fn scaled(&self, many: usize) -> usize {
        ((many as f64 * self.scale) as usize).max(1)
    }
}
