//! How secrets rest on disk: AES-256-GCM-SIV (RFC 8452), which survives even a repeated nonce.
//! Called by the CA for its keys and by the sidecar for the host key.
//! Never: passwords, key files (the caller has the bytes), or a workload's key: that one is not
//! stored.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use zeroize::{Zeroize as _, Zeroizing};

/// The first byte of every sealed box, so that a later form can be told from this one.
const VERSION: u8 = 1;

const HEADER_BYTES: usize = 1 + NONCE_LEN;

/// Keys and small records only; whoever hands in more has mistaken the file.
pub const MAX_SEALED_BYTES: usize = 64 * 1024;

/// A 256-bit key. Its `Debug` says nothing of it; its bytes are wiped when it is dropped.
#[derive(Clone)]
pub struct SealKey([u8; 32]);

/// Why something could not be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error(
        "the sealed box has {bytes} bytes, more than {MAX_SEALED_BYTES}; is it the right file?"
    )]
    TooBig { bytes: usize },
    #[error("these bytes are no sealed box of version {VERSION}; is it the right file?")]
    NotABox,
    #[error(
        "the sealed box does not open: another key, another purpose, or damaged; \
         restore it from backup"
    )]
    WrongKeyOrDamaged,
    #[error("the operating system gave no random bytes")]
    NoRandomness,
}

impl SealKey {
    pub const BYTES: usize = 32;

    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub fn random() -> Result<Self, SealError> {
        random_bytes().map(Self)
    }

    /// For the one file that the caller keeps it in.
    pub fn reveal(&self) -> &[u8; 32] {
        &self.0
    }

    fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM_SIV, &self.0)
            .expect("an AES-256 key has as many bytes as a seal key");
        LessSafeKey::new(key)
    }
}

impl Drop for SealKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(..)")
    }
}

/// Encrypts `plaintext`; `purpose` (what it is and whose) must be the same again to open it. The
/// form is version, nonce, ciphertext with tag.
pub fn seal(key: &SealKey, purpose: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
    if plaintext.len() > MAX_SEALED_BYTES {
        return Err(SealError::TooBig { bytes: plaintext.len() });
    }
    let nonce: [u8; NONCE_LEN] = random_bytes()?;
    // Room for the tag, so that the plaintext is encrypted where it lies and never moved.
    let mut sealed = Vec::with_capacity(plaintext.len() + AES_256_GCM_SIV.tag_len());
    sealed.extend_from_slice(plaintext);
    key.cipher()
        .seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(bound(purpose)),
            &mut sealed,
        )
        .expect("a bounded plaintext can always be sealed");
    let mut out = Vec::with_capacity(HEADER_BYTES + sealed.len());
    out.push(VERSION);
    out.extend(nonce);
    out.extend(sealed);
    Ok(out)
}

/// Decrypts; what was opened is wiped when it is dropped.
pub fn open(key: &SealKey, purpose: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    // The tag and the header come on top of the plaintext's bound.
    if sealed.len() > MAX_SEALED_BYTES + HEADER_BYTES + AES_256_GCM_SIV.tag_len() {
        return Err(SealError::TooBig { bytes: sealed.len() });
    }
    let Some((&[VERSION, ref nonce @ ..], rest)) = sealed.split_first_chunk::<HEADER_BYTES>()
    else {
        return Err(SealError::NotABox);
    };
    let mut rest = Zeroizing::new(rest.to_vec());
    let plain = key
        .cipher()
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(bound(purpose)), &mut rest)
        .map_err(|_| SealError::WrongKeyOrDamaged)?
        .len();
    rest.truncate(plain);
    Ok(rest)
}

/// The version is authenticated with the purpose.
fn bound(purpose: &[u8]) -> Vec<u8> {
    let mut out = b"myelin seal\0".to_vec();
    out.push(VERSION);
    out.extend(purpose);
    out
}

fn random_bytes<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| SealError::NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn box_opens_only_with_its_key_and_purpose() {
        let (key, other) = (SealKey::random().unwrap(), SealKey::random().unwrap());
        let sealed = seal(&key, b"ca key 1", b"secret").unwrap();
        assert_eq!(**open(&key, b"ca key 1", &sealed).unwrap(), *b"secret");
        assert_eq!(open(&other, b"ca key 1", &sealed), Err(SealError::WrongKeyOrDamaged));
        assert_eq!(open(&key, b"ca key 2", &sealed), Err(SealError::WrongKeyOrDamaged));
    }

    #[test]
    fn damaged_box_is_refused_at_every_byte() {
        let key = SealKey::random().unwrap();
        let sealed = seal(&key, b"p", b"secret").unwrap();
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(open(&key, b"p", &damaged).is_err(), "byte {at}");
            assert!(open(&key, b"p", &sealed[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn oversized_input_is_refused() {
        let key = SealKey::random().unwrap();
        let big = vec![0; MAX_SEALED_BYTES + 1];
        assert!(matches!(seal(&key, b"", &big), Err(SealError::TooBig { .. })));
        assert!(seal(&key, b"", &big[1..]).is_ok_and(|s| open(&key, b"", &s).is_ok()));
        assert!(open(&key, b"", &vec![1; MAX_SEALED_BYTES + 100]).is_err());
    }

    #[test]
    fn debug_does_not_show_the_key() {
        assert_eq!(format!("{:?}", SealKey::from_bytes([7; 32])), "SealKey(..)");
    }

    proptest! {
        #[test]
        fn anything_small_round_trips(purpose: Vec<u8>, plain: Vec<u8>) {
            let key = SealKey::from_bytes([3; 32]);
            let sealed = seal(&key, &purpose, &plain).unwrap();
            prop_assert_eq!(&**open(&key, &purpose, &sealed).unwrap(), &plain);
        }
    }
}
