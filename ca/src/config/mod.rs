//! The command line: flags in, each room's settings out, every mistake in one line with its fix.
//!
//! Never: opens a file or a socket.

// SPDX-License-Identifier: Apache-2.0

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use myelin_identity::id::TrustDomain;

mod rotate;

pub use rotate::{MoveArgs, RotateCommand};

use crate::authority::Settings;
use crate::authority::tokens::TokenRequest;
use crate::template::{Lifetimes, MAX_LIFETIME, MIN_LIFETIME, MIN_TEST_LIFETIME};

mod attest;
mod ceremony;
mod entry;
mod keys;
mod log;
mod revoke;
mod store;
mod witness;

pub use ceremony::{
    IssuerCommand, IssuerImportArgs, IssuerRequestArgs, RootCommand, RootInitArgs, RootSignArgs,
};
pub use keys::{KeyArgs, Keys, SealKeySource};
pub use log::{LogCommand, LogVerifyArgs};
pub use store::{EtcdFlags, KubernetesFlags, StoreArgs, StoreConfig, StoreFlagError, StoreKind};
mod federation;

pub use federation::{
    EndpointConfig, EndpointIdentity, FederationAddArgs, FederationArgs, FederationCommand,
    FederationOneArgs, Profile,
};

pub use attest::{AttestArgs, AttestConfig, KeysConfig, KubernetesConfig, ReviewConfig};
pub use entry::{AddressFrom, EntryArgs, EntryCommand, EntryNamed};
pub use revoke::{RevokeArgs, RevokeCommand, Withdrawal};
pub use witness::{WitnessArgs, WitnessConfig, WitnessFlagError};

/// The Myelin certificate authority: attests workloads and issues short-lived SVIDs.
#[derive(Debug, Parser)]
#[command(name = "myelin-ca", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the CA: gRPC for sidecars, HTTP for probes and metrics.
    Serve(Box<ServeArgs>),
    /// Make and list join tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Show the trust bundle.
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// List live SVIDs.
    #[command(subcommand)]
    Svid(SvidCommand),
    /// Intermediates of a CA whose root is elsewhere: ask for them, take them in.
    #[command(subcommand)]
    Issuer(IssuerCommand),
    /// On the offline machine: make a root, sign intermediates with it.
    #[command(subcommand)]
    Root(RootCommand),
    /// Say who may become which ID: registration entries for pods and machines.
    #[command(subcommand)]
    Entry(EntryCommand),
    /// Withdraw trust from a SPIFFE ID or a certificate; list and undo that.
    Revoke(RevokeArgs),
    /// Federate with other trust domains.
    #[command(subcommand)]
    Federation(FederationCommand),
    /// Check the log of issued certificates.
    #[command(subcommand)]
    Log(LogCommand),
    #[command(subcommand)]
    Rotate(RotateCommand),
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Trust domain of the mesh, such as prod.example. Fixed for the life of the data directory.
    #[arg(long, env = "MYELIN_TRUST_DOMAIN")]
    pub trust_domain: String,
    /// Data directory (0700): the store, the seal key, the admin socket. Made if its parent is
    /// there.
    #[arg(long, env = "MYELIN_CA_DATA")]
    pub data: PathBuf,
    /// Where sidecars connect (gRPC over mutual TLS).
    #[arg(long, default_value = "[::]:15010", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// Where probes and scrapers connect (plain HTTP, read only).
    #[arg(long, default_value = "[::]:15011", value_name = "ADDRESS:PORT")]
    pub ops_listen: SocketAddr,
    /// Address or name under which sidecars reach this CA; goes into its own certificate. May be
    /// repeated.
    #[arg(long = "ca-address", value_name = "IP-OR-NAME")]
    pub ca_address: Vec<String>,
    /// First start: hold no root key, but issue below this root (PEM), which is on another machine
    /// or somebody else's. The CA then waits for its first intermediate: see `issuer --help`.
    #[arg(long, value_name = "FILE")]
    pub root_cert: Option<PathBuf>,
    #[command(flatten)]
    pub keys: KeyArgs,
    /// Lifetime of an SVID when the sidecar asks for none, 5m to 24h.
    #[arg(long, default_value = "24h", value_parser = duration, value_name = "DURATION")]
    pub default_lifetime: Duration,
    /// Longest lifetime that a sidecar may ask for, up to 24h. A silent sidecar holds root rotation
    /// up no longer than this, or than what was given when its SVID was issued.
    #[arg(long, default_value = "24h", value_parser = duration, value_name = "DURATION")]
    pub max_lifetime: Duration,
    /// Replace the root unattended when it has reached this age, such as 365d, one rung of the
    /// ladder after the other. Default: only by hand, with `myelin-ca rotate`.
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub rotate_root_every: Option<Duration>,
    /// FOR TESTS ONLY: issue SVIDs that live less than 5 minutes (at least 4 s).
    #[arg(long)]
    pub allow_short_lifetimes: bool,
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub federation: FederationArgs,
    #[command(flatten)]
    pub attest: AttestArgs,
    #[command(flatten)]
    pub witnesses: WitnessArgs,
    #[command(flatten)]
    pub logs: LogArgs,
}

