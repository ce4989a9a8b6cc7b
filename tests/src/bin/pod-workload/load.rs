//! Clients that ask without a pause and count what fails. Called by `main`.
//!
//! Never: a failure that is not counted; the last request is made after SIGTERM.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// A line for every so many requests: what a test waits for.
const SAID_EVERY: usize = 10;

static ASKED: AtomicUsize = AtomicUsize::new(0);
static FAILED: AtomicUsize = AtomicUsize::new(0);
static ENDS: AtomicBool = AtomicBool::new(false);

pub(crate) async fn load(file: PathBuf, clients: usize) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut running = JoinSet::new();
    for client in 0..clients {
        running.spawn(asks(file.clone(), client));
    }
    terminate.recv().await;
    ENDS.store(true, Ordering::Relaxed);
    while running.join_next().await.is_some() {}
    // A service that leaves has something to say: its last calls go through the mesh as well.
    once(&file, 0).await;
    let (asked, failed) = (ASKED.load(Ordering::Relaxed), FAILED.load(Ordering::Relaxed));
    println!("load: ended after {asked} requests, {failed} failed");
    ensure!(failed == 0, "{failed} of {asked} requests failed");
    Ok(())
}

async fn asks(file: PathBuf, client: usize) {
    let mut turn = client;
    while !ENDS.load(Ordering::Relaxed) {
        once(&file, turn).await;
        turn += 1;
    }
}

async fn once(file: &Path, turn: usize) {
    let answer = match endpoint(file, turn) {
        Ok(server) => crate::fetch::word(server, "/slow").await,
        Err(why) => Err(why),
    };
    let asked = ASKED.fetch_add(1, Ordering::Relaxed) + 1;
    if let Err(why) = answer {
        FAILED.fetch_add(1, Ordering::Relaxed);
        println!("load: failed: {why:#}");
    }
    if asked.is_multiple_of(SAID_EVERY) {
        println!("load: {asked} requests");
    }
}

/// The file is read for each request, as somebody asks DNS for each.
fn endpoint(file: &Path, turn: usize) -> Result<SocketAddr> {
    let listed = std::fs::read_to_string(file).context("cannot read the list of servers")?;
    let servers: Vec<&str> = listed.lines().collect();
    ensure!(!servers.is_empty(), "nobody serves");
    Ok(servers[turn % servers.len()].parse()?)
}
