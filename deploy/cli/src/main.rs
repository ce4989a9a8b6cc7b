//! The operator's tool: reads the command line, gains the ground that the demo stands on, and turns
//! the end into an exit code.
//! Never: starts a thread or a runtime before the ground is entered.

// SPDX-License-Identifier: Apache-2.0

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod args;
mod cluster;
mod demo;
mod explain;
mod helm;
mod log;
mod play;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Args, Command};

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Demo(options) => demo::perform(options),
        Command::Explain { word } => explain::perform(word.as_deref()),
        Command::Log(command) => log::perform(command),
        Command::Inject(args) => cluster::inject(&args),
        Command::Check(args) => cluster::check(&args),
        Command::Install(args) => helm::install(&args),
        Command::Uninstall(args) => helm::uninstall(&args),
        Command::Play(role) => play::perform(role),
    }
}
