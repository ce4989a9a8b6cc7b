//! Myelin alone while one number grows: kept connections, streams, endpoints, renewals. Called by
//! `compare scale`.
//!
//! Never: leaves out that a number could not be reached: `left_out` says it.

// SPDX-License-Identifier: Apache-2.0

mod mesh;
mod show;

use std::time::Duration;

use anyhow::{Context, Result};
use myelin_lab::Ground;
use tokio::time::Instant;

use self::mesh::{Mesh, Plan};
use super::args::Options;
use super::peers::{Peer, Programs};
use super::progress;
use super::record::{Job, Kind, Machine, Point, Scale};
use super::visit::KEPT;

pub(crate) use self::show::{plots, table};

/// Kept connections; the largest is lowered to what a sidecar admits.
const CONNECTIONS: [usize; 4] = [10, 100, 1_000, 10_000];
const STREAMS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// Below and above the 4,096 places that a sidecar asks the CA's directory about.
const ENDPOINTS: [usize; 5] = [10, 100, 1_000, 4_000, 5_000];
const NAMED: [usize; 3] = [10, 1_000, 5_000];

/// What a sidecar may hold: `limits.max_connections` by default, and three descriptors for each.
const ADMITTED_BY_DEFAULT: u64 = 10_000;
const DESCRIPTORS_A_CONNECTION: u64 = 3;

/// Left free for the connections that are opened beside the held ones, and for the sidecar itself.
const SPARE: u64 = 200;

/// The shortest that the CA issues, even with its flag for tests.
const SHORT_LIFETIME: [&str; 3] = ["--allow-short-lifetimes", "--default-lifetime", "4s"];

const WARM_MS: u64 = 400;

/// What is measured together: seconds of a window, of the renewals' window, and where it goes.
struct Run<'a> {
    ground: Ground,
    programs: &'a Programs,
    seconds: f64,
    renewal_seconds: f64,
    scale: Scale,
}

pub(crate) async fn perform(
    options: &Options,
    machine: Machine,
    ground: Ground,
    programs: &Programs,
) -> Result<Scale> {
    let (seconds, renewal_seconds) = if options.quick { (1.0, 3.0) } else { (4.0, 12.0) };
    let most = admitted(machine.descriptors);
    let scale = Scale {
        machine,
        quick: options.quick,
        version: Peer::Myelin.version(programs)?,
        varied: show::varied(),
        ..Scale::default()
    };
    let mut run = Run { ground, programs, seconds, renewal_seconds, scale };
    if most < CONNECTIONS[CONNECTIONS.len() - 1] {
        run.scale.left_out.push(format!(
            "10,000 kept connections: of {} descriptors a sidecar admits {most}, which was taken",
            run.scale.machine.descriptors
        ));
    }
    for round in 0..options.rounds() {
        run.connections(round, most).await.context("kept connections")?;
        run.streams(round).await.context("streams")?;
        let plan = Plan::many_endpoints();
        run.endpoints(round, most, plan, "endpoints", &ENDPOINTS).await.context("endpoints")?;
        let plan = Plan::many_named();
        run.endpoints(round, most, plan, "named", &NAMED).await.context("named endpoints")?;
        run.renewals(round).await.context("renewals")?;
    }
    Ok(run.scale)
}

/// How many connections can be kept beside some new ones, in whole hundreds.
fn admitted(descriptors: u64) -> usize {
    let most = (descriptors / DESCRIPTORS_A_CONNECTION).min(ADMITTED_BY_DEFAULT);
    (most.saturating_sub(SPARE) / 100 * 100) as usize
}

