//! The chapters among friends: plaintext as the control, traffic, rotation, the CA's death and return,
//! and the wire after all of it. Called by `Story::tell`.
//! Never: counts a request that a program of the demo did not see answered.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use myelin_lab::wire::WireReport;

use super::sample::{Sample, grouped};
use super::scrape::{self, Metrics, SIDECAR_OPS};
use super::story::Story;
use super::view::wire_words;

/// An SVID of 15 s is renewed after 7.5 to 9 s; twice that, and a busy machine's second.
const RENEWAL_LIMIT: Duration = Duration::from_secs(20);

/// What the CA must find when it returns: enough life for its start and for two attempts of a sidecar.
const RESERVE_SECONDS: i64 = 4;

/// The CA is best killed when both certificates are young.
const YOUNG_SECONDS: i64 = 11;

/// pgbench counts at the end of a run, which takes a second on a busy machine.
const SHORTEST_STRETCH: Duration = Duration::from_secs(3);

impl Story<'_> {
    /// The control: without it, "no canary was seen" would mean nothing.
    pub(super) async fn plaintext(&mut self) -> Result<()> {
        self.view.chapter(
            "control",
            "Before the sidecars: can the tap read plaintext?",
            "The services start as they are. Each is asked once, with a raw capture on the wire.",
        );
        self.stage.start_own_services().await?;
        if !self.options.own_services_only {
            for missing in self.stage.start_guests().await? {
                self.view.note(&missing.to_string());
            }
        }
        for load in &self.stage.loads {
            self.view.note(&format!("{:<9} {}", load.name, load.what));
        }
        let capture = self.start_capture()?;
        self.stage.ask_once().await?;
        let wire = capture.report().await?;
        let read = wire.canaries.iter().filter(|hits| hits.in_frames + hits.in_streams > 0).count();
        let all = wire.canaries.len();
        let measured = format!(
            "{read} of {all} canaries readable in {} plaintext flows, {} bytes",
            wire.non_tls_flows,
            grouped(wire.bytes)
        );
        self.claim(
            "control",
            "Without Myelin the tap reads everything (control)",
            read == all && all > 0,
            measured,
        );
        Ok(())
    }

    pub(super) async fn traffic(&mut self) -> Result<()> {
        self.view.chapter(
            "traffic",
            "With the sidecars: the same services, unchanged",
            "A CA starts, two sidecars join with one-time tokens; clients ask without a pause from here on.",
        );
        self.stage.start_ca().await?;
        self.capture = Some(self.start_capture()?);
        self.stage.start_sidecars().await?;
        let before = self.look().await?;
        self.first = Some(before.clone());
        self.stage.start_loads()?;
        let (after, _) = self.watch(self.pace.traffic, |_| false).await?;
        let stretch = after.since(&before);
        let carried = self.carried().await?;
        let holds = stretch.is_clean() && carried > 0;
        let names: Vec<&str> = after.loads.iter().map(|(name, _)| *name).collect();
        let measured = format!(
            "{} in {} s ({}); {} connections through the mesh",
            stretch.words(),
            (after.at - before.at).as_secs(),
            names.join(", "),
            grouped(carried)
        );
        self.claim("traffic", "Traffic flows, programs unchanged", holds, measured);
        if let Some(wire) = &after.wire {
            let (words, kinds) = (wire_words(wire), cipher_words(wire));
            self.view.note(&format!("the tap so far: {words}"));
            self.view.note(&format!("                {kinds}"));
        }
        Ok(())
    }

    pub(super) async fn rotation(&mut self) -> Result<()> {
        self.view.chapter(
            "rotation",
            "Certificates rotate under load",
            "Each sidecar renews at half-life, with a new key each time; requests go on.",
        );
        let times = self.pace.rotations;
        let limit = RENEWAL_LIMIT * u32::try_from(times).unwrap_or(1);
        let first = self.serials().await?;
        let before = self.look().await?;
        let (_, all) = self.watch(limit, |sample| sample.all_renewed(&before, times)).await?;
        let after = self.at_least(&before).await?;
        let last = self.serials().await?;
        let is_new = first.iter().zip(&last).all(|(old, new)| old.is_disjoint(new));
        let stretch = after.since(&before);
        let renewals = after.issued() - before.issued();
        let measured = format!(
            "{renewals} renewals, {} serial numbers; {}",
            if is_new { "new" } else { "UNCHANGED" },
            stretch.words()
        );
        let holds = all && is_new && stretch.is_clean();
        self.claim("rotation", "Certificates rotate, no request fails", holds, measured);
        Ok(())
    }

    pub(super) async fn ca_dies(&mut self) -> Result<()> {
        self.view.chapter(
            "ca_down",
            "The CA is killed",
            "SIGKILL. Sidecars go on with what they have until it expires; renewals fail meanwhile.",
        );
        // Only so that the longest outage fits into certificates of 15 s.
        self.watch(RENEWAL_LIMIT, |sample| sample.seconds_left() >= YOUNG_SECONDS).await?;
        let ca = self.stage.ca.as_ref().context("the CA was started")?;
        ca.kill9();
        ca.wait(Duration::from_secs(5)).await?;
        let before = self.look().await?;
        let near_the_end = |sample: &Sample| sample.seconds_left() <= RESERVE_SECONDS;
        let (after, _) = self.watch(self.pace.outage, near_the_end).await?;
        let stretch = after.since(&before);
        let attempts = after.failed_attempts() - before.failed_attempts();
        let renewals = after.issued() - before.issued();
        let mut measured =
            format!("dead for {:.1} s; {}", (after.at - before.at).as_secs_f64(), stretch.words());
        if attempts > 0 {
            let words: BTreeSet<String> =
                after.sidecars.iter().flat_map(|state| state.failure_words.clone()).collect();
            let words = words.into_iter().collect::<Vec<_>>().join(", ");
            measured += &format!("; {attempts} renewals failed ({words})");
        }
        let holds = stretch.is_clean() && renewals == 0;
        self.claim("ca_down", "The CA dies, traffic goes on", holds, measured);
        Ok(())
    }

    pub(super) async fn ca_returns(&mut self) -> Result<()> {
        self.view.chapter(
            "ca_back",
            "The CA comes back",
            "The same data directory; nobody restarts a sidecar.",
        );
        let before = self.look().await?;
        self.stage.start_ca().await?;
        let (renewed, all) =
            self.watch(RENEWAL_LIMIT, |sample| sample.all_renewed(&before, 1)).await?;
        let after = self.at_least(&before).await?;
        let (stretch, renewals) = (after.since(&before), after.issued() - before.issued());
        let measured = format!(
            "{renewals} renewals, each sidecar within {:.1} s; {}",
            (renewed.at - before.at).as_secs_f64(),
            stretch.words()
        );
        let holds = all && stretch.is_clean();
        self.claim("ca_back", "The CA returns, renewals resume by themselves", holds, measured);
        Ok(())
    }

    /// The tap's numbers of all the chapters above.
    pub(super) async fn wire_after_all(&mut self) -> Result<()> {
        self.view.chapter(
            "wire",
            "What the tap recorded in all that time",
            "Every frame between the pods since the sidecars started, the CA's own traffic included.",
        );
        let capture = self.capture.as_ref().context("the capture was started")?;
        let wire = capture.report().await?;
        if let Some(path) = &self.options.pcap {
            let written = capture.to_pcap(path).await?;
            let (frames, left_out) = (grouped(written.frames), grouped(written.left_out));
            let path = path.display();
            self.view.note(&format!("{path}: the first {frames} frames, {left_out} left out"));
        }
        // The issuance log is public: sidecars read its tiles in plaintext, and check them by hash.
        let ca = self.stage.pods.ca.addresses().to_vec();
        let is_log = |to: SocketAddr| to.port() == scrape::CA_OPS && ca.contains(&to.ip());
        let objections = wire.objections(is_log);
        let mut measured = format!("{}; {}", wire_words(&wire), cipher_words(&wire));
        if wire.non_tls_flows > 0 && objections.is_empty() {
            measured += "; the others read the CA's public log";
        }
        for objection in &objections {
            measured += &format!("; BUT {objection}");
        }
        let holds = objections.is_empty() && wire.tls13_flows > 0;
        self.claim("wire", "On the wire: TLS 1.3, and the public log", holds, measured);
        Ok(())
    }

    /// The last word on the clients: from their first request to the last, strangers included.
    pub(super) async fn every_request(&mut self) -> Result<()> {
        self.view.chapter(
            "requests",
            "Every request of the whole demo",
            "Counted by the clients themselves, each answer compared with what must come.",
        );
        let first = self.first.clone().context("there was traffic")?;
        let last = self.look().await?;
        let (stretch, mut each) = (last.since(&first), Vec::new());
        for (name, tally) in &last.loads {
            each.push(format!("{name} {}", grouped(tally.ok)));
        }
        let seconds = (last.at - first.at).as_secs();
        let measured = format!("{} in {seconds} s: {}", stretch.words(), each.join(", "));
        self.claim("requests", "No request fails in all that time", stretch.is_clean(), measured);
        Ok(())
    }

    /// Lets a stretch be so long that every load must have answered in it.
    async fn at_least(&mut self, since: &Sample) -> Result<Sample> {
        let left = SHORTEST_STRETCH.saturating_sub(since.at.elapsed());
        Ok(self.watch(left, |_| false).await?.0)
    }

    /// Connections of both sidecars that were protected by the mesh's own TLS and ended well, or are open.
    async fn carried(&self) -> Result<u64> {
        let metrics = Metrics::of(&self.stage.pods.server, SIDECAR_OPS).await?;
        let inbound = ("direction", "inbound");
        let closed =
            metrics.count("myelin_connections_closed_total", &[inbound, ("security", "mesh")]);
        Ok(closed + metrics.count("myelin_connections_open", &[inbound]))
    }

    /// The serial numbers that each sidecar shows to its operator.
    async fn serials(&self) -> Result<Vec<BTreeSet<String>>> {
        let mut all = Vec::new();
        for sidecar in &self.stage.sidecars {
            let found = scrape::serials(&sidecar.admin).await;
            let found = found.with_context(|| format!("the admin socket of {}", sidecar.name))?;
            all.push(found.into_iter().collect());
        }
        Ok(all)
    }
}

/// Groups and ciphers with their counts, as the ServerHellos chose them.
fn cipher_words(wire: &WireReport) -> String {
    let words = |map: &std::collections::BTreeMap<String, u64>| {
        let each = map.iter().map(|(name, count)| format!("{name} ×{}", grouped(*count)));
        each.collect::<Vec<_>>().join(", ")
    };
    let resumed = match wire.resumed {
        0 => String::new(),
        count => format!("; {} resumed", grouped(count)),
    };
    format!("{}; {}{resumed}", words(&wire.groups), words(&wire.ciphers))
}
