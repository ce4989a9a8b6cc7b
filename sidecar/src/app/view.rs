//! What the operator's socket shows and changes: configuration, credentials, connections, log
//! level, reload. Made by `app`.
//!
//! Never: shows a key or a token; applies half a configuration.

// SPDX-License-Identifier: Apache-2.0

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::logs::Logs;
use super::reload::in_force;
use super::shared::Shared;
use super::wiring;
use super::worker::Question;
use crate::admin::{Answering, View};
use crate::config::{self, Config};
use crate::credentials::Snapshot;
use crate::directory::Directory;
use crate::policies::InForce;

/// A worker that is busy for longer than this is left out of the list, and named as such.
const ROSTER_WITHIN: Duration = Duration::from_secs(1);

pub(super) struct Operator {
    shared: Arc<Shared>,
    /// The values in force; a reload replaces those that it changes.
    shown: Mutex<Value>,
    path: PathBuf,
    logs: Logs,
    rosters: Vec<mpsc::Sender<Question>>,
}

impl Operator {
    pub(super) fn new(
        shared: &Arc<Shared>,
        config: &Config,
        path: PathBuf,
        logs: Logs,
        rosters: Vec<mpsc::Sender<Question>>,
    ) -> Self {
        let shown = Mutex::new(config.show());
        Self { shared: Arc::clone(shared), shown, path, logs, rosters }
    }

    /// Reads the file again. Policy, services, peers and exceptions take effect at once; what needs
    /// a restart (listeners, limits, the CA) stays as it was, and is named.
    pub(super) fn reload_now(&self) -> Result<(), String> {
        let config = config::load(&self.path).map_err(|error| error.to_string())?;
        let directory = Directory::new(config.directory.clone());
        directory
            .check_own(self.shared.own.load().as_slice())
            .map_err(|error| error.to_string())?;
        self.shared
            .store
            .declare_alpns(wiring::alpns(&config))
            .and_then(|()| {
                self.shared
                    .store
                    .federate_with(config.federates_with.clone(), config.federates_unlogged.clone())
            })
            .map_err(|error| error.to_string())?;
        let held = self.shared.store.load();
        let foreign = held.map_or(0, |held| held.trust.foreign().bundles().len());
        self.shared.metrics.foreign_bundles(foreign);
        self.shared.policy_desk.reload(config.policy.clone());
        self.shared.directory.store(Arc::new(directory));
        self.show(config.show());
        self.shared.world_changed();
        Ok(())
    }

    fn show(&self, file: Value) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, waiting) = in_force(&shown, file);
        if !waiting.is_empty() {
            let keys = waiting.join(", ");
            tracing::warn!(keys, "these keys of the configuration take effect at a restart only");
        }
        *shown = now;
    }

    pub(super) fn reload_and_log(&self) {
        match self.reload_now() {
            Ok(()) => tracing::info!(path = %self.path.display(), "configuration reloaded"),
            Err(error) => tracing::error!(error, "configuration not reloaded; the old one stays"),
        }
    }

    async fn ask(&self, roster: &mpsc::Sender<Question>) -> Option<Vec<Value>> {
        let (question, answer) = oneshot::channel();
        let asked = async {
            roster.send(question).await.ok()?;
            answer.await.ok()
        };
        tokio::time::timeout(ROSTER_WITHIN, asked).await.ok().flatten()
    }
}

impl View for Operator {
    fn config(&self) -> Value {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let (Some(in_force), Some(shown)) =
            (self.shared.policy_desk.in_force(), shown.as_object_mut())
        {
            let policy = self.shared.policy_desk.policy().load();
            shown.insert("inbound".to_owned(), config::show_inbound(policy.config()));
            shown.insert("policy_in_force".to_owned(), policy_in_force(in_force));
        }
        shown
    }

    fn certs(&self) -> Value {
        let Some(snapshot) = self.shared.store.load() else {
            return json!({ "identity": Value::Null, "why": "identity_pending" });
        };
        let now = self.shared.clock.unix();
        let svid = &snapshot.svid;
        json!({
            "identity": svid.id().to_string(),
            "generation": snapshot.generation,
            "serial": svid.serial().to_string(),
            "addresses": svid.ip_sans().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "not_before": svid.not_before(),
            "not_after": svid.not_after(),
            "now": now,
            "usable": self.shared.store.usable(now).is_ok(),
            "bundle": {
                "trust_domain": snapshot.bundle.trust_domain().to_string(),
                "generation": snapshot.bundle.generation(),
                "hash": snapshot.bundle.hash().to_string(),
            },
            "foreign_bundles": foreign(&snapshot),
            "deny_list": { "epoch": snapshot.deny.epoch() },
        })
    }

    fn connections(&self) -> Answering<'_, Value> {
        Box::pin(async {
            let mut rows = Vec::new();
            let mut silent = 0;
            for roster in &self.rosters {
                match self.ask(roster).await {
                    Some(more) => rows.extend(more),
                    None => silent += 1,
                }
            }
            json!({
                "open": self.shared.door.inside(),
                "connections": rows,
                "workers_without_answer": silent,
            })
        })
    }

    fn log_level(&self) -> String {
        self.logs.level()
    }

    fn set_log_level(&self, wanted: &str) -> Result<(), String> {
        self.logs.change(wanted)
    }

    fn reload(&self) -> Answering<'_, Result<(), String>> {
        Box::pin(async { self.reload_now() })
    }
}

/// What a controller said last, and whether one still does.
fn policy_in_force(in_force: InForce) -> Value {
    json!({
        "pending": in_force.version.is_none(),
        "version": in_force.version.map(|version| version.to_string()),
        "since": in_force.since,
        "connected": in_force.is_connected,
    })
}

fn foreign(snapshot: &Snapshot) -> Value {
    let held = snapshot.trust.foreign();
    let bundles = held.bundles().iter().map(|foreign| {
        json!({
            "trust_domain": foreign.trust_domain().to_string(),
            "generation": foreign.bundle.generation(),
            "hash": foreign.bundle.hash().to_string(),
            "unlogged": foreign.unlogged,
        })
    });
    json!({ "epoch": held.epoch(), "bundles": bundles.collect::<Vec<_>>() })
}
