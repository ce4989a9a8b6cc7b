//! `myelin log monitor`, the real program, against the logs of a CA that issues in secret and rewrites
//! what it has said.
//!
//! Never: a list that nobody compares with what was issued.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use myelin_lab::{Command, Stream};
use myelin_tests::programs::LIMIT;
use myelin_tests::{Mesh, Options, Spec, binaries};

use crate::stage::{STRANGER, Stage};

/// Exit code, standard output and standard error.
async fn run(command: Command) -> Result<(Option<i32>, String, String)> {
    let running = command.spawn()?;
    let status = running.wait(LIMIT).await?;
    Ok((status.code(), running.text(Stream::Out), running.text(Stream::Err)))
}

fn monitor(stage: &Stage, id: &str, more: &[&str]) -> Result<Command> {
    let url = format!("http://{}:15011", stage.ca.endpoint.ip());
    let bundle = stage.mesh.dir().join("bundle.pem");
    fs::write(&bundle, stage.ca.bundle().to_pem())?;
    let command = stage.stranger.command(binaries::tool()?).args(["log", "monitor", "--json"]);
    Ok(command.args(["--id", id, "--url", &url]).arg("--bundle").arg(&bundle).args(more))
}

/// The serial numbers in the lines of a run.
fn serials(said: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for line in said.lines() {
        let line: serde_json::Value = serde_json::from_str(line)?;
        if line["event"] == "certificate" {
            found.push(line["serial"].as_str().unwrap_or_default().to_owned());
        }
    }
    Ok(found)
}

#[tokio::test]
async fn a_secretly_issued_certificate_is_found_by_the_owner_of_its_id() -> Result<()> {
    let Some(stage) = Stage::set(Spec::new("server")).await? else { return Ok(()) };
    let own = stage.server.spec.id();
    let (code, said, errors) = run(monitor(&stage, &own, &[])?).await?;
    ensure!(code == Some(0), "{code:?}: {said} {errors}");
    let known = serials(&said)?;
    ensure!(known.len() == 1, "{said}");
    let list = stage.mesh.dir().join("known");
    fs::write(&list, format!("# of our own sidecar\n{}\n", known[0]))?;
    let list = list.display().to_string();
    let (code, ..) = run(monitor(&stage, &own, &["--known", &list])?).await?;
    ensure!(code == Some(0), "the twin: nothing but what is known");
    // Somebody with the issuer's key and the log's makes one more.
    let secret = stage.ca.sign(&own, stage.stranger.addresses())?;
    stage.ca.log(&secret.chain[0]);
    let (code, said, _) = run(monitor(&stage, &own, &["--known", &list])?).await?;
    ensure!(code == Some(2), "{code:?}: {said}");
    ensure!(serials(&said)?.len() == 2 && said.contains("not in the list of known"), "{said}");
    // Nobody else's list has it.
    let (code, said, _) = run(monitor(&stage, STRANGER, &[])?).await?;
    ensure!(code == Some(0) && serials(&said)?.is_empty(), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_history_that_was_rewritten_between_two_runs_is_an_alarm() -> Result<()> {
    let Some(stage) = Stage::set(Spec::new("server")).await? else { return Ok(()) };
    let state = stage.mesh.dir().join("state").display().to_string();
    let with_state = ["--state", &state];
    let (code, said, errors) = run(monitor(&stage, STRANGER, &with_state)?).await?;
    ensure!(code == Some(0) && Path::new(&state).is_file(), "{said} {errors}");
    stage.ca.shared.leaves.append(b"one more".to_vec());
    let (code, said, errors) = run(monitor(&stage, STRANGER, &with_state)?).await?;
    ensure!(code == Some(0), "the twin: it only grew: {said} {errors}");
    stage.ca.shared.leaves.change(|entries| entries[7] = b"rewritten".to_vec());
    stage.ca.shared.leaves.append(b"and grown".to_vec());
    let (code, _, errors) = run(monitor(&stage, STRANGER, &with_state)?).await?;
    ensure!(code == Some(3) && errors.contains("ALARM"), "{code:?}: {errors}");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_that_names_it() -> Result<()> {
    let Some(stage) = Stage::set(Spec::new("server")).await? else { return Ok(()) };
    let nobody = format!("http://{}:1", stage.ca.endpoint.ip());
    let program = stage.stranger.command(binaries::tool()?);
    let wrong = [
        (monitor(&stage, "not an ID", &[])?, "no SPIFFE ID"),
        (monitor(&stage, STRANGER, &["--known", "/nowhere"])?, "/nowhere"),
        (program.args(["log", "monitor", "--id", STRANGER, "--url", &nobody]), "cannot read"),
    ];
    for (command, words) in wrong {
        let (code, said, errors) = run(command).await?;
        ensure!(code == Some(1) && errors.contains(words), "{code:?}: {said} {errors}");
    }
    Ok(())
}

/// The real CA's logs, without a bundle of our own: the command says what it had to believe.
#[tokio::test]
async fn the_logs_of_the_real_ca_are_read_whole() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let (one, other) = (mesh.workload("one").await?, mesh.workload("other").await?);
    let url = format!("http://{}:15011", mesh.ca.pod().v4());
    // A pod without rules: to a workload the CA's ops port is a meshed address that nobody named.
    let reader = mesh.pod("reader")?;
    for workload in [&one, &other] {
        let id = workload.spec.id();
        let command = || -> Result<Command> {
            let command = reader.command(binaries::tool()?).args(["log", "monitor", "--json"]);
            Ok(command.args(["--id", &id, "--url", &url]))
        };
        let (code, said, errors) = run(command()?).await?;
        ensure!(code == Some(0), "{code:?}: {said} {errors}");
        ensure!(serials(&said)?.len() == 1, "{said}");
        ensure!(errors.contains("compare its hash"), "{errors}");
        // One more server that is down: what can be read is told, and that it is not all.
        let nobody = format!("http://{}:1", mesh.ca.pod().v4());
        let (code, said, errors) = run(command()?.args(["--url", &nobody])).await?;
        ensure!(code == Some(1) && errors.contains(&nobody), "{code:?}: {said} {errors}");
        ensure!(serials(&said)?.len() == 1 && said.contains("\"whole\":false"), "{said}");
    }
    Ok(())
}
