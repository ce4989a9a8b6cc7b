//! The roll of foreign domains: which of the store's federation records this CA made itself, and
//! what of them counts. All of this room reads and writes the store through it; `authority` has
//! the one of a CA process.
//!
//! Whoever may write the store, but has not the seal key, can add nobody: what is on no sealed roll
//! is passed over, loudly, and an earlier roll is not taken for the present one.
//!
//! Never: believes a record for where it lies, goes back to an earlier roll, or tells of a roll
//! that a restart would not know.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use myelin_identity::bundle::{ForeignBundle, ForeignBundles, MAX_FOREIGN};
use myelin_identity::id::TrustDomain;
use myelin_identity::seal::SealKey;

use super::seal::{is_sealed, sealed, what_counts};
use super::{FederationError, READ_ATTEMPTS, entry, judge};
use crate::datadir;
use crate::journal::{
    Batch, CURRENT, Entry, FederationRecord, Found, Hex, Journal, Record as _, RollRecord, shown,
};
use crate::store::Commit;

/// Records that are looked at wherever they lie, beside those that the roll names: twice as many as it
/// may name. Whoever can write the store could fill our memory with more.
pub(super) const MAX_LYING: usize = 2 * MAX_FOREIGN;
/// How much of a stranger's name is shown.
const MAX_NAME_CHARACTERS: usize = 80;

/// The foreign domains of one CA process. Cheap to clone.
#[derive(Clone)]
pub struct Roll {
    inner: Arc<Inner>,
}

struct Inner {
    journal: Journal,
    own: TrustDomain,
    key: SealKey,
    pin: PathBuf,
    believed: Mutex<RollRecord>,
}

/// Roll and records as they are believed at one moment.
#[derive(Debug)]
pub struct View {
    pub(super) roll: RollRecord,
    /// The revision of whatever lies in the roll's place.
    pub(super) place: Option<u64>,
    /// What counts, in the order of names.
    pub members: Vec<(TrustDomain, Entry<FederationRecord>)>,
    pub passed_over: Vec<PassedOver>,
    /// The store has lost the roll that we believe.
    lost: bool,
}

/// What lies in the store, as far as it is looked at.
struct Lying {
    records: Vec<Found<FederationRecord>>,
    /// There is more.
    more: bool,
}

/// The roll to go by, and what the store has in its place.
struct Judged {
    roll: RollRecord,
    wrong: Option<PassedOver>,
    lost: bool,
}

/// Something in the store that nobody is told of. The word is the metric's label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver {
    /// Its key in the store.
    pub key: String,
    pub word: &'static str,
    pub why: String,
}

/// Every word of [`PassedOver`].
pub const PASSED_OVER_WORDS: [&str; 6] =
    ["missing", "unreadable", "unsealed", "went_back", "unlisted", "changed"];

impl Roll {
    /// Begins with the roll that this replica believed last, if it ever did.
    pub fn open(
        journal: Journal,
        own: TrustDomain,
        key: SealKey,
        pin: PathBuf,
    ) -> Result<Self, FederationError> {
        let believed = pinned(&pin, &own, &key)?;
        let believed = Mutex::new(believed.unwrap_or_default());
        Ok(Self { inner: Arc::new(Inner { journal, own, key, pin, believed }) })
    }

    pub(super) fn own(&self) -> &TrustDomain {
        &self.inner.own
    }

    pub(super) fn journal(&self) -> &Journal {
        &self.inner.journal
    }

    /// The revision of the store's roll: while it stands, nobody was added, changed or removed.
    pub(super) async fn place(&self) -> Result<Option<u64>, FederationError> {
        let found = self.journal().find::<RollRecord>(CURRENT).await?;
        Ok(found.map(|found| found.revision))
    }

