//! The heartbeat of all watches, apart from everything that may have to wait for the store.
//!
//! Never: reads the store: what it says is dated by when the store was last read.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::api::Stopping;
use crate::authority::{Authority, HEARTBEAT};

/// Says the same again, and follows what other replicas do, until the process ends. `said` knows
/// whether the last one could be signed: readiness is about that too.
pub(super) async fn run(
    authority: Arc<Authority>,
    said: watch::Sender<Result<(), String>>,
    mut stopping: Stopping,
) {
    tokio::select! {
        () = beat(&authority, &said) => {}
        never = authority.follow() => match never {},
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
}

async fn beat(authority: &Authority, said: &watch::Sender<Result<(), String>>) {
    let mut beats = interval(HEARTBEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        let told = authority.say().await;
        if let Err(error) = &told {
            tracing::error!(%error, "cannot say the bundle and the deny list");
        }
        let _ = said.send_replace(told.map_err(|error| error.to_string()));
    }
}
