//! The command line, which is also the first page that a newcomer reads. Called by `main`.
//! Never: decides anything; every value is checked by the room that uses it.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

/// The operator's tool of Myelin
///
/// Myelin wraps the traffic between your servers in mutual TLS 1.3 with post-quantum key exchange,
/// without a change to the programs that talk. `myelin-ca` issues certificates that live for hours,
/// `myelin-sidecar` stands beside each program and does the rest. This tool shows and explains them.
#[derive(Debug, Parser)]
#[command(
    name = "myelin",
    version,
    arg_required_else_help = true,
    after_help = "Start here:\n  \
    myelin demo            a minute that shows what Myelin does, on this machine, without a trace\n  \
    myelin demo --keep     the same, and it stays up for you to look around\n  \
    myelin explain WORD    what a word in a log line or a metric means, and what to do\n  \
    myelin log monitor     every certificate that was ever issued for an ID of yours\n  \
    myelin check --pre     whether your Kubernetes cluster has what Myelin needs\n\n\
    The other binaries explain themselves: myelin-ca --help, myelin-sidecar --help, myelin-controller --help."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show on this machine what Myelin does, in about a minute
    ///
    /// Makes pods (network namespaces joined by one wire), starts a CA, two sidecars with certificates
    /// that live for 15 seconds, and services that talk: our own two, and nginx, PostgreSQL and Redis
    /// where they are installed. Then it records the wire, rotates certificates, kills the CA, brings it
    /// back, and lets strangers knock. A table at the end says what was claimed and what was measured.
    ///
    /// Works as root and without (then in a user namespace). It touches nothing outside of its own
    /// namespaces and one temporary directory, and removes both. Exit code: 0 if every claim held, else 1.
    Demo(DemoArgs),
    /// Say what an outcome word of a log line or metric means, and what to do
    Explain {
        /// The word, such as untrusted_root [default: list all]
        word: Option<String>,
    },
    /// Read the CA's logs of issued certificates
    #[command(subcommand)]
    Log(LogCommand),
    /// Put the sidecar into Kubernetes manifests, offline: just what the webhook would do
    ///
    /// Reads YAML or JSON of as many documents as there are, and answers the same documents: Pods, and
    /// every kind that has a template of them, with the sidecar; everything else as it came. Every pod is
    /// taken for one of a meshed namespace; its own label `myelin.dev/inject: disabled` wins. Runs
    /// `myelin-controller inject`.
    ///
    /// Exit code 0: all is on standard output. 1: a pod is refused, with the reason on standard error and
    /// nothing on standard output, or something cannot be read.
    Inject(InjectArgs),
    /// Say whether a cluster has what Myelin needs, before it is installed; nothing is changed
    ///
    /// Asks the API server for its version, for the APIs that are used, and whether you may create what the
    /// chart creates. Runs `myelin-controller preflight`. Exit code 0: all is there. 1: something is
    /// missing. 2: something could not be asked, as without a cluster everything.
    Check(CheckArgs),
    /// Install Myelin in a Kubernetes cluster: runs `helm install` with the chart
    ///
    /// docs/operate/kubernetes.md says which values your cluster needs. Without helm it says what to type.
    Install(InstallArgs),
    /// Take Myelin out of a Kubernetes cluster: runs `helm uninstall`
    ///
    /// Refuses while the CNI plugin would stay behind in the nodes' chains, where no pod could start then.
    Uninstall(UninstallArgs),
    /// Play a part of the demo inside a pod
    #[command(subcommand, hide = true)]
    Play(Role),
}

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// List every certificate that was ever issued for an ID
    ///
    /// A root that Myelin made for itself names the log of its issuers, and each of those the log of what
    /// it issues. Below such a root peers refuse certificates that are in no log, so whoever reads the logs
    /// knows every certificate that can be used. (For an offline or a corporate
    /// root the bundle states the log, in the line before its block: keep that line. For a root whose log is
    /// neither named nor stated the command says that what is issued below it is not watched.) This command
    /// starts at the roots of the trust bundle, reads the log of issuers that is named or stated for each,
    /// then the log of certificates that each issuer names, all of it, and hashes every entry into the tree
    /// that the log's key has signed: the server cannot leave out or change one.
    ///
    /// Every replica of the CA has a log of its own: name each with --url. A log is read from the server
    /// whose checkpoint is signed by its key, so a copy of a dead replica's files does as well.
    ///
    /// Exit code: 0 all was read and nothing is wrong; 1 something could not be read; 2 a certificate that
    /// you do not know (see --known) or that no CA of ours issues; 3 a log contradicts itself or what it
    /// said before: treat the CA as taken over.
    Monitor(MonitorArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct MonitorArgs {
    /// The ID whose certificates are looked for, such as spiffe://example.org/ns/shop/sa/web
    #[arg(long, value_name = "SPIFFE ID")]
    pub(crate) id: String,

    /// The CA's ops port, where it serves its logs, such as http://ca:15011; once for each replica, or
    /// for a copy of a replica's files
    #[arg(long, required = true)]
    pub(crate) url: Vec<String>,

    /// The trust bundle (PEM) whose roots name the logs, read again at each look [default: the CA's own
    /// /bundle.pem, with a note]
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle: Option<PathBuf>,

    /// Serial numbers that you know, one a line (a sidecar shows its own with GET /certs on its admin
    /// socket); any other certificate for the ID is a warning and exit code 2
    #[arg(long, value_name = "FILE")]
    pub(crate) known: Option<PathBuf>,

    /// Remember the logs' signed states here, so that the next run finds out if a history was rewritten
    #[arg(long, value_name = "FILE")]
    pub(crate) state: Option<PathBuf>,

    /// Go on, and tell of each new certificate; what cannot be read meanwhile is said and tried again, less
    /// and less often up to every two minutes. Ends by itself at a contradiction only
    #[arg(long)]
    pub(crate) follow: bool,

    /// How often to look again with --follow, a quarter more or less; a second at the least
    #[arg(long, default_value = "10s", value_parser = pause)]
    pub(crate) every: Duration,

    /// Print one JSON object a line and nothing else on standard output
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// Half the time: shorter chapters, for CI
    #[arg(long)]
    pub(crate) quick: bool,

    /// Print one JSON object a line (events, then the verdict) and nothing else on standard output
    #[arg(long)]
    pub(crate) json: bool,

    /// Leave everything running at the end and say where to look; Ctrl-C ends and cleans up
    #[arg(long, conflicts_with = "json")]
    pub(crate) keep: bool,

    /// Start the installed Prometheus beside it: it scrapes the demo's processes, evaluates the chart's
    /// alerts, and lives as long as the demo (see --keep)
    #[arg(long)]
    pub(crate) prometheus: bool,

    /// Only the demo's own two services, even where nginx, PostgreSQL or Redis are installed
    #[arg(long)]
    pub(crate) own_services_only: bool,

    /// Write what crossed the wire to this file (pcap; open it with Wireshark)
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: Option<PathBuf>,

    /// The myelin-ca to use [default: the one beside this program; built first when run by cargo]
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_bin: Option<PathBuf>,

    /// The myelin-sidecar to use [default: as for --ca-bin]
    #[arg(long, value_name = "FILE")]
    pub(crate) sidecar_bin: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InjectArgs {
    /// The manifests; - is standard input
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// The webhook's configuration (TOML); docs/INJECTION.md has its keys
    #[arg(long, short, value_name = "FILE")]
    pub(crate) config: PathBuf,

    /// Namespace of documents that name none
    #[arg(long, short, value_name = "NAME", default_value = "default")]
    pub(crate) namespace: String,

    /// The trust bundle (PEM), in place of the configuration's ca.bundle_file
    #[arg(long, value_name = "FILE")]
    pub(crate) bundle: Option<PathBuf>,

    /// Where sidecars find the CA, in place of the configuration's [ca] (repeat it for each replica)
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) ca_address: Vec<SocketAddr>,

    /// The myelin-controller to use [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) controller_bin: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// Before the installation (nothing else is checked yet)
    #[arg(long, required = true)]
    pub(crate) pre: bool,

    /// How to reach the Kubernetes API [default: KUBECONFIG, or as a pod does]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// The namespace in which Myelin is to be installed
    #[arg(long, short, value_name = "NAME", default_value = "myelin-system")]
    pub(crate) namespace: String,

    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,

    /// The myelin-controller to use [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    pub(crate) controller_bin: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ReleaseArgs {
    /// What helm calls it
    #[arg(long, value_name = "NAME", default_value = "myelin")]
    pub(crate) name: String,

    /// The namespace of the mesh itself
    #[arg(long, short, value_name = "NAME", default_value = "myelin-system")]
    pub(crate) namespace: String,

    /// The helm to use [default: the one in the PATH]
    #[arg(long, value_name = "FILE")]
    pub(crate) helm_bin: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct InstallArgs {
    #[command(flatten)]
    pub(crate) release: ReleaseArgs,

    /// The chart's folder
    #[arg(long, value_name = "DIR", default_value = "deploy/chart")]
    pub(crate) chart: PathBuf,

    /// A file of values, as helm takes it (may be repeated)
    #[arg(long, short = 'f', value_name = "FILE")]
    pub(crate) values: Vec<PathBuf>,

    /// One value, as helm takes it: key=value (may be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,

    /// Only render what would be installed, by `helm template`; asks no cluster
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct UninstallArgs {
    #[command(flatten)]
    pub(crate) release: ReleaseArgs,
}

/// The parts that this program itself plays inside the pods.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// An HTTP/1.1 service that answers with the canary
    Web(ServeArgs),
    /// A TCP service that greets with the canary before the client says a word, then echoes
    Greeter(ServeArgs),
    /// Clients of the HTTP service
    WebClients(ClientArgs),
    /// Clients of the greeter
    GreeterClients(ClientArgs),
    /// Somebody else's client program, again and again
    Repeat(RepeatArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    #[arg(long)]
    pub(crate) canary: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ClientArgs {
    #[arg(long)]
    pub(crate) to: SocketAddr,
    #[arg(long)]
    pub(crate) canary: String,
    /// Clients that open a connection for each request
    #[arg(long, default_value_t = 3)]
    pub(crate) fresh: u32,
    /// Clients that keep one connection
    #[arg(long, default_value_t = 2)]
    pub(crate) kept: u32,
    /// Pause of each client between two requests
    #[arg(long, default_value = "10ms", value_parser = humantime::parse_duration)]
    pub(crate) pause: Duration,
    /// One request, then the end
    #[arg(long)]
    pub(crate) once: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RepeatArgs {
    /// What its output must contain
    #[arg(long)]
    pub(crate) expect: String,
    /// How many requests one run stands for
    #[arg(long, default_value_t = 1)]
    pub(crate) counts: u64,
    #[arg(long, default_value = "150ms", value_parser = humantime::parse_duration)]
    pub(crate) pause: Duration,
    /// One run, then the end
    #[arg(long)]
    pub(crate) once: bool,
    #[arg(trailing_var_arg = true, required = true)]
    pub(crate) program: Vec<String>,
}

/// More often than once a second a look shows nothing new: logs grow by batches.
fn pause(text: &str) -> Result<Duration, String> {
    let pause = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if pause < Duration::from_secs(1) {
        return Err("at least 1s".to_owned());
    }
    Ok(pause)
}
