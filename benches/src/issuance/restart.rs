//! How long a CA takes to be ready over a long history, and what memory it needs then: after it was
//! stopped, after it was cut, and when nothing of its store's file is in memory. Called by `mod`.
//!
//! Never: a start whose state was not made by the CA's own code.

// SPDX-License-Identifier: Apache-2.0

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use tokio::time::sleep;

use super::args::Options;
use super::ca::Ca;
use super::stage::{Set, Stage};
use crate::show::{Bound, Figure, Show};

const BENCH: &str = "restart";
const LOG_ENTRIES: usize = 1_000_000;
const LIVE: usize = 100_000;
/// Ready after this, with so much memory.
const TARGET_S: f64 = 5.0;
const TARGET_MIB: f64 = 250.0;
/// Starts of each kind.
const STARTS: usize = 3;
/// SVIDs made at a time: their holders are of no use here, and are let go.
const AT_A_TIME: usize = 10_000;
/// Says that a state was made to its end.
const MARK: &str = "state-is-whole";
/// SVIDs live a day: a state that is older than this has too few left of it.
const KEPT_FOR: Duration = Duration::from_secs(12 * 3600);
/// A heartbeat and a look of every kind have been by then.
const SETTLE: Duration = Duration::from_secs(6);

pub(super) async fn measure(options: &Options, show: &Show) -> Result<Vec<Figure>> {
    let (data, _set) = state(options, show).await?;
    let store = std::fs::metadata(data.join("store.redb"))?.len();
    let mut figures = vec![Figure::new(BENCH, "store", store as f64 / f64::from(1 << 20), "MiB")];
    for kind in [Kind::Stopped, Kind::Cut, Kind::Cold] {
        figures.extend(starts(kind, options, &data, show).await?);
    }
    Ok(figures)
}

/// What was before a start.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Stopped,
    Cut,
    Cold,
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Self::Stopped => "after a stop",
            Self::Cut => "after a cut",
            Self::Cold => "after a stop, the store not in memory",
        }
    }
}

async fn starts(kind: Kind, options: &Options, data: &Path, show: &Show) -> Result<Vec<Figure>> {
    let (mut times, mut resident, mut anonymous, mut peak) = (vec![], 0_f64, 0_f64, 0_f64);
    let mut cpu = 0.0;
    for nth in 0..STARTS {
        show.step(&format!("restart: {}, {} of {STARTS}", kind.words(), nth + 1));
        match kind {
            Kind::Stopped => {}
            Kind::Cut => Ca::start(options, data).await?.cut().await?,
            Kind::Cold => forget(&data.join("store.redb"))?,
        }
        let ca = Ca::start(options, data).await?;
        times.push(ca.ready_after().as_secs_f64());
        cpu = ca.cpu();
        sleep(SETTLE).await;
        let memory = ca.memory()?;
        resident = resident.max(memory.resident / 1024.0);
        anonymous = anonymous.max(memory.anonymous / 1024.0);
        peak = peak.max(memory.peak / 1024.0);
        ca.stop().await?;
    }
    times.sort_by(f64::total_cmp);
    let name = |what: &str| format!("{what}, {}", kind.words());
    let median = Figure::new(BENCH, name("ready"), times[times.len() / 2], "s");
    let slowest = times[times.len() - 1];
    let resident = Figure::new(BENCH, name("resident"), resident, "MiB");
    Ok(vec![
        median.bound(Bound::AtMost(TARGET_S)),
        Figure::new(BENCH, name("slowest of three"), slowest, "s"),
        Figure::new(BENCH, name("CPU until ready"), cpu, "s"),
        resident.bound(Bound::AtMost(TARGET_MIB)),
        Figure::new(BENCH, name("anonymous"), anonymous, "MiB"),
        Figure::new(BENCH, name("resident at its peak"), peak, "MiB"),
    ])
}

/// Makes the kernel forget what it has read of a file.
fn forget(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    Ok(posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
}

/// The state, made now or before.
async fn state(options: &Options, show: &Show) -> Result<(std::path::PathBuf, Option<Set>)> {
    let Some(kept) = &options.state else {
        let stage = Stage::open(options).await?;
        let set = fill(stage, options, show).await?;
        return Ok((set.data.clone(), Some(set)));
    };
    let (data, mark) = (kept.join("data"), kept.join(MARK));
    let size = format!("{} live, {} logged", options.scaled(LIVE), options.scaled(LOG_ENTRIES));
    if !is_still(&mark, &size) {
        clear(&data)?;
        std::fs::create_dir_all(kept)?;
        fill(Stage::at(&data).await?, options, show).await?;
        std::fs::write(mark, size)?;
    }
    Ok((data, None))
}

/// Whether the state that was kept is of this size, and its SVIDs are alive.
fn is_still(mark: &Path, size: &str) -> bool {
    let made = std::fs::metadata(mark).and_then(|mark| mark.modified()).ok();
    let age = made.and_then(|made| made.elapsed().ok());
    age.is_some_and(|age| age < KEPT_FOR)
        && std::fs::read_to_string(mark).is_ok_and(|kept| kept == size)
}

async fn fill(mut stage: Stage, options: &Options, show: &Show) -> Result<Set> {
    let (live, log) = (options.scaled(LIVE), options.scaled(LOG_ENTRIES));
    show.step(&format!("restart: making {live} live SVIDs"));
    let mut like = None;
    for at in (0..live).step_by(AT_A_TIME) {
        like = stage.holders(AT_A_TIME.min(live - at), show).await?.pop().or(like);
        show.progress("live SVIDs", at, live);
    }
    show.step(&format!("restart: making {log} log entries"));
    let (_, like) = like.context("there is a live SVID")?;
    stage.log(log, &like, show).await?;
    stage.set().await
}

/// What an earlier run left half made.
fn clear(data: &Path) -> Result<()> {
    if data.exists() {
        std::fs::remove_dir_all(data)
            .with_context(|| format!("cannot clear {}", data.display()))?;
    }
    Ok(())
}
