//! One worker: a thread with a runtime of its own, its own two listeners on the shared ports, and
//! its own roster. A connection stays on the worker that accepted it. Started by `app::run`.
//!
//! Never: moves a connection to another core, shares a lock with another worker.

// SPDX-License-Identifier: Apache-2.0

use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use super::shared::Shared;
use crate::addr::ListenAddr;
use crate::drain::Closing;
use crate::inbound::{self, Inbound};
use crate::metrics::Direction;
use crate::net::{BindError, Listener};
use crate::outbound::{self, Outbound};
use crate::report::Roster;

/// Questions about the roster that may wait at one worker: operators ask, not programs.
const MAX_QUESTIONS: usize = 4;

/// How many connections one worker shows to an operator.
const MAX_SHOWN: usize = 1_000;

/// Asks a worker for its connections.
pub(super) type Question = oneshot::Sender<Vec<serde_json::Value>>;

/// A running worker as `app` sees it.
pub(super) struct Worker {
    pub(super) questions: mpsc::Sender<Question>,
    pub(super) thread: JoinHandle<()>,
}

#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("cannot start a worker thread: {0}; is there a limit on processes?")]
    Thread(#[from] std::io::Error),
    #[error("a worker thread ended before it listened; its own message above says why")]
    Gone,
}

/// Starts worker `index` and returns when it listens, or cannot.
pub(super) fn start(index: usize, shared: &Arc<Shared>) -> Result<Worker, WorkerError> {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (questions, asked) = mpsc::channel(MAX_QUESTIONS);
    let shared = Arc::clone(shared);
    let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        let local = LocalSet::new();
        local.block_on(&runtime, async move {
            match Listeners::bind(&shared) {
                Ok(listeners) => {
                    // `app` waits for this word, or is gone itself.
                    let _ = ready.send(Ok(()));
                    work(&shared, listeners, asked).await;
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        });
    })?;
    is_ready.recv().map_err(|_| WorkerError::Gone)??;
    Ok(Worker { questions, thread })
}

struct Listeners {
    inbound: Listener,
    outbound: Listener,
}

impl Listeners {
    fn bind(shared: &Shared) -> Result<Self, BindError> {
        let bind = |address: ListenAddr| Listener::bind(address);
        Ok(Self { inbound: bind(shared.listen.inbound)?, outbound: bind(shared.listen.outbound)? })
    }
}

/// Serves until the grace is over. The listeners close as soon as we begin to leave.
async fn work(shared: &Arc<Shared>, listeners: Listeners, asked: mpsc::Receiver<Question>) {
    let roster = Roster::default();
    let inbound = Rc::new(shared.inbound(&roster));
    let outbound = Rc::new(shared.outbound(&roster));
    tokio::task::spawn_local(answer(asked, roster));
    tokio::task::spawn_local(outbound::sweep(Rc::clone(&outbound)));
    let Listeners { inbound: inbound_port, outbound: outbound_port } = listeners;
    tokio::select! {
        () = accept_inbound(shared, &inbound_port, inbound) => {}
        () = accept_outbound(shared, &outbound_port, outbound) => {}
        () = shared.door.closed(Closing::Leaving) => {}
    }
    drop((inbound_port, outbound_port));
    shared.door.closed(Closing::Cut).await;
    // Whoever was cut writes its last word in its next poll; one turn each is enough.
    while shared.door.inside() > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        if shared.is_over() {
            return;
        }
    }
}

async fn accept_inbound(shared: &Shared, port: &Listener, inbound: Rc<Inbound>) {
    loop {
        let accepted = port.accept(|| shared.out_of_descriptors(Direction::Inbound)).await;
        tokio::task::spawn_local(inbound::serve(Rc::clone(&inbound), accepted));
    }
}

async fn accept_outbound(shared: &Shared, port: &Listener, outbound: Rc<Outbound>) {
    // Spreads the connections of a service over its endpoints, each worker from its own start.
    let mut spin: u32 = 0;
    loop {
        let accepted = port.accept(|| shared.out_of_descriptors(Direction::Outbound)).await;
        spin = spin.wrapping_add(1);
        tokio::task::spawn_local(outbound::serve(Rc::clone(&outbound), accepted, spin));
    }
}

async fn answer(mut asked: mpsc::Receiver<Question>, roster: Roster) {
    while let Some(question) = asked.recv().await {
        // The operator may have given up meanwhile.
        let _ = question.send(roster.list(MAX_SHOWN));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Accepted;

    /// What is in the task of a connection is there for as long as that is idle: ten thousand times.
    /// The allocator has classes of 2,048 and 2,560 bytes here, and tokio adds about 100 of its own:
    /// a few bytes too many cost half a kilobyte a connection.
    const MOST_IN_A_TASK: usize = 1_920;

    fn inbound_size<F>(_: fn(Rc<Inbound>, Accepted) -> F) -> usize {
        size_of::<F>()
    }

    fn outbound_size<F>(_: fn(Rc<Outbound>, Accepted, u32) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_future_that_lasts_as_long_as_a_connection_stays_small() {
        let (inbound, outbound) = (inbound_size(inbound::serve), outbound_size(outbound::serve));
        assert!(inbound <= MOST_IN_A_TASK, "inbound: {inbound} bytes");
        assert!(outbound <= MOST_IN_A_TASK, "outbound: {outbound} bytes");
    }
}
