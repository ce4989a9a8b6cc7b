//! The heartbeat of all watches, apart from everything that may have to wait for the store.
//!
//! Never: reads the store: what it says is dated by when the store was last read.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use tokio::time::{MissedTickBehavior, interval};

use crate::api::Stopping;
use crate::authority::{Authority, HEARTBEAT};

/// Says the same again, and follows what other replicas do, until the process ends.
pub(super) async fn run(authority: Arc<Authority>, mut stopping: Stopping) {
    tokio::select! {
        () = beat(&authority) => {}
        never = authority.follow() => match never {},
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
}

async fn beat(authority: &Authority) {
    let mut beats = interval(HEARTBEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        if let Err(error) = authority.say().await {
            tracing::error!(%error, "cannot say the bundle and the deny list");
        }
    }
}
