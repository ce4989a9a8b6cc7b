//! Myelin as it is by default: a real CA in a pod of its own, SVIDs by join token, the real rules,
//! the sidecars' own user and mark. Called by `peers`, and by `scale` with more pods.
//!
//! Never: a setting that a user of the defaults would not have, but for one worker thread and, for
//! renewals, a short lifetime.

// SPDX-License-Identifier: Apache-2.0

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use myelin_lab::{Pod, Proc, Stream};
use tokio::time::{Instant, sleep};

use super::super::stage::{BULK, REQUESTS, START_LIMIT, Side, Stage, address, http_get, spawn};
use super::{Launch, Pair, Programs};

pub(super) const ABOUT: &str = "transparent (nf_tables rules, user and mark), default \
    configuration with an allow rule; CA, SVIDs, policy, metrics and rotation on; \
    no TLS session resumption";

const DOMAIN: &str = "compare.example";
const CA_PORT: u16 = 15_010;
const CA_OPS: u16 = 15_011;

/// Where a sidecar answers `/ready` and `/metrics`.
pub(crate) const OPS: u16 = 15_020;

/// A CA that runs.
pub(crate) struct Authority<'a> {
    programs: &'a Programs,
    pub(crate) process: Proc,
    pod: Pod,
}

pub(super) async fn set_up(stage: &Stage, programs: &Programs) -> Result<Pair> {
    let authority = Authority::start(stage, programs, &[]).await?;
    let mut launches = Vec::new();
    let mut texts = Vec::new();
    for (side, pod) in [(Side::Server, &stage.server), (Side::Client, &stage.client)] {
        let (launch, text) = authority.enrol(stage, side, pod, "").await?;
        launches.push(launch);
        texts.push((format!("{}.toml", side.name()), text));
    }
    let mut pair = Pair::transparent(launches);
    for (name, text) in texts {
        pair = pair.note(stage, &name, &text);
    }
    pair.beside.push(authority.process);
    Ok(pair)
}

impl<'a> Authority<'a> {
    pub(crate) async fn start(
        stage: &Stage,
        programs: &'a Programs,
        flags: &[&str],
    ) -> Result<Self> {
        let pod = stage.pod("ca", &[address(3)])?;
        let process = pod
            .command(&programs.ca)
            .args(["serve", "--trust-domain", DOMAIN, "--log-level", "warn", "--data"])
            .arg(stage.path("ca"))
            .args(["--listen", &format!("[::]:{CA_PORT}")])
            .args(["--ops-listen", &format!("[::]:{CA_OPS}")])
            .args(["--ca-address", &address(3).to_string()])
            .args(flags)
            .label("ca")
            .spawn()?;
        let ops = SocketAddr::from(([127, 0, 0, 1], CA_OPS));
        let deadline = Instant::now() + START_LIMIT;
        while let Err(error) = http_get(&pod, ops, "/readyz").await {
            let in_time = process.is_running() && Instant::now() < deadline;
            ensure!(in_time, "the CA does not come up: {error:#}; {}", process.last_words());
            sleep(std::time::Duration::from_millis(20)).await;
        }
        Ok(Self { programs, process, pod })
    }

    /// Rules, token and configuration of one pod's sidecar; `more` ends the configuration.
    pub(crate) async fn enrol(
        &self,
        stage: &Stage,
        side: Side,
        pod: &Pod,
        more: &str,
    ) -> Result<(Launch, String)> {
        let uid = stage.ground.proxy_uid();
        let rules = pod
            .command(&self.programs.sidecar)
            .args(["intercept", "apply", "--proxy-uid", &uid.to_string()])
            .label("intercept")
            .spawn()?;
        rules.wait_success(START_LIMIT).await.context("cannot write the interception rules")?;
        let name = pod.name();
        stage.make_dir(name, true)?;
        let state = stage.make_dir(&format!("{name}/state"), true)?;
        let token = self.token(stage, name, pod.addresses()).await?;
        let token = stage.write(&format!("{name}/token"), &token, true)?;
        let admin = stage.path(&format!("{name}/admin.sock"));
        let text = format!(
            "trust_domain = \"{DOMAIN}\"\n\
             mesh_cidrs = [\"10.77.0.0/24\"]\n\
             state_dir = \"{}\"\n\n\
             [ca]\n\
             address = \"{}:{CA_PORT}\"\n\
             join_token_file = \"{}\"\n\n\
             [listen]\n\
             admin = \"{}\"\n\
             workers = 1\n\n\
             [intercept]\n\
             proxy_uid = {uid}\n{}{more}",
            state.display(),
            address(3),
            token.display(),
            admin.display(),
            if side == Side::Server { policy() } else { String::new() },
        );
        let file = stage.write(&format!("{name}/sidecar.toml"), &text, true)?;
        let launch = Launch {
            side,
            program: self.programs.sidecar.clone(),
            args: ["run", "--config", &file.to_string_lossy()].map(str::to_owned).to_vec(),
            is_captured: true,
        };
        Ok((launch, text))
    }

    async fn token(&self, stage: &Stage, name: &str, addresses: &[IpAddr]) -> Result<String> {
        let id = id(name);
        let made = self
            .pod
            .command(&self.programs.ca)
            .args(["token", "create", "--id", &id, "--data"])
            .arg(stage.path("ca"))
            .args(addresses.iter().flat_map(|a| ["--address".to_owned(), a.to_string()]))
            .label("token")
            .spawn()?;
        made.wait_success(START_LIMIT).await.context("cannot make a join token")?;
        let said = made.text(Stream::Out);
        let token = said.split_whitespace().find(|word| word.starts_with("mjt1."));
        Ok(token.context("the CA printed no token")?.to_owned())
    }
}

/// Starts a sidecar that is enrolled, and waits until it is ready.
pub(crate) async fn start(stage: &Stage, launch: &Launch, pod: &Pod) -> Result<Proc> {
    let command =
        pod.command(&launch.program).args(&launch.args).sidecar_identity(stage.ground.proxy_uid());
    let sidecar = spawn(launch.side, command)?;
    let ops = SocketAddr::from(([127, 0, 0, 1], OPS));
    let deadline = Instant::now() + START_LIMIT;
    while let Err(error) = http_get(pod, ops, "/ready").await {
        let in_time = sidecar.is_running() && Instant::now() < deadline;
        let words = sidecar.last_words();
        ensure!(in_time, "the sidecar of {} does not get ready: {error:#}; {words}", pod.name());
        sleep(std::time::Duration::from_millis(20)).await;
    }
    Ok(sidecar)
}

/// Who the workload of a pod is.
pub(crate) fn id(pod: &str) -> String {
    format!("spiffe://{DOMAIN}/ns/default/sa/{pod}")
}

fn policy() -> String {
    format!(
        "\n[[inbound.allow]]\n\
         name = \"client\"\n\
         ports = [{REQUESTS}, {BULK}]\n\
         ids = [\"{}\"]\n",
        id(Side::Client.name())
    )
}