#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// How log lines are written.
    #[arg(long, value_enum, default_value = "human")]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or a filter such as info,audit=warn.
    #[arg(long, default_value = "info", value_name = "LEVEL")]
    pub log_level: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Human,
    Json,
}

/// What every operator command takes.
#[derive(Clone, Debug, Args)]
pub struct OperatorArgs {
    /// Data directory of the CA. With a running server its admin socket is used, else the store
    /// itself.
    #[arg(long, env = "MYELIN_CA_DATA")]
    pub data: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a one-time join token and print it: the only time that it is shown.
    Create(TokenArgs),
    /// List tokens (never their text).
    List(OperatorArgs),
}

#[derive(Debug, Args)]
pub struct TokenArgs {
    #[command(flatten)]
    pub operator: OperatorArgs,
    /// SPIFFE ID that the token's holder will get: spiffe://<trust
    /// domain>/ns/<namespace>/sa/<service account>.
    #[arg(long, value_name = "SPIFFE-ID")]
    pub id: String,
    /// Address at which peers dial the workload; goes into the certificate. May be repeated.
    #[arg(long, required = true, value_name = "IP")]
    pub address: Vec<IpAddr>,
    /// Ports of the workload, if several workloads share the address. Default: every port.
    #[arg(long, value_delimiter = ',', value_name = "PORT")]
    pub port: Vec<u16>,
    /// What the workload's side speaks, if not myelin/1.
    #[arg(long, default_value = "", hide_default_value = true)]
    pub protocol: String,
    /// How long the token may wait to be used, at most 7 days.
    #[arg(long, default_value = "10m", value_parser = duration, value_name = "DURATION")]
    pub ttl: Duration,
}

#[derive(Debug, Subcommand)]
pub enum BundleCommand {
    /// Print the trust bundle.
    Show(BundleArgs),
}

#[derive(Debug, Args)]
pub struct BundleArgs {
    /// Data directory of the CA.
    #[arg(long, env = "MYELIN_CA_DATA")]
    pub data: PathBuf,
    /// Print the SPIFFE trust bundle (JWKS).
    #[arg(long, conflicts_with = "pem")]
    pub json: bool,
    /// Print PEM (the default).
    #[arg(long)]
    pub pem: bool,
}

#[derive(Debug, Subcommand)]
pub enum SvidCommand {
    /// List who has a live SVID, and where.
    List(OperatorArgs),
}

/// What `app` needs to run a CA.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    pub trust_domain: TrustDomain,
    pub data: PathBuf,
    pub store: StoreConfig,
    pub keys: Keys,
    /// The root that this CA issues below, if its key is elsewhere.
    pub root_cert: Option<PathBuf>,
    pub listen: SocketAddr,
    pub ops_listen: SocketAddr,
    pub authority: Settings,
    /// Our own bundle endpoint; absent: none.
    pub federation: Option<EndpointConfig>,
    pub attest: AttestConfig,
    /// Who cosigns our logs.
    pub witnesses: WitnessConfig,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("--trust-domain {name:?}: {why}; expected a name such as prod.example")]
    TrustDomain { name: String, why: myelin_identity::id::IdError },
    #[error(
        "--ca-address {0:?} is neither an IP address nor a DNS name; expected one under which sidecars reach this CA"
    )]
    CaAddress(String),
    #[error(
        "--default-lifetime {0} is outside 5m to 24h; choose one within, or for tests add --allow-short-lifetimes"
    )]
    Lifetime(humantime::Duration),
    #[error(transparent)]
    Store(#[from] StoreFlagError),
    #[error(transparent)]
    Witness(#[from] WitnessFlagError),
    #[error("--root-cert {}: {why}; expected the certificate of an ECDSA root in PEM", path.display())]
    RootCert { path: PathBuf, why: String },
    #[error(
        "--kubernetes-allow-namespace {0:?} is no name of a namespace; names are compared whole, there are no patterns"
    )]
    Namespace(String),
    #[error(
        "--kubernetes-jwks {0:?}: keys that come in the clear can be forged; use an https:// URL or a file"
    )]
    PlainJwks(String),
    #[error(
        "an https --kubernetes-jwks needs --kubernetes-jwks-ca, by which its server is recognised (in a pod: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt)"
    )]
    JwksCa,
    #[error(
        "--kubernetes-jwks{flag} is for keys that come over https, and --kubernetes-jwks {file:?} is a file; leave it out, or name an https:// URL"
    )]
    JwksOfFile { file: String, flag: &'static str },
    #[error(
        "say where the workload is: --address <IP> (repeated), or --address-from caller (with --within <CIDR> if you like), or --address-from certificate"
    )]
    EntryAddress,
    #[error("--data is missing; name the CA's data directory (or set MYELIN_CA_DATA)")]
    NoData,
    #[error(
        "say what to revoke: --id <SPIFFE-ID> or --serial <HEX>; or `revoke list`, `revoke undo <NUMBER>`"
    )]
    Revoke,
    #[error("--federation-refresh-hint {0} is outside 8s to 24h; choose one within")]
    RefreshHint(humantime::Duration),
    #[error(
        "--store etcd needs --trust-domain, as the server has it: the keys in etcd begin with it (or --etcd-prefix)"
    )]
    NoTrustDomain,
    #[error("{0}")]
    WebCertificate(&'static str),
    #[error("--max-lifetime {0} is outside --default-lifetime to 24h; choose one within")]
    MaxLifetime(humantime::Duration),
    #[error(
        "--rotate-root-every {every} is less than ten times --max-lifetime, so that one rotation would not end before the next; choose {least} or more"
    )]
    RotateTooOften { every: humantime::Duration, least: humantime::Duration },
}

