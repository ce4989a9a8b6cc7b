//! One question to one witness, `add-checkpoint`: an old size, the proof that the log continues it,
//! and the checkpoint; and what to make of the answer.
//!
//! Never: a third try, or a cosignature that is not of this witness on this checkpoint.

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

/// One question with a second try: two round trips around the world and a slow disk.
const WITNESS_DEADLINE: Duration = Duration::from_secs(2);
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
        "it knows this log with {theirs} entries, and does not follow us to {ours}: was the log rolled back, or is there a second one under its name?"
    )]
    Conflict { theirs: u64, ours: u64 },
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
            Self::Unproven(..) => "unproven",
        }
    }
}

/// What a witness answers, before it is believed.
enum Answer {
    Lines(Vec<u8>),
    /// It knows the log with so many entries.
    Knows(u64),
}

impl Asking {
    pub(super) fn new(witness: Witness, tls: Arc<ClientConfig>, metrics: LogMetrics) -> Self {
        Self { witness, tls, metrics, known: 0, last: "" }
    }

    /// The line that this witness puts below the checkpoint.
    pub(super) async fn ask(&mut self, state: &State, log: &dyn Witnessed) -> Option<String> {
        let asked = timeout(WITNESS_DEADLINE, self.asked(state, log)).await;
        let asked = asked.unwrap_or(Err(Unwitnessed::Deadline(WITNESS_DEADLINE)));
        let word = asked.as_ref().map_or_else(Unwitnessed::word, |_| "cosigned");
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

    async fn asked(&mut self, state: &State, log: &dyn Witnessed) -> Result<String, Unwitnessed> {
        let ours = state.size;
        // What it knew may have been of a log that was larger then; it says so itself.
        let mut old = if self.known > ours { 0 } else { self.known };
        let mut answer = self.said_of(state, old, log).await?;
        if let Answer::Knows(theirs) = answer
            && theirs <= ours
            && theirs != old
        {
            (self.known, old) = (theirs, theirs);
            answer = self.said_of(state, old, log).await?;
        }
        match answer {
            Answer::Knows(theirs) => Err(Unwitnessed::Conflict { theirs, ours }),
            Answer::Lines(answer) => {
                let line = lines_of_answer(&answer, &state.text, &self.witness.key);
                let line = line.map_err(|error| Unwitnessed::BadAnswer(error.to_string()))?;
                self.known = ours;
                Ok(line)
            }
        }
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
            other => Err(Unwitnessed::Refused(other)),
        }
    }
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
