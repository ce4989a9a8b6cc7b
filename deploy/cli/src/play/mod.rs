//! The parts that this program plays inside the pods: services, and clients that count. Called by
//! `main` for the hidden `play` commands; the demo starts them as processes.
//! Never: knows of sidecars; these are workloads like any other.

// SPDX-License-Identifier: Apache-2.0

mod clients;
mod repeat;
mod services;
mod tally;

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::args::Role;

pub(crate) use self::services::READY;
pub(crate) use self::tally::Tally;

/// Plays one part until it is killed, or its one round is over.
#[expect(clippy::print_stderr, reason = "a process of its own, whose output the demo reads")]
pub(crate) fn perform(role: Role) -> ExitCode {
    match play(role) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play(role: Role) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    match role {
        Role::Web(args) => runtime.block_on(services::web(args)),
        Role::Greeter(args) => runtime.block_on(services::greeter(args)),
        Role::WebClients(args) => runtime.block_on(clients::web(args)),
        Role::GreeterClients(args) => runtime.block_on(clients::greeter(args)),
        Role::Repeat(args) => runtime.block_on(repeat::repeat(args)),
    }
}
