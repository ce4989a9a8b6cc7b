//! Attestor: a join token that an operator carried to the machine. The journal knows whether it is
//! unused.
//!
//! Never: keeps or compares the secret itself.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::issuance::TokenSecret;

use super::Claimed;
use crate::journal::Hex;

pub(super) fn claim(secret: &TokenSecret) -> Claimed {
    Claimed::Token { secret_hash: Hex(secret.stored_hash().to_vec()) }
}
