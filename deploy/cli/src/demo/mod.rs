//! `myelin demo`: enters the ground, finds the programs, tells the story, and cleans up whatever
//! happens. Called by `main`.
//! Never: leaves a process, a namespace or a file behind, except the logs of a demo that failed.

// SPDX-License-Identifier: Apache-2.0

mod binaries;
mod chapters;
mod claims;
mod guests;
mod mesh;
mod outsider;
mod sample;
mod scrape;
mod stage;
mod story;
mod strangers;
mod view;
mod words;

use std::process::ExitCode;

use anyhow::{Context, Result};
use myelin_lab::ground::{self, Ground};
use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

use self::binaries::Binaries;
use self::claims::all_hold;
use self::stage::Stage;
use self::story::Story;
use self::view::View;
use crate::args::DemoArgs;

/// What a shell expects of a program that ended by Ctrl-C: 128 + SIGINT.
const EXIT_INTERRUPTED: u8 = 128 + Signal::SIGINT as u8;

/// How the demo ended, when nothing broke.
enum End {
    Told { all_hold: bool },
    Interrupted,
}

/// Runs the demo from its first line to the exit code.
#[expect(clippy::print_stderr, reason = "the one line that says why there is no demo")]
pub(crate) fn perform(options: DemoArgs) -> ExitCode {
    // First of all: a user namespace can be entered only before threads start.
    match ground::enter().and_then(|ground| play(&options, ground)) {
        Ok(End::Told { all_hold: true }) => ExitCode::SUCCESS,
        Ok(End::Told { all_hold: false }) => ExitCode::FAILURE,
        Ok(End::Interrupted) => ExitCode::from(EXIT_INTERRUPTED),
        Err(error) => {
            eprintln!("myelin demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play(options: &DemoArgs, ground: Ground) -> Result<End> {
    let mut view = View::new(options.json);
    let binaries = Binaries::locate(options, &mut view)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        tokio::select! {
            end = tell(options, ground, binaries, &mut view) => end,
            interrupted = interrupted() => interrupted,
        }
        .inspect(|_| view.close())
    })
}

/// Everything that the story makes lives in `stage`, and goes with it, also when Ctrl-C cuts this short.
async fn tell(
    options: &DemoArgs,
    ground: Ground,
    binaries: Binaries,
    view: &mut View,
) -> Result<End> {
    let mut stage = Stage::new(ground, binaries)?;
    let told = Story::new(options, &mut stage, view).tell().await;
    let all_hold = match told {
        Ok(claims) => all_hold(&claims),
        Err(error) => {
            view.clear_live();
            stage.keep_logs();
            return Err(error);
        }
    };
    if !all_hold {
        stage.keep_logs();
    }
    if options.keep {
        words::where_to_look(&stage);
        std::future::pending::<()>().await;
    }
    Ok(End::Told { all_hold })
}

async fn interrupted() -> Result<End> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut hang_up = signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
    Ok(End::Interrupted)
}
