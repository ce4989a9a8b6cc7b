//! Compares the checkpoints that peers' proofs rest on: every two of one log must be states of one
//! history. The log's server is asked for the tiles in between; what they show is checked by hash,
//! so the server is believed nothing. Two histories are a fork: an alarm, evidence in the state
//! directory, and an end for everything that stands on that log. Run by `app`, on the runtime that
//! carries no workload's bytes.
//!
//! Never: on a connection's path; calls a silent or lying server a fork; forgets one (the operator
//! does, by removing the evidence).

// SPDX-License-Identifier: Apache-2.0

mod compare;
mod fetch;
mod ledger;
mod shelf;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;

use myelin_identity::log::{Checkpoint, LogKey, Resource, Tile, hashes_of_tile};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use self::compare::{Lack, Tree};
use self::fetch::{FetchError, Server};
use self::ledger::{Ahead, Compared, Entered, Ledger};
use self::shelf::Shelf;
use crate::addr::{Clock, Endpoint};
use crate::metrics::Metrics;
use crate::net::Dialer;
use crate::proofs::{Fork, Judge, Seen, Suspect};

/// Tiles of one comparison: three or four levels of the tree's edge, and as many for each of up to
/// twenty older states. More would be a defect of ours.
const MAX_TILES: usize = 96;

/// What the auditor is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// Checkpoints and evidence lie here; made if missing, 0700.
    pub directory: PathBuf,
    /// Who serves logs over HTTP, asked in turn.
    pub servers: Vec<Endpoint>,
    pub dialer: Dialer,
    pub clock: Clock,
}

/// See the module's header.
pub struct Auditor<'a> {
    pub config: Config,
    pub judge: &'a Judge,
    pub metrics: &'a Metrics,
    /// Called when a log was found to have two histories, after it is distrusted.
    pub on_fork: &'a dyn Fn(),
}

/// Why a comparison came to nothing; it is tried again.
#[derive(Debug, thiserror::Error)]
enum Unproven {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("what the log's server says is no checkpoint of this log: {0}")]
    Checkpoint(#[from] myelin_identity::log::CheckpointError),
    #[error("{0} as served is not part of the tree that its checkpoint states")]
    Tile(Tile),
    #[error("more than {MAX_TILES} tiles would be needed; this is a defect of ours")]
    Endless,
    #[error("no server of logs is configured")]
    NoServer,
}

/// Two states that are not of one history, and the tiles of the newer one that show it.
struct Histories {
    first: Seen,
    second: Seen,
    tiles: BTreeMap<String, Vec<u8>>,
}

