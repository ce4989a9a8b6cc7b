//! Two trust domains, each with its own CA and sidecars: who may call whom, that nobody's roots
//! vouch for another's names, that a removal ends what runs, and that a rotation there breaks nothing here.
//!
//! Never: an endpoint that lies; the CA's own suite has those.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod rotation;
mod stage;
mod trust;
mod uses;
