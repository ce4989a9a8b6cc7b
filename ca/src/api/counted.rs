//! What is open now, as a gauge says it: one count for each connection and each watch. Held by the
//! connection or the watch that it counts.
//!
//! Never: counts what is over; whoever drops it takes it off the gauge.

// SPDX-License-Identifier: Apache-2.0

use prometheus::IntGauge;

/// A gauge that counts while this lives.
pub(super) struct Counted(IntGauge);

impl Counted {
    pub(super) fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
