//! Witnesses (c2sp.org/tlog-witness): others who see that a log of ours only grows, and sign what
//! they saw. Each has a task for each log, which asks about the newest checkpoint only, so that a
//! witness that is slow, away or hostile delays no other. The two logs start them.
//!
//! Never: counts a cosignature that was not verified, or shows a witness what is not signed.

// SPDX-License-Identifier: Apache-2.0

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use myelin_identity::log::{Checkpoint, Hash, WitnessKey};
use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::LogError;
use crate::https::HttpsUrl;
use crate::metrics::LogMetrics;

mod ask;

use ask::{Asked, Asking};

/// How long a certificate waits for the cosignatures that are required: three such waits, that of the
/// batch before included, are below the deadline of an append.
const QUORUM_DEADLINE: Duration = Duration::from_millis(2_500);
/// Between two questions to a witness that nobody waits for.
const PAUSE: Duration = Duration::from_secs(1);
/// Before a witness that did not cosign is asked again about the same checkpoint.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);
/// Before a witness that did not cosign is asked again although somebody waits: whoever asks for
/// certificates must not make us ask it without end. Doubled after each failure.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest of these: whoever waits for the quorum still sees one more answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// One witness, as an operator names it.
#[derive(Clone, Debug)]
pub struct Witness {
    pub key: WitnessKey,
    /// Where it takes checkpoints: its submission prefix and `add-checkpoint`.
    pub url: HttpsUrl,
}

/// Who is asked, and how many of them have to answer before anything is handed out.
#[derive(Clone, Debug)]
pub struct Witnesses {
    pub named: Vec<Witness>,
    /// 0: nobody waits for them.
    pub quorum: usize,
    pub tls: Arc<ClientConfig>,
}

/// A checkpoint under the log's own signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) size: u64,
    /// What is signed.
    pub(super) text: String,
    /// The text with the log's signature.
    pub(super) note: Bytes,
}

/// A log whose checkpoints are to be cosigned.
pub(super) trait Witnessed: Send + Sync + 'static {
    /// That the log of `to` entries continues the one of `from` entries.
    fn consistency(&self, from: u64, to: u64) -> BoxFuture<'_, Result<Vec<Hash>, LogError>>;

    /// The checkpoint of all that is in the log now, whoever has brought it.
    fn newest(&self) -> BoxFuture<'_, Result<State, LogError>>;

    /// What this checkpoint carries now: its note with all cosignatures so far.
    fn cosigned(self: Arc<Self>, cosigned: Cosigned) -> BoxFuture<'static, ()>;
}

/// A checkpoint with as many cosignatures as there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cosigned {
    pub(super) size: u64,
    pub(super) note: Bytes,
    pub(super) count: usize,
}

/// The witnesses of one log at work. They end with it.
pub(super) struct Cosigning {
    wanted: Arc<Wanted>,
    said: Arc<watch::Sender<Vec<Said>>>,
    quorum: usize,
}

/// The newest checkpoint that is to be cosigned: one for all witnesses of a log.
type Wanted = watch::Sender<Option<Arc<State>>>;

/// What a witness said last.
#[derive(Clone, Debug, Default)]
struct Said {
    /// About the log of this size; none: nothing yet.
    size: Option<u64>,
    /// Its signature line; none: it did not cosign.
    line: Option<String>,
}

/// One witness' task.
struct Follower {
    at: usize,
    asking: Asking,
    wanted: watch::Receiver<Option<Arc<State>>>,
    /// Where it says that there is a newer one. It ends with the log.
    wants: Weak<Wanted>,
    said: Arc<watch::Sender<Vec<Said>>>,
    log: Weak<dyn Witnessed>,
    /// Whether somebody waits for each checkpoint.
    awaited: bool,
    /// How long it is left alone after its next failure, whoever waits.
    pause: Duration,
}

/// How one question ended.
enum Followed {
    Cosigned,
    Refused,
    /// There is a newer checkpoint, which is wanted now.
    Overtaken,
}

impl Cosigning {
    pub(super) fn start(
        log: &Weak<dyn Witnessed>,
        witnesses: &Witnesses,
        metrics: &LogMetrics,
    ) -> Self {
        let wanted = Arc::new(watch::Sender::new(None));
        let said = Arc::new(watch::Sender::new(vec![Said::default(); witnesses.named.len()]));
        for (at, witness) in witnesses.named.iter().enumerate() {
            let follower = Follower {
                at,
                asking: Asking::new(witness.clone(), witnesses.tls.clone(), metrics.clone()),
                wanted: wanted.subscribe(),
                wants: Arc::downgrade(&wanted),
                said: said.clone(),
                log: log.clone(),
                awaited: witnesses.quorum > 0,
                pause: FIRST_PAUSE,
            };
            tokio::spawn(follower.run());
        }
        Self { wanted, said, quorum: witnesses.quorum }
    }

