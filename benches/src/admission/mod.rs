//! The injection webhook as an API server feels it: how long a pod's creation waits for it, and what it
//! spends. Called by the program `admission`.
//!
//! The controller is the real process behind real TLS 1.3; the reviews are the fixtures that its own
//! tests inject, and each answer is looked at.
//!
//! Never: a stub of the webhook, or the caller's own work in a figure of CPU.

// SPDX-License-Identifier: Apache-2.0

mod args;
mod controller;
mod reviews;

use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Parser as _;
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::args::Args;
use self::controller::Controller;
use self::reviews::{Door, Review};
use crate::pace;
use crate::show::{Bound, Figure, Show};

/// Connections that are kept: a few API servers, which keep some each.
const KEPT: usize = 8;
/// Reviews a second: a cluster's controllers create pods at 20 to 50 a second each.
const RATE: f64 = 100.0;
/// With a connection each; API servers dial anew after a pause.
const DIALLED_RATE: f64 = 50.0;
const REVIEWS: usize = 3_000;
const DIALLED: usize = 1_000;
/// What the p99 should not exceed, in milliseconds.
const TARGET_MS: f64 = 10.0;

const BENCH: &str = "admission";

/// Does what the command line says.
pub fn perform() -> Result<()> {
    let args = Args::parse();
    let show = Show::new(args.json);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let figures = runtime.context("no runtime")?.block_on(measure(&args, &show))?;
    show.figures(&figures);
    Ok(())
}

async fn measure(args: &Args, show: &Show) -> Result<Vec<Figure>> {
    let controller = Controller::start(args).await?;
    let door = Arc::new(controller.door()?);
    let reviews = Review::all();
    let shown = |all: usize| move |done| show.progress("reviews", done, all);

    show.step("admission: as fast as answered, kept connections");
    let all = args.scaled(REVIEWS);
    let kept = kept(&door).await?;
    let (began, before) = (Instant::now(), controller.cpu());
    let each = |review: Arc<Review>| {
        let (connection, door) = (kept[review.turn() % KEPT].clone(), door.clone());
        async move { door.ask_on(&mut *connection.lock().await, &review).await }
    };
    pace::at_once(turns(&reviews, all), KEPT, each, shown(all)).await?;
    let (elapsed, spent) = (began.elapsed().as_secs_f64(), controller.cpu() - before);

    show.step("admission: by the clock, kept connections");
    let by_the_clock = pace::by_the_clock(turns(&reviews, all), RATE, each, shown(all)).await?;

    show.step("admission: by the clock, a new connection each");
    let all = args.scaled(DIALLED);
    let each = |review: Arc<Review>| {
        let door = door.clone();
        async move { door.ask_on(&mut door.dial().await?, &review).await }
    };
    let dialled = pace::by_the_clock(turns(&reviews, all), DIALLED_RATE, each, shown(all)).await?;

    let figure = |name, value, unit| Figure::new(BENCH, name, value, unit);
    let reviewed = args.scaled(REVIEWS) as f64;
    let target = Bound::AtMost(TARGET_MS);
    Ok(vec![
        figure("CPU, kept connections", spent * 1e6 / reviewed, "us/review"),
        figure("beside their caller, kept connections", reviewed / elapsed, "reviews/s"),
        figure("p50, 100 a second on kept connections", by_the_clock.ms(0.5), "ms"),
        figure("p99, 100 a second on kept connections", by_the_clock.ms(0.99), "ms").bound(target),
        figure("slowest of these", by_the_clock.ms(1.0), "ms"),
        figure("p50, 50 a second, a new connection each", dialled.ms(0.5), "ms"),
        figure("p99, 50 a second, a new connection each", dialled.ms(0.99), "ms").bound(target),
        figure("largest memory of the controller", controller.peak_mib()?, "MiB"),
    ])
}

type Kept = Arc<Mutex<reviews::Connection>>;

async fn kept(door: &Door) -> Result<Vec<Kept>> {
    let mut kept = Vec::with_capacity(KEPT);
    for _ in 0..KEPT {
        kept.push(Arc::new(Mutex::new(door.dial().await?)));
    }
    Ok(kept)
}

/// One fixture after the other, so many in all.
fn turns(reviews: &[Review], all: usize) -> impl Iterator<Item = Arc<Review>> {
    let turn = |(turn, review): (usize, &Review)| Arc::new(review.at(turn));
    reviews.iter().cycle().take(all).enumerate().map(turn)
}
