//! Pods of this node that should have interception rules and have not: those that started while the
//! plugin was not in the chain, and those whose rules somebody removed. Called by `main`.
//!
//! Never: a pod's rules removed; a namespace that is the node's own; silence about a pod that could
//! not be looked at.

// SPDX-License-Identifier: Apache-2.0

mod processes;

use myelin_sidecar::intercept::{self, Plan, State};
use tokio::runtime;

use self::processes::Processes;
use crate::args::RepairArgs;
use crate::cluster::{Cluster, PodView};
use crate::netns::Netns;
use crate::plugin;

/// Longest name of a node (RFC 1123 subdomain).
const MAX_NODE_BYTES: usize = 253;

/// Looks once, or again and again; false if a pod has no rules at the end of the (last) look.
pub(crate) fn run(args: &RepairArgs) -> Result<bool, String> {
    check_node(&args.node)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|why| format!("cannot start: {why}"))?;
    loop {
        let looked = runtime.block_on(look(args));
        let Some(every) = args.every else { return looked };
        // Whoever goes on is there for the next look too.
        if let Err(why) = looked {
            say(&format!("not looked at: {why}"));
        }
        std::thread::sleep(every);
    }
}

async fn look(args: &RepairArgs) -> Result<bool, String> {
    let cluster =
        Cluster::reach(args.kubeconfig.as_deref()).await.map_err(|why| why.to_string())?;
    let pods = cluster.pods_of(&args.node).await.map_err(|why| why.to_string())?;
    let processes = Processes::read(&args.proc_dir)
        .map_err(|why| format!("{} cannot be read: {why}", args.proc_dir.display()))?;
    let mut all_well = true;
    for pod in pods.iter().filter(|pod| concerns_us(pod)) {
        let Found { well, line } = examined(pod, &processes, args.apply);
        all_well &= well;
        if let Some(line) = line {
            say(&format!("{}: {line}", pod.name()));
        }
    }
    Ok(all_well)
}

fn concerns_us(pod: &PodView) -> bool {
    pod.configuration().is_some() || pod.was_passed_over()
}

/// What was found of a pod: whether it has its rules now, and what there is to say.
struct Found {
    well: bool,
    line: Option<String>,
}

impl Found {
    fn well() -> Self {
        Self { well: true, line: None }
    }

    fn wrong(line: String) -> Self {
        Self { well: false, line: Some(line) }
    }
}

fn examined(pod: &PodView, processes: &Processes, apply: bool) -> Found {
    let netns = match processes.netns_of(pod.containers()) {
        Some(opened) => opened,
        None if pod.runs() => return Found::wrong(unknown(processes)),
        // Without a process there is nothing that could send: it has not started, or has ended.
        None => return Found::well(),
    };
    let netns = match netns {
        Ok(netns) => netns,
        Err(why) => {
            let place = processes.place().display();
            return Found::wrong(format!("cannot be looked at ({place}): {why}"));
        }
    };
    match plugin::plan(pod) {
        Ok(None) => Found::well(),
        Ok(Some(plan)) => compared(&netns, &plan, apply),
        Err(refusal) => Found::wrong(format!("{}: {}", refusal.msg, refusal.details)),
    }
}

/// It runs, and where is not to be seen: its rules may be there or not.
fn unknown(processes: &Processes) -> String {
    let place = processes.place().display();
    format!(
        "unknown: its containers run, and no process of theirs is in {place}; is that the node's /proc, seen with hostPID? If it ended just now, look again"
    )
}

fn compared(netns: &Netns, plan: &Plan, apply: bool) -> Found {
    let seen = match netns.run(|| intercept::state(plan)) {
        Err(why) => return Found::wrong(why.to_string()),
        Ok(Err(why)) => return Found::wrong(format!("its rules cannot be read: {why}")),
        Ok(Ok(State::Applied)) => return Found::well(),
        Ok(Ok(State::Absent)) => "its rules are missing".to_owned(),
        Ok(Ok(State::Different(first))) => format!("its rules are others ({first})"),
    };
    if !apply {
        return Found::wrong(format!("{seen}; delete the pod, or repair it with --apply"));
    }
    match netns.run(|| intercept::apply(plan)) {
        Err(why) => Found::wrong(format!("{seen}; {why}")),
        Ok(Err(why)) => Found::wrong(format!("{seen}, and were not taken: {why}")),
        Ok(Ok(_)) => {
            let rest = "connections from before go on as they were until the pod is deleted";
            Found { well: true, line: Some(format!("{seen}: written; {rest}")) }
        }
    }
}

/// It becomes part of a query.
fn check_node(name: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if !name.is_empty() && name.len() <= MAX_NODE_BYTES && name.chars().all(is_plain) {
        return Ok(());
    }
    Err(format!("--node is {name:?}, which is no name of a node"))
}

#[expect(clippy::print_stdout, reason = "what a command finds is its result")]
fn say(text: &str) {
    println!("{text}");
}
