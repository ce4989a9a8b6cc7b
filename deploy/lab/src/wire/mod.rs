//! What crosses the wire between the pods: a raw capture and its reading.
//! Called by the demo and the suites.
//! Never: changes, delays or drops a frame of the pods.

// SPDX-License-Identifier: Apache-2.0

/// The links of the wire's namespace that a capture needs to know, by index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tap {
    /// The bridge itself: what it hands up to its own host has been seen on a port already.
    pub(crate) bridge: u32,
    /// A frame that is sent here arrives at `arrive`: how a capture finds the end of its queue.
    pub(crate) inject: u32,
    pub(crate) arrive: u32,
}
