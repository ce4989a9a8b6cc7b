//! When a controller is tried again, and which: in turn, at a moment of our own, more rarely after
//! each failure. Called by whoever keeps a line.
//!
//! Never: two sidecars at one moment by design; a pause that nobody can shorten.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::Config;
use crate::addr::Endpoint;

/// After a connection that was good, the next one begins somewhere within this: the sidecars of a
/// controller that went away come back one by one. Whoever needs an answer does not wait for it.
const SPREAD: Duration = Duration::from_secs(10);
/// After failures the spread doubles up to this, so that a controller that is back is found soon.
pub const LONGEST_SPREAD: Duration = Duration::from_secs(30);
/// Between two tries at the least, however urgent: after a good connection, and after a failed try.
const LEAST_PAUSE: Duration = Duration::from_millis(200);
const LEAST_PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Where we are in the turn, and how far apart the tries are.
pub struct Pace {
    turn: usize,
    spread: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { turn: 0, spread: SPREAD }
    }
}

impl Pace {
    /// Whose turn it is.
    pub fn controller(&self, config: &Config) -> Endpoint {
        config.addresses[self.turn % config.addresses.len()]
    }

    /// After a connection that ended, and had `heard` something or not: somewhere within the spread,
    /// which is `most` at the most, or as soon as somebody needs an answer (`wanted`). Then it is the
    /// next one's turn.
    pub async fn pause(&mut self, heard: bool, most: Duration, wanted: impl Future<Output = ()>) {
        self.turn = self.turn.wrapping_add(1);
        let least = if heard {
            self.spread = SPREAD;
            LEAST_PAUSE
        } else {
            LEAST_PAUSE_AFTER_FAILURE
        };
        let share = f64::from(random()) / f64::from(u16::MAX);
        let until = Instant::now() + self.spread.min(most).mul_f64(share);
        sleep(least).await;
        tokio::select! {
            () = sleep_until(until) => {}
            () = wanted => {}
        }
        self.spread = (self.spread * 2).min(LONGEST_SPREAD);
    }
}

fn random() -> u16 {
    let mut bytes = [0; 2];
    // Without randomness there is no spread; everything that needs it for safety fails by itself.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u16::from_be_bytes(bytes)
}
