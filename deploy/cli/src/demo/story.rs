//! The story of the demo, from plaintext to the strangers, and what every chapter needs: the stage, the
//! view, the pace, and time that passes under observation. Called by `demo`.
//! Never: judges a chapter; that is done in `chapters` and `strangers`.

// SPDX-License-Identifier: Apache-2.0

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use myelin_lab::wire::{Capture, CaptureOptions};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::claims::Claim;
use super::mesh::TRUST_DOMAIN;
use super::sample::{Sample, SidecarState};
use super::scrape::{Metrics, SIDECAR_OPS};
use super::stage::Stage;
use super::view::View;
use crate::args::DemoArgs;

/// How often the demo looks: smooth on a terminal, and next to nothing for the machine.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How long the chapters are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Traffic before the first numbers are told.
    pub(super) traffic: Duration,
    /// New certificates that each sidecar must get.
    pub(super) rotations: u64,
    /// The longest time without a CA.
    pub(super) outage: Duration,
    /// How long a stranger waits for a first word.
    pub(super) silence: Duration,
}

const FULL: Pace = Pace {
    traffic: Duration::from_secs(8),
    rotations: 4,
    outage: Duration::from_secs(10),
    silence: Duration::from_secs(2),
};

const QUICK: Pace = Pace {
    traffic: Duration::from_secs(2),
    rotations: 1,
    outage: Duration::from_secs(5),
    silence: Duration::from_secs(1),
};

pub(super) struct Story<'a> {
    pub(super) options: &'a DemoArgs,
    pub(super) stage: &'a mut Stage,
    pub(super) view: &'a mut View,
    pub(super) pace: Pace,
    /// Runs from the first protected byte to the last chapter with friends only.
    pub(super) capture: Option<Capture>,
    /// The moment before the first request under protection.
    pub(super) first: Option<Sample>,
    pub(super) claims: Vec<Claim>,
}

impl<'a> Story<'a> {
    pub(super) fn new(options: &'a DemoArgs, stage: &'a mut Stage, view: &'a mut View) -> Self {
        let pace = if options.quick { QUICK } else { FULL };
        Self { options, stage, view, pace, capture: None, first: None, claims: Vec::new() }
    }

    /// Tells everything and returns what was claimed and measured.
    pub(super) async fn tell(mut self, prometheus: Option<&Path>) -> Result<Vec<Claim>> {
        self.introduce();
        if let Some(program) = prometheus {
            let address = self.stage.start_prometheus(program).await?;
            self.view.note(&format!("Prometheus: http://{address}"));
        }
        self.plaintext().await?;
        self.traffic().await?;
        self.rotation().await?;
        self.ca_dies().await?;
        self.ca_returns().await?;
        self.wire_after_all().await?;
        self.plaintext_stranger().await?;
        self.foreign_stranger().await?;
        self.every_request().await?;
        self.view.verdict(&self.claims);
        Ok(self.claims)
    }

    fn introduce(&mut self) {
        let pods = &self.stage.pods;
        let root = self.stage.ground.tells_uids_apart();
        let ground = if root { "as root" } else { "without root, in a user namespace" };
        let all = [&pods.client, &pods.server, &pods.ca, &pods.stranger];
        let place = |pod: &&myelin_lab::Pod| format!("{} {}", pod.name(), pod.v4());
        let places: Vec<String> = all.iter().map(place).collect();
        let lines = [
            format!("Myelin demo: four pods on one wire, {ground}"),
            format!("  {}", places.join(" · ")),
            format!(
                "  trust domain {TRUST_DOMAIN}, certificates live 15 s; everything is removed at the end"
            ),
        ];
        let facts = json!({"root": root, "trust_domain": TRUST_DOMAIN, "pods": places});
        self.view.open(&lines, &facts);
    }

    /// A capture that looks for the canaries of all services.
    pub(super) fn start_capture(&self) -> Result<Capture> {
        let canaries = self.stage.loads.iter().map(|load| load.canary.as_bytes());
        Capture::start(&self.stage.lab, CaptureOptions::canaries(canaries))
    }

    pub(super) async fn look(&mut self) -> Result<Sample> {
        let sample = self.sample().await?;
        self.view.tick(&sample);
        Ok(sample)
    }

    /// Lets time pass under observation until `enough` or the limit; returns the last look, and
    /// whether it was enough.
    pub(super) async fn watch(
        &mut self,
        limit: Duration,
        enough: impl Fn(&Sample) -> bool,
    ) -> Result<(Sample, bool)> {
        let deadline = Instant::now() + limit;
        let mut next = Instant::now();
        loop {
            let sample = self.look().await?;
            if enough(&sample) {
                return Ok((sample, true));
            }
            if sample.at >= deadline {
                return Ok((sample, false));
            }
            next = (next + LOOK_EVERY).max(Instant::now());
            sleep_until(next).await;
        }
    }

    /// One look at the stage and the wire.
    async fn sample(&self) -> Result<Sample> {
        let mut sidecars = Vec::new();
        for sidecar in &self.stage.sidecars {
            let metrics = Metrics::of(self.stage.pod_of(sidecar.name), SIDECAR_OPS)
                .await
                .with_context(|| format!("the sidecar of {} does not answer", sidecar.name))?;
            sidecars.push(SidecarState::read(sidecar.name, &metrics));
        }
        let wire = match &self.capture {
            Some(capture) => Some(capture.report().await?),
            None => None,
        };
        Ok(Sample {
            at: Instant::now(),
            loads: self.stage.loads.iter().map(|load| (load.name, load.tally())).collect(),
            sidecars,
            wire,
            ca_is_up: self.stage.ca.as_ref().is_some_and(myelin_lab::Proc::is_running),
        })
    }

    /// Judges a claim, shows it, and keeps it for the table.
    pub(super) fn claim(
        &mut self,
        name: &'static str,
        claim: &'static str,
        holds: bool,
        measured: impl Into<String>,
    ) {
        let claim = Claim { name, claim, measured: measured.into(), holds };
        self.view.claim(&claim);
        self.claims.push(claim);
    }
}
