//! The log of issued certificates, as sidecar and CA both read it: RFC 6962 trees, C2SP tiles and
//! checkpoints, what a certificate's entry is, and the proof that travels with an SVID. Called by
//! the CA's sequencer (which signs and writes) and by whoever judges a peer or watches a log.
//!
//! The formats are those of c2sp.org/tlog-tiles, tlog-checkpoint, signed-note and tlog-cosignature;
//! docs/LOG.md shows them byte by byte. Hashes and signatures are aws-lc-rs', the rest is ours.
//!
//! Never: I/O, a clock, a key that signs, or a certificate's dates and issuer (that is `verify`).

// SPDX-License-Identifier: Apache-2.0

mod checkpoint;
mod entry;
mod judge;
mod named;
mod note;
mod proof;
mod tiles;
mod tree;

#[cfg(test)]
mod tests;

pub use checkpoint::{
    Checkpoint, CheckpointError, cosignature_line, cosigned_by, cosigned_message, lines_of_answer,
    signature_line,
};
pub use entry::{ENTRY_VERSION, Entry, EntryError, entry_of};
pub use judge::{Chain, LogRefusal, Seen, Verified, Witnesses, verify};
pub use named::{
    ISSUER_LOG_OID, LOG_OID, NamedLogError, issuer_log, named_log, named_log_extension,
    named_log_of_value,
};
pub use note::{
    KeyError as NoteKeyError, LogKey, MAX_NOTE_BYTES, MAX_SIGNATURES, Note, NoteError, NoteKey,
    NoteSignature, WitnessKey,
};
pub use proof::{Inclusion, LogProof, MAX_PROOF_BYTES, ProofError};
pub use tiles::{
    Resource, TILE_WIDTH, Tile, decode_bundle, encode_bundle, hashes_of_tile, node_in_tile,
    tile_holding,
};
pub use tree::{
    Frontier, FrontierError, Hash, MAX_PATH, Node, consistency_proof, empty_root, inclusion_proof,
    leaf_hash, node_hash, root_of, verify_consistency, verify_inclusion,
};
