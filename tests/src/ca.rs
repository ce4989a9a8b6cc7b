//! The real CA as a process in a pod of its own: started, asked for tokens, killed, started again.
//!
//! Never: a CA in the test's own process; what is tested is the binary.

// SPDX-License-Identifier: Apache-2.0

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result};
use myelin_lab::{Pod, Proc};

use crate::binaries;
use crate::http;
use crate::metrics::Metrics;
use crate::programs::{LIMIT, eventually, failure, output};

pub const PORT: u16 = 15_010;
pub const OPS_PORT: u16 = 15_011;

/// The CA's pod, data directory and process.
#[derive(Debug)]
pub struct Ca {
    pod: Pod,
    trust_domain: String,
    data: PathBuf,
    lifetime: Duration,
    /// More flags of `serve`.
    flags: Vec<String>,
    /// `None` while it is down.
    process: Mutex<Option<Proc>>,
}

impl Ca {
    /// Starts a new CA over an empty data directory below `dir`.
    pub async fn start(
        pod: Pod,
        trust_domain: &str,
        dir: &Path,
        lifetime: Duration,
    ) -> Result<Self> {
        Self::start_with(pod, trust_domain, dir, lifetime, &[]).await
    }

    /// The same, with more flags of `serve`.
    pub async fn start_with(
        pod: Pod,
        trust_domain: &str,
        dir: &Path,
        lifetime: Duration,
        flags: &[String],
    ) -> Result<Self> {
        let ca = Self::down(pod, trust_domain, dir, lifetime, flags.to_vec());
        ca.up().await?;
        Ok(ca)
    }

    /// Starts one below a root whose key is elsewhere: it waits for its first intermediate.
    pub async fn start_below(
        pod: Pod,
        trust_domain: &str,
        dir: &Path,
        lifetime: Duration,
        root: &Path,
    ) -> Result<Self> {
        let flags = vec!["--root-cert".to_owned(), root.display().to_string()];
        let ca = Self::down(pod, trust_domain, dir, lifetime, flags);
        let process = ca.spawn()?;
        let waits = eventually("the CA waits for its issuer", LIMIT, async || {
            anyhow::ensure!(process.is_running(), "the CA ended: {}", process.last_words());
            Ok(ca.data.join("admin.sock").exists())
        });
        waits.await.with_context(|| process.last_words())?;
        ca.put(Some(process));
        Ok(ca)
    }

    fn down(
        pod: Pod,
        trust_domain: &str,
        dir: &Path,
        lifetime: Duration,
        flags: Vec<String>,
    ) -> Self {
        let data = dir.join(format!("ca-{trust_domain}"));
        let trust_domain = trust_domain.to_owned();
        Self { pod, trust_domain, data, lifetime, flags, process: Mutex::new(None) }
    }

    /// Starts the process and waits until it is ready.
    pub async fn up(&self) -> Result<()> {
        let process = self.spawn()?;
        let ready = eventually("the CA is ready", LIMIT, async || {
            anyhow::ensure!(process.is_running(), "the CA ended: {}", process.last_words());
            Ok(self.ops("/readyz").await?.status == 200)
        });
        ready.await.with_context(|| process.last_words())?;
        self.put(Some(process));
        Ok(())
    }

    fn spawn(&self) -> Result<Proc> {
        let log = self.data.with_extension("log");
        self.command()?
            .args(["serve", "--trust-domain", &self.trust_domain])
            .args(["--listen", &format!("[::]:{PORT}")])
            .args(["--ops-listen", &format!("[::]:{OPS_PORT}")])
            .args(
                self.pod
                    .addresses()
                    .iter()
                    .flat_map(|a| ["--ca-address".to_owned(), a.to_string()]),
            )
            .args(["--default-lifetime", &format!("{}s", self.lifetime.as_secs())])
            .arg("--allow-short-lifetimes")
            .args(&self.flags)
            .arg("--data")
            .arg(&self.data)
            .label("ca")
            .tee(log)
            .spawn()
    }

