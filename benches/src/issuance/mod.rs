//! The CA as its callers and its operator feel it: SVIDs a second and a core, a restart over a million
//! log entries, thousands of watches, a storm of renewals. Called by the program `issuance`.
//!
//! The CA is always the real process behind real TLS. What it is asked about (tokens, live SVIDs, a long
//! log) is made beforehand in this process by the CA's own code on the same data directory.
//!
//! Never: a stub of the CA, or the callers' own work in a figure of the CA's.

// SPDX-License-Identifier: Apache-2.0

mod args;
mod ca;
mod client;
mod issuing;
mod pace;
mod restart;
mod show;
mod stage;
mod storm;
mod watches;

use anyhow::{Context, Result};
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::args::{Args, Command, Options};
use self::show::{Figure, Show};

/// Does what the command line says.
pub fn perform() -> Result<()> {
    let args = Args::parse();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Thousands of connections at once, here and in the CA, which inherits it.
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let (options, show) = (&args.options, Show::new(args.options.json));
    let mut figures = Vec::new();
    if matches!(args.command, Command::Issuing | Command::All) {
        figures.extend(issuing::measure(options, &show)?);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("no runtime")?;
    figures.extend(runtime.block_on(measure(args.command, options, &show))?);
    show.figures(&figures);
    Ok(())
}

async fn measure(command: Command, options: &Options, show: &Show) -> Result<Vec<Figure>> {
    match command {
        // Done before, in a runtime of its own.
        Command::Issuing => Ok(Vec::new()),
        Command::Restart => restart::measure(options, show).await,
        Command::Watches => watches::measure(options, show).await,
        Command::Storm => storm::measure(options, show).await,
        Command::All => {
            let mut figures = watches::measure(options, show).await?;
            figures.extend(storm::measure(options, show).await?);
            figures.extend(restart::measure(options, show).await?);
            Ok(figures)
        }
    }
}
