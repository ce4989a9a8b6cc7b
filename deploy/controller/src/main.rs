//! The process: arguments, exit code. Everything else is in the library.
//!
//! Never: logic that a test could want to call.

// SPDX-License-Identifier: Apache-2.0

mod args;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser;
use myelin_controller::{app, config};

use args::{Args, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(&Args::parse()).and_then(|text| Ok(say(&text)?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<String> {
    match &args.command {
        Command::Run { config: path, kubeconfig } => {
            app::run(path, kubeconfig.as_deref())?;
            Ok(String::new())
        }
        Command::Check { config: path } => {
            config::load(path)?;
            Ok(format!("{}: every key is understood\n", path.display()))
        }
    }
}

/// What a command prints is its result. A reader that has enough (`| head`) makes no mistake.
fn say(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

#[expect(clippy::print_stderr, reason = "one line that says what failed")]
fn complain(text: &str) {
    eprintln!("myelin-controller: {text}");
}
