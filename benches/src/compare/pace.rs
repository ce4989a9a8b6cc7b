//! When requests are due in an open loop: a kernel timer, because tokio's own counts milliseconds
//! and would add up to one to every latency. Called by `load`.
//!
//! Never: leaves out what fell due while nobody looked.

// SPDX-License-Identifier: Apache-2.0

use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::read;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

/// Fires so many times a second.
pub(crate) struct Pace {
    timer: AsyncFd<OwnedFd>,
    interval: Duration,
    start: Instant,
    fired: u32,
}

impl Pace {
    pub(crate) fn new(rate: f64) -> Result<Self> {
        let interval = Duration::from_secs_f64(1.0 / rate);
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)
            .context("cannot make a timer")?;
        let every = Expiration::Interval(TimeSpec::from_duration(interval));
        // Taken first: an expiry that came before `due` would be waited for once more.
        let start = Instant::now();
        timer.set(every, TimerSetTimeFlags::empty()).context("cannot set a timer")?;
        #[expect(deprecated, reason = "sound for a descriptor that is owned and never swapped")]
        let timer = AsyncFd::with_interest(OwnedFd::from(timer), Interest::READABLE)
            .context("cannot wait for a timer")?;
        Ok(Self { timer, interval, start, fired: 0 })
    }

    /// Waits until the next one is due, and says when it was.
    pub(crate) async fn next(&mut self) -> Result<Instant> {
        let due = self.start + self.interval * (self.fired + 1);
        let mut expirations = [0_u8; 8];
        while Instant::now() < due {
            let mut ready = self.timer.readable().await.context("cannot wait for a timer")?;
            ready.try_io(|timer| Ok(read(timer, &mut expirations)?)).ok();
        }
        self.fired += 1;
        Ok(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_due_is_evenly_spaced_and_never_early() {
        let mut pace = Pace::new(500.0).unwrap();
        let mut before = pace.next().await.unwrap();
        for _ in 0..20 {
            let due = pace.next().await.unwrap();
            assert_eq!(due - before, Duration::from_millis(2));
            assert!(Instant::now() >= due);
            before = due;
        }
    }
}