    /// Reads roll and records until both fit together, and takes a later roll over.
    pub async fn view(&self) -> Result<View, FederationError> {
        for _ in 0..READ_ATTEMPTS {
            // Before the store is asked: it cannot have an earlier one than this by itself.
            let held = self.believed().clone();
            let found = self.journal().find::<RollRecord>(CURRENT).await?;
            let place = found.as_ref().map(|found| found.revision);
            let judged = self.judge(held, found);
            let lying = self.lying(&judged.roll).await?;
            if self.place().await? != place {
                continue;
            }
            self.believe(&judged.roll)?;
            return Ok(View::new(judged, place, lying));
        }
        Err(FederationError::Contended)
    }

    /// What the roll names, and the first few of whatever else lies there.
    async fn lying(&self, roll: &RollRecord) -> Result<Lying, FederationError> {
        let names: Vec<&str> = roll.members.keys().map(String::as_str).collect();
        let mut records: Vec<_> =
            self.journal().find_many(&names).await?.into_iter().flatten().collect();
        let mut first = self.journal().first_found::<FederationRecord>(MAX_LYING + 1).await?;
        let more = first.len() > MAX_LYING;
        first.truncate(MAX_LYING);
        records.extend(first.into_iter().filter(|found| !names.contains(&name_of(&found.key))));
        Ok(Lying { records, more })
    }

    /// The revision of what lies under a name, believed or not.
    pub(super) async fn lies(&self, name: &str) -> Result<Option<u64>, FederationError> {
        let found = self.journal().find::<FederationRecord>(name).await?;
        Ok(found.map(|found| found.revision))
    }

    /// The next roll, and what goes with it, in one commit. False if what the view saw has changed.
    pub(super) async fn commit(
        &self,
        view: &View,
        members: BTreeMap<String, Hex>,
        mut batch: Batch,
    ) -> Result<bool, FederationError> {
        let Inner { own, key, .. } = &*self.inner;
        let next = sealed(key, own, view.roll.epoch + 1, members)?;
        batch.write_over(CURRENT, view.place, &next);
        if self.journal().commit(batch).await? == Commit::Conflict {
            return Ok(false);
        }
        self.believe(&next)?;
        Ok(true)
    }

    /// Puts the roll that we believe back into a store that has lost it, for the other replicas.
    pub(super) async fn mend(&self, view: &View) -> Result<(), FederationError> {
        if view.lost {
            let mut batch = Batch::default();
            batch.write_over(CURRENT, view.place, &view.roll);
            // A conflict: another replica was faster, with this roll or a later one.
            let _ = self.journal().commit(batch).await?;
        }
        Ok(())
    }

    /// What of the store's roll is believed by who holds `held`, and what is wrong with it.
    fn judge(&self, held: RollRecord, found: Option<Found<RollRecord>>) -> Judged {
        let Inner { own, key, .. } = &*self.inner;
        let wrong = |word, why: String| {
            Some(PassedOver { key: format!("{}{CURRENT}", RollRecord::PREFIX), word, why })
        };
        let lost = held.epoch > 0;
        let Some(found) = found else {
            let why = format!("the store has lost the roll with epoch {}", held.epoch);
            let wrong = if lost { wrong("missing", why) } else { None };
            return Judged { roll: held, wrong, lost };
        };
        match found.record {
            Err(why) => Judged { roll: held, wrong: wrong("unreadable", shown(&why)), lost },
            Ok(roll) if !is_sealed(key, own, &roll) => {
                let why = "the roll has no seal of this CA".to_owned();
                Judged { roll: held, wrong: wrong("unsealed", why), lost }
            }
            Ok(roll) if roll.epoch > held.epoch || roll == held => {
                Judged { roll, wrong: None, lost: false }
            }
            Ok(roll) => {
                let why = format!("the roll has epoch {}, we know {}", roll.epoch, held.epoch);
                // Two rolls of one epoch: the next change settles it; replicas would go on for ever.
                let lost = roll.epoch < held.epoch;
                Judged { roll: held, wrong: wrong("went_back", why), lost }
            }
        }
    }

