//! The ladder of root rotation as a pure function: where it stands, who has acknowledged what, and
//! the move that is asked for, to a permit or a refusal that names whom the move would strand.
//! `authority` gathers the holders, `rotation` carries a permitted move out.
//!
//! ```text
//!   settled --prepare--> prepared --activate--> activated --retire--> settled
//!      ^                    |                      |  ^
//!      +------abort---------+                      +--+ abort (the other root issues again)
//! ```
//!
//! Never: reads a clock, a store or a certificate.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::fmt;

use myelin_identity::bundle::Rung;
use serde::{Deserialize, Serialize};

use crate::clock::UnixSeconds;
use crate::journal::LivesRecord;
use crate::template::Validity;

/// How many names a refusal and `status` show before they count the rest: a screen of them.
pub const MAX_NAMED: usize = 32;

/// What an operator, or the schedule, asks of the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Move {
    /// Make a second root and trust it everywhere, before anything is signed under it.
    Prepare,
    /// Issue under the second root.
    Activate,
    /// Trust the first root no longer.
    Retire,
    /// Back: forget the second root, or issue under the first one again.
    Abort,
}

/// Whoever holds an unexpired SVID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub name: String,
    /// It said, under an SVID of its own, that it trusts the present bundle.
    pub trusts: bool,
    /// It has said something under an SVID that chains to the active root.
    pub under_active: bool,
    /// The last SVID that it was issued chains to another root than the active one.
    pub issued_elsewhere: bool,
}

/// Where the ladder stands, and who stands on it.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub rung: Rung,
    /// When this rung was reached.
    pub since: UnixSeconds,
    pub now: UnixSeconds,
    /// How long what was issued may live, by replica.
    pub lives: &'a [LivesRecord],
    pub holders: &'a [Holder],
    /// Replicas whose intermediate hangs under another root than the active one. They issue nothing,
    /// so whoever holds an SVID of theirs is a holder like all others; but a live one is not reached
    /// any more once its root is gone, and one that is dead must not hold up the ladder for ever.
    pub lagging: &'a [String],
    /// Trust domains that hold our bundle, by [`federated_name`]. They have no SVID to acknowledge
    /// under, and fetch when they like.
    pub federated: &'a [String],
}

/// What a federated domain is called among those whom a move may strand.
pub fn federated_name(domain: &impl fmt::Display) -> String {
    format!("{FEDERATED}{domain}")
}

/// Before the name of a federated domain; no SPIFFE ID and no replica is called so.
pub const FEDERATED: &str = "trust-domain/";

/// Why a move may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permit {
    /// It breaks nobody, and needed nobody's word.
    Harmless,
    /// Everybody has acknowledged.
    Acknowledged,
    /// Whoever has not acknowledged holds no SVID of before any more.
    TimePassed,
    /// These will be broken, and somebody named them all.
    Forced(Vec<String>),
}

/// Why a move is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("cannot {asked} while the ladder is {rung}; {hint}", rung = crate::journal::RungName::from(*.rung).word())]
    WrongRung { asked: Move, rung: Rung, hint: &'static str },
    #[error(
        "{asked} would strand {count}: {}; wait until they have acknowledged or {opens_at} (Unix seconds) has come, or name each of them with --break (a trust domain that has fetched the new root with --fetched)",
        list(.who, *.count)
    )]
    Strands { asked: Move, who: Vec<String>, count: usize, opens_at: UnixSeconds },
    #[error(
        "{asked} would break nobody called {}; name with --break exactly those whom `myelin-ca rotate status` shows as outstanding",
        list(.who, .who.len())
    )]
    NotBroken { asked: Move, who: Vec<String> },
}

/// Judges a move. `broken` names those whom somebody has decided to break by it.
pub fn judge(asked: Move, view: &View<'_>, broken: &BTreeSet<String>) -> Result<Permit, Refusal> {
    if let Some(hint) = misplaced(asked, view.rung) {
        return Err(Refusal::WrongRung { asked, rung: view.rung, hint });
    }
    let stranded = stranded(asked, view);
    // That a federated domain has fetched is true after the wait as well.
    let unbroken: Vec<String> = broken
        .difference(&stranded)
        .filter(|name| asked != Move::Activate || !view.federated.contains(name))
        .cloned()
        .collect();
    if !unbroken.is_empty() {
        return Err(Refusal::NotBroken { asked, who: unbroken });
    }
    let unnamed: Vec<&String> = stranded.difference(broken).collect();
    if !unnamed.is_empty() {
        let who = unnamed.iter().take(MAX_NAMED).map(|name| (*name).clone()).collect();
        let opens_at = opens_at(view);
        return Err(Refusal::Strands { asked, who, count: unnamed.len(), opens_at });
    }
    Ok(match asked {
        _ if !stranded.is_empty() => Permit::Forced(stranded.into_iter().collect()),
        Move::Prepare | Move::Abort => Permit::Harmless,
        Move::Activate if outstanding(view).is_empty() && view.federated.is_empty() => {
            Permit::Acknowledged
        }
        Move::Retire if outstanding(view).is_empty() => Permit::Acknowledged,
        Move::Activate | Move::Retire => Permit::TimePassed,
    })
}

