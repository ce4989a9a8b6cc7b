//! What each sidecar that watches costs the CA: memory, and CPU at each heartbeat. Called by `mod`.
//!
//! Never: two watchers with one SVID or one connection.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_identity::issuance::proto;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::args::Options;
use super::ca::{Ca, Memory};
use super::client::{Held, Host, Link, Target};
use super::stage::Stage;
use crate::pace;
use crate::show::{Bound, Figure, Show};

const BENCH: &str = "watches";
const WATCHES: usize = 5_000;
/// Memory of the CA for each watch of bundle and deny list, its connection included.
const TARGET_KIB: f64 = 60.0;
/// Connections before the first reading of memory, so that what the CA needs once is in it.
const WARM_UP: usize = 200;
const AT_ONCE: usize = 64;
/// Three heartbeats of the CA: every watcher has been told some.
const SETTLE: Duration = Duration::from_secs(15);

/// A sidecar's connection with its two streams; dropped, they end.
struct Watcher {
    link: Link,
    _acks: mpsc::Sender<proto::BundleAck>,
    updates: tokio::task::JoinHandle<()>,
    directory: Option<(mpsc::Sender<proto::DirectoryQuestion>, tokio::task::JoinHandle<()>)>,
}

pub(super) async fn measure(options: &Options, show: &Show) -> Result<Vec<Figure>> {
    show.step("watches: making holders of SVIDs");
    let mut stage = Stage::open(options).await?;
    let warming = stage.holders(options.scaled(WARM_UP), show).await?;
    let holders = stage.holders(options.scaled(WATCHES), show).await?;
    let set = stage.set().await?;
    let ca = Ca::start(options, &set.data).await?;
    let target = Target { grpc: ca.grpc, bundle: set.bundle.clone() };
    let count = holders.len();
    drop(watch_all(&target, warming, show).await?);
    sleep(Duration::from_secs(2)).await;
    let before = ca.memory()?;

    show.step("watches: connecting");
    let mut watchers = watch_all(&target, holders, show).await?;
    sleep(SETTLE).await;
    let mut figures = Vec::new();
    all_live(&watchers)?;
    each(&mut figures, "bundle and deny list", (before, ca.memory()?), (count, Some(TARGET_KIB)));
    let cpu = ca.cpu();
    sleep(SETTLE).await;
    let beats = SETTLE.as_secs_f64() / myelin_ca::authority::HEARTBEAT.as_secs_f64() * count as f64;
    figures.push(Figure::new(
        BENCH,
        "CPU for a heartbeat",
        (ca.cpu() - cpu) / beats * 1e6,
        "us/watch",
    ));

    show.step("watches: asking the directory");
    for watcher in &mut watchers {
        watcher.ask().await?;
    }
    sleep(SETTLE).await;
    all_live(&watchers)?;
    each(&mut figures, "both watches of a sidecar", (before, ca.memory()?), (count, None));
    drop(watchers);
    ca.stop().await?;
    Ok(figures)
}

/// What the CA has cut takes no memory: then there is nothing to measure.
fn all_live(watchers: &[Watcher]) -> Result<()> {
    let over = |watcher: &&Watcher| {
        let directory =
            watcher.directory.as_ref().is_some_and(|(_, answers)| answers.is_finished());
        watcher.updates.is_finished() || directory
    };
    let over = watchers.iter().filter(over).count();
    ensure!(over == 0, "{over} of {} watches have ended", watchers.len());
    Ok(())
}

fn each(
    figures: &mut Vec<Figure>,
    what: &str,
    (before, after): (Memory, Memory),
    (count, target): (usize, Option<f64>),
) {
    let kib = |before: f64, after: f64| (after - before) / count as f64;
    let name = |which: &str| format!("{which}, {what}");
    let resident = kib(before.resident, after.resident);
    let resident = Figure::new(BENCH, name("resident"), resident, "KiB/connection");
    figures.push(match target {
        Some(most) => resident.bound(Bound::AtMost(most)),
        None => resident,
    });
    let anonymous = kib(before.anonymous, after.anonymous);
    figures.push(Figure::new(BENCH, name("anonymous"), anonymous, "KiB/connection"));
}

async fn watch_all(
    target: &Target,
    holders: Vec<(Host, Held)>,
    show: &Show,
) -> Result<Vec<Watcher>> {
    let count = holders.len();
    let each = |(host, held): (Host, Held)| {
        let target = target.clone();
        async move { Watcher::open(&target, &host, &held).await }
    };
    pace::at_once(holders, AT_ONCE, each, |done| show.progress("watches", done, count)).await
}

impl Watcher {
    async fn open(target: &Target, host: &Host, held: &Held) -> Result<Self> {
        let mut link = target.connect(host.address, Some(held)).await?;
        let (acks, acking) = mpsc::channel(1);
        let opened = link.client.watch_bundle(ReceiverStream::new(acking)).await?;
        let mut updates = opened.into_inner();
        let first = updates.message().await?.context("a watch begins with what is so now")?;
        let generation = first.bundle.map_or(0, |bundle| bundle.generation);
        acks.send(proto::BundleAck { generation, ..proto::BundleAck::default() }).await?;
        let updates = tokio::spawn(drain(updates));
        Ok(Self { link, _acks: acks, updates, directory: None })
    }

    /// Asks for somebody, as a sidecar does for what its workload dials.
    async fn ask(&mut self) -> Result<()> {
        let (questions, asking) = mpsc::channel(1);
        let address = super::client::address(0).octets().to_vec();
        questions.send(proto::DirectoryQuestion { address, port: 0, forget: false }).await?;
        let opened = self.link.client.watch_directory(ReceiverStream::new(asking)).await?;
        let mut answers = opened.into_inner();
        answers.message().await?.context("a question has an answer")?;
        self.directory = Some((questions, tokio::spawn(drain(answers))));
        Ok(())
    }
}

async fn drain<T>(mut stream: Streaming<T>) {
    while let Ok(Some(_)) = stream.message().await {}
}
