//! The project's own comparison with other proxies, and its measurement of scale: pairs of proxies
//! in network namespaces, measured in interleaved rounds. Called by the program `compare`, which
//! starts itself again for the parts inside the pods.
//!
//! Never: a number from anywhere else; what is published is what this measured, with the rounds.

// SPDX-License-Identifier: Apache-2.0

mod args;
pub(crate) mod cpu;
mod figures;
mod load;
mod machine;
mod pace;
mod peers;
mod plot;
mod record;
mod report;
mod scale;
mod serve;
mod stage;
mod stats;
mod table;
mod visit;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use myelin_lab::{Ground, ground};
use serde::de::DeserializeOwned;

use self::args::{Args, Command};
use self::peers::{Peer, Programs};
use self::record::{Comparison, Machine, PeerFacts};

/// Does what the command line says.
#[expect(clippy::print_stdout, reason = "tables and JSON are what it is for")]
pub fn perform() -> Result<()> {
    let args = Args::parse();
    match &args.command {
        Some(Command::Play { part, job }) => play(part, job),
        Some(Command::Render) => report::render(),
        Some(Command::Scale(options)) => {
            let (ground, descriptors) = enter()?;
            let programs = Programs::find(options, None)?;
            let machine = Machine::describe(descriptors);
            let scale = run(scale::perform(options, machine, ground, &programs))?;
            if options.write {
                report::keep_scale(&scale)?;
            }
            let text = if options.json { pretty(&scale)? } else { report::scale(&scale) };
            println!("{text}");
            Ok(())
        }
        None => {
            let comparison = run(compare(&args))?;
            if args.options.write {
                report::keep_comparison(&comparison)?;
            }
            let shown = args.options.json;
            println!(
                "{}",
                if shown { pretty(&comparison)? } else { report::comparison(&comparison) }
            );
            Ok(())
        }
    }
}

/// Every peer in every round.
async fn compare(args: &Args) -> Result<Comparison> {
    let (ground, descriptors) = enter()?;
    let programs = Programs::of(args)?;
    let quick = args.options.quick;
    let machine = Machine::describe(descriptors);
    let mut comparison = Comparison { machine, quick, ..Comparison::default() };
    let mut present = Vec::new();
    for peer in chosen(args)? {
        let facts = match peer.version(&programs) {
            Ok(version) => facts(peer, version, ground, &programs).await,
            Err(why) => Err(why),
        };
        match facts {
            Ok(facts) => {
                comparison.peers.push(facts);
                present.push(peer);
            }
            Err(why) => {
                progress(&format!("{} is skipped: {why:#}", peer.name()));
                comparison.skipped.insert(peer.name().to_owned(), format!("{why:#}"));
            }
        }
    }
    ensure!(!present.is_empty(), "none of the chosen peers can run here");
    for round in 0..args.options.rounds() {
        // Who comes first in one round comes last in the next.
        present.rotate_left(usize::from(round > 0));
        for peer in &present {
            let visit = visit::visit(*peer, round, quick, ground, &programs).await;
            progress(&figures::in_one_line(&visit));
            comparison.visits.push(visit);
        }
    }
    Ok(comparison)
}

async fn facts(
    peer: Peer,
    version: String,
    ground: Ground,
    programs: &Programs,
) -> Result<PeerFacts> {
    let (name, about) = (peer.name().to_owned(), peer.about().to_owned());
    let (wire, configuration) = visit::wire(peer, ground, programs).await?;
    let wire = peer.is_proxy().then_some(wire);
    if let Some(wire) = &wire {
        ensure!(wire.plaintext_flows == 0, "{} plaintext flows crossed", wire.plaintext_flows);
        ensure!(wire.handshakes > 0, "no TLS handshake crossed the wire");
    }
    Ok(PeerFacts { name, version, about, wire, configuration })
}

fn chosen(args: &Args) -> Result<Vec<Peer>> {
    if args.peers.is_empty() {
        return Ok(Peer::ALL.to_vec());
    }
    args.peers.iter().map(|name| Peer::parse(name)).collect()
}

/// Plays a part inside a pod.
#[expect(clippy::print_stdout, reason = "a process of its own, whose output the stage reads")]
fn play(part: &str, job: &Path) -> Result<()> {
    match part {
        "serve" => runtime()?.block_on(serve::perform(read(job)?)),
        "load" => {
            let window = runtime()?.block_on(load::perform(read(job)?))?;
            println!("{}", serde_json::to_string(&window)?);
            Ok(())
        }
        other => bail!("there is no part {other:?}; there are serve and load"),
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("cannot understand {}", path.display()))
}

fn pretty(of: &impl serde::Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(of)?)
}

fn enter() -> Result<(Ground, u64)> {
    let ground = ground::enter()?;
    ensure!(
        ground.tells_uids_apart(),
        "sidecars run under a user of their own, which this user namespace has not: run as root"
    );
    Ok((ground, machine::raise_descriptors()?))
}

/// Runs a measurement to its end or to Ctrl-C, which ends every process and removes every file too.
fn run<T>(measurement: impl Future<Output = Result<T>>) -> Result<T> {
    runtime()?.block_on(async {
        tokio::select! {
            measured = measurement => measured,
            _ = tokio::signal::ctrl_c() => bail!("interrupted; nothing was written"),
        }
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}

/// A line for whoever watches; standard output is for the result.
#[expect(clippy::print_stderr, reason = "this is the room that talks to the terminal")]
fn progress(line: &str) {
    eprintln!("{line}");
}