impl Auditor<'_> {
    /// Runs until the process ends.
    pub async fn run(self, mut seen: mpsc::Receiver<Seen>) -> Infallible {
        let shelf = Shelf::open(&self.config.directory);
        let shelf = shelf.inspect_err(|error| {
            tracing::error!("checkpoints of issuance logs are not kept over a restart: {error}");
        });
        let shelf = shelf.ok();
        let mut ledger = self.remembered(shelf.as_ref());
        loop {
            tokio::select! {
                one = seen.recv() => match one {
                    Some(one) => self.take(&mut ledger, shelf.as_ref(), one),
                    // Whoever judged is gone; so is the process, in a moment.
                    None => std::future::pending().await,
                },
                () = until(ledger.next_due()) => self.compare_due(&mut ledger, shelf.as_ref()).await,
            }
        }
    }

    /// What earlier runs of this sidecar have seen, forks included.
    fn remembered(&self, shelf: Option<&Shelf>) -> Ledger {
        let mut ledger = Ledger::default();
        let Some(shelf) = shelf else { return ledger };
        for seen in shelf.checkpoints() {
            ledger.remember(seen);
        }
        for fork in shelf.forks() {
            tracing::error!(
                "{fork}; peers that stand on it are refused until the evidence is removed"
            );
            self.judge.distrust(&fork);
        }
        self.metrics.log_forks(self.judge.forked().len());
        ledger
    }

    fn take(&self, ledger: &mut Ledger, shelf: Option<&Shelf>, seen: Seen) {
        match ledger.enter(seen, Instant::now()) {
            Entered::Known => self.metrics.log_checkpoint("consistent"),
            Entered::Waits => {}
            Entered::NoRoom => self.metrics.log_checkpoint("passed_over"),
            Entered::Contradicts(fork) => {
                let (first, second) = *fork;
                ledger.drop_log(&first.log);
                self.alarm(shelf, &Histories { first, second, tiles: BTreeMap::new() });
            }
        }
    }

    /// Asks about every log whose time has come.
    async fn compare_due(&self, ledger: &mut Ledger, shelf: Option<&Shelf>) {
        let mut changed = false;
        for log in ledger.due(Instant::now()) {
            let portion = ledger.portion(&log);
            match self.compare(&log, &portion).await {
                Ok(Ok(shown)) => {
                    let compared = ledger.compared(&portion, shown, Instant::now());
                    self.note(&log, &compared);
                    changed = true;
                }
                Ok(Err(histories)) => {
                    ledger.drop_log(&log);
                    self.alarm(shelf, &histories);
                }
                Err(unproven) => {
                    self.metrics.log_checkpoint("unproven");
                    let again = ledger.postpone(&log, Instant::now());
                    tracing::warn!(
                        log = log.name(),
                        again_in_s = again.as_secs(),
                        "checkpoints were not compared: {unproven}"
                    );
                }
            }
        }
        if let Some(shelf) = shelf.filter(|_| changed)
            && let Err(error) = shelf.keep(ledger.newest_trees())
        {
            tracing::error!("checkpoints were not kept for the next start: {error}");
        }
    }

    fn note(&self, log: &LogKey, compared: &Compared) {
        (0..compared.consistent).for_each(|_| self.metrics.log_checkpoint("consistent"));
        if compared.missed {
            self.judge.tell_again(log);
        }
        let Some(Ahead { size, shown, is_overdue }) = compared.ahead else { return };
        self.metrics.log_checkpoint("ahead");
        let log = log.name();
        if is_overdue {
            tracing::error!(
                log,
                size,
                shown,
                "ALARM: this log has signed for more entries than its server has shown for an \
                 hour: either the CA was put back to an older state, or somebody else signs with \
                 its key"
            );
        } else {
            tracing::warn!(
                log,
                size,
                shown,
                "a checkpoint is ahead of what the log's server shows"
            );
        }
    }

    /// Are all these states, as far as they are no larger, of the history that a server of this log
    /// shows now? What it shows, or two states that are not of one history.
    async fn compare(
        &self,
        log: &LogKey,
        states: &[Seen],
    ) -> Result<Result<Seen, Histories>, Unproven> {
        let newest = states.iter().map(|state| state.size).max().unwrap_or_default();
        let mut best: Result<Seen, Unproven> = Err(Unproven::NoServer);
        for endpoint in &self.config.servers {
            let server = Server { dialer: self.config.dialer, endpoint: *endpoint };
            match (compare_at(&server, log, states).await, &best) {
                (Ok(Ok(shown)), Ok(other)) if other.size >= shown.size => {}
                (Ok(Ok(shown)), _) if shown.size < newest => best = Ok(shown),
                (Err(unproven), Err(_)) => best = Err(unproven),
                (Err(_), Ok(_)) => {}
                (done, _) => return done,
            }
        }
        best.map(Ok)
    }

    fn alarm(&self, shelf: Option<&Shelf>, histories: &Histories) {
        let log = &histories.first.log;
        let now = self.config.clock.unix();
        let kept = shelf.map(|shelf| shelf.keep_fork(histories, now));
        let evidence = match kept {
            Some(Ok(path)) => path,
            Some(Err(error)) => format!("nowhere ({error})"),
            None => "nowhere (there is no state directory)".to_owned(),
        };
        let fork = Fork { log: Suspect::Log(log.clone()), evidence: evidence.clone() };
        self.judge.distrust(&fork);
        self.metrics.log_checkpoint("forked");
        self.metrics.log_forks(self.judge.forked().len());
        tracing::error!(
            log = log.name(),
            first_size = histories.first.size,
            first_root = %histories.first.root,
            second_size = histories.second.size,
            second_root = %histories.second.root,
            evidence,
            "ALARM: this log has signed two histories; peers that stand on it are refused"
        );
        (self.on_fork)();
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

async fn compare_at(
    server: &Server,
    log: &LogKey,
    states: &[Seen],
) -> Result<Result<Seen, Histories>, Unproven> {
    let note = server.get(log, Resource::Checkpoint).await?;
    let Checkpoint { size, root, .. } = Checkpoint::open(&note, log)?;
    let served = Seen { log: log.clone(), size, root, note };
    let mut tree = Tree::new(size, root);
    let mut tiles = BTreeMap::new();
    // A larger one has to wait; it may be made up, and must not hold up the others.
    for state in states.iter().filter(|state| state.size <= size) {
        let then = loop {
            match tree.root_at(state.size) {
                Ok(root) => break root,
                Err(Lack(_)) if tiles.len() >= MAX_TILES => return Err(Unproven::Endless),
                Err(Lack(tile)) => {
                    let bytes = server.get(log, Resource::Hashes(tile)).await?;
                    let hashes = hashes_of_tile(&bytes).ok_or(Unproven::Tile(tile))?;
                    tree.give(tile, hashes).map_err(|_| Unproven::Tile(tile))?;
                    tiles.insert(tile.to_string(), bytes);
                }
            }
        };
        if then != state.root {
            let (first, second) = (state.clone(), served);
            return Ok(Err(Histories { first, second, tiles }));
        }
    }
    Ok(Ok(served))
}
