//! The arguments of `myelin-ca rotate`.
//!
//! Never: talks to a server.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;

use clap::{Args, Subcommand};

use super::OperatorArgs;
use crate::rotation::ladder::{Move, federated_name};

/// Replace the root of trust in steps that break nobody.
///
/// prepare makes a second root and trusts it everywhere. activate issues under it, once every holder
/// of an SVID has acknowledged that it trusts both (or has expired). retire trusts the first root no
/// longer, once every SVID chains to the second one. A move that would strand anybody is refused and
/// names whom.
#[derive(Debug, Subcommand)]
pub enum RotateCommand {
    /// Show the rungs of the ladder, where it stands, and who has not acknowledged.
    Status(OperatorArgs),
    /// Make a second root and have everybody trust it. Nothing is signed under it yet.
    Prepare(OperatorArgs),
    /// Issue under the second root. Refused while somebody does not trust it.
    Activate(ActivateArgs),
    /// Trust the first root no longer. Refused while somebody's SVID chains to it.
    Retire(MoveArgs),
    /// Go back: forget a root that never issued, or issue under the first root again.
    Abort(OperatorArgs),
}

#[derive(Debug, Args)]
pub struct MoveArgs {
    #[command(flatten)]
    pub operator: OperatorArgs,
    /// Break this holder: a SPIFFE ID that `rotate status` shows as outstanding. Repeat it for each
    /// one; the move is made only if exactly those are broken.
    #[arg(long = "break", value_name = "SPIFFE-ID")]
    pub broken: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ActivateArgs {
    #[command(flatten)]
    pub made: MoveArgs,
    /// This federated trust domain has fetched the new root, as its operators say. It cannot
    /// acknowledge by itself; without this the move waits for as long as SVIDs live.
    #[arg(long, value_name = "TRUST-DOMAIN")]
    pub fetched: Vec<String>,
}

impl RotateCommand {
    /// The move that is asked for, with whom it may break; none asks for the status.
    pub fn asked(&self) -> Option<(Move, BTreeSet<String>)> {
        let (asked, broken) = match self {
            Self::Status(_) => return None,
            Self::Prepare(_) => (Move::Prepare, BTreeSet::new()),
            Self::Activate(args) => {
                let fetched = args.fetched.iter().map(federated_name);
                (Move::Activate, args.made.broken.iter().cloned().chain(fetched).collect())
            }
            Self::Retire(args) => (Move::Retire, args.broken.iter().cloned().collect()),
            Self::Abort(_) => (Move::Abort, BTreeSet::new()),
        };
        Some((asked, broken))
    }

    /// Whom to ask, and how to print the answer.
    pub fn operator(&self) -> &OperatorArgs {
        match self {
            Self::Status(operator) | Self::Prepare(operator) | Self::Abort(operator) => operator,
            Self::Activate(args) => &args.made.operator,
            Self::Retire(args) => &args.operator,
        }
    }
}
