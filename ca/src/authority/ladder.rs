//! Root rotation as the authority sees it: who holds what, the judgement, the move, and telling
//! everybody at once. Called for operators, and by the clock when there is a schedule.
//!
//! Never: moves without a permit of `rotation::ladder`, or keeps a move to itself.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::sync::Arc;

use myelin_identity::bundle::{RootId, Rung, SignedStep};
use serde::{Deserialize, Serialize};

use super::{Authority, AuthorityError, Dress};
use crate::clock::UnixSeconds;
use crate::journal::{LivesRecord, RungName};
use crate::rotation::ladder::{
    self, Holder, MAX_NAMED, Move, Permit, View, alarm, federated_name, forward, judge, opens_at,
    outstanding,
};
use crate::rotation::{Ignored, Lagging, RotationError};
use crate::template::Validity;

/// Where the ladder stands, for people and for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LadderShown {
    pub rung: RungName,
    /// Of the trust record: one more at each step.
    pub number: u64,
    pub generation: u64,
    pub since: UnixSeconds,
    /// The active root first.
    pub roots: Vec<RootShown>,
    /// The move that comes next, if a rotation is under way.
    pub next: Option<Move>,
    pub holders: usize,
    /// How many SPIFFE IDs have not acknowledged what `next` rests on, and the first of them.
    pub outstanding: usize,
    pub outstanding_ids: Vec<String>,
    /// Replicas of the CA that still issue under the other root.
    pub lagging_replicas: Vec<String>,
    /// Federated trust domains for which `next` waits, since they cannot acknowledge: the first of them.
    #[serde(default)]
    pub federated: Vec<String>,
    /// Records of the store that cannot be read, the first of them: whoever they are of counts as
    /// not having acknowledged.
    #[serde(default)]
    pub unreadable: Vec<String>,
    /// When time alone lets `next` pass, in Unix seconds.
    pub opens_at: Option<UnixSeconds>,
    pub intermediate_not_after: UnixSeconds,
    /// 50, 25 or 10: less than so many percent of its life are left to the intermediate.
    pub intermediate_alarm: Option<u8>,
    /// Why the store's trust record is not believed, if it is not.
    pub ignored: Option<String>,
    /// How old a root may become before the schedule replaces it; none: by hand only.
    pub every_seconds: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootShown {
    pub sha256: String,
    pub issues: bool,
    pub not_before: UnixSeconds,
    pub not_after: UnixSeconds,
}

/// A move that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    pub moved: Move,
    /// Whom it broke, as was decided.
    pub broken: Vec<String>,
    pub ladder: LadderShown,
}

impl Authority {
    /// Moves the ladder if that strands nobody but those whom somebody has named.
    pub async fn rotate(
        &self,
        asked: Move,
        broken: &BTreeSet<String>,
    ) -> Result<Moved, AuthorityError> {
        self.refresh_trust().await?;
        let stand = self.stand(self.rotation.step()).await?;
        let permit = judge(asked, &stand.view(), broken).map_err(RotationError::from)?;
        if let Err(error) = self.rotation.climb(asked, &stand.on, stand.now).await {
            if matches!(error, RotationError::Moved) {
                // Somebody else's step, which may have been taken over on the way.
                self.announce().await?;
            }
            return Err(error.into());
        }
        let broken = match permit {
            Permit::Forced(names) => names,
            Permit::Harmless | Permit::Acknowledged | Permit::TimePassed => Vec::new(),
        };
        let step = self.rotation.step();
        tracing::info!(
            target: "audit", outcome = "ladder_moved", step = asked.word(), number = step.step.number,
            generation = step.step.bundle.generation(), bundle = %step.step.bundle.hash(),
            broken = ?broken, "the root ladder has moved"
        );
        self.announce().await?;
        Ok(Moved { moved: asked, broken, ladder: self.ladder().await? })
    }

