//! One call of a container runtime: whose pod, which rules, and the answer. Called by `main`.
//!
//! ADD passes the network of the plugins before us through as it is, once the rules of an injected
//! pod are in the kernel: before the runtime starts any container of the pod, user init containers
//! included. What cannot be known for certain (the API is silent, the pod is not there yet) is an
//! error that the kubelet repeats.
//!
//! DEL leaves the rules where they are. They end with the network namespace; a workload that is
//! still ending in it must not be let out in plaintext before.
//!
//! Never: a pod that should have rules and is told to start without them.

// SPDX-License-Identifier: Apache-2.0

use std::path::Path;

use myelin_sidecar::config::interception;
use myelin_sidecar::intercept::{self, InterceptError, Plan, State};
use serde_json::json;
use tokio::runtime;

use crate::cluster::{Cluster, ClusterError, PodView};
use crate::netns::{Netns, NetnsError};
use crate::spec::{Call, Code, Command, NEWEST, Network, Pod, Refusal, VERSIONS, asked_version};

/// What a pod's sidecar says of its rules, in errors.
const CONFIGURATION: &str = "the pod's sidecar-config";

/// Answers a call: the text for standard output, or a refusal and the version to say it in.
pub(crate) fn answer(call: &Call, input: &[u8]) -> Result<String, (Refusal, String)> {
    if call.command == Command::Version {
        return version(input);
    }
    let network = Network::read(input)?;
    let asked = match call.command {
        Command::Add => add(call, &network),
        Command::Check => since(&network, "0.4.0", || check(call, &network)),
        Command::Status => since(&network, "1.1.0", || status(&network)),
        // Nothing of a container outlives its namespace, so there is nothing to collect.
        Command::Gc => since(&network, "1.1.0", || Ok(String::new())),
        Command::Del | Command::Version => Ok(String::new()),
    };
    asked.map_err(|refusal| (refusal, network.version))
}

/// A runtime asks in the newest version that it knows itself, which may be later than ours: that is what
/// the question is for.
fn version(input: &[u8]) -> Result<String, (Refusal, String)> {
    let version = asked_version(input).map_err(|refusal| (refusal, NEWEST.to_owned()))?;
    let version = version.as_deref().unwrap_or(NEWEST);
    Ok(json!({ "cniVersion": version, "supportedVersions": VERSIONS }).to_string())
}

/// A command that the network's version of the specification does not have yet.
fn since(
    network: &Network,
    version: &str,
    perform: impl FnOnce() -> Result<String, Refusal>,
) -> Result<String, Refusal> {
    if network.is_at_least(version) {
        return perform();
    }
    let msg = format!("cniVersion {} has no such command", network.version);
    Err(Refusal::new(Code::IncompatibleVersion, msg, format!("it came with {version}")))
}

fn add(call: &Call, network: &Network) -> Result<String, Refusal> {
    let previous = network.previous()?;
    let netns = open(call, Code::InvalidEnvironment)?;
    if let Some(plan) = wanted(call, network)? {
        let applied = netns.run(|| intercept::apply(&plan)).map_err(unentered)?;
        applied.map_err(refused)?;
    }
    Ok(previous.to_owned())
}

fn check(call: &Call, network: &Network) -> Result<String, Refusal> {
    let netns = open(call, Code::UnknownContainer)?;
    let Some(plan) = wanted(call, network)? else { return Ok(String::new()) };
    let found = netns.run(|| intercept::state(&plan)).map_err(unentered)?.map_err(refused)?;
    let seen = match found {
        State::Applied => return Ok(String::new()),
        State::Absent => "there are none".to_owned(),
        State::Different(difference) => difference,
    };
    let msg = "the pod's interception rules are not what its sidecar-config asks for";
    Err(Refusal::new(
        Code::RulesDiffer,
        msg,
        format!("{seen}; delete the pod, or `myelin-cni repair`"),
    ))
}

/// What an ADD will need, as far as it lies on this node. An API server that is away for a moment makes
/// ADD wait, not the node unready.
fn status(network: &Network) -> Result<String, Refusal> {
    let kubeconfig = network.kubeconfig()?;
    let reached = now(Cluster::reach(Some(kubeconfig)));
    reached.map_err(|why| {
        Refusal::new(Code::NotAvailable, "pods cannot be asked for", why.to_string())
    })?;
    let plan = Plan::new(intercept::Config::default()).map_err(refused)?;
    intercept::state(&plan).map_err(|why| {
        let msg = "nf_tables cannot be used on this node";
        Refusal::new(Code::NotAvailable, msg, why.to_string())
    })?;
    Ok(String::new())
}

/// The rules of this container, if it is to have any.
fn wanted(call: &Call, network: &Network) -> Result<Option<Plan>, Refusal> {
    let Some(pod) = &call.pod else { return Ok(None) };
    if network.exclude_namespaces.contains(&pod.namespace) {
        return Ok(None);
    }
    let found =
        now(look_up(network.kubeconfig()?, pod)).map_err(|why| later(pod, &why.to_string()))?;
    let Some(found) = found else {
        return Err(later(pod, "the API server does not know it (yet)"));
    };
    if pod.uid.as_deref().is_some_and(|uid| !found.is(uid)) {
        return Err(later(pod, "the API server knows another pod under that name"));
    }
    plan(&found)
}

/// What is in the pod's annotation, as rules.
pub(crate) fn plan(pod: &PodView) -> Result<Option<Plan>, Refusal> {
    let invalid = |why: String| {
        Refusal::new(Code::InvalidPod, format!("pod {}: rules cannot be made", pod.name()), why)
    };
    if pod.was_passed_over() {
        let why =
            "its label asks for a sidecar and it has none; delete it when the webhook answers";
        return Err(invalid(why.to_owned()));
    }
    let Some(text) = pod.configuration() else { return Ok(None) };
    let wanted = interception(CONFIGURATION, text).map_err(|why| invalid(why.to_string()))?;
    Plan::new(wanted).map(Some).map_err(|why| invalid(why.to_string()))
}

async fn look_up(kubeconfig: &Path, pod: &Pod) -> Result<Option<PodView>, ClusterError> {
    Cluster::reach(Some(kubeconfig)).await?.pod(&pod.namespace, &pod.name).await
}

/// A call is one question: the runtime for it lives as long.
fn now<T>(work: impl Future<Output = Result<T, ClusterError>>) -> Result<T, ClusterError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(why) => Err(ClusterError::Access("this process".to_owned(), why.to_string())),
    }
}

fn open(call: &Call, gone: Code) -> Result<Netns, Refusal> {
    let path = call.netns.as_deref().unwrap_or_else(|| Path::new(""));
    Netns::open(path).map_err(|why| match why {
        NetnsError::Gone(_) => Refusal::new(gone, format!("CNI_NETNS: {why}"), ""),
        why => Refusal::new(Code::InvalidEnvironment, format!("CNI_NETNS: {why}"), ""),
    })
}

fn unentered(why: NetnsError) -> Refusal {
    Refusal::new(Code::InvalidEnvironment, format!("CNI_NETNS: {why}"), "")
}

fn refused(why: InterceptError) -> Refusal {
    Refusal::new(Code::RulesRefused, "the interception rules were not taken", why.to_string())
}

fn later(pod: &Pod, why: &str) -> Refusal {
    let msg = format!("whether pod {}/{} is meshed is not known", pod.namespace, pod.name);
    Refusal::new(Code::TryAgainLater, msg, format!("{why}; it does not start before it is"))
}
