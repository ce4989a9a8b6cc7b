//! Checkpoints (c2sp.org/tlog-checkpoint): a log's size and root as a signed note, and what
//! witnesses add to it (c2sp.org/tlog-cosignature, Ed25519). Called by `judge`, by the CA's
//! sequencer, and by whoever compares two views of one log.
//! Never: extension lines (no log of ours writes any), or an answer to which of two forks is true.

// SPDX-License-Identifier: Apache-2.0

use super::note::{LogKey, Note, NoteError, NoteSignature, WitnessKey, parse_lines};
use super::tree::Hash;

/// The header of what a witness signs.
const COSIGNATURE_HEADER: &str = "cosignature/v1";
/// Ed25519.
const SIGNATURE_BYTES: usize = 64;

/// One state of one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub origin: String,
    pub size: u64,
    pub root: Hash,
}

/// Why bytes are not a checkpoint of the log that was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Note(#[from] NoteError),
    #[error("the note is no checkpoint: three lines of origin, size and root are expected")]
    Malformed,
    #[error("the checkpoint is of log {found:?}, not of {expected:?}")]
    OtherLog { found: String, expected: String },
}

impl Checkpoint {
    /// The text that a log signs.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, self.root)
    }

    /// Reads the text of a note, believing it.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = text.strip_suffix('\n').ok_or(CheckpointError::Malformed)?.split('\n');
        let (Some(origin), Some(size), Some(root), None) =
            (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(CheckpointError::Malformed);
        };
        let number: u64 = size.parse().map_err(|_| CheckpointError::Malformed)?;
        let root = Hash::from_base64(root).ok_or(CheckpointError::Malformed)?;
        // One spelling only: no sign, no leading zero, no larger tree than proofs can speak of.
        if origin.is_empty() || number.to_string() != size || number > i64::MAX as u64 {
            return Err(CheckpointError::Malformed);
        }
        Ok(Self { origin: origin.to_owned(), size: number, root })
    }

    /// Reads a note that `key` must have signed; the origin must be the key's name.
    pub fn open(note: &[u8], key: &LogKey) -> Result<Self, CheckpointError> {
        let note = Note::parse(note)?;
        note.verify(key)?;
        let checkpoint = Self::parse(note.text)?;
        if checkpoint.origin != key.name() {
            let (found, expected) = (checkpoint.origin, key.name().to_owned());
            return Err(CheckpointError::OtherLog { found, expected });
        }
        Ok(checkpoint)
    }
}

/// The signature line of a log: put below [`Checkpoint::text`] and an empty line.
pub fn signature_line(key: &LogKey, signature: &[u8; SIGNATURE_BYTES]) -> String {
    key.as_note_key().line(signature)
}

/// The line of a witness that saw `text` at `seconds`, given its signature over
/// [`cosigned_message`].
pub fn cosignature_line(
    key: &WitnessKey,
    seconds: u64,
    signature: &[u8; SIGNATURE_BYTES],
) -> String {
    let mut bytes = seconds.to_be_bytes().to_vec();
    bytes.extend(signature);
    key.as_note_key().line(&bytes)
}

/// What a witness signs.
pub fn cosigned_message(text: &str, seconds: u64) -> String {
    format!("{COSIGNATURE_HEADER}\ntime {seconds}\n{text}")
}

/// Those of `witnesses` that have cosigned the note, each once and with the time it said: whoever
/// is named twice, or signs under two names with one key, is one witness. A signature in the name
/// and id of a known witness that does not verify condemns the whole note.
pub fn cosigned_by<'k>(
    note: &Note<'_>,
    witnesses: &'k [WitnessKey],
) -> Result<Vec<(&'k WitnessKey, u64)>, NoteError> {
    let mut found: Vec<(&WitnessKey, u64)> = Vec::new();
    for witness in witnesses {
        let mut seen = None;
        for line in note.signatures_of(witness.as_note_key()) {
            seen = Some(time_of(line, witness, note.text).ok_or(NoteError::BadSignature)?);
        }
        let public = witness.as_note_key().public();
        let is_new = found.iter().all(|(known, _)| known.as_note_key().public() != public);
        found.extend(seen.filter(|_| is_new).map(|seconds| (witness, seconds)));
    }
    Ok(found)
}

/// What a witness answered, as the lines that are worth keeping: those of `witness` that verify.
pub fn lines_of_answer(
    answer: &[u8],
    text: &str,
    witness: &WitnessKey,
) -> Result<String, NoteError> {
    let answer = std::str::from_utf8(answer).map_err(|_| NoteError::Malformed)?;
    let key = witness.as_note_key();
    for line in parse_lines(answer)? {
        if line.name == key.name() && line.key_id == key.id() {
            time_of(&line, witness, text).ok_or(NoteError::BadSignature)?;
            return Ok(key.line(&line.signature));
        }
    }
    Err(NoteError::NotSigned)
}

fn time_of(line: &NoteSignature<'_>, witness: &WitnessKey, text: &str) -> Option<u64> {
    let (seconds, signature) = line.signature.split_first_chunk::<8>()?;
    let seconds = u64::from_be_bytes(*seconds);
    let message = cosigned_message(text, seconds);
    let good = seconds <= i64::MAX as u64
        && signature.len() == SIGNATURE_BYTES
        && witness.as_note_key().has_signed(message.as_bytes(), signature);
    good.then_some(seconds)
}