    pub(super) fn quorum(&self) -> usize {
        self.quorum
    }

    /// From now on this checkpoint is to be cosigned, and no older one.
    pub(super) fn want(&self, state: State) {
        // Who refused is asked again, who cosigned or is being asked is not.
        let again = self.said.send_if_modified(|said| {
            let refused = |said: &&mut Said| said.size == Some(state.size) && said.line.is_none();
            let refused = said.iter_mut().filter(refused);
            refused.map(|said| *said = Said::default()).count() > 0
        });
        want(&self.wanted, state, again);
    }

    /// The same, unless one of this size was wanted already.
    pub(super) fn want_newer(&self, state: &State) {
        want(&self.wanted, state.clone(), false);
    }

    /// The wanted checkpoint, when as many have cosigned it as must. `None`: a newer one is wanted by
    /// now, and nobody will be asked about this one.
    pub(super) async fn quorum_on(&self, state: &State) -> Result<Option<Cosigned>, LogError> {
        let deadline = Instant::now() + QUORUM_DEADLINE;
        let (mut said, mut wanted) = (self.said.subscribe(), self.wanted.subscribe());
        loop {
            let overtaken =
                wanted.borrow_and_update().as_ref().is_some_and(|newest| newest.size > state.size);
            let (cosigned, open) = {
                let said = said.borrow_and_update();
                let about = said.iter().filter(|said| said.size == Some(state.size)).count();
                (cosigned(state, &said), said.len() - about)
            };
            let (found, required) = (cosigned.count, self.quorum);
            if found >= required {
                return Ok(Some(cosigned));
            }
            if overtaken {
                return Ok(None);
            }
            let missing = LogError::Unwitnessed { found, required };
            if found + open < required {
                return Err(missing);
            }
            let changed = async {
                tokio::select! {
                    changed = said.changed() => changed,
                    changed = wanted.changed() => changed,
                }
            };
            match timeout_at(deadline, changed).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(LogError::Ended),
                Err(_) => return Err(missing),
            }
        }
    }
}

/// Makes it the wanted checkpoint if it is newer than what was wanted, or, asked `anew`, of its size.
fn want(wanted: &Wanted, state: State, anew: bool) {
    wanted.send_if_modified(|now| {
        let newer = now.as_ref().is_none_or(|now| now.size < state.size);
        let replaces = newer || anew && now.as_ref().is_some_and(|now| now.size == state.size);
        if replaces {
            *now = Some(Arc::new(state));
        }
        replaces
    });
}

fn cosigned(state: &State, said: &[Said]) -> Cosigned {
    let about = said.iter().filter(|said| said.size == Some(state.size));
    let lines: Vec<&str> = about.filter_map(|said| said.line.as_deref()).collect();
    let note = [&state.note[..], lines.concat().as_bytes()].concat();
    Cosigned { size: state.size, note: Bytes::from(note), count: lines.len() }
}

impl Follower {
    /// Until the log is gone.
    async fn run(mut self) {
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            let refused = match wanted {
                None => false,
                Some(state) => match self.follow(&state).await {
                    None => return,
                    Some(Followed::Refused) => true,
                    Some(Followed::Overtaken) => false,
                    Some(Followed::Cosigned) => {
                        self.pause = FIRST_PAUSE;
                        if !self.awaited {
                            sleep(PAUSE).await;
                        }
                        false
                    }
                },
            };
            if refused {
                self.after_failure().await;
            } else if self.wanted.changed().await.is_err() {
                return;
            }
        }
    }

    /// A while, and then until somebody asks anew or it is time to look again.
    async fn after_failure(&mut self) {
        if !self.awaited {
            return sleep(PAUSE_AFTER_FAILURE).await;
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        // That the log is gone is found when it is asked for.
        let _ = timeout(PAUSE_AFTER_FAILURE, self.wanted.changed()).await;
    }

    /// Asks about one checkpoint. `None`: the log is gone.
    async fn follow(&mut self, state: &State) -> Option<Followed> {
        let log = self.log.upgrade()?;
        let line = match self.asking.ask(state, &*log).await {
            Some(Asked::Overtaken(newest)) => {
                want(&*self.wants.upgrade()?, newest, false);
                return Some(Followed::Overtaken);
            }
            Some(Asked::Cosigned(line)) => Some(line),
            None => None,
        };
        let good = line.is_some();
        self.said.send_modify(|said| {
            if let Some(said) = said.get_mut(self.at) {
                *said = Said { size: Some(state.size), line };
            }
        });
        if !good {
            return Some(Followed::Refused);
        }
        let all = cosigned(state, &self.said.borrow());
        log.cosigned(all).await;
        Some(Followed::Cosigned)
    }
}

impl State {
    pub(super) fn of(checkpoint: &Checkpoint, note: Bytes) -> Self {
        Self { size: checkpoint.size, text: checkpoint.text(), note }
    }
}