    /// Makes the move that the schedule asks for, if it strands nobody.
    pub async fn rotate_by_schedule(&self) -> Result<Option<Move>, AuthorityError> {
        let every = self.settings.rotate_root_every.map(|every| every.as_secs());
        let on = self.rotation.step();
        let root = active_validity(&on);
        let Some(asked) = ladder::scheduled(on.step.rung, root, every, self.clock.seconds()) else {
            return Ok(None);
        };
        match self.rotate(asked, &BTreeSet::new()).await {
            Ok(_) => Ok(Some(asked)),
            // Not yet, or another replica was quicker.
            Err(AuthorityError::Rotation(RotationError::Refused(_) | RotationError::Moved)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Where the ladder stands now.
    pub async fn ladder(&self) -> Result<LadderShown, AuthorityError> {
        let stand = self.stand(self.rotation.step()).await?;
        let (on, step) = (&stand.on, &stand.on.step);
        let under_way = step.rung != Rung::Settled;
        let view = stand.view();
        let outstanding = outstanding(&view);
        let issuing = self.rotation.signer().validity();
        let mut roots: Vec<RootShown> =
            step.bundle.root_ids().filter_map(|id| root_shown(on, id)).collect();
        roots.sort_by_key(|root| !root.issues);
        Ok(LadderShown {
            rung: step.rung.into(),
            number: step.number,
            generation: step.bundle.generation(),
            since: step.since,
            roots,
            next: forward(step.rung),
            holders: stand.holders.len(),
            outstanding: outstanding.len(),
            opens_at: under_way.then(|| opens_at(&view)),
            outstanding_ids: outstanding.into_iter().take(MAX_NAMED).collect(),
            lagging_replicas: stand.lagging.iter().take(MAX_NAMED).cloned().collect(),
            federated: stand.federated.iter().take(MAX_NAMED).cloned().collect(),
            unreadable: stand.unreadable.iter().take(MAX_NAMED).cloned().collect(),
            intermediate_not_after: issuing.not_after,
            intermediate_alarm: alarm(issuing, stand.now),
            ignored: self.rotation.ignored().map(|Ignored { why, .. }| why),
            every_seconds: self.settings.rotate_root_every.map(|every| every.as_secs()),
        })
    }

    /// Looks at the store for steps that other replicas made; tells everybody if there are any.
    pub async fn refresh_trust(&self) -> Result<bool, AuthorityError> {
        let moved = self.rotation.refresh().await?;
        if moved {
            self.announce().await?;
        }
        Ok(moved)
    }

    /// Resolves when the ladder has moved.
    pub async fn trust_moved(&self) {
        self.trust_moved.notified().await;
    }

    /// The step on which the ladder stands.
    pub fn step(&self) -> Arc<SignedStep> {
        self.rotation.step()
    }

    /// The way to the present bundle.
    pub fn steps(&self) -> Arc<Vec<SignedStep>> {
        self.rotation.steps()
    }

    /// What the store holds that is not believed.
    pub fn ignored(&self) -> Option<Ignored> {
        self.rotation.ignored()
    }

    /// What the TLS port has to be dressed for now.
    pub fn dress(&self) -> Dress {
        let signer = self.rotation.signer();
        (self.rotation.step().step.number, self.rotation.root_of(signer.certificate()))
    }

    /// The end of the active root, in Unix seconds.
    pub fn root_not_after(&self) -> UnixSeconds {
        active_validity(&self.rotation.step()).not_after
    }

    /// Whether the intermediate, or the active root, is late with its successor, in percent of life
    /// left.
    pub fn alarms(&self) -> (Option<u8>, Option<u8>) {
        let now = self.clock.seconds();
        let root = active_validity(&self.rotation.step());
        (alarm(self.rotation.signer().validity(), now), alarm(root, now))
    }

    /// A new signer if another root became active, the new bundle to every watcher, and a bell for
    /// whoever dresses the TLS port.
    async fn announce(&self) -> Result<(), AuthorityError> {
        self.forget_acks();
        if let Err(error) = self.rotation.tick(self.clock.seconds()).await {
            tracing::error!(%error, "no intermediate under the active root yet; trying again");
        }
        self.trust_moved.notify_one();
        self.say().await
    }

    /// All that a judgement rests on, whatever of it is damaged.
    async fn stand(&self, on: Arc<SignedStep>) -> Result<Stand, AuthorityError> {
        let now = self.clock.seconds();
        let (holders, mut unreadable) = self.holders().await?;
        let lagging = match on.step.rung {
            Rung::Activated => self.rotation.lagging(now).await?,
            Rung::Settled | Rung::Prepared => Lagging::default(),
        };
        unreadable.extend(lagging.unreadable);
        let federated = match on.step.rung {
            Rung::Prepared => self.roll.view().await?.members,
            Rung::Settled | Rung::Activated => Vec::new(),
        };
        let federated = federated.iter().map(|(domain, _)| federated_name(domain)).collect();
        let (lagging, lives) = (lagging.replicas, self.lives().await?);
        Ok(Stand { on, now, holders, lagging, federated, lives, unreadable })
    }
}

/// Who stands where, at one instant.
struct Stand {
    on: Arc<SignedStep>,
    now: UnixSeconds,
    holders: Vec<Holder>,
    lagging: Vec<String>,
    federated: Vec<String>,
    lives: Vec<LivesRecord>,
    /// Keys of records that cannot be read.
    unreadable: Vec<String>,
}

impl Stand {
    fn view(&self) -> View<'_> {
        View {
            rung: self.on.step.rung,
            since: self.on.step.since,
            now: self.now,
            lives: &self.lives,
            holders: &self.holders,
            lagging: &self.lagging,
            federated: &self.federated,
        }
    }
}

fn active_validity(on: &SignedStep) -> Validity {
    let found = on.step.bundle.root_validity(&on.step.active);
    let (not_before, not_after) = found.unwrap_or_default();
    Validity { not_before, not_after }
}

fn root_shown(on: &SignedStep, id: RootId) -> Option<RootShown> {
    let (not_before, not_after) = on.step.bundle.root_validity(&id)?;
    Some(RootShown { sha256: id.to_string(), issues: id == on.step.active, not_before, not_after })
}
