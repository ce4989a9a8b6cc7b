//! What one process knows of the store: the mirror, and how it is made sure to be the latest.
//!
//! Reads that come together share one question to the API server, which is asked after the last of
//! them came: none is answered from what was known before it asked.
//!
//! Never: a mirror that goes back.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::{Instant, sleep, timeout_at};

use super::client::{Failure, Secrets};
use super::mirror::{Broken, Gap, Mirror, Told};
use super::shape::{Head, Place, Segment};
use super::values::RECORDS;
use crate::store::watchers::Watchers;
use crate::store::{StoreError, Write};

/// All tries at one question together: a caller of `Issue` waits no longer than ten seconds.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Between two tries; doubled each time.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(10);
pub(super) const LONGEST_WAIT: Duration = Duration::from_millis(500);
/// Segments that are read at the same time.
const AT_ONCE: usize = 8;
/// Readings of a head and its segments until both are of one moment.
const MAX_READINGS: usize = 32;

/// What is told of one.
const READ: &str = "a read";

pub(super) struct State {
    pub(super) secrets: Secrets,
    pub(super) watchers: Watchers,
    mirror: Mutex<Mirror>,
    /// Counts questions and those who wait for one.
    clock: AtomicU64,
    /// When the last question was asked that was answered.
    asked: tokio::sync::Mutex<u64>,
}

impl State {
    /// Reads everything; makes the head if there is none.
    pub(super) async fn open(secrets: Secrets) -> Result<Self, StoreError> {
        let mirror = read_all(&secrets).await?;
        let watchers = Watchers::new(mirror.head.revision);
        let (clock, asked) = (AtomicU64::new(1), tokio::sync::Mutex::new(0));
        Ok(Self { secrets, watchers, mirror: Mutex::new(mirror), clock, asked })
    }