/// Who has not acknowledged what the present rung is about, each name once.
pub fn outstanding(view: &View<'_>) -> BTreeSet<String> {
    let waits = |holder: &&Holder| match view.rung {
        Rung::Settled => false,
        Rung::Prepared => !holder.trusts,
        Rung::Activated => holder.issued_elsewhere || !(holder.trusts && holder.under_active),
    };
    view.holders.iter().filter(waits).map(|holder| holder.name.clone()).collect()
}

/// When time alone opens the gate of the present rung: all that was issued before it was reached has
/// ended, and everything since then was issued together with what the rung is about.
pub fn opens_at(view: &View<'_>) -> UnixSeconds {
    let ends = view.lives.iter().map(|lives| lives.end_of_what_was_issued_before(view.since));
    ends.max().unwrap_or(view.since)
}

/// The move that the present rung waits for, if a rotation is under way.
pub fn forward(rung: Rung) -> Option<Move> {
    match rung {
        Rung::Settled => None,
        Rung::Prepared => Some(Move::Activate),
        Rung::Activated => Some(Move::Retire),
    }
}

/// What a schedule asks at this moment. `every`: how old a root may become; none: no schedule.
pub fn scheduled(rung: Rung, root: Validity, every: Option<u64>, now: UnixSeconds) -> Option<Move> {
    let every = every?;
    match rung {
        Rung::Settled if now < root.not_before.saturating_add(every) => None,
        Rung::Settled => Some(Move::Prepare),
        under_way => forward(under_way),
    }
}

/// Below which part of its life, in percent, a CA certificate is that should have been renewed.
pub fn alarm(validity: Validity, now: UnixSeconds) -> Option<u8> {
    let life = u128::from(validity.not_after.saturating_sub(validity.not_before));
    let left = u128::from(validity.not_after.saturating_sub(now));
    [10, 25, 50].into_iter().find(|percent| left * 100 < life * u128::from(*percent))
}

fn misplaced(asked: Move, rung: Rung) -> Option<&'static str> {
    match (asked, rung) {
        (Move::Prepare, Rung::Settled)
        | (Move::Activate, Rung::Prepared)
        | (Move::Retire, Rung::Activated)
        | (Move::Abort, Rung::Prepared | Rung::Activated) => None,
        (_, Rung::Settled) => Some("`myelin-ca rotate prepare` begins a rotation"),
        (_, Rung::Prepared) => Some("what comes next is `activate`, or `abort` to go back"),
        (_, Rung::Activated) => Some("what comes next is `retire`, or `abort` to go back"),
    }
}

/// Whom the move would break.
fn stranded(asked: Move, view: &View<'_>) -> BTreeSet<String> {
    if matches!(asked, Move::Prepare | Move::Abort) {
        // Prepare only adds. Abort takes away a root that never signed, or nothing at all.
        return BTreeSet::new();
    }
    let mut stranded = BTreeSet::new();
    if view.now < opens_at(view) {
        stranded = outstanding(view);
        // Whoever has not fetched both roots refuses what the second one signs; the first one's end
        // strands only who missed that already.
        let others = if asked == Move::Retire { view.lagging } else { view.federated };
        stranded.extend(others.iter().cloned());
    }
    if asked == Move::Retire {
        // Time does not cure it, but the SVID's own end does.
        let elsewhere = view.holders.iter().filter(|holder| holder.issued_elsewhere);
        stranded.extend(elsewhere.map(|holder| holder.name.clone()));
    }
    stranded
}

fn list(who: &[String], count: usize) -> String {
    let shown = who.join(", ");
    if count > who.len() { format!("{shown} and {} more", count - who.len()) } else { shown }
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Move {
    pub const ALL: [Self; 4] = [Self::Prepare, Self::Activate, Self::Retire, Self::Abort];

    pub fn word(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Activate => "activate",
            Self::Retire => "retire",
            Self::Abort => "abort",
        }
    }
}
