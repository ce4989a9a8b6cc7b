//! The proof that travels with an SVID, in `IssueResponse.log_proof` and in a `hello` frame: the
//! leaf's place in its log and the intermediate's in the root's log, each with a checkpoint. Written
//! by the CA, carried by sidecars as it is, read by `judge`.
//! Never: judges; a proof that decodes says nothing yet.

// SPDX-License-Identifier: Apache-2.0

use super::note::MAX_NOTE_BYTES;
use super::tree::{Hash, MAX_PATH};

/// The `hello` frame has 8 KiB for it. Two proofs in logs of a million entries, each checkpoint with
/// three cosignatures, take about 2.5 KiB.
pub const MAX_PROOF_BYTES: usize = 8 * 1024;

/// The first byte, so that a later form can be told from this one.
const VERSION: u8 = 1;
const HASH_BYTES: usize = 32;

/// One entry's place in one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inclusion {
    pub index: u64,
    /// Nearest sibling first.
    pub path: Vec<Hash>,
    /// The signed note, with its cosignatures.
    pub checkpoint: Vec<u8>,
}

/// Both places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogProof {
    /// Of the SVID, in the log that its issuer names.
    pub leaf: Inclusion,
    /// Of the issuing intermediate, in the root's log.
    pub issuer: Inclusion,
}

/// The bytes are no proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    #[error("the proof has {bytes} bytes, more than {MAX_PROOF_BYTES}")]
    TooBig { bytes: usize },
    #[error("the proof has form {found}, this binary reads {VERSION}")]
    Version { found: u8 },
    #[error("the proof's bytes do not follow its form")]
    Malformed,
}

impl Inclusion {
    /// Index (8 bytes, big endian), number of hashes (1), the hashes, length of the note (2), the
    /// note.
    pub fn encode(&self) -> Result<Vec<u8>, ProofError> {
        let bounded = self.path.len() <= MAX_PATH && self.checkpoint.len() <= MAX_NOTE_BYTES;
        let (Ok(hashes), Ok(note), true) =
            (u8::try_from(self.path.len()), u16::try_from(self.checkpoint.len()), bounded)
        else {
            return Err(ProofError::Malformed);
        };
        let mut out = self.index.to_be_bytes().to_vec();
        out.push(hashes);
        self.path.iter().for_each(|hash| out.extend(hash.0));
        out.extend(note.to_be_bytes());
        out.extend(&self.checkpoint);
        Ok(out)
    }

    /// Reads one and yields what follows it.
    pub fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), ProofError> {
        let read = || {
            let (index, rest) = bytes.split_first_chunk::<8>()?;
            let (&count, rest) = rest.split_first()?;
            let count = Some(usize::from(count)).filter(|count| *count <= MAX_PATH)?;
            let (hashes, rest) = rest.split_at_checked(count * HASH_BYTES)?;
            let (length, rest) = rest.split_first_chunk::<2>()?;
            let length = Some(usize::from(u16::from_be_bytes(*length)))
                .filter(|length| *length <= MAX_NOTE_BYTES)?;
            let (note, rest) = rest.split_at_checked(length)?;
            let path = hashes.as_chunks().0.iter().copied().map(Hash).collect();
            let index = u64::from_be_bytes(*index);
            Some((Self { index, path, checkpoint: note.to_vec() }, rest))
        };
        read().ok_or(ProofError::Malformed)
    }
}

impl LogProof {
    pub fn encode(&self) -> Result<Vec<u8>, ProofError> {
        let mut out = vec![VERSION];
        out.extend(self.leaf.encode()?);
        out.extend(self.issuer.encode()?);
        if out.len() > MAX_PROOF_BYTES {
            return Err(ProofError::TooBig { bytes: out.len() });
        }
        Ok(out)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, ProofError> {
        if bytes.len() > MAX_PROOF_BYTES {
            return Err(ProofError::TooBig { bytes: bytes.len() });
        }
        let (&version, rest) = bytes.split_first().ok_or(ProofError::Malformed)?;
        if version != VERSION {
            return Err(ProofError::Version { found: version });
        }
        let (leaf, rest) = Inclusion::decode(rest)?;
        let (issuer, rest) = Inclusion::decode(rest)?;
        if rest.is_empty() { Ok(Self { leaf, issuer }) } else { Err(ProofError::Malformed) }
    }
}
