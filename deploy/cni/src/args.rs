//! The command line. Called by `main`.
//!
//! Never: a check that is more than the shape of a value.

// SPDX-License-Identifier: Apache-2.0

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// The chained CNI plugin of Myelin: writes the interception rules of injected pods
///
/// A container runtime calls it as the CNI specification says (CNI_COMMAND in the environment, the
/// network configuration on standard input). `install` brings it onto a node and into the chain.
#[derive(Debug, Parser)]
#[command(name = "myelin-cni", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Copy this program to the node, chain it into the node's network configuration, and keep it there
    ///
    /// Looks every second whether program, kubeconfig and chain are what they should be, and mends
    /// them: a network plugin that writes its configuration anew is chained again. Ends at SIGTERM and
    /// leaves everything in place, so that an upgrade leaves no pod without rules; --remove-at-end
    /// takes plugin and kubeconfig out of the configuration then.
    Install(InstallArgs),
    /// Look for pods of this node whose interception rules are not in place: name them, or write the rules
    ///
    /// Prints a line for each pod that was not as it should be. Exit code 0: every injected pod has its
    /// rules now. 1: some have not.
    Repair(RepairArgs),
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct InstallArgs {
    /// The node's directory of CNI programs, as it is mounted here
    #[arg(long, value_name = "DIR", default_value = "/host/opt/cni/bin")]
    pub(crate) bin_dir: PathBuf,

    /// The node's directory of CNI configuration, as it is mounted here
    #[arg(long, value_name = "DIR", default_value = "/host/etc/cni/net.d")]
    pub(crate) conf_dir: PathBuf,

    /// The same directory as the node calls it: where the plugin finds its kubeconfig
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub(crate) node_conf_dir: PathBuf,

    /// The API server as the node reaches it, without a name that would have to be resolved
    #[arg(long, value_name = "URL", env = "MYELIN_CNI_API_SERVER")]
    pub(crate) api_server: Option<String>,

    /// Where the token and the API server's roots lie (token, ca.crt); read anew as they change
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount"
    )]
    pub(crate) account_dir: PathBuf,

    /// Namespace whose pods are never injected and start without the API (repeat, or use commas)
    #[arg(
        long = "exclude-namespace",
        value_name = "NAMESPACE",
        value_delimiter = ',',
        default_value = "kube-system,myelin-system"
    )]
    pub(crate) exclude_namespaces: Vec<String>,

    /// Look once, mend, and end
    #[arg(long)]
    pub(crate) once: bool,

    /// At SIGTERM, take plugin and kubeconfig out of the node's configuration
    #[arg(long)]
    pub(crate) remove_at_end: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct RepairArgs {
    /// The node whose pods are looked at
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub(crate) node: String,

    /// How to reach the API server; without it, as a pod of the cluster does
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// The node's /proc, as it is mounted here
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    pub(crate) proc_dir: PathBuf,

    /// Write the rules that are missing; without it they are only named
    #[arg(long)]
    pub(crate) apply: bool,

    /// Go on, and look again after this time, such as 60s
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) every: Option<Duration>,
}
