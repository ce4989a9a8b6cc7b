//! One peer in one round: start, windows, start again, memory. Called by `mod`.
//!
//! Never: leaves anything for the next visit, or hides a peer that failed: the failure is kept.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use myelin_lab::wire::{Capture, CaptureOptions};
use myelin_lab::{Ground, Proc};
use tokio::time::{Instant, sleep};

use super::cpu;
use super::peers::{Pair, Peer, Programs};
use super::record::{Job, Kind, Memory, Visit, Window, Wire};
use super::stage::{REQUESTS, Side, Stage, address};

/// Numbers of idle connections for which memory is read.
const IDLE_CONNECTIONS: [usize; 2] = [1_000, 5_000];

/// Between the last change and a look at memory: allocators give back and kernels account late.
const MEMORY_SETTLES: Duration = Duration::from_millis(1_000);

/// Connections of the two kept loads.
pub(crate) const KEPT: usize = 32;

/// A window's name, its load, connections or requests under way, rate, and seconds.
type Shape = (&'static str, Kind, usize, f64, f64);

const WINDOWS: [Shape; 6] = [
    ("bulk1", Kind::Bulk, 1, 0.0, 3.0),
    ("bulk8", Kind::Bulk, 8, 0.0, 3.0),
    ("kept", Kind::Kept, KEPT, 0.0, 4.0),
    ("paced", Kind::Paced, KEPT, 1_000.0, 8.0),
    ("fresh", Kind::Fresh, KEPT, 0.0, 4.0),
    ("fresh_paced", Kind::FreshPaced, 1, 100.0, 6.0),
];

/// How long everything takes with `--quick`.
const QUICK_SECONDS: f64 = 1.0;

/// Before each window, the same load uncounted.
const WARM_MS: u64 = 400;

/// Measures one peer once.
pub(crate) async fn visit(
    peer: Peer,
    round: usize,
    quick: bool,
    ground: Ground,
    programs: &Programs,
) -> Visit {
    let mut visit = Visit { round, peer: peer.name().to_owned(), ..Visit::default() };
    if let Err(error) = perform(peer, quick, ground, programs, &mut visit).await {
        visit.failed = Some(format!("{error:#}"));
    }
    visit
}

async fn perform(
    peer: Peer,
    quick: bool,
    ground: Ground,
    programs: &Programs,
    visit: &mut Visit,
) -> Result<()> {
    let mut stage = Stage::new(ground, &[address(2)])?;
    stage.serve(vec![REQUESTS]).await?;
    let pair = peer.set_up(&stage, programs).await?;
    let (procs, first_start_ms) = start(&stage, &pair).await?;
    visit.first_start_ms = peer.is_proxy().then_some(first_start_ms);
    for shape in WINDOWS {
        let job = job(&stage, &pair, &procs, shape, quick);
        let window = stage.load(&job).await.with_context(|| format!("window {}", shape.0))?;
        visit.windows.insert(shape.0.to_owned(), window);
    }
    if !peer.is_proxy() {
        return Ok(());
    }
    drop(procs);
    let (procs, start_ms) = start(&stage, &pair).await?;
    visit.start_ms = Some(start_ms);
    visit.memory = Some(memory(&stage, &pair, &procs).await?);
    Ok(())
}

/// Starts both proxies, and says after how many milliseconds the first request was answered.
async fn start(stage: &Stage, pair: &Pair) -> Result<(Vec<Proc>, f64)> {
    let from = Instant::now();
    let procs = pair.start(stage)?;
    let answered = stage.first_answer(pair.requests, &procs).await?;
    Ok((procs, (answered - from).as_secs_f64() * 1e3))
}

fn job(stage: &Stage, pair: &Pair, procs: &[Proc], shape: Shape, quick: bool) -> Job {
    let (_, kind, connections, rate, seconds) = shape;
    let seconds = if quick { QUICK_SECONDS } else { seconds };
    let mut clocks: BTreeMap<String, Vec<i32>> = Side::BOTH
        .into_iter()
        .map(|side| (side.name().to_owned(), pair.pids(procs, side)))
        .collect();
    clocks.insert("app".to_owned(), stage.app_pids());
    Job {
        kind,
        endpoints: vec![if kind == Kind::Bulk { pair.bulk } else { pair.requests }],
        connections,
        in_flight: connections,
        rate,
        held: 0,
        warm_ms: WARM_MS,
        window_ms: Duration::from_secs_f64(seconds).as_millis() as u64,
        clocks,
    }
}

/// Idle, then with so many connections that carried one request and stay open.
async fn memory(stage: &Stage, pair: &Pair, procs: &[Proc]) -> Result<Memory> {
    let look = || Side::BOTH.map(|side| cpu::resident_kib(&pair.pids(procs, side)));
    sleep(MEMORY_SETTLES).await;
    let idle = look();
    let mut memory = Memory { idle_kib: idle, ..Memory::default() };
    for number in IDLE_CONNECTIONS {
        let shape = ("hold", Kind::Hold, number, 0.0, 0.0);
        let (holder, errors) = stage.hold(&job(stage, pair, procs, shape, true)).await?;
        sleep(MEMORY_SETTLES).await;
        let now = look();
        let open = number.saturating_sub(errors as usize).max(1) as f64;
        let each = [0, 1].map(|side| (now[side] - idle[side]) / open);
        memory.per_connection_kib.insert(number, each);
        memory.errors += errors;
        drop(holder);
        sleep(MEMORY_SETTLES).await;
    }
    Ok(memory)
}

/// What a pair negotiates, read from the wire: first one connection, then 32 at a time.
pub(crate) async fn wire(
    peer: Peer,
    ground: Ground,
    programs: &Programs,
) -> Result<(Wire, BTreeMap<String, String>)> {
    let mut stage = Stage::new(ground, &[address(2)])?;
    stage.serve(vec![REQUESTS]).await?;
    let pair = peer.set_up(&stage, programs).await?;
    let capture = Capture::start(&stage.lab, CaptureOptions::default())?;
    let (procs, _) = start(&stage, &pair).await?;
    let shape = ("fresh", Kind::Fresh, KEPT, 0.0, 0.0);
    let _window: Window = stage.load(&job(&stage, &pair, &procs, shape, true)).await?;
    let report = capture.report().await?;
    let wire = Wire {
        handshakes: report.handshakes,
        resumed: report.resumed,
        versions: report.versions,
        ciphers: report.ciphers,
        groups: report.groups,
        plaintext_flows: report.non_tls_flows,
    };
    Ok((wire, pair.texts))
}
