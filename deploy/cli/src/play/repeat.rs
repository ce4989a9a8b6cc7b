//! Somebody else's client (curl, pgbench, redis-cli), started again and again; each run must succeed
//! and print what is expected.
//! Never: interprets what the program prints beyond that.

// SPDX-License-Identifier: Apache-2.0

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use tokio::task::{LocalSet, spawn_blocking};
use tokio::time::sleep;

use super::tally::Counter;
use crate::args::RepeatArgs;

/// Runs the program until this process is killed, or once.
pub(super) async fn repeat(args: RepeatArgs) -> Result<()> {
    let counter = Counter::default();
    if args.once {
        counter.count(args.counts, run(&args.program, &args.expect));
        return counter.conclude();
    }
    let running = async {
        loop {
            let (program, expect) = (args.program.clone(), args.expect.clone());
            let result = spawn_blocking(move || run(&program, &expect)).await;
            counter.count(args.counts, result.context("the thread is gone").flatten());
            sleep(args.pause).await;
        }
    };
    LocalSet::new().run_until(async { tokio::join!(counter.tell(), running) }).await;
    Ok(())
}

fn run(program: &[String], expect: &str) -> Result<()> {
    let Some((name, args)) = program.split_first() else { bail!("no program was named") };
    let done = Command::new(name)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {name}"))?;
    let (said, complained) =
        (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    let last = complained.lines().last().unwrap_or("it said nothing");
    ensure!(done.status.success(), "{name} failed with {}: {last}", done.status);
    ensure!(said.contains(expect), "{name} did not print what was expected: {last}");
    Ok(())
}
