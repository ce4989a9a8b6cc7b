//! The CA as its callers and its operator feel it: SVIDs a second and a core, a restart over a million
//! log entries, thousands of watches, a storm of renewals. Called by the program `issuance`.
//!
//! The CA is always the real process behind real TLS. What it is asked about (tokens, live SVIDs, a long
//! log) is made beforehand in this process by the CA's own code on the same data directory.
//!
//! Never: a stub of the CA, or the callers' own work in a figure of the CA's.

// SPDX-License-Identifier: Apache-2.0

mod args;
pub(crate) mod ca;
pub(crate) mod client;
mod issuing;
mod restart;
pub(crate) mod stage;
mod storm;
mod watches;

use anyhow::{Context, Result};
use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::args::{Args, Command, Options};
use crate::show::{Figure, Show};

/// Does what the command line says.
pub fn perform() -> Result<()> {
    let args = Args::parse();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Thousands of connections at once, here and in the CA, which inherits it.
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let (options, show) = (&args.options, Show::new(args.options.json));
    let figures = measure(args.command, options, &show)?;
    show.figures(&figures);
    Ok(())
}

/// `issuing` has a runtime of its own, on a CPU of its own; the others share one.
fn measure(command: Command, options: &Options, show: &Show) -> Result<Vec<Figure>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("no runtime")?;
    match command {
        Command::Issuing => issuing::measure(options, show),
        Command::Restart => runtime.block_on(restart::measure(options, show)),
        Command::Watches => runtime.block_on(watches::measure(options, show)),
        Command::Storm => runtime.block_on(storm::measure(options, show)),
        Command::All => {
            let mut figures = issuing::measure(options, show)?;
            figures.extend(runtime.block_on(watches::measure(options, show))?);
            figures.extend(runtime.block_on(storm::measure(options, show))?);
            figures.extend(runtime.block_on(restart::measure(options, show))?);
            Ok(figures)
        }
    }
}