impl Run<'_> {
    async fn connections(&mut self, round: usize, most: usize) -> Result<()> {
        let mesh = Mesh::start(self.ground, self.programs, Plan::plain()).await?;
        for number in CONNECTIONS.map(|number| number.min(most)) {
            let kept = Job { connections: number, in_flight: KEPT.min(number), ..self.job(&mesh) };
            self.take(&mesh, round, "connections", "requests", number, kept).await?;
            let fresh = Job { kind: Kind::Fresh, held: number, ..self.job(&mesh) };
            self.take(&mesh, round, "connections", "new connections", number, fresh).await?;
        }
        Ok(())
    }

    async fn streams(&mut self, round: usize) -> Result<()> {
        let mesh = Mesh::start(self.ground, self.programs, Plan::plain()).await?;
        for number in STREAMS {
            let bulk = Job {
                kind: Kind::Bulk,
                endpoints: vec![mesh.bulk()],
                connections: number,
                ..self.job(&mesh)
            };
            self.take(&mesh, round, "streams", "bulk", number, bulk).await?;
        }
        Ok(())
    }

    async fn endpoints(
        &mut self,
        round: usize,
        most: usize,
        plan: Plan,
        series: &str,
        numbers: &[usize],
    ) -> Result<()> {
        let mesh = Mesh::start(self.ground, self.programs, plan).await?;
        for &number in numbers {
            let endpoints = mesh.endpoints(number);
            if number > most {
                let text = format!("one kept connection to each of {number} endpoints: too many");
                if !self.scale.left_out.contains(&text) {
                    self.scale.left_out.push(text);
                }
            } else {
                let kept = Job {
                    endpoints: endpoints.clone(),
                    connections: number,
                    in_flight: KEPT.min(number),
                    ..self.job(&mesh)
                };
                self.take(&mesh, round, series, "requests", number, kept).await?;
            }
            // Every endpoint is met once before the window, so that what is measured is not the
            // CA's answer to the first question.
            let warm_ms = WARM_MS + 2 * number as u64;
            let fresh = Job { kind: Kind::Fresh, endpoints, warm_ms, ..self.job(&mesh) };
            self.take(&mesh, round, series, "new connections", number, fresh).await?;
        }
        Ok(())
    }

    async fn renewals(&mut self, round: usize) -> Result<()> {
        let plans = [Plan::plain(), Plan { ca_flags: &SHORT_LIFETIME, ..Plan::plain() }];
        for (number, plan) in plans.into_iter().enumerate() {
            let mesh = Mesh::start(self.ground, self.programs, plan).await?;
            let window = Duration::from_secs_f64(self.renewal_seconds);
            let paced = Job {
                kind: Kind::Paced,
                rate: 1_000.0,
                window_ms: window.as_millis() as u64,
                ..self.job(&mesh)
            };
            let (from, before) = (Instant::now(), mesh.renewals().await?);
            self.take(&mesh, round, "renewals", "1,000 requests a second", number, paced).await?;
            let renewals = mesh.renewals().await?.saturating_sub(before);
            if let Some(point) = self.scale.points.last_mut() {
                point.renewals = Some(renewals as f64 / from.elapsed().as_secs_f64());
            }
        }
        Ok(())
    }

    /// Requests on 32 kept connections, unless something else is said.
    fn job(&self, mesh: &Mesh) -> Job {
        Job {
            kind: Kind::Kept,
            endpoints: mesh.endpoints(1),
            connections: KEPT,
            in_flight: KEPT,
            rate: 0.0,
            held: 0,
            warm_ms: WARM_MS,
            window_ms: Duration::from_secs_f64(self.seconds).as_millis() as u64,
            clocks: mesh.clocks(),
        }
    }

    async fn take(
        &mut self,
        mesh: &Mesh,
        round: usize,
        series: &str,
        load: &str,
        at: usize,
        job: Job,
    ) -> Result<()> {
        let window = mesh.stage.load(&job).await.with_context(|| format!("{load} at {at}"))?;
        let (series, load) = (series.to_owned(), load.to_owned());
        let point = Point { round, series, load, at: at as f64, window, renewals: None };
        progress(&show::in_one_line(&point));
        self.scale.points.push(point);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::admitted;

    #[test]
    fn what_is_kept_leaves_room_for_what_is_new() {
        assert_eq!(admitted(1_000_000), 9_800);
        assert_eq!(admitted(20_000), 6_400);
        assert_eq!(admitted(300), 0);
    }
}
