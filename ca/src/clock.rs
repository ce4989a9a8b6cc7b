//! The one wall clock, as a value that is passed in: the system's in `app`, any other in tests.
//!
//! Never: reads the system's time itself.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::sync::Arc;

use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

/// Seconds since 1970, the unit of every instant in this crate.
pub type UnixSeconds = u64;

/// Tells the time. Clones tell the same time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> UnixTime + Send + Sync>);

impl Clock {
    pub fn new(tell: impl Fn() -> UnixTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    pub fn now(&self) -> UnixTime {
        (self.0)()
    }

    pub fn seconds(&self) -> UnixSeconds {
        self.now().as_secs()
    }
}

/// An instant as people and RFC 3339 write it.
pub fn rfc3339(seconds: UnixSeconds) -> humantime::Rfc3339Timestamp {
    let since = std::time::Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + since)
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.seconds())
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.now())
    }
}
