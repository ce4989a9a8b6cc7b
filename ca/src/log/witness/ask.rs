//! One question to one witness, `add-checkpoint`: an old size, the proof that the log continues it,
//! and the checkpoint; and what to make of the answer.
//!
//! A witness that knows more of the log than we asked about is no news where replicas share it: what
//! we know is read again, and only what contradicts that is an alarm.
//!
//! Never: tries without end, or a cosignature that is not of this witness on this checkpoint.

// SPDX-License-Identifier: Apache-2.0

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use myelin_identity::log::{Hash, lines_of_answer};
use rustls::ClientConfig;
use tokio::time::timeout;

use super::{State, Witness, Witnessed};
use crate::https::{self, HttpsError, Question};
use crate::metrics::LogMetrics;

/// One question with its tries: a few round trips around the world and a slow disk.
const WITNESS_DEADLINE: Duration = Duration::from_secs(2);
/// Tries of one question: the size that we believe, the one that the witness names, and two more for
/// replicas that bring it further meanwhile.
const MAX_TRIES: usize = 4;
/// Most bytes of an answer: a few signature lines.
const MAX_ANSWER_BYTES: usize = 4096;

/// One witness, and what it is known to know of one log.
pub(super) struct Asking {
    witness: Witness,
    tls: Arc<ClientConfig>,
    metrics: LogMetrics,
    /// The size that it cosigned last; 0 also if nobody knows.
    known: u64,
    /// The outcome of the last question: a new one is worth a line in the log.
    last: &'static str,
}

/// Why there is no cosignature.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unwitnessed {
    #[error(transparent)]
    Unreachable(#[from] HttpsError),
    #[error("it did not answer within {0:?}")]
    Deadline(Duration),
    #[error(
        "it refuses with status {0}; does it know our log's key? see /log/checkpoint and /root-log/checkpoint"
    )]
    Refused(StatusCode),
    #[error(
        "it has seen another history of this log: what it knows of {theirs} entries does not lead to ours of {ours}; is there a second log under its name?"
    )]
    Conflict { theirs: u64, ours: u64 },
    #[error(
        "it knows this log with {theirs} entries, and the store with {ours}: was the store rolled back, or does somebody else sign with the log's key?"
    )]
    Ahead { theirs: u64, ours: u64 },
    #[error("how far the log has grown cannot be read: {0}")]
    Unread(String),
    #[error("its answer is no cosignature of this checkpoint by its key: {0}")]
    BadAnswer(String),
    #[error("the proof that our log continues {0} entries cannot be made: {1}")]
    Unproven(u64, String),
}

impl Unwitnessed {
    /// One word of a closed set.
    fn word(&self) -> &'static str {
        match self {
            Self::Unreachable(HttpsError::Deadline(_)) | Self::Deadline(_) => "deadline",
            Self::Unreachable(HttpsError::TooBig(_)) | Self::BadAnswer(_) => "bad_answer",
            Self::Unreachable(_) => "unreachable",
            Self::Refused(_) => "refused",
            Self::Conflict { .. } => "conflict",
            Self::Ahead { .. } => "ahead",
            Self::Unread(_) | Self::Unproven(..) => "unproven",
        }
    }
}

/// What a witness answers, before it is believed.
enum Answer {
    Lines(Vec<u8>),
    /// It knows the log with so many entries.
    Knows(u64),
    /// The proof does not lead from what it knows to our checkpoint.
    DoesNotFollow,
}

/// How a question ended that had an answer.
pub(super) enum Asked {
    /// The line that this witness puts below the checkpoint.
    Cosigned(String),
    /// The log has grown beyond the checkpoint, and the witness knows: this is the newest.
    Overtaken(State),
}

impl Asking {
    pub(super) fn new(witness: Witness, tls: Arc<ClientConfig>, metrics: LogMetrics) -> Self {
        Self { witness, tls, metrics, known: 0, last: "" }
    }

    /// Asks about one checkpoint; `None`: it did not cosign, which is counted and told.
    pub(super) async fn ask(&mut self, state: &State, log: &dyn Witnessed) -> Option<Asked> {
        let asked = timeout(WITNESS_DEADLINE, self.asked(state, log)).await;
        let asked = asked.unwrap_or(Err(Unwitnessed::Deadline(WITNESS_DEADLINE)));
        let word = match &asked {
            Ok(Asked::Cosigned(_)) => "cosigned",
            Ok(Asked::Overtaken(_)) => "overtaken",
            Err(why) => why.word(),
        };
        let name = self.witness.key.name();
        self.metrics.witness_answers.with_label_values(&[name, word]).inc();
        if let Err(why) = &asked
            && self.last != word
        {
            let size = state.size;
            tracing::warn!(witness = name, outcome = word, size, error = %why, "no cosignature");
        }
        self.last = word;
        asked.ok()
    }

