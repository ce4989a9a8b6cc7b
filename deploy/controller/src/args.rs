//! The command line. Called by `main`.
//!
//! Never: a default that weakens security; a value that configuration could hold.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
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
    /// Put the sidecar into manifests, offline: just what the webhook would do.
    ///
    /// Reads YAML or JSON of as many documents as there are, and answers the same documents: Pods, and
    /// every kind that has a template of them, with the sidecar; everything else as it came. Every pod is
    /// taken for one of a meshed namespace; its own label `myelin.dev/inject: disabled` wins. Warnings,
    /// and pods that stay as they are, are named on standard error.
    ///
    /// Exit code 0: all is on standard output. 1: a pod is refused, with the reason on standard error and
    /// nothing on standard output, or something cannot be read.
    Inject(InjectArgs),
    /// Say whether a cluster has what Myelin needs, before it is installed; nothing is changed.
    ///
    /// Asks the API server for its version, for the APIs that are used, and whether you may create what the
    /// chart creates. Exit code 0: all is there. 1: something is missing. 2: something could not be asked,
    /// as without a cluster everything.
    Preflight(PreflightArgs),
    /// Read a configuration file and say whether every key of it is understood.
    Check {
        /// The configuration file (TOML).
        #[arg(long, short, value_name = "FILE", default_value = "/etc/myelin/controller.toml")]
        config: PathBuf,
    },
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct InjectArgs {
    /// The manifests; - is standard input.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The webhook's configuration (TOML).
    #[arg(long, short, value_name = "FILE", default_value = "/etc/myelin/controller.toml")]
    pub(crate) config: PathBuf,
    /// Namespace of documents that name none.
    #[arg(long, short, value_name = "NAME", default_value = "default")]
    pub(crate) namespace: String,
    /// The trust bundle (PEM), in place of the configuration's ca.bundle_file.
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle: Option<PathBuf>,
    /// Where sidecars find the CA, in place of the configuration's [ca]. May be repeated.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) ca_address: Vec<SocketAddr>,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct PreflightArgs {
    /// How to reach the Kubernetes API from outside of a cluster.
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The namespace in which Myelin is to be installed.
    #[arg(long, short, value_name = "NAME", default_value = "myelin-system")]
    pub(crate) namespace: String,
    /// One JSON object instead of lines.
    #[arg(long)]
    pub(crate) json: bool,
}
