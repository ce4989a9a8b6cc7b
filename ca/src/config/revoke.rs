//! The command line of `revoke`.
//!
//! Never: opens a file or a socket.

// SPDX-License-Identifier: Apache-2.0

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ConfigError, OperatorArgs};
use crate::authority::revocation::{RevokeRequest, Subject};

/// Withdraw trust: every sidecar ends what runs with the revoked within 5 s.
///
/// With --id: nobody may hold this SPIFFE ID until its last certificate would have ended; its host
/// keys get nothing any more and its waiting join tokens are void.
///
/// With --serial: one machine's certificates and its host key; other machines of the same ID go
/// on, and a replacement may join at once with a new token.
///
/// Both clear themselves when the last certificate concerned would have ended.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct RevokeArgs {
    #[command(subcommand)]
    pub command: Option<RevokeCommand>,
    /// SPIFFE ID to revoke, whole: no patterns.
    #[arg(long, value_name = "SPIFFE-ID", conflicts_with = "serial")]
    pub id: Option<String>,
    /// Serial number of the certificate to revoke, in hexadecimal, as `svid list` shows it.
    #[arg(long, value_name = "HEX")]
    pub serial: Option<String>,
    /// Why, in one line, for the audit log and `revoke list`.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
    /// Data directory of the CA. With a running server its admin socket is used, else the store
    /// itself.
    #[arg(long, env = "MYELIN_CA_DATA", global = true)]
    pub data: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum RevokeCommand {
    /// List what is revoked or denied after an alarm, until when, and why.
    List,
    /// Take a revocation back: the ID or the certificates count again, and the host keys too.
    /// Alarms are not taken back.
    Undo {
        /// Its number, as `revoke` and `revoke list` show it.
        number: u64,
    },
}

/// What the operator wants.
#[derive(Clone, Debug)]
pub enum Withdrawal {
    Revoke(RevokeRequest),
    List,
    Undo(u64),
}

impl RevokeArgs {
    /// What is wanted, of whom.
    pub fn wanted(&self) -> Result<(OperatorArgs, Withdrawal), ConfigError> {
        let Some(data) = self.data.clone() else { return Err(ConfigError::NoData) };
        let wanted = match (&self.command, &self.id, &self.serial) {
            (Some(RevokeCommand::List), None, None) => Withdrawal::List,
            (Some(RevokeCommand::Undo { number }), None, None) => Withdrawal::Undo(*number),
            (None, Some(id), None) => self.request(Subject::Id(id.clone())),
            (None, None, Some(serial)) => self.request(Subject::Serial(serial.clone())),
            _ => return Err(ConfigError::Revoke),
        };
        Ok((OperatorArgs { data, json: self.json }, wanted))
    }

    fn request(&self, subject: Subject) -> Withdrawal {
        Withdrawal::Revoke(RevokeRequest { subject, reason: self.reason.clone() })
    }
}
