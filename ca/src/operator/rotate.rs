//! `myelin-ca rotate`: the question, and its answer as a picture of the rungs for people.
//!
//! Never: judges a move; the authority does.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::authority::{Authority, AuthorityError, LadderShown, Moved};
use crate::clock::UnixSeconds;
use crate::journal::{RungName, shown};
use crate::rotation::ladder::{FEDERATED, Move};

/// What is asked of the ladder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RotateAsk {
    Status,
    Move {
        asked: Move,
        /// Whom the operator has decided to break, by name.
        broken: BTreeSet<String>,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotated {
    Status(LadderShown),
    Moved(Moved),
}

pub(super) async fn rotate(
    authority: &Authority,
    ask: RotateAsk,
) -> Result<Rotated, AuthorityError> {
    match ask {
        RotateAsk::Status => authority.ladder().await.map(Rotated::Status),
        RotateAsk::Move { asked, broken } => {
            authority.rotate(asked, &broken).await.map(Rotated::Moved)
        }
    }
}

impl fmt::Display for Rotated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(ladder) => write!(f, "{}", Picture(ladder)),
            Self::Moved(moved) => {
                writeln!(f, "{}: done", moved.moved)?;
                for id in &moved.broken {
                    let how = if id.starts_with(FEDERATED) { "not waited for" } else { "broken" };
                    writeln!(f, "  {how}, as you decided: {id}")?;
                }
                write!(f, "{}", Picture(&moved.ladder))
            }
        }
    }
}

struct Picture<'a>(&'a LadderShown);

impl fmt::Display for Picture<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ladder = self.0;
        let rungs = [
            (RungName::Activated, "activated", "the new root issues, both are trusted"),
            (RungName::Prepared, "prepared", "both are trusted, the old root issues"),
            (RungName::Settled, "settled", "one root"),
        ];
        for (rung, name, meaning) in rungs {
            let here = if ladder.rung == rung { ">" } else { " " };
            writeln!(f, "{here} |-- {name:<10} {meaning}")?;
        }
        writeln!(
            f,
            "since {}, bundle generation {}, trust record {}",
            at(ladder.since),
            ladder.generation,
            ladder.number
        )?;
        for root in &ladder.roots {
            let part = if root.issues { "issues" } else { "trusted" };
            writeln!(f, "root {}  {part:<7}  until {}", &root.sha256[..16], at(root.not_after))?;
        }
        write!(f, "intermediate until {}", at(ladder.intermediate_not_after))?;
        match ladder.intermediate_alarm {
            Some(percent) => writeln!(f, "  ALARM: less than {percent} % of its life is left")?,
            None => writeln!(f)?,
        }
        if let Some(why) = &ladder.ignored {
            writeln!(f, "ALARM: the store's trust record is not believed: {why}")?;
        }
        for key in &ladder.unreadable {
            let key = shown(key);
            writeln!(f, "ALARM: the store's record {key} cannot be read, and counts for nothing")?;
        }
        if let Some(every) = ladder.every_seconds {
            let every = humantime::format_duration(Duration::from_secs(every));
            writeln!(f, "schedule: a new root every {every}, unattended")?;
        }
        self.what_next(f)
    }
}

impl Picture<'_> {
    fn what_next(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ladder = self.0;
        let Some(next) = ladder.next else {
            return writeln!(f, "next: nothing to do; `rotate prepare` begins a rotation");
        };
        let acknowledged = ladder.holders.saturating_sub(ladder.outstanding);
        writeln!(f, "acknowledged: {acknowledged} of {} holders", ladder.holders)?;
        for id in &ladder.outstanding_ids {
            writeln!(f, "  outstanding: {id}")?;
        }
        if ladder.outstanding > ladder.outstanding_ids.len() {
            writeln!(f, "  and {} more", ladder.outstanding - ladder.outstanding_ids.len())?;
        }
        for replica in &ladder.lagging_replicas {
            writeln!(f, "  still issues under the other root: {replica}")?;
        }
        for domain in &ladder.federated {
            writeln!(f, "  cannot acknowledge, see whether it has fetched: {domain}")?;
        }
        let ready = ladder.outstanding == 0
            && ladder.lagging_replicas.is_empty()
            && ladder.federated.is_empty();
        match ladder.opens_at {
            _ if ready => writeln!(f, "next: `rotate {next}`, which breaks nobody now"),
            Some(opens) => {
                writeln!(f, "next: `rotate {next}`, for silent holders from {} on", at(opens))
            }
            None => writeln!(f, "next: `rotate {next}`"),
        }
    }
}

/// RFC 3339.
fn at(seconds: UnixSeconds) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds))
}