    /// The mirror as it is; whoever needs the latest calls [`Self::fresh`] before.
    pub(super) fn mirror(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When this resolves, the mirror holds everything that was committed before it was called.
    ///
    /// It resolves within [`ANSWER_WITHIN`], whoever asks before. What a long way of catching up has
    /// read by then is read again; the watch goes that way without a bound.
    pub(super) async fn fresh(&self) -> Result<(), StoreError> {
        let came = self.clock.fetch_add(1, Ordering::SeqCst);
        let mut patience = Patience::new();
        let Ok(mut asked) = timeout_at(patience.until, self.asked.lock()).await else {
            return Err(unanswered("others got no answer either").told(READ));
        };
        if *asked > came {
            return Ok(());
        }
        let asking = self.clock.fetch_add(1, Ordering::SeqCst);
        loop {
            match timeout_at(patience.until, self.look()).await {
                Ok(Ok(())) => {
                    *asked = asking;
                    return Ok(());
                }
                Ok(Err(failure)) => patience.after(failure, READ).await?,
                // What was wrong the last time says more than that there was no time for another.
                Err(_) => {
                    let late = || unanswered("it needs longer").told(READ);
                    return Err(patience.last.unwrap_or_else(late));
                }
            }
        }
    }

    /// Asks once for the latest head, and follows it.
    async fn look(&self) -> Result<(), Failure> {
        let version = self.secrets.head_version().await?;
        if self.mirror().version == version {
            return Ok(());
        }
        self.renew().await
    }

    /// Reads the head and follows it.
    pub(super) async fn renew(&self) -> Result<(), Failure> {
        let known = self.mirror().head.turn;
        let (head, version) = self.secrets.head().await?;
        if head.turn < known {
            let why = "the head went back to an older one; was it restored while we run? Restart every replica";
            return Err(Failure::Final(StoreError::KubernetesState(why.to_owned())));
        }
        self.follow(head, version).await
    }

    /// Goes on to this head, if it is newer.
    pub(super) async fn follow(&self, head: Head, version: String) -> Result<(), Failure> {
        let (mut head, mut version) = (head, version);
        let mut read: HashMap<(u32, u64), Segment> = HashMap::new();
        for _ in 0..MAX_READINGS {
            // Each step under one lock, none of them across a question.
            let missing = {
                let mut mirror = self.mirror();
                match mirror.follow(head.clone(), version.clone()) {
                    Ok(told) => {
                        self.tell(told);
                        return Ok(());
                    }
                    Err(Gap) => self.over_the_gap(&mut mirror, &head, &version, &read),
                }
            };
            let Some(missing) = missing else { return Ok(()) };
            for segment in segments(&self.secrets, &missing).await? {
                read.insert((segment.0, segment.1.birth), segment.1);
            }
            // What was read may be newer than the head that named it.
            (head, version) = self.secrets.head().await?;
        }
        Err(Failure::Again("the store changes faster than it can be read".to_owned()))
    }

    /// What happened in between is nobody's to tell: every watch ends. Some: these must be read first.
    fn over_the_gap(
        &self,
        mirror: &mut Mirror,
        head: &Head,
        version: &str,
        read: &HashMap<(u32, u64), Segment>,
    ) -> Option<Vec<Place>> {
        let changed = mirror.changed(head);
        let needed = changed.clone().unwrap_or_else(|| head.segments.iter().collect());
        let have = |place: &&Place| {
            read.get(&(place.index, place.birth)).is_some_and(|segment| segment.is(place))
        };
        let missing: Vec<Place> =
            needed.iter().filter(|place| !have(place)).map(|place| (*place).clone()).collect();
        if !missing.is_empty() {
            return Some(missing);
        }
        let segments = needed.iter().map(|place| &read[&(place.index, place.birth)]);
        if changed.is_some() {
            let segments: Vec<Segment> = segments.cloned().collect();
            mirror.catch_up(head.clone(), version.to_owned(), &segments);
        } else {
            *mirror = Mirror::build(head.clone(), version.to_owned(), segments);
        }
        self.watchers.reopened(mirror.head.revision);
        None
    }

    /// In the order of the commits; called with the mirror's lock held.
    fn tell(&self, told: Vec<Told>) {
        for Told { key, revision, now } in told {
            let Some(key) = key.strip_prefix(RECORDS) else { continue };
            let write = match now {
                Ok(Some(value)) => Write::Put(key.to_owned(), value),
                Ok(None) => Write::Delete(key.to_owned()),
                // Who watches reads again, and reads what is wrong.
                Err(Broken) => {
                    self.watchers.lost(revision);
                    continue;
                }
            };
            self.watchers.publish(revision, vec![write]);
        }
    }

    /// Writes a head that follows the mirror's, and follows it.
    pub(super) async fn put_head(&self, head: Head, version: &str) -> Result<(), Failure> {
        let written = self.secrets.put_head(&head, Some(version)).await?;
        self.follow(head, written).await
    }
}

/// The state as it is now, read from the head and every segment of its log.
async fn read_all(secrets: &Secrets) -> Result<Mirror, StoreError> {
    let what = "opening the store";
    let mut read: HashMap<(u32, u64), Segment> = HashMap::new();
    let mut patience = Patience::new();
    for _ in 0..MAX_READINGS {
        let (head, version) = match head_or_new(secrets).await {
            Ok(found) => found,
            Err(failure) => {
                patience.after(failure, what).await?;
                continue;
            }
        };
        let have = |place: &&Place| {
            read.get(&(place.index, place.birth)).is_some_and(|segment| segment.is(place))
        };
        let missing: Vec<Place> =
            head.segments.iter().filter(|place| !have(place)).cloned().collect();
        if missing.is_empty() {
            let places = head.segments.clone();
            let segments = places.iter().map(|place| &read[&(place.index, place.birth)]);
            return Ok(Mirror::build(head, version, segments));
        }
        match segments(secrets, &missing).await {
            Ok(found) => {
                read.extend(found.into_iter().map(|(index, it)| ((index, it.birth), it)));
                patience = Patience::new();
            }
            Err(failure) => patience.after(failure, what).await?,
        }
    }
    let last = "it changes faster than it can be read".to_owned();
    Err(StoreError::KubernetesUnreachable { what, last })
}

async fn head_or_new(secrets: &Secrets) -> Result<(Head, String), Failure> {
    match secrets.head().await {
        Err(Failure::Missing) => {}
        found => return found,
    }
    let head = Head::new();
    let version = secrets.put_head(&head, None).await?;
    Ok((head, version))
}

/// These segments. One that was never written yet is empty.
async fn segments(secrets: &Secrets, places: &[Place]) -> Result<Vec<(u32, Segment)>, Failure> {
    let read = places.iter().cloned().map(|place| async move {
        match secrets.segment(place.index).await {
            Ok((segment, _)) if segment.birth >= place.birth => Ok((place.index, segment)),
            // Of an earlier life, or not there: nothing was written in this one.
            Ok(_) | Err(Failure::Missing) if place.stamp == 0 => {
                Ok((place.index, Segment::new(place.birth)))
            }
            Ok(_) | Err(Failure::Missing) => {
                let why = format!("segment {} is not what the head says", place.index);
                Err(Failure::Final(StoreError::KubernetesState(why)))
            }
            Err(failure) => Err(failure),
        }
    });
    stream::iter(read).buffer_unordered(AT_ONCE).try_collect().await
}

fn unanswered(why: &str) -> Failure {
    Failure::Again(format!("no answer within {ANSWER_WITHIN:?}: {why}"))
}

/// Waits between tries, and says when there were enough.
pub(super) struct Patience {
    until: Instant,
    wait: Duration,
    chance: u64,
    /// Why there was a try before.
    last: Option<StoreError>,
}

impl Patience {
    pub(super) fn new() -> Self {
        let mut chance = [0; 8];
        // Without randomness all wait alike, which costs time only.
        let _ = aws_lc_rs::rand::fill(&mut chance);
        let chance = u64::from_le_bytes(chance);
        Self { until: Instant::now() + ANSWER_WITHIN, wait: FIRST_WAIT, chance, last: None }
    }

    /// Waits for the next try after this failure; an error if there should be none.
    pub(super) async fn after(
        &mut self,
        failure: Failure,
        what: &'static str,
    ) -> Result<(), StoreError> {
        if let Failure::Final(error) = failure {
            return Err(error);
        }
        // Replicas that meet should not meet again: any part of the wait will do.
        let part = u32::from(self.chance.to_le_bytes()[0]) + 1;
        let wait = self.wait * part / 256;
        if Instant::now() + wait >= self.until {
            return Err(failure.told(what));
        }
        tracing::debug!(what, ?failure, "the Kubernetes API is asked again");
        self.chance = self.chance.rotate_right(8);
        self.last = Some(failure.told(what));
        sleep(wait).await;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        Ok(())
    }
}
