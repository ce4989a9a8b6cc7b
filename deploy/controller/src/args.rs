//! The command line. Called by `main`.
//!
//! Never: a default that weakens security; a value that configuration could hold.

// SPDX-License-Identifier: Apache-2.0

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Myelin in Kubernetes: puts the sidecar into pods.
///
/// docs/INJECTION.md explains every key of the file and every label and annotation.
#[derive(Debug, Parser)]
#[command(name = "myelin-controller", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve until SIGTERM or SIGINT.
    Run {
        /// The configuration file (TOML).
        #[arg(long, short, value_name = "FILE", default_value = "/etc/myelin/controller.toml")]
        config: PathBuf,
        /// How to reach the Kubernetes API from outside of a cluster.
        #[arg(long, value_name = "FILE")]
        kubeconfig: Option<PathBuf>,
    },
    /// Read a configuration file and say whether every key of it is understood.
    Check {
        /// The configuration file (TOML).
        #[arg(long, short, value_name = "FILE", default_value = "/etc/myelin/controller.toml")]
        config: PathBuf,
    },
}
