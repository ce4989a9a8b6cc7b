//! The process: a container runtime's call if CNI_COMMAND says so, an operator's command line
//! otherwise; standard input and output, the exit code.
//!
//! Never: a decision; a line on standard output that is no answer.

// SPDX-License-Identifier: Apache-2.0

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod args;
mod cluster;
mod install;
mod netns;
mod plugin;
mod repair;
mod spec;

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Args, Command};
use crate::spec::{Call, Code, MAX_NETWORK_BYTES, NEWEST, Refusal};

fn main() -> ExitCode {
    if std::env::var_os("CNI_COMMAND").is_some() {
        return called();
    }
    let ended = match Args::parse().command {
        Command::Install(args) => install::run(&args).map(|()| true),
        Command::Repair(args) => repair::run(&args),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            complain(&why);
            ExitCode::FAILURE
        }
    }
}

/// One call as the specification has it: an answer or an error as JSON on standard output.
fn called() -> ExitCode {
    let newest = |refusal| (refusal, NEWEST.to_owned());
    let answered = Call::read(|name| std::env::var_os(name))
        .and_then(|call| Ok((call, standard_input()?)))
        .map_err(newest)
        .and_then(|(call, input)| plugin::answer(&call, &input));
    match answered {
        Ok(text) => {
            say(&text);
            ExitCode::SUCCESS
        }
        Err((refusal, version)) => {
            say(&refusal.json(&version));
            ExitCode::FAILURE
        }
    }
}

fn standard_input() -> Result<Vec<u8>, Refusal> {
    let mut input = Vec::new();
    let read = std::io::stdin().lock().take(MAX_NETWORK_BYTES + 1).read_to_end(&mut input);
    read.map_err(|why| Refusal::new(Code::Io, "standard input cannot be read", why.to_string()))?;
    if input.len() as u64 > MAX_NETWORK_BYTES {
        let msg = format!("the network configuration has more than {MAX_NETWORK_BYTES} bytes");
        return Err(Refusal::new(Code::Undecodable, msg, ""));
    }
    Ok(input)
}

/// A runtime that has gone away reads nothing, which is its own business.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

#[expect(clippy::print_stderr, reason = "one line that says what failed")]
fn complain(text: &str) {
    eprintln!("myelin-cni: {text}");
}
