//! What crosses the wire between the pods: a raw capture and its reading.
//! Called by the demo and the suites.
//! Never: changes, delays or drops a frame of the pods.

// SPDX-License-Identifier: Apache-2.0

mod analysis;
mod canary;
mod capture;
mod frame;
mod hello;
mod pcap;
mod report;
mod socket;
mod stream;
mod tls;

pub(crate) use capture::MARKER_ADDRESS;
pub use capture::{Capture, CaptureOptions, KEEP_DEFAULT_BYTES};
pub use hello::{cipher_name, group_name, version_name};
pub use pcap::PcapSummary;
pub use report::{CanaryHits, WireReport};
pub use tls::ContentType;

/// The links of the wire's namespace that a capture needs to know, by index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tap {
    /// The bridge itself: what it hands up to its own host has been seen on a port already.
    pub(crate) bridge: u32,
    /// A marker that is sent by `inject` arrives at `arrive`: how a capture finds its queue's end.
    pub(crate) inject: u32,
    pub(crate) arrive: u32,
}