/// A root that the schedule makes lives at least so many lives of an SVID: a rotation takes two.
const LIVES_PER_ROOT: u32 = 10;
/// Most bytes of a DNS name, RFC 1035 section 2.3.4.
const MAX_NAME_BYTES: usize = 253;

impl ServeArgs {
    /// Checks what flags alone can say.
    pub fn config(&self) -> Result<ServeConfig, ConfigError> {
        let trust_domain = TrustDomain::parse(&self.trust_domain)
            .map_err(|why| ConfigError::TrustDomain { name: self.trust_domain.clone(), why })?;
        let (mut own_addresses, mut own_names) = (Vec::new(), Vec::new());
        for text in &self.ca_address {
            match text.parse::<IpAddr>() {
                Ok(address) => own_addresses.push(address),
                Err(_) if is_name(text) => own_names.push(text.clone()),
                Err(_) => return Err(ConfigError::CaAddress(text.clone())),
            }
        }
        let shortest = if self.allow_short_lifetimes { MIN_TEST_LIFETIME } else { MIN_LIFETIME };
        if !(shortest..=MAX_LIFETIME).contains(&self.default_lifetime) {
            return Err(ConfigError::Lifetime(self.default_lifetime.into()));
        }
        let store = self.store.config(&trust_domain, self.attest.kubernetes_review)?;
        if !(self.default_lifetime..=MAX_LIFETIME).contains(&self.max_lifetime) {
            return Err(ConfigError::MaxLifetime(self.max_lifetime.into()));
        }
        let least = self.max_lifetime * LIVES_PER_ROOT;
        if let Some(every) = self.rotate_root_every.filter(|every| *every < least) {
            return Err(ConfigError::RotateTooOften { every: every.into(), least: least.into() });
        }
        let longest = self.max_lifetime;
        let lifetimes = Lifetimes { default: self.default_lifetime, shortest, longest };
        let rotate_root_every = self.rotate_root_every;
        Ok(ServeConfig {
            trust_domain,
            store,
            data: self.data.clone(),
            keys: self.keys.keys(),
            root_cert: self.root_cert.clone(),
            listen: self.listen,
            ops_listen: self.ops_listen,
            federation: self.federation.config()?,
            attest: self.attest.config(self.store.kubeconfig.as_ref())?,
            witnesses: self.witnesses.config()?,
            authority: Settings {
                lifetimes,
                own_addresses,
                own_names,
                kubernetes_namespaces: self.attest.kubernetes_namespaces.clone(),
                rotate_root_every,
            },
        })
    }
}

impl TokenArgs {
    pub fn request(&self) -> TokenRequest {
        TokenRequest {
            spiffe_id: self.id.clone(),
            addresses: self.address.clone(),
            ports: self.port.clone(),
            protocol: self.protocol.clone(),
            ttl_seconds: self.ttl.as_secs(),
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; expected a duration such as 10m or 24h"))
}

fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.len() <= MAX_NAME_BYTES && text.split('.').all(label)
}

#[cfg(test)]
mod tests;
