//! A log that shows two histories: found out by sidecars, kept as evidence, and the end of everything
//! that stands on it. A server that merely lies or is silent is none of that.
//!
//! Never: a fork that only the server's unsigned bytes speak of.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use myelin_identity::log::{Checkpoint, LogKey};
use myelin_tests::Spec;
use myelin_tests::programs::eventually;

use crate::stage::{SOON, STRANGER, Said, Stage, echoes, open};

/// The only file of evidence, as JSON.
fn evidence(stage: &Stage) -> Result<serde_json::Value> {
    let files = fs::read_dir(stage.server.state_dir().join("logs"))?.flatten();
    let forks = files.map(|file| file.path()).filter(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("fork-"))
    });
    let [path] = &forks.collect::<Vec<_>>()[..] else { anyhow::bail!("not one file of evidence") };
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// Both notes of the evidence are signed by the log.
fn demand_signed(evidence: &serde_json::Value) -> Result<(Checkpoint, Checkpoint)> {
    let log: LogKey = evidence["log"].as_str().context("no log")?.parse()?;
    let note = |name: &str| {
        let note = evidence[name].as_str().context("no note")?;
        anyhow::Ok(Checkpoint::open(note.as_bytes(), &log)?)
    };
    Ok((note("first")?, note("second")?))
}

async fn checkpoints(stage: &Stage, outcome: &str, at_least: f64) -> Result<()> {
    eventually(outcome, SOON * 3, async || {
        let metrics = stage.server.metrics().await?;
        let seen = metrics.sum("myelin_log_checkpoints_total", &[("outcome", outcome)]);
        ensure!(seen >= at_least, "{seen}");
        Ok(true)
    })
    .await
}

#[tokio::test]
async fn two_roots_for_one_size_are_an_alarm_and_peers_of_that_log_are_refused() -> Result<()> {
    let Some(stage) = Stage::set(Spec::new("server")).await? else { return Ok(()) };
    let (one, two, three) = (stage.secret()?, stage.secret()?, stage.secret()?);
    let other = stage.ca.shared.leaves.fork(299);
    let honest = stage.ca.log(&one.chain[0]);
    ensure!(stage.knock(&one, &honest).await? == Said::Accepted, "the twin: one history");
    while other.len() + 1 < stage.ca.shared.leaves.len() {
        other.append(b"filling".to_vec());
    }
    let forked = stage.ca.log_in(&other, &two.chain[0]);
    ensure!(other.len() == stage.ca.shared.leaves.len(), "the same size");
    // It is good for itself; beside the other it is the proof of a fork.
    ensure!(stage.knock(&two, &forked).await? == Said::Accepted);
    stage.log_condition(false, "two histories").await?;
    ensure!(!stage.server.is_ready().await?, "ready all the same");
    let (first, second) = demand_signed(&evidence(&stage)?)?;
    ensure!(first.size == second.size && first.root != second.root, "{first:?} {second:?}");
    let three_proof = stage.ca.log(&three.chain[0]);
    stage.demand_refused("whoever stands on it", &three, &three_proof, "log_forked").await?;
    stage.demand_refused("a peer of before", &one, &honest, "log_forked").await?;
    ensure!(stage.server.log()?.contains("ALARM: this log has signed two histories"));
    // It outlives a restart.
    stage.server.kill9();
    stage.server.start()?;
    stage.log_condition(false, "two histories").await
}

#[tokio::test]
async fn histories_of_two_sizes_are_told_apart_by_the_tiles_in_between() -> Result<()> {
    let Some(stage) = Stage::set(Spec::new("server")).await? else { return Ok(()) };
    // The twin first: a newer state of the same history.
    let one = stage.secret()?;
    let honest = stage.ca.log(&one.chain[0]);
    ensure!(stage.knock(&one, &honest).await? == Said::Accepted);
    checkpoints(&stage, "consistent", 1.0).await?;
    stage.log_condition(true, "peers must be in the log").await?;
    // Another history from entry 200 on, longer than the first, and its server shows it.
    let two = stage.secret()?;
    let other = stage.ca.shared.leaves.fork(200);
    while other.len() < stage.ca.shared.leaves.len() + 100 {
        other.append(b"filling".to_vec());
    }
    let forked = stage.ca.log_in(&other, &two.chain[0]);
    *stage.ca.shared.shown.lock().unwrap() = Some(other);
    ensure!(stage.knock(&two, &forked).await? == Said::Accepted);
    stage.log_condition(false, "two histories").await?;
    let evidence = evidence(&stage)?;
    let (first, second) = demand_signed(&evidence)?;
    ensure!(first.size < second.size);
    ensure!(evidence["tiles_of_second"].as_object().is_some_and(|tiles| !tiles.is_empty()));
    Ok(())
}

