//! A key is used once it has proven itself, and a token that begins to lie is caught at its first lie.
//!
//! Never: a real token; that one is in the end-to-end suite.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::Digest;
use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
use zeroize::Zeroizing;

use super::*;
use crate::signer::token::Device;

const DEADLINE: Duration = Duration::from_secs(5);

/// A token with one key, in memory.
struct Soft {
    pair: EcdsaKeyPair,
    lies: Arc<AtomicBool>,
}

impl Device for Soft {
    fn make(&mut self, _: &[u8]) -> Result<Vec<u8>, TokenFault> {
        Ok(self.pair.public_key().as_ref().to_vec())
    }

    fn sign(&mut self, _: &[u8], digest: &[u8]) -> Result<Vec<u8>, TokenFault> {
        let mut digest = digest.to_vec();
        digest[0] ^= u8::from(self.lies.load(Ordering::Relaxed));
        let digest = Digest::import_less_safe(&digest, &SHA256).unwrap();
        Ok(self.pair.sign_digest(&digest).unwrap().as_ref().to_vec())
    }

    fn forget(&mut self, _: &[u8]) -> Result<(), TokenFault> {
        unreachable!("no test forgets a key here")
    }

    fn wrap(&mut self, _: &str, _: &[u8]) -> Result<Vec<u8>, TokenFault> {
        unreachable!("no test wraps here")
    }

    fn unwrap(&mut self, _: &str, _: &[u8]) -> Result<Zeroizing<Vec<u8>>, TokenFault> {
        unreachable!("no test unwraps here")
    }
}

fn token() -> (Token, Arc<AtomicBool>) {
    let lies = Arc::new(AtomicBool::new(false));
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    (Token::start(Soft { pair, lies: lies.clone() }, DEADLINE).unwrap(), lies)
}

#[test]
fn signature_of_a_token_goes_on_only_if_it_verifies() {
    let (token, lies) = token();
    let (key, _) = Key::in_token(&token).unwrap();
    let signature = key.sign(b"a certificate").unwrap();
    assert!(key.public().verifies(b"a certificate", &signature));
    lies.store(true, Ordering::Relaxed);
    let refused = key.sign(b"a certificate");
    assert!(
        matches!(&refused, Err(SignerError::Token(TokenFault::Unavailable(why))) if why.contains("does not verify")),
        "{refused:?}"
    );
    lies.store(false, Ordering::Relaxed);
    assert!(key.sign(b"a certificate").is_ok());
}

#[test]
fn key_of_a_token_is_opened_only_for_its_own_public_half() {
    let (token, lies) = token();
    let (key, at_rest) = Key::in_token(&token).unwrap();
    let id = id_in_token(&at_rest).unwrap();
    assert!(Key::of_token(&token, id, &key.public().0).is_ok());
    let other = Key::in_memory(&SealKey::from_bytes([1; 32])).unwrap().0.public();
    let refused = Key::of_token(&token, id, &other.0);
    assert!(matches!(refused, Err(SignerError::Certificate(_))));
    lies.store(true, Ordering::Relaxed);
    let refused = Key::of_token(&token, id, &key.public().0);
    assert!(matches!(refused, Err(SignerError::Certificate(_))));
}
