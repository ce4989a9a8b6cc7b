//! What this replica believes about roots and ladder: the step of its pin, and whatever the store
//! adds to it that is signed by a root which was trusted before. All else in the store is ignored,
//! loudly.
//!
//! Never: believes a record for where it lies, or goes back.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use myelin_identity::bundle::{MAX_STEPS, SignedStep, StepError, TrustBundle};

use super::RotationError;
use crate::journal::{BundleRecord, CURRENT, Entry, Journal, JournalError, step_name};

/// The steps as they are believed: the present one, and the way to it.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    pub(super) step: Arc<SignedStep>,
    pub(super) bundle: Arc<TrustBundle>,
    /// Oldest first, ending with the present one; at most [`MAX_STEPS`].
    pub(super) steps: Arc<Vec<SignedStep>>,
}

/// Something in the store that was not believed. The word is the metric's label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    pub word: &'static str,
    pub why: String,
}

/// Every word of [`Ignored`].
pub const IGNORED_WORDS: [&str; 4] = ["missing", "unreadable", "replayed", "unsigned"];

impl Trust {
    pub(super) fn new(step: SignedStep) -> Self {
        let bundle = Arc::new(step.step.bundle.clone());
        Self { steps: Arc::new(vec![step.clone()]), step: Arc::new(step), bundle }
    }

    /// With the newest step at the end of the way.
    fn extended(&self, new: Vec<SignedStep>) -> Self {
        let mut steps = (*self.steps).clone();
        steps.extend(new);
        let excess = steps.len().saturating_sub(MAX_STEPS);
        steps.drain(..excess);
        let last = steps.last().cloned().unwrap_or_else(|| (*self.step).clone());
        Self {
            bundle: Arc::new(last.step.bundle.clone()),
            step: Arc::new(last),
            steps: Arc::new(steps),
        }
    }

    /// One step further, which this replica has made itself.
    pub(super) fn with(&self, step: SignedStep) -> Self {
        self.extended(vec![step])
    }

    /// Reads the way that led here, as far as the store still holds it whole.
    pub(super) async fn recall(&self, journal: &Journal) -> Result<Self, JournalError> {
        let mut steps = vec![(*self.step).clone()];
        while steps.len() < MAX_STEPS {
            let next = &steps[steps.len() - 1];
            let Some(number) = next.step.number.checked_sub(1).filter(|number| *number > 0) else {
                break;
            };
            let Ok(Some(found)) = read_step(journal, &step_name(number)).await? else { break };
            if next.follows(&found.step).is_err() {
                break;
            }
            steps.push(found);
        }
        steps.reverse();
        Ok(Self { steps: Arc::new(steps), ..self.clone() })
    }

    /// What the store says now, if it is believable and goes further. The revision is that of the
    /// record, believed or not: whoever writes, writes over it.
    pub(super) async fn look(&self, journal: &Journal) -> Result<Looked, JournalError> {
        let (revision, found) = match journal.read::<BundleRecord>(CURRENT).await {
            Ok(Some(entry)) => (Some(entry.revision), read_entry(&entry)),
            Ok(None) => {
                let why = "the store holds no trust record any more".to_owned();
                (None, Err(Ignored { word: "missing", why }))
            }
            Err(JournalError::Unreadable { why, .. }) => {
                (None, Err(Ignored { word: "unreadable", why }))
            }
            Err(error) => return Err(error),
        };
        let outcome = match found {
            Ok(found) => self.judge(journal, found).await?,
            Err(ignored) => Err(ignored),
        };
        Ok(Looked { revision, outcome })
    }

    async fn judge(
        &self,
        journal: &Journal,
        found: SignedStep,
    ) -> Result<Result<Option<Self>, Ignored>, JournalError> {
        let held = &self.step.step;
        let (have, seen) = (held.number, found.step.number);
        if found.step == *held {
            return Ok(Ok(None));
        }
        if seen <= have {
            let word = if self.steps.contains(&found) { "replayed" } else { "unsigned" };
            let why = format!("it has number {seen}, and number {have} is in force");
            return Ok(Err(Ignored { word, why }));
        }
        let mut way: Vec<SignedStep> = Vec::new();
        let unsigned = |why: StepError| Ignored { word: "unsigned", why: why.to_string() };
        for number in have + 1..=seen {
            let before = way.last().map_or(held, |last| &last.step);
            let step = if number == seen {
                found.clone()
            } else {
                match read_step(journal, &step_name(number)).await? {
                    Ok(Some(step)) => step,
                    Ok(None) => {
                        return Ok(Err(unsigned(StepError::OutOfOrder {
                            held: number - 1,
                            found: seen,
                        })));
                    }
                    Err(ignored) => return Ok(Err(ignored)),
                }
            };
            if let Err(why) = step.follows(before) {
                return Ok(Err(unsigned(why)));
            }
            way.push(step);
        }
        Ok(Ok(Some(self.extended(way))))
    }
}

/// What a look at the store brought.
pub(super) struct Looked {
    pub(super) revision: Option<u64>,
    pub(super) outcome: Result<Option<Trust>, Ignored>,
}

/// The current step as the store has it, believed or not: for a first start, and for whoever looks
/// at a store without a server.
pub(super) async fn current(journal: &Journal) -> Result<Option<SignedStep>, RotationError> {
    let Some(entry) = journal.read::<BundleRecord>(CURRENT).await? else { return Ok(None) };
    match SignedStep::try_from(&entry.record) {
        Ok(step) => Ok(Some(step)),
        Err(why) => Err(JournalError::Unreadable { key: entry.key, why }.into()),
    }
}

async fn read_step(
    journal: &Journal,
    name: &str,
) -> Result<Result<Option<SignedStep>, Ignored>, JournalError> {
    match journal.read::<BundleRecord>(name).await {
        Ok(Some(entry)) => Ok(read_entry(&entry).map(Some)),
        Ok(None) => Ok(Ok(None)),
        Err(JournalError::Unreadable { why, .. }) => Ok(Err(Ignored { word: "unreadable", why })),
        Err(error) => Err(error),
    }
}

fn read_entry(entry: &Entry<BundleRecord>) -> Result<SignedStep, Ignored> {
    SignedStep::try_from(&entry.record).map_err(|why| Ignored { word: "unreadable", why })
}
