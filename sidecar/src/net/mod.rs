//! The operating system's side of a connection: listeners that learn where a redirected
//! connection meant to go, dials that carry our mark, resets, and the addresses of this pod.
//! Called by `inbound`, `outbound`, `credentials` (through a dialer that `app` hands in) and `app`.
//!
//! Never: reads or writes a byte of a stream, knows TLS, decides who may pass.

// SPDX-License-Identifier: Apache-2.0

mod dial;
mod listen;
mod own;

pub use dial::{DialError, Dialer, reset};
pub use listen::{Accepted, BindError, Listener, Origin};
pub use own::{OwnAddresses, own_addresses, raise_descriptor_limit};
