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

pub use capture::{Capture, CaptureOptions, KEEP_DEFAULT_BYTES};
pub use hello::{cipher_name, group_name, version_name};
pub use pcap::PcapSummary;
pub use report::{CanaryHits, WireReport};
pub use tls::ContentType;