    /// Waits until it is ready.
    pub async fn ready(&self) -> Result<()> {
        let ready = eventually("the CA is ready", LIMIT, || self.is_ready());
        ready.await.with_context(|| self.last_words())
    }

    /// Whether `/readyz` says yes now.
    pub async fn is_ready(&self) -> Result<bool> {
        Ok(self.ops("/readyz").await?.status == 200)
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.lock().expect("no holder of the lock panics").as_ref().map(Proc::pid)
    }

    /// `myelin-ca issuer ...` on its data directory.
    pub fn issuer(&self, args: &[&str]) -> Result<myelin_lab::Command> {
        let (what, rest) = args.split_first().context("no subcommand")?;
        let command = self.command()?.args(["issuer", what]).arg("--data").arg(&self.data);
        Ok(command.args(rest))
    }

    /// Kills it at once, as a power cut would.
    pub fn kill9(&self) {
        self.put(None);
    }

    /// Makes a one-time join token.
    pub async fn token(&self, id: &str, addresses: &[IpAddr]) -> Result<String> {
        self.token_for(id, addresses, &[]).await
    }

    /// The same, with more flags of `token create`.
    pub async fn token_for(&self, id: &str, addresses: &[IpAddr], more: &[&str]) -> Result<String> {
        let command = self
            .command()?
            .args(["token", "create", "--ttl", "10m", "--id", id])
            .args(addresses.iter().flat_map(|a| ["--address".to_owned(), a.to_string()]))
            .args(more)
            .arg("--data")
            .arg(&self.data);
        let said = output(command, LIMIT).await?;
        let token = said.split_whitespace().find(|word| word.starts_with("mjt1."));
        Ok(token.with_context(|| format!("no token in {said:?}"))?.to_owned())
    }

    /// Any command of `myelin-ca` on this CA's data, as an operator types it; yields what it prints.
    pub async fn operate(&self, args: &[&str]) -> Result<String> {
        output(self.command()?.args(args).arg("--data").arg(&self.data), LIMIT).await
    }

    /// The same, for a command that must fail; yields what it says.
    pub async fn refuse(&self, args: &[&str]) -> Result<String> {
        failure(self.command()?.args(args).arg("--data").arg(&self.data), LIMIT).await
    }

    /// The trust bundle as a SPIFFE document.
    pub async fn bundle_json(&self) -> Result<String> {
        Ok(self.ops("/bundle.json").await?.body)
    }

    /// The trust bundle as PEM.
    pub async fn bundle_pem(&self) -> Result<String> {
        Ok(self.ops("/bundle.pem").await?.body)
    }

    pub async fn metrics(&self) -> Result<Metrics> {
        Metrics::parse(&self.ops("/metrics").await?.body)
    }

    /// Where sidecars reach it.
    pub fn endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.pod.v4(), PORT)
    }

    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    pub fn data(&self) -> &Path {
        &self.data
    }

    /// What it said last, for error messages.
    pub fn last_words(&self) -> String {
        let process = self.process.lock().expect("no holder of the lock panics");
        process.as_ref().map_or_else(|| "it is down".to_owned(), Proc::last_words)
    }

    pub fn said(&self, words: &str) -> bool {
        let process = self.process.lock().expect("no holder of the lock panics");
        process.as_ref().is_some_and(|p| p.lines().iter().any(|line| line.text.contains(words)))
    }

    /// Asked over the CA pod's own loopback, so that no plaintext crosses the wire.
    async fn ops(&self, path: &str) -> Result<http::Response> {
        let own = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), OPS_PORT);
        http::request(&self.pod, own, "GET", path).await
    }

    fn command(&self) -> Result<myelin_lab::Command> {
        Ok(self.pod.command(binaries::ca()?))
    }

    fn put(&self, process: Option<Proc>) {
        let mut held = self.process.lock().expect("no holder of the lock panics");
        if let Some(old) = held.take() {
            old.kill9();
        }
        *held = process;
    }
}
