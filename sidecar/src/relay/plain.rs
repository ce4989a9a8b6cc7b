//! Plaintext between two streams: what is not meshed (named exceptions, addresses outside of the
//! mesh) and permissive inbound. Called by `inbound` and `outbound`, which have counted and logged
//! why it is not encrypted.
//!
//! Never: chooses plaintext; it is only told to carry it.

// SPDX-License-Identifier: Apache-2.0

use std::io;

use tokio::net::TcpStream;

use super::duplex::Meter;

/// A quarter of a socket buffer's default: large enough for bulk, small enough to have two of it
/// a connection.
const BUFFER: usize = 16 * 1024;

/// How a plaintext connection ended.
#[derive(Debug)]
pub enum PlainEnding<I> {
    Completed,
    Reset(io::Error),
    Interrupted(I),
}

/// Copies both ways until both ends have closed, keeping half-close.
pub async fn plain<I>(
    workload: &mut TcpStream,
    other: &mut TcpStream,
    meter: &impl Meter,
    interrupt: impl Future<Output = I>,
) -> PlainEnding<I> {
    let copied = tokio::io::copy_bidirectional_with_sizes(workload, other, BUFFER, BUFFER);
    tokio::select! {
        copied = copied => match copied {
            Ok((sent, received)) => {
                meter.to_peer(usize::try_from(sent).unwrap_or(usize::MAX));
                meter.to_workload(usize::try_from(received).unwrap_or(usize::MAX));
                PlainEnding::Completed
            }
            Err(error) => PlainEnding::Reset(error),
        },
        reason = interrupt => PlainEnding::Interrupted(reason),
    }
}
