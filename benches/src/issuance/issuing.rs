//! SVIDs a second and a core: join tokens redeemed over kept connections and over new ones, as fast as
//! they are answered, and by the clock at half the target. Called by `mod`.
//!
//! Never: counts the callers' CPU time.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use nix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use super::args::Options;
use super::ca::Ca;
use super::client::{Link, Right, Target};
use super::stage::{Joining, Stage};
use crate::compare::cpu;
use crate::pace;
use crate::show::{Bound, Figure, Show};

const BENCH: &str = "issuing";
const CA_CPU: usize = 0;
const CALLERS_CPU: usize = 1;
/// SVIDs a second and a core.
const TARGET: f64 = 3_000.0;
/// 99 of 100 answers at half of that, in milliseconds.
const TARGET_P99_MS: f64 = 50.0;

/// Issues of the kept connections, of the new ones, and of each that goes by the clock.
const KEPT: usize = 12_000;
const FRESH: usize = 5_000;
const AT_HALF: usize = 15_000;
const FRESH_BY_THE_CLOCK: usize = 3_000;
/// New connections a second: what leaves room for the callers' half of the handshakes.
const FRESH_RATE: f64 = 500.0;

const VERIFICATIONS: u32 = 5_000;

/// Kept connections, and issues at once on each: less than the CA's streams, so that nothing queues in
/// the caller.
const LINKS: usize = 64;
const AT_ONCE_ON_EACH: usize = 8;
/// Joining hosts at once that connect anew.
const FRESH_AT_ONCE: usize = 128;

/// Measures with the CA on one CPU and its callers on another: what a core carries is what the CA does
/// when it has one for itself.
pub(super) fn measure(options: &Options, show: &Show) -> Result<Vec<Figure>> {
    let measured = cpu::on_cpu(CALLERS_CPU, || {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().context("no runtime")?;
        runtime.block_on(measure_on(options, show))
    });
    measured.context("two CPUs are needed: one for the CA, one for its callers")?
}

async fn measure_on(options: &Options, show: &Show) -> Result<Vec<Figure>> {
    show.step("issuing: making tokens and requests");
    let mut stage = Stage::open(options).await?;
    let mut parts = Vec::new();
    for count in [KEPT, FRESH, AT_HALF, FRESH_BY_THE_CLOCK] {
        parts.push(stage.joining(options.scaled(count), show).await?);
    }
    let set = stage.set().await?;
    let ca = Ca::start_on(Some(CA_CPU), options, &set.data).await?;
    let target = Target { grpc: ca.grpc, bundle: set.bundle.clone() };
    let mut parts = parts.into_iter();
    let mut next = || parts.next().unwrap_or_default();
    let mut figures =
        vec![Figure::new(BENCH, "one P-256 verification, here and now", verification()?, "us")];
    kept(&ca, &target, next(), show, &mut figures).await?;
    fresh(&ca, &target, next(), show, &mut figures).await?;
    show.step("issuing: by the clock, kept connections");
    let links = links(&target).await?;
    let (cpu, count) = (ca.cpu(), options.scaled(AT_HALF));
    let done = |done| show.progress("SVIDs", done, count);
    let each = |(nth, joining): (usize, Joining)| on_kept(links.clone(), nth, joining);
    let times =
        pace::by_the_clock(next().into_iter().enumerate(), TARGET / 2.0, each, done).await?;
    let name = |what: &str| format!("{what}, 1,500 a second on kept connections");
    figures.push(Figure::new(BENCH, name("p50"), times.ms(0.5), "ms"));
    let p99 = Figure::new(BENCH, name("p99"), times.ms(0.99), "ms");
    figures.push(p99.bound(Bound::AtMost(TARGET_P99_MS)));
    figures.push(Figure::new(BENCH, name("worst"), times.ms(1.0), "ms"));
    figures.push(Figure::new(BENCH, name("CPU"), (ca.cpu() - cpu) / count as f64 * 1e6, "us/SVID"));

    show.step("issuing: by the clock, a new connection each");
    let each = |joining| on_fresh(target.clone(), joining);
    let times = pace::by_the_clock(next(), FRESH_RATE, each, done).await?;
    let name = |what: &str| format!("{what}, 500 a second, a new connection each");
    figures.push(Figure::new(BENCH, name("p50"), times.ms(0.5), "ms"));
    figures.push(Figure::new(BENCH, name("p99"), times.ms(0.99), "ms"));
    ca.stop().await?;
    Ok(figures)
}

