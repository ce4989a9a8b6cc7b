//! The process: arguments, signals (in `app`), exit code. Everything else is in the library.
//!
//! Never: logic that a test could want to call.

// SPDX-License-Identifier: Apache-2.0

mod args;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser;
use myelin_sidecar::app::{self, Logs};
use myelin_sidecar::{config, intercept};

use args::{Args, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The allocator asks for huge pages, of which a few scattered blocks keep 8 MiB resident;
    // `.cargo/config.toml` has it compiled without, this is for a build that did not read it. A
    // kernel without them has nothing to switch off.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
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
        Command::Run { config: path } => {
            let config = config::load(path)?;
            let logs = Logs::start(config.log.level.word(), config.log.format)?;
            app::run(path, logs)?;
            Ok(String::new())
        }
        Command::Check { config: path } => {
            config::load(path)?;
            Ok(format!("{}: every key is understood\n", path.display()))
        }
        Command::Intercept(args) => Ok(intercept::run(args)?),
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
    eprintln!("myelin-sidecar: {text}");
}
