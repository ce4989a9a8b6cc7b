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

/// A name that nobody can guess or meet again (96 random bits) and that sorts by `now`, the Unix second
/// of its making: what is written together lies together in the store, so that a group of issues
/// touches few of its pages.
pub fn name(now: u64) -> Result<[u8; 16], NoRandomness> {
    let mut name = bytes::<16>()?;
    // The low half, which lasts until 2106; which second it was, is in the certificate anyway.
    name[..4].copy_from_slice(&now.to_be_bytes()[4..]);
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_their_second_and_are_else_random() {
        let made = |now| name(now).unwrap();
        assert!(made(1_800_000_000) < made(1_800_000_001));
        assert!(made(0x7fff_ffff) < made(0x8000_0000));
        let (one, other) = (made(7), made(7));
        assert_eq!(one[..4], other[..4]);
        assert_ne!(one[4..], other[4..]);
    }
}
