//! The command line of `directory`, which is also its first page of documentation. Called by `mod`.
//!
//! Never: decides anything; every value is used where it is needed.

// SPDX-License-Identifier: Apache-2.0

use std::path::PathBuf;

use clap::Parser;

/// Measure the controller's service directory with a mesh's worth of sidecars, on this machine
///
/// Starts the `myelin-ca` and the `myelin-controller` that lie beside this program, a fake of the Kubernetes
/// API with 10,000 pods and 2,000 Services in this process, and as many callers as pods, each with an SVID and
/// a connection of its own over mutual TLS, asking about 5 services. CPU time and memory are those of the
/// controller's process alone; times on the clock need an idle machine, and contain the fake's and the
/// callers' own work.
#[derive(Debug, Parser)]
#[command(
    name = "directory",
    after_help = "Examples:\n  \
    directory                  every figure of the directory in benches/README.md: about four minutes\n  \
    directory --scale 0.05     a twentieth of it: does it work?\n  \
    directory --json           one JSON object on standard output, progress on standard error"
)]
pub(super) struct Args {
    /// All numbers of pods, Services, callers and changes times this
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    scale: f64,

    /// The myelin-controller to measure [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    pub(super) controller: Option<PathBuf>,

    /// The myelin-ca that issues to it [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,

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