/// The server shows tiles of nothing: that proves nothing, and refuses nobody.
#[tokio::test]
async fn a_server_that_lies_is_no_fork() -> Result<()> {
    let Some(stage) = Stage::set(Spec::new("server")).await? else { return Ok(()) };
    stage.ca.shared.lies.store(true, Ordering::Relaxed);
    let one = stage.secret()?;
    let honest = stage.ca.log(&one.chain[0]);
    ensure!(stage.knock(&one, &honest).await? == Said::Accepted);
    checkpoints(&stage, "unproven", 1.0).await?;
    ensure!(stage.server.is_ready().await?, "not ready");
    ensure!(evidence(&stage).is_err(), "evidence of nothing");
    let two = stage.secret()?;
    let honest = stage.ca.log(&two.chain[0]);
    ensure!(stage.knock(&two, &honest).await? == Said::Accepted);
    Ok(())
}

/// Whoever holds the log's key may sign for any size. That neither hides a fork nor ends anything.
#[tokio::test]
async fn a_made_up_size_does_not_end_the_comparisons() -> Result<()> {
    let Some(stage) = Stage::set(Spec::new("server")).await? else { return Ok(()) };
    let (one, two) = (stage.secret()?, stage.secret()?);
    let huge = stage.ca.shared.leaves.fork(299);
    while huge.len() < stage.ca.shared.leaves.len() + 500 {
        huge.append(b"made up".to_vec());
    }
    let made_up = stage.ca.log_in(&huge, &one.chain[0]);
    ensure!(stage.knock(&one, &made_up).await? == Said::Accepted, "nobody can know yet");
    checkpoints(&stage, "ahead", 1.0).await?;
    // The twin: being ahead of the server is no fork.
    ensure!(stage.server.is_ready().await? && evidence(&stage).is_err());
    let other = stage.ca.shared.leaves.fork(200);
    let forked = stage.ca.log_in(&other, &two.chain[0]);
    ensure!(stage.knock(&two, &forked).await? == Said::Accepted);
    stage.log_condition(false, "two histories").await
}

#[tokio::test]
async fn a_fork_of_another_issuers_log_is_an_alarm_and_we_stay_ready() -> Result<()> {
    let Some(stage) = Stage::set(Spec::new("server")).await? else { return Ok(()) };
    let other = stage.ca.other_issuer()?;
    let issued = |book| stage.ca.issue_by(&other, book, STRANGER, stage.stranger.addresses());
    let fork = other.leaves.fork(99);
    let (one, honest) = issued(&other.leaves)?;
    ensure!(stage.knock(&one, &honest).await? == Said::Accepted);
    let (two, forked) = issued(&fork)?;
    ensure!(other.leaves.len() == fork.len(), "the same size");
    ensure!(stage.knock(&two, &forked).await? == Said::Accepted);
    stage.log_condition(true, "we serve on, but log mesh.test/log/two has shown two").await?;
    ensure!(stage.server.is_ready().await?, "somebody else's log");
    let alarms = stage.server.metrics().await?.sum("myelin_log_forks", &[]);
    ensure!(alarms > 0.5, "no alarm");
    stage.demand_refused("whoever stands on it", &one, &honest, "log_forked").await?;
    let three = stage.secret()?;
    let proof = stage.ca.log(&three.chain[0]);
    ensure!(stage.knock(&three, &proof).await? == Said::Accepted, "the twin: our own issuer's");
    // Damaged evidence counts as well, over a restart.
    let logs = stage.server.state_dir().join("logs");
    let file = fs::read_dir(&logs)?.flatten().map(|file| file.path());
    let file = file.into_iter().find(|path| path.to_string_lossy().contains("fork-"));
    stage.server.kill9();
    fs::write(file.context("no evidence")?, b"{")?;
    stage.server.start()?;
    // This CA does not issue twice, so on which log it would stand is not known any more.
    stage.log_condition(false, "the log with key id").await
}

/// A use that runs when the fork is found ends within five seconds.
#[tokio::test]
async fn a_fork_ends_a_running_use_of_a_peer_of_that_log_and_no_other() -> Result<()> {
    let Some(stage) = Stage::set(Spec::new("server")).await? else { return Ok(()) };
    let other = stage.ca.other_issuer()?;
    let issued = |book| stage.ca.issue_by(&other, book, STRANGER, stage.stranger.addresses());
    let fork = other.leaves.fork(99);
    let (one, honest) = issued(&other.leaves)?;
    let mut doomed = stage.connect(&one, &honest).await?;
    ensure!(open(&mut doomed).await? == Said::Accepted);
    let own = stage.secret()?;
    let mut running = stage.connect(&own, &stage.ca.log(&own.chain[0])).await?;
    ensure!(open(&mut running).await? == Said::Accepted);
    ensure!(echoes(&mut doomed).await && echoes(&mut running).await, "they do not run");
    let (two, forked) = issued(&fork)?;
    ensure!(stage.knock(&two, &forked).await? == Said::Accepted);
    stage.server.outcome("inbound", "withdrawn", 1.0).await?;
    ensure!(!echoes(&mut doomed).await, "it runs on");
    ensure!(echoes(&mut running).await, "the twin: nobody has doubted its log");
    Ok(())
}