    async fn asked(&mut self, state: &State, log: &dyn Witnessed) -> Result<Asked, Unwitnessed> {
        let ours = state.size;
        // What it knew may have been of a log that was larger then; it says so itself.
        let mut old = if self.known > ours { 0 } else { self.known };
        for _ in 0..MAX_TRIES {
            match self.said_of(state, old, log).await? {
                Answer::Lines(answer) => {
                    let line = lines_of_answer(&answer, &state.text, &self.witness.key);
                    let line = line.map_err(|error| Unwitnessed::BadAnswer(error.to_string()))?;
                    self.known = ours;
                    return Ok(Asked::Cosigned(line));
                }
                Answer::Knows(theirs) if theirs > ours => return newer(theirs, ours, log).await,
                // Of one size there is one tree.
                Answer::Knows(theirs) if theirs == old => {
                    return Err(Unwitnessed::Conflict { theirs, ours });
                }
                Answer::Knows(theirs) => (self.known, old) = (theirs, theirs),
                Answer::DoesNotFollow => return Err(Unwitnessed::Conflict { theirs: old, ours }),
            }
        }
        Err(Unwitnessed::BadAnswer(format!("it names another size each time, last {old}")))
    }

    async fn said_of(
        &self,
        state: &State,
        old: u64,
        log: &dyn Witnessed,
    ) -> Result<Answer, Unwitnessed> {
        let proof = log.consistency(old, state.size).await;
        let proof = proof.map_err(|error| Unwitnessed::Unproven(old, error.to_string()))?;
        self.post(body(old, &proof, &state.note)).await
    }

    async fn post(&self, body: Vec<u8>) -> Result<Answer, Unwitnessed> {
        let question = Question {
            url: &self.witness.url,
            address: None,
            authorization: None,
            most_bytes: MAX_ANSWER_BYTES,
            within: WITNESS_DEADLINE,
        };
        let (status, answer) = https::post(question, body, self.tls.clone()).await?;
        match status {
            StatusCode::OK => Ok(Answer::Lines(answer)),
            StatusCode::CONFLICT => match size(&answer) {
                Some(theirs) => Ok(Answer::Knows(theirs)),
                None => Err(Unwitnessed::Refused(status)),
            },
            StatusCode::UNPROCESSABLE_ENTITY => Ok(Answer::DoesNotFollow),
            other => Err(Unwitnessed::Refused(other)),
        }
    }
}

/// The witness knows more than we asked about. A head is in the store before its checkpoint is signed,
/// so what is in there now is as far as anybody can rightly be.
async fn newer(theirs: u64, ours: u64, log: &dyn Witnessed) -> Result<Asked, Unwitnessed> {
    let newest = log.newest().await.map_err(|error| Unwitnessed::Unread(error.to_string()))?;
    if theirs <= newest.size && newest.size > ours {
        return Ok(Asked::Overtaken(newest));
    }
    Err(Unwitnessed::Ahead { theirs, ours: newest.size })
}

fn body(old: u64, proof: &[Hash], note: &[u8]) -> Vec<u8> {
    let mut head = format!("old {old}\n");
    for hash in proof {
        let _ = writeln!(head, "{hash}");
    }
    [head.as_bytes(), b"\n", note].concat()
}

/// The size in the body of a conflict: decimal, in one spelling, and a newline.
fn size(answer: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(answer).ok()?.strip_suffix('\n')?;
    let size: u64 = text.parse().ok()?;
    (size.to_string() == text).then_some(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_of_a_conflict_has_one_spelling() {
        assert_eq!(size(b"0\n"), Some(0));
        assert_eq!(size(b"20852163\n"), Some(20_852_163));
        for wrong in ["", "\n", "7", "07\n", "+7\n", "-7\n", "7\n\n", "18446744073709551616\n"] {
            assert_eq!(size(wrong.as_bytes()), None, "{wrong:?}");
        }
    }

    #[test]
    fn question_is_old_size_proof_empty_line_and_note() {
        let hashes = [myelin_identity::log::leaf_hash(b"a"), myelin_identity::log::leaf_hash(b"b")];
        let [a, b] = hashes.map(|hash| hash.to_string());
        assert_eq!(body(0, &[], b"note"), b"old 0\n\nnote");
        assert_eq!(body(9, &hashes, b"note"), format!("old 9\n{a}\n{b}\n\nnote").into_bytes());
    }
}
