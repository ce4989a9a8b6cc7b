//! The command line. Called by `main`.
//!
//! Never: a default that weakens security; a value that configuration could hold.

// SPDX-License-Identifier: Apache-2.0

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use myelin_sidecar::intercept::InterceptArgs;

/// Wraps a workload's TCP traffic in mutual TLS 1.3 with post-quantum key exchange.
///
/// One sidecar stands beside one workload, in the same network namespace. First apply the
/// interception rules, then run:
///
///   myelin-sidecar intercept apply
///   myelin-sidecar run --config /etc/myelin/sidecar.toml
///
/// docs/CONFIG.md explains every key of the file, docs/OUTCOMES.md every word in the log.
#[derive(Debug, Parser)]
#[command(name = "myelin-sidecar", version, verbatim_doc_comment)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the proxy until SIGTERM or SIGINT. SIGHUP reads policy, services, peers and exceptions
    /// from the file again.
    Run {
        /// The configuration file (TOML).
        #[arg(long, short, value_name = "FILE", default_value = "/etc/myelin/sidecar.toml")]
        config: PathBuf,
    },
    /// Read a configuration file and say whether every key of it is understood.
    Check {
        /// The configuration file (TOML).
        #[arg(long, short, value_name = "FILE", default_value = "/etc/myelin/sidecar.toml")]
        config: PathBuf,
    },
    /// Write, remove or show the interception rules of this network namespace.
    Intercept(InterceptArgs),
}