/// CPU time of what an issue does twice (the request's own signature, the host key's), on this machine in
/// its present mood: by it figures of other machines and days can be compared.
fn verification() -> Result<f64> {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
    let signature = pair.sign(&SystemRandom::new(), b"myelin")?;
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, pair.public_key().as_ref());
    let clock = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    let before = clock()?;
    for _ in 0..VERIFICATIONS {
        key.verify(b"myelin", signature.as_ref())?;
    }
    Ok((clock()? - before).as_secs_f64() / f64::from(VERIFICATIONS) * 1e6)
}

async fn kept(
    ca: &Ca,
    target: &Target,
    joining: Vec<Joining>,
    show: &Show,
    figures: &mut Vec<Figure>,
) -> Result<()> {
    show.step("issuing: as fast as answered, kept connections");
    let links = links(target).await?;
    let (count, cpu, begin) = (joining.len(), ca.cpu(), Instant::now());
    let each = |(nth, joining)| on_kept(links.clone(), nth, joining);
    let done = |done| show.progress("SVIDs", done, count);
    pace::at_once(joining.into_iter().enumerate(), LINKS * AT_ONCE_ON_EACH, each, done).await?;
    let (cpu, clock) = (ca.cpu() - cpu, begin.elapsed().as_secs_f64());
    let name = |what: &str| format!("{what}, kept connections");
    figures.push(Figure::new(BENCH, name("CPU"), cpu / count as f64 * 1e6, "us/SVID"));
    let per_core = Figure::new(BENCH, name("SVIDs/s per core"), count as f64 / cpu, "/s");
    figures.push(per_core.bound(Bound::AtLeast(TARGET)));
    let name = name("SVIDs/s beside their callers");
    figures.push(Figure::new(BENCH, name, count as f64 / clock, "/s"));
    Ok(())
}

async fn fresh(
    ca: &Ca,
    target: &Target,
    joining: Vec<Joining>,
    show: &Show,
    figures: &mut Vec<Figure>,
) -> Result<()> {
    show.step("issuing: as fast as answered, a new connection each");
    let (count, cpu, begin) = (joining.len(), ca.cpu(), Instant::now());
    let each = |joining| on_fresh(target.clone(), joining);
    let done = |done| show.progress("SVIDs", done, count);
    pace::at_once(joining, FRESH_AT_ONCE, each, done).await?;
    let (cpu, clock) = (ca.cpu() - cpu, begin.elapsed().as_secs_f64());
    let name = |what: &str| format!("{what}, a post-quantum handshake each");
    figures.push(Figure::new(BENCH, name("CPU"), cpu / count as f64 * 1e6, "us/SVID"));
    figures.push(Figure::new(BENCH, name("SVIDs/s per core"), count as f64 / cpu, "/s"));
    let name = name("SVIDs/s beside their callers");
    figures.push(Figure::new(BENCH, name, count as f64 / clock, "/s"));
    Ok(())
}

/// Connections as strangers have them, good for half a minute.
async fn links(target: &Target) -> Result<Arc<Vec<Link>>> {
    let mut links = Vec::new();
    for _ in 0..LINKS {
        links.push(target.connect(super::client::address(0), None).await?);
    }
    Ok(Arc::new(links))
}

async fn on_kept(links: Arc<Vec<Link>>, nth: usize, joining: Joining) -> Result<()> {
    let mut link = links[nth % links.len()].clone();
    link.issue_unread(&joining.prepared, &Right::Token(&joining.secret)).await
}

async fn on_fresh(target: Target, joining: Joining) -> Result<()> {
    let mut link = target.connect(joining.prepared.host.address, None).await?;
    link.issue_unread(&joining.prepared, &Right::Token(&joining.secret)).await
}
