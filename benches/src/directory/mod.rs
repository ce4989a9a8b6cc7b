//! The service directory with a mesh's worth of sidecars: what it weighs, how soon a change reaches whom it
//! concerns, and what a restart of the controller costs. Called by the program `directory`.
//!
//! CA and controller are the real processes behind real mutual TLS 1.3, and each caller has an SVID that the CA's
//! own code issued. What the API server says comes from the project's fake of it, in this process.
//!
//! Never: a stub of the controller, or the callers' own work in a figure of its CPU or memory.

// SPDX-License-Identifier: Apache-2.0

mod args;
mod caller;
mod cluster;
mod controller;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser as _;
use myelin_identity::id::SpiffeId;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep, timeout};

use self::args::Args;
use self::caller::{Caller, Told, Whom};
use self::cluster::{Cluster, place};
use self::controller::{Ca, Place};
use crate::issuance::client::{Held, Host};
use crate::issuance::stage::Stage;
use crate::pace::Times;
use crate::process::Process;
use crate::show::{Bound, Figure, Show};

const BENCH: &str = "directory";

const PODS: usize = 10_000;
const SERVICES: usize = 2_000;
/// What one sidecar's workload dials.
const ASKED: usize = 5;
const CHANGES: usize = 1_000;
/// Changes a second: rollouts of a busy cluster.
const RATE: u64 = 20;
/// For all of them to come, or to come back.
const WITHIN: Duration = Duration::from_secs(180);
/// So long nothing happens before memory is read, and while CPU of rest is.
const REST: Duration = Duration::from_secs(10);

const TARGET_MIB: f64 = 400.0;
const TARGET_MS: f64 = 500.0;

/// Does what the command line says.
pub fn perform() -> Result<()> {
    let args = Args::parse();
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Thousands of connections at once; the controller raises its own limit.
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let show = Show::new(args.json);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let figures = runtime.context("no runtime")?.block_on(measure(&args, &show))?;
    show.figures(&figures);
    Ok(())
}

/// All that a measurement stands on.
struct Bench<'b> {
    args: &'b Args,
    show: &'b Show,
    place: Place<'b>,
    ca: Ca,
    cluster: Cluster,
    told: Arc<Told>,
    count: usize,
    figures: Vec<Figure>,
}

async fn measure(args: &Args, show: &Show) -> Result<Vec<Figure>> {
    let count = args.scaled(PODS);
    show.step("directory: making holders of SVIDs");
    let dir = TempDir::new()?;
    let mut stage = Stage::at(&dir.path().join("data")).await?;
    let holders = stage.holders(count, show).await?;
    let set = stage.set().await?;
    std::fs::write(dir.path().join("bundle.pem"), set.bundle.to_pem())?;
    show.step("directory: making a cluster");
    let cluster = Cluster::new(count, args.scaled(SERVICES)).await?;
    let place = Place::new(dir.path())?;
    let ca = place.ca(args, &set.data).await?;
    let whom = Whom {
        address: place.directory,
        id: SpiffeId::parse(&controller::id())?,
        bundle: set.bundle.clone(),
    };
    let (told, figures) = (Arc::<Told>::default(), Vec::new());
    let mut bench = Bench { args, show, place, ca, cluster, told, count, figures };

    show.step("directory: the controller reads the cluster");
    let controller = bench.start().await?;
    bench.figure("from its start until the cluster is read", ms(controller.ready_after), "ms");
    bench.weighed("resident, before anybody asks", &controller)?;
    let (heard, mut hears) = mpsc::unbounded_channel();
    let callers = bench.callers(holders, &whom, &heard)?;
    // Its own SVID comes after that.
    while !callers[0].finds_somebody().await {
        sleep(Duration::from_millis(100)).await;
    }
    show.step("directory: everybody asks");
    for caller in callers {
        tokio::spawn(caller.run());
    }
    bench.all_whole().await?;
    sleep(REST).await;
    bench.weighed("resident, with everybody's streams", &controller)?;
    let cpu = controller.cpu();
    sleep(REST).await;
    let rests = (controller.cpu() - cpu) / REST.as_secs_f64();
    bench.figure("CPU while nothing changes", rests * 100.0, "% of a core");
    bench.changes(&controller, rests, &mut hears).await?;
    bench.weighed("resident, after the changes", &controller)?;
    bench.restart(controller).await?;
    Ok(bench.figures)
}

