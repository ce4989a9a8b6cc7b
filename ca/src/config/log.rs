//! The commands about the CA's logs.
//!
//! Never: opens a store; `app` does.

// SPDX-License-Identifier: Apache-2.0

use clap::{Args, Subcommand};
use myelin_identity::id::TrustDomain;

use super::{ConfigError, OperatorArgs, StoreArgs, StoreConfig};

#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Replay the whole log against the journal: every entry against its tile, every tile against
    /// the signed head, every certificate of the journal against its place. A running server is
    /// asked for its journal; with --store etcd, etcd itself is. Exit code 1 and one line for each
    /// damage if something is wrong.
    Verify(Box<LogVerifyArgs>),
    /// Show the keys of all logs of this CA, as witnesses and readers of signed notes take them.
    Keys(OperatorArgs),
}

#[derive(Clone, Debug, Args)]
pub struct LogVerifyArgs {
    #[command(flatten)]
    pub operator: OperatorArgs,
    /// Trust domain of the mesh; for --store etcd without --etcd-prefix.
    #[arg(long, env = "MYELIN_TRUST_DOMAIN")]
    pub trust_domain: Option<String>,
    #[command(flatten)]
    pub store: StoreArgs,
}

impl LogVerifyArgs {
    /// Where the journal is that the log is compared with.
    pub fn store(&self) -> Result<StoreConfig, ConfigError> {
        let domain = self.trust_domain.as_ref().map(|name| {
            TrustDomain::parse(name)
                .map_err(|why| ConfigError::TrustDomain { name: name.clone(), why })
        });
        self.store.config_beside(domain.transpose()?.as_ref())
    }
}
