//! An operator's question from another process: through the admin socket when a server runs, else
//! on the store itself.
//!
//! Never: opens a store that a server holds.

// SPDX-License-Identifier: Apache-2.0

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::{AppError, keys, shared};
use crate::api::admin;
use crate::clock::{Clock, UnixSeconds};
use crate::config::{Keys, StoreConfig};
use crate::datadir::DataDir;
use crate::journal::Journal;
use crate::log::{self, About, Findings, LogAnswer, LogAsk, LogError, Progress};
use crate::operator::{Answer, Ask, IssuerAsk, Issuers, answer};
use crate::replica::ReplicaId;
use crate::rotation::{RotationError, read_bundle};
use crate::store::StoreError;
use crate::store::embedded::Embedded;

/// A server listens within milliseconds of taking its store, on a slow disk within a second.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Looks until whoever holds the store and never listens is somebody else.
const MOST_LOOKS: usize = 25;

/// Replays the log of this data directory against the journal: that in etcd, if so said, else that
/// of the server which runs on it, else the file. The log may grow meanwhile.
pub async fn verify_log(
    data: &Path,
    store: &StoreConfig,
    clock: &Clock,
    tell: impl FnMut(Progress),
) -> Result<Findings, AppError> {
    let data = DataDir::open(data)?;
    let never = || AppError::NeverServed(data.path().to_owned());
    let replica = ReplicaId::open(data.path())?.ok_or_else(never)?;
    let now = clock.seconds();
    if !matches!(store, StoreConfig::Embedded) {
        let journal = Journal::new(shared::open_store(store, &data).await?);
        return replay(&data, &journal, &replica, now, tell).await;
    }
    let path = data.admin_socket();
    let first = LogAsk { replica: replica.to_string(), about: About::Head };
    if ask_whoever_starts(&data, &path, &Ask::Log(first)).await?.is_some() {
        let ask = async |question| running(&path, question).await;
        return log::verify(data.path(), &replica, now, ask, tell).await;
    }
    if !data.store().exists() {
        return Err(AppError::StateElsewhere(data.path().to_owned()));
    }
    let journal = Journal::new(Arc::new(Embedded::open(&data.store())?));
    replay(&data, &journal, &replica, now, tell).await
}

async fn replay(
    data: &DataDir,
    journal: &Journal,
    replica: &ReplicaId,
    now: UnixSeconds,
    tell: impl FnMut(Progress),
) -> Result<Findings, AppError> {
    let ask = async |question| Ok(log::answer(journal, &question).await?);
    log::verify(data.path(), replica, now, ask, tell).await
}

/// What a running server says of its journal.
async fn running(path: &Path, question: LogAsk) -> Result<LogAnswer, AppError> {
    match admin::ask(path, &Ask::Log(question)).await {
        Ok(Some(Answer::Log(answer))) => Ok(answer),
        Ok(Some(Answer::Refused(why))) => Err(AppError::Refused(why)),
        Ok(Some(_)) => Err(LogError::OtherAnswer.into()),
        Ok(None) => Err(AppError::Refused("the server has stopped meanwhile; ask again".into())),
        Err(cause) => Err(AppError::Ask { path: path.to_owned(), cause }),
    }
}

/// Asks whoever can answer for this data directory.
pub async fn ask_offline_or_online(
    data: &Path,
    question: Ask,
    keys: &Keys,
    clock: &Clock,
) -> Result<Answer, AppError> {
    let data = DataDir::open(data)?;
    let path = data.admin_socket();
    let told = ask_whoever_starts(&data, &path, &question).await?;
    let answered = match told {
        Some(answered) => answered,
        None => {
            if !data.store().exists() && data.path().join(ReplicaId::FILE).exists() {
                return Err(AppError::NoServer(data.path().to_owned()));
            }
            if !data.store().exists() {
                return Err(RotationError::NoCa.into());
            }
            let journal = Journal::new(Arc::new(Embedded::open(&data.store())?));
            let bundle = read_bundle(&journal).await?.ok_or(RotationError::NoCa)?;
            match question {
                Ask::Issuer(question) => {
                    let vault = match question {
                        IssuerAsk::Status | IssuerAsk::Again => None,
                        _ => Some(keys::vault(&data, keys, true)?),
                    };
                    let (replica, bundle) = (super::replica(&data)?, Arc::new(bundle));
                    let issuers = Issuers { journal, replica, vault, bundle };
                    Answer::Issuer(issuers.answer(clock.seconds(), question).await?)
                }
                question => answer(&journal, &bundle, clock.seconds(), question).await?,
            }
        }
    };
    match answered {
        Answer::Refused(why) => Err(AppError::Refused(why)),
        answered => Ok(answered),
    }
}

/// Asks the server of this directory. One that holds the store and does not listen is about to: it
/// is asked again.
async fn ask_whoever_starts(
    data: &DataDir,
    path: &Path,
    question: &Ask,
) -> Result<Option<Answer>, AppError> {
    for _ in 0..MOST_LOOKS {
        let told = match admin::ask(path, question).await {
            // Closed on an unread question: whoever waited for its first issuer has it and starts.
            Err(cause) if cause.kind() == ErrorKind::ConnectionReset => {
                sleep(LOOK_AGAIN).await;
                continue;
            }
            told => told.map_err(|cause| AppError::Ask { path: path.to_owned(), cause })?,
        };
        if told.is_some() || !data.store().exists() {
            return Ok(told);
        }
        match Embedded::open(&data.store()) {
            Err(StoreError::HeldElsewhere(_)) => sleep(LOOK_AGAIN).await,
            _ => return Ok(None),
        }
    }
    Ok(None)
}
