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
mod prometheus;
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
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::binaries::Binaries;
use self::claims::all_hold;
use self::stage::Stage;
use self::story::Story;
use self::view::View;
use crate::args::DemoArgs;

/// What a shell expects of a program that ended by Ctrl-C: 128 + SIGINT.
const EXIT_INTERRUPTED: u8 = 130;

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
    let prometheus = if options.prometheus { Some(prometheus::installed()?) } else { None };
    let mut view = View::new(options.json);
    let binaries = Binaries::locate(options, &mut view)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let mut signals = Signals::catch()?;
        let mut stage = Stage::new(ground, binaries)?;
        let told = tokio::select! {
            told = Story::new(options, &mut stage, &mut view).tell(prometheus.as_deref()) => told,
            () = signals.caught() => return Ok(End::Interrupted),
        };
        let claims = match told {
            Ok(claims) => claims,
            Err(error) => {
                view.clear_live();
                stage.keep_logs();
                return Err(error);
            }
        };
        let all_hold = all_hold(&claims);
        if !all_hold {
            stage.keep_logs();
        }
        if options.keep {
            words::where_to_look(&stage);
            signals.caught().await;
        }
        Ok(End::Told { all_hold })
    })
}

/// The ways in which a demo is asked to end early.
struct Signals([Signal; 3]);

impl Signals {
    fn catch() -> Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self([interrupt?, terminate?, hangup?]))
    }

    async fn caught(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
