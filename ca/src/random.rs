//! Random bytes of the operating system, for serials, lineage ids and token secrets.
//!
//! Never: a seed, or a generator of our own.

// SPDX-License-Identifier: Apache-2.0

use aws_lc_rs::rand;

/// The system gave none. Nothing may be issued then.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the operating system gives no random bytes")]
pub struct NoRandomness;

pub fn bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}