    /// Takes a later roll over: in the pin first.
    fn believe(&self, roll: &RollRecord) -> Result<(), FederationError> {
        let mut believed = self.believed();
        if roll.epoch <= believed.epoch {
            return Ok(());
        }
        let path = &self.inner.pin;
        let bytes = serde_json::to_vec(roll)
            .expect("a roll is a plain structure with string keys, which JSON can always hold");
        datadir::replace(path, &bytes)
            .map_err(|cause| FederationError::Pin { path: path.clone(), cause })?;
        *believed = roll.clone();
        Ok(())
    }

    fn believed(&self) -> MutexGuard<'_, RollRecord> {
        self.inner.believed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    fn new(judged: Judged, place: Option<u64>, lying: Lying) -> Self {
        let Judged { roll, wrong, lost } = judged;
        let mut view = Self {
            roll,
            place,
            members: Vec::new(),
            passed_over: wrong.into_iter().collect(),
            lost,
        };
        let lie: BTreeSet<String> =
            lying.records.iter().map(|found| name_of(&found.key).to_owned()).collect();
        for found in lying.records {
            view.take(found);
        }
        if lying.more {
            let key = FederationRecord::PREFIX.to_owned();
            let why = format!("more than {MAX_LYING} records lie there; the first are named");
            view.passed_over.push(PassedOver { key, word: "unlisted", why });
        }
        for name in view.roll.members.keys().filter(|name| !lie.contains(*name)) {
            let key = format!("{}{name}", FederationRecord::PREFIX);
            let why = "it is on the roll, and the store has lost it".to_owned();
            view.passed_over.push(PassedOver { key, word: "missing", why });
        }
        view
    }

    fn take(&mut self, found: Found<FederationRecord>) {
        let Found { key, revision, record } = found;
        let name = name_of(&key).to_owned();
        let counts = self.roll.members.get(&name);
        let verdict = match (record, counts, entry::domain(&name)) {
            (_, None, _) => Err(("unlisted", "it is on no roll that this CA sealed".to_owned())),
            (Err(why), ..) => Err(("unreadable", shown(&why))),
            (_, _, Err(why)) => Err(("unreadable", shown(&why.to_string()))),
            (Ok(record), Some(counts), Ok(domain)) if what_counts(&name, &record) == *counts => {
                Ok((domain, record))
            }
            (Ok(_), Some(_), Ok(_)) => {
                Err(("changed", "it is not what this CA put on the roll".to_owned()))
            }
        };
        match verdict {
            Ok((domain, record)) => {
                self.members.push((domain, Entry { key, revision, record }));
            }
            Err((word, why)) => self.passed_over.push(PassedOver { key, word, why }),
        }
    }

    pub(super) fn member(&self, name: &str) -> Option<&(TrustDomain, Entry<FederationRecord>)> {
        self.members.iter().find(|(domain, _)| domain.as_str() == name)
    }

    /// What sidecars are to be told, at the epoch at which it was written.
    pub fn set(&self) -> Result<ForeignBundles, FederationError> {
        let mut bundles = Vec::new();
        for (domain, entry) in &self.members {
            let Some(held) = &entry.record.bundle else { continue };
            let bundle = Arc::new(judge::bundle(domain.clone(), held)?);
            bundles.push(ForeignBundle { bundle, unlogged: entry.record.unlogged });
        }
        Ok(ForeignBundles::new(self.roll.epoch, bundles)?)
    }
}

impl PassedOver {
    /// Whose record it is, for people; the store's writer chose it.
    pub fn name(&self) -> String {
        let shown: String = name_of(&self.key).chars().take(MAX_NAME_CHARACTERS).collect();
        shown.escape_debug().to_string()
    }
}

fn name_of(key: &str) -> &str {
    key.strip_prefix(FederationRecord::PREFIX).unwrap_or(key)
}

fn pinned(
    path: &Path,
    own: &TrustDomain,
    key: &SealKey,
) -> Result<Option<RollRecord>, FederationError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(FederationError::Pin { path: path.to_owned(), cause }),
    };
    let roll = serde_json::from_slice::<RollRecord>(&bytes).ok();
    match roll.filter(|roll| is_sealed(key, own, roll)) {
        Some(roll) => Ok(Some(roll)),
        None => Err(FederationError::PinDamaged { path: path.to_owned() }),
    }
}
