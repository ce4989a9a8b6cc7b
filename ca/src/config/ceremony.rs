//! The commands of a root that is elsewhere: on the offline machine (`root`), and on the CA that
//! issues below it (`issuer`).
//!
//! Never: a command that takes a key away from where it lies.

// SPDX-License-Identifier: Apache-2.0

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{KeyArgs, OperatorArgs, duration};

#[derive(Debug, Subcommand)]
pub enum RootCommand {
    /// Make a root in a directory of its own, on a machine that stays off. Its certificate
    /// (root.crt) goes to the CA: myelin-ca serve --root-cert root.crt.
    Init(RootInitArgs),
    /// Show what a CA asks for, and with --yes sign it.
    Sign(RootSignArgs),
}

#[derive(Debug, Args)]
pub struct RootInitArgs {
    /// Directory of the root (0700), made if its parent is there.
    #[arg(long)]
    pub dir: PathBuf,
    /// Trust domain of the mesh, such as prod.example.
    #[arg(long)]
    pub trust_domain: String,
    /// How long the root lives.
    #[arg(long, default_value = "3650d", value_parser = duration, value_name = "DURATION")]
    pub lifetime: Duration,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub keys: KeyArgs,
}

#[derive(Debug, Args)]
pub struct RootSignArgs {
    /// Directory of the root.
    #[arg(long)]
    pub dir: PathBuf,
    /// Directory for the certificates: each is called as its request, with the ending .crt.
    #[arg(long)]
    pub out: PathBuf,
    /// How long each intermediate lives. Several follow each other, with 30 days of overlap.
    #[arg(long, default_value = "365d", value_parser = duration, value_name = "DURATION")]
    pub lifetime: Duration,
    /// Sign what is shown. Without it nothing is signed.
    #[arg(long)]
    pub yes: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub keys: KeyArgs,
    /// Requests made by: myelin-ca issuer request.
    #[arg(required = true, value_name = "REQUEST")]
    pub requests: Vec<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum IssuerCommand {
    /// Make keys for intermediates, and the requests to carry to the root.
    Request(IssuerRequestArgs),
    /// Take in the intermediates that the root has signed.
    Import(IssuerImportArgs),
    /// Show where the root's key is, which intermediate issues, what waits, and until when that
    /// will do.
    Status(OperatorArgs),
}

#[derive(Debug, Args)]
pub struct IssuerRequestArgs {
    #[command(flatten)]
    pub operator: OperatorArgs,
    /// How many: one to issue now, the others to follow in their turn.
    #[arg(long, default_value_t = 1)]
    pub count: usize,
    /// Make no keys: write the requests that wait for an answer once more.
    #[arg(long, conflicts_with = "count")]
    pub again: bool,
    /// Directory for the requests, issuer-<key>.csr.
    #[arg(long)]
    pub out: PathBuf,
    /// Only used without a running server.
    #[command(flatten)]
    pub keys: KeyArgs,
}

#[derive(Debug, Args)]
pub struct IssuerImportArgs {
    #[command(flatten)]
    pub operator: OperatorArgs,
    /// Only used without a running server.
    #[command(flatten)]
    pub keys: KeyArgs,
    /// Certificates (PEM), each followed by its root or alone.
    #[arg(required = true, value_name = "CERTIFICATE")]
    pub certificates: Vec<PathBuf>,
}
