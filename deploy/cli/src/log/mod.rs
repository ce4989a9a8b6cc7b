//! `myelin log monitor`: reads the logs of a CA's replicas whole and tells the owner of an ID of every
//! certificate that was ever issued for it. Called by `main`.
//! Never: believes the server; what it says counts as far as it hashes up to a root that the log's key,
//! which the trust bundle names, has signed.

// SPDX-License-Identifier: Apache-2.0

mod fetch;
mod find;
mod memory;
mod monitor;
mod reader;
mod servers;
mod show;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use self::monitor::Verdict;
use crate::args::{LogCommand, MonitorArgs};

/// All was read and nothing is wrong.
const FINE: u8 = 0;
/// Something could not be read: a server, a log, a file, a flag.
const FAILED: u8 = 1;
/// A certificate that its owner does not know, or that is not what a CA of ours issues.
const UNEXPECTED: u8 = 2;
/// A log contradicts itself or what it said before.
const CONTRADICTION: u8 = 3;

pub(crate) fn perform(command: LogCommand) -> ExitCode {
    let LogCommand::Monitor(args) = command;
    ExitCode::from(watch(&args))
}

#[expect(clippy::print_stderr, reason = "errors of a command go to standard error")]
fn watch(args: &MonitorArgs) -> u8 {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("myelin log monitor: cannot start the runtime: {error}");
            return FAILED;
        }
    };
    match runtime.block_on(monitor::run(args)) {
        Ok(verdict) => code(verdict),
        Err(error) => {
            eprintln!("myelin log monitor: {error:#}");
            FAILED
        }
    }
}

/// The gravest decides.
fn code(verdict: Verdict) -> u8 {
    match verdict {
        Verdict { contradiction: true, .. } => CONTRADICTION,
        Verdict { unexpected: true, .. } => UNEXPECTED,
        Verdict { unread: true, .. } => FAILED,
        Verdict { .. } => FINE,
    }
}