impl Bench<'_> {
    async fn start(&self) -> Result<Process> {
        let kubeconfig = self.cluster.api.kubeconfig();
        self.place.controller(self.args, &self.ca, &kubeconfig).await
    }

    fn callers(
        &self,
        holders: Vec<(Host, Held)>,
        whom: &Whom,
        heard: &caller::Heard,
    ) -> Result<Vec<Caller>> {
        let each = |(nth, holder)| {
            let places = asked(nth, self.cluster.services());
            Caller::new(holder, whom, places, Arc::clone(&self.told), heard.clone())
        };
        holders.into_iter().enumerate().map(each).collect()
    }

    /// Until each caller has been answered about all that it asked.
    async fn all_whole(&self) -> Result<()> {
        let whole = async {
            loop {
                let whole = self.told.whole.load(Ordering::Relaxed);
                self.show.progress("answered callers", whole, self.count);
                if whole == self.count {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let came = timeout(WITHIN, whole).await;
        let whole = self.told.whole.load(Ordering::Relaxed);
        let why = self.told.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(came.is_ok(), "{whole} of {} callers were answered: {why:?}", self.count);
        Ok(())
    }

    async fn changes(
        &mut self,
        controller: &Process,
        rests: f64,
        hears: &mut mpsc::UnboundedReceiver<(SocketAddr, Instant)>,
    ) -> Result<()> {
        self.show.step("directory: endpoints change");
        let mut subscribers = HashMap::<SocketAddr, usize>::new();
        for nth in 0..self.count {
            for place in asked(nth, self.cluster.services()) {
                *subscribers.entry(place).or_default() += 1;
            }
        }
        let changes = self.args.scaled(CHANGES).min(self.cluster.services());
        let (mut due, mut expected) = (HashMap::new(), 0);
        let (began, cpu) = (Instant::now(), controller.cpu());
        let mut beat = interval(Duration::from_secs(1) / u32::try_from(RATE)?);
        for nth in 0..changes {
            beat.tick().await;
            due.insert(place(nth), Instant::now());
            expected += subscribers.get(&place(nth)).copied().unwrap_or_default();
            self.cluster.put_slice(nth, false);
            self.show.progress("changes", nth, changes);
        }
        let (mut times, until) = (Vec::new(), Instant::now() + REST);
        while times.len() < expected {
            let heard = tokio::time::timeout_at(until, hears.recv()).await;
            let Ok(Some((place, at))) = heard else { break };
            let since = due.get(&place).context("told of what did not change")?;
            times.push(at.saturating_duration_since(*since));
        }
        let spent = controller.cpu() - cpu - rests * began.elapsed().as_secs_f64();
        ensure!(times.len() == expected, "{} of {expected} were told", times.len());
        let times = Times::new(times);
        let each = expected as f64 / changes as f64;
        self.figure("subscribers of one service", each, "sidecars");
        self.figure("an endpoint's change to its subscribers, p50", times.ms(0.5), "ms");
        let p99 = Figure::new(BENCH, "the same, p99", times.ms(0.99), "ms");
        self.figures.push(p99.bound(Bound::AtMost(TARGET_MS)));
        self.figure("the same, slowest", times.ms(1.0), "ms");
        self.figure("CPU of a change", spent * 1e6 / changes as f64, "us");
        Ok(())
    }

    /// The controller is gone, and is there again: what its sidecars' return costs.
    async fn restart(&mut self, controller: Process) -> Result<()> {
        self.show.step("directory: the controller starts anew");
        let told = Arc::clone(&self.told);
        let read = |of: &std::sync::atomic::AtomicUsize| of.load(Ordering::Relaxed);
        let before = (read(&told.failed), read(&told.full), read(&told.unchanged));
        told.times.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let gone = Instant::now();
        controller.end(Signal::SIGKILL).await?;
        let controller = self.start().await?;
        let back = gone.elapsed();
        // Each was lost before it came back.
        while read(&told.lost) < self.count {
            sleep(Duration::from_millis(10)).await;
        }
        self.all_whole().await?;
        let times = told.times.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let times = Times::new(times.into_iter().map(|at| at - gone).collect());
        self.figure("a restart: until the controller is ready again", ms(back), "ms");
        for (part, what) in [(0.5, "half of all"), (0.99, "99 of 100"), (1.0, "all")] {
            self.figure(
                &format!("a restart: until {what} are answered again"),
                times.ms(part) / 1e3,
                "s",
            );
        }
        self.figure("a restart: tries that failed", (read(&told.failed) - before.0) as f64, "");
        self.figure("a restart: services told in full", (read(&told.full) - before.1) as f64, "");
        let unchanged = read(&told.unchanged) - before.2;
        self.figure("a restart: services told as unchanged", unchanged as f64, "");
        self.figure(
            "a restart: CPU of each return",
            controller.cpu() * 1e6 / self.count as f64,
            "us",
        );
        let peak = Figure::new(
            BENCH,
            "a restart: largest memory",
            controller.memory()?.peak / 1024.0,
            "MiB",
        );
        self.figures.push(peak.bound(Bound::AtMost(TARGET_MIB)));
        Ok(())
    }

    fn figure(&mut self, name: &str, value: f64, unit: &'static str) {
        self.figures.push(Figure::new(BENCH, name, value, unit));
    }

    fn weighed(&mut self, name: &str, controller: &Process) -> Result<()> {
        let resident = controller.memory()?.resident / 1024.0;
        self.figures
            .push(Figure::new(BENCH, name, resident, "MiB").bound(Bound::AtMost(TARGET_MIB)));
        Ok(())
    }
}

/// What the `nth` caller asks: services that are spread over all of them, each as often as any other.
fn asked(nth: usize, services: usize) -> Vec<SocketAddr> {
    let step = services / ASKED;
    (0..ASKED).map(|part| place((nth + part * step) % services)).collect()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
