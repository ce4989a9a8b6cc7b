//! Every sidecar of a mesh renews at one moment, alone and together with new ones that join: how many
//! fail, how long each kind waits, and in which order they are served. Called by `mod`.
//!
//! Never: tries again; an attempt that a sidecar would give up is a failure here.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::args::Options;
use super::ca::Ca;
use super::client::{ATTEMPT, Held, Host, Prepared, Right, Target};
use super::stage::{Joining, Stage};
use crate::pace::Times;
use crate::show::{Bound, Figure, Show};

const BENCH: &str = "storm";
const RENEWALS: usize = 5_000;
const FIRST_ISSUES: usize = 2_500;
/// Renewals go first, but for every eighth turn.
const BEFORE_PERCENT: f64 = 90.0;

enum Asked {
    Renewal(Box<(Prepared, Held)>),
    First(Box<Joining>),
}

/// How one ended: whether it was a renewal, when, and with what SVID or error.
struct Ended {
    is_renewal: bool,
    after: Duration,
    with: Result<Option<(Host, Held)>, String>,
}

pub(super) async fn measure(options: &Options, show: &Show) -> Result<Vec<Figure>> {
    show.step("storm: making holders of SVIDs and tokens");
    let mut stage = Stage::open(options).await?;
    let holders = stage.holders(options.scaled(RENEWALS), show).await?;
    let joining = stage.joining(options.scaled(FIRST_ISSUES), show).await?;
    let set = stage.set().await?;
    let ca = Ca::start(options, &set.data).await?;
    let target = Target { grpc: ca.grpc, bundle: set.bundle.clone() };
    let mut figures = Vec::new();

    show.step("storm: renewals alone");
    let cpu = ca.cpu();
    let ended = all_at_once(&target, renewals(holders)?, show).await?;
    let cpu = (ca.cpu() - cpu) / ended.len() as f64 * 1e6;
    figures.push(Figure::new(BENCH, "CPU, renewal on a new connection", cpu, "us/SVID"));
    let of = |wanted: bool| move |it: &&Ended| it.is_renewal == wanted;
    let (renewing, joined) = (options.scaled(RENEWALS), options.scaled(FIRST_ISSUES));
    told(&mut figures, ("renewals alone", renewing), ended.iter().filter(of(true)));
    let holders = ended.into_iter().filter_map(|it| it.with.ok().flatten()).collect();

    show.step("storm: renewals together with first issues");
    let mut asked = renewals(holders)?;
    let (all, firsts) = (asked.len() + joining.len(), joining.len());
    for (nth, joining) in joining.into_iter().enumerate() {
        // Evenly among the renewals.
        asked.insert((nth * all / firsts).min(asked.len()), Asked::First(Box::new(joining)));
    }
    let ended = all_at_once(&target, asked, show).await?;
    let both = ("renewals beside first issues", renewing);
    told(&mut figures, both, ended.iter().filter(of(true)));
    told(&mut figures, ("first issues", joined), ended.iter().filter(of(false)));
    let order =
        Figure::new(BENCH, "renewals before the first half of first issues", order(&ended), "%");
    figures.push(order.bound(Bound::AtLeast(BEFORE_PERCENT)));
    ca.stop().await?;
    Ok(figures)
}

fn renewals(holders: Vec<(Host, Held)>) -> Result<Vec<Asked>> {
    let each = |(host, held)| Ok(Asked::Renewal(Box::new((Prepared::new(host)?, held))));
    holders.into_iter().map(each).collect()
}

/// The part of all renewals that were served before half of the first issues were.
fn order(ended: &[Ended]) -> f64 {
    let firsts = ended.iter().filter(|it| !it.is_renewal && it.with.is_ok());
    let half = Times::new(firsts.map(|it| it.after).collect()).ms(0.5);
    let renewals = ended.iter().filter(|it| it.is_renewal);
    let before = renewals.clone().filter(|it| it.after.as_secs_f64() * 1e3 < half).count();
    before as f64 / renewals.count().max(1) as f64 * 100.0
}

fn told<'e>(
    figures: &mut Vec<Figure>,
    (what, asked): (&str, usize),
    ended: impl Iterator<Item = &'e Ended>,
) {
    let (mut times, mut failed) = (Vec::new(), Vec::new());
    for it in ended {
        match &it.with {
            Ok(_) => times.push(it.after),
            Err(why) => failed.push(why.clone()),
        }
    }
    let times = Times::new(times);
    let served = Figure::new(BENCH, format!("{what}: served"), times.count() as f64, "");
    figures.push(served.bound(Bound::AtLeast(asked as f64)));
    let mut figure =
        |name: String, value, unit| figures.push(Figure::new(BENCH, name, value, unit));
    for (part, word) in [(0.5, "p50"), (0.99, "p99"), (1.0, "last")] {
        figure(format!("{what}: {word}"), times.ms(part), "ms");
    }
    let why = failed.first().map_or(String::new(), |why| format!(" ({why})"));
    let failed = Figure::new(BENCH, format!("{what}: failed{why}"), failed.len() as f64, "");
    figures.push(failed.bound(Bound::AtMost(0.0)));
}

async fn all_at_once(target: &Target, asked: Vec<Asked>, show: &Show) -> Result<Vec<Ended>> {
    let count = asked.len();
    let gate = Arc::new(Barrier::new(count));
    let mut tasks = JoinSet::new();
    for one in asked {
        let (target, gate) = (target.clone(), gate.clone());
        tasks.spawn(async move {
            gate.wait().await;
            let begin = Instant::now();
            let is_renewal = matches!(one, Asked::Renewal(_));
            let asked = timeout(ATTEMPT, one.ask(&target)).await.context("not served in time");
            let with = asked.flatten().map_err(|error| format!("{error:#}"));
            Ended { is_renewal, after: begin.elapsed(), with }
        });
    }
    let mut ended = Vec::with_capacity(count);
    while let Some(one) = tasks.join_next().await {
        ended.push(one?);
        show.progress("served", ended.len(), count);
    }
    Ok(ended)
}

impl Asked {
    async fn ask(self, target: &Target) -> Result<Option<(Host, Held)>> {
        match self {
            Self::Renewal(renewal) => {
                let (prepared, held) = *renewal;
                let mut link = target.connect(prepared.host.address, Some(&held)).await?;
                let issued = link.issue(&prepared, &Right::Renewal(&held)).await?;
                Ok(Some(prepared.held(issued.chain, issued.lineage)))
            }
            Self::First(joining) => {
                let mut link = target.connect(joining.prepared.host.address, None).await?;
                link.issue(&joining.prepared, &Right::Token(&joining.secret)).await?;
                Ok(None)
            }
        }
    }
}
