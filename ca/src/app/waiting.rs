//! A CA below a root that is elsewhere, before its first intermediate: it answers `issuer` commands
//! and probes, says what it waits for, and goes on as soon as that is there.
//!
//! Never: listens for sidecars; there is nothing that it could tell them.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use futures_util::FutureExt as _;
use myelin_identity::bundle::TrustBundle;
use myelin_identity::log::LogKey;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::sync::{Notify, watch};

use super::{AppError, listen_on};
use crate::api::{admin, ops};
use crate::clock::Clock;
use crate::config::{ConfigError, ServeConfig};
use crate::datadir::DataDir;
use crate::journal::Journal;
use crate::operator::{Answer, Ask, Issuers};
use crate::replica::ReplicaId;
use crate::rotation::{Pin, adopt, waits_for_issuer};
use crate::signer::Vault;

const WHY: &str = "waits for its first issuing intermediate: run myelin-ca issuer request, have the root sign it, then myelin-ca issuer import";

/// Begins a CA below the root of `--root-cert`, if that is given.
pub(super) async fn adopt_root(
    journal: &Journal,
    config: &ServeConfig,
    pin: &Pin,
    log: &LogKey,
) -> Result<(), AppError> {
    let Some(path) = &config.root_cert else { return Ok(()) };
    let wrong = |why: String| ConfigError::RootCert { path: path.clone(), why };
    let roots: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?.collect();
    let roots = roots.map_err(|error| wrong(error.to_string()))?;
    let bundle = TrustBundle::new(config.trust_domain.clone(), 1, roots)
        .map_err(|error| wrong(error.to_string()))?
        .stating(log);
    for root in bundle.root_ids() {
        match bundle.log_of(&root) {
            Ok(Some(counts)) if counts == *log => {}
            Ok(other) => return Err(wrong(elsewhere(other.as_ref())).into()),
            Err(error) => return Err(wrong(error.to_string()).into()),
        }
    }
    // The operator's file is the anchor: nothing in the store has to be believed.
    Ok(adopt(journal, &bundle).await?.pin(pin)?)
}

/// Whose log a root names that this CA cannot write.
fn elsewhere(log: Option<&LogKey>) -> String {
    let name = log.map_or("none", LogKey::name);
    format!(
        "it names the log {name}, whose key is not here; a root for this CA names none, then this CA keeps its log"
    )
}

/// Returns when there is an intermediate to issue with; at once if there is one.
pub(super) async fn until_issuer(
    journal: &Journal,
    vault: &Vault,
    replica: &ReplicaId,
    (config, data): (&ServeConfig, &DataDir),
    clock: &Clock,
) -> Result<(), AppError> {
    let Some(bundle) = waits_for_issuer(journal, replica).await? else { return Ok(()) };
    let (ops, address) = listen_on("--ops-listen", config.ops_listen).await?;
    let path = data.admin_socket();
    let admin = admin::bind(&path).map_err(|cause| AppError::Admin { path, cause })?;
    let (stop, stopping) = watch::channel(false);
    let answered = Arc::new(Notify::new());
    let probes = tokio::spawn(ops::serve_waiting(ops, WHY, stopping.clone()));
    let (journal, vault, replica) = (journal.clone(), Some(vault.clone()), replica.clone());
    let issuers = Issuers { journal, replica, vault, bundle: Arc::new(bundle) };
    let answers = answers(issuers.clone(), clock.clone(), answered.clone());
    let operators = tokio::spawn(admin::serve(admin, answers, stopping));
    tracing::warn!(ops = %address, "this CA {WHY}");
    while waits_for_issuer(&issuers.journal, &issuers.replica).await?.is_some() {
        answered.notified().await;
    }
    // Whoever imported it still reads the answer.
    let _ = stop.send(true);
    let _ = tokio::join!(probes, operators);
    tracing::info!("the first issuing intermediate is here");
    Ok(())
}

fn answers(issuers: Issuers, clock: Clock, answered: Arc<Notify>) -> admin::Answers {
    Arc::new(move |ask| {
        let (issuers, clock, answered) = (issuers.clone(), clock.clone(), answered.clone());
        async move {
            let Ask::Issuer(ask) = ask else {
                return Answer::Refused(format!("this CA {WHY}"));
            };
            let answer = issuers.answer(clock.seconds(), ask).await;
            answered.notify_one();
            answer.map_or_else(|error| Answer::Refused(error.to_string()), Answer::Issuer)
        }
        .boxed()
    })
}
