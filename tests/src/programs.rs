//! Programs that run to their end inside a pod, and conditions that come true some time.
//!
//! Never: a sleep in place of a condition, or a wait without an end.

// SPDX-License-Identifier: Apache-2.0

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use myelin_lab::{Command, Pod, Stream};
use tokio::time::{Instant, sleep};

/// Far beyond what a client program takes here; a hang must end some day.
pub const LIMIT: Duration = Duration::from_secs(60);

/// How often a condition is looked at: often enough not to be felt, seldom enough to cost nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// Runs a program to its end, demands success, and returns its standard output.
pub async fn output(command: Command, limit: Duration) -> Result<String> {
    let running = command.spawn()?;
    running.wait_success(limit).await?;
    Ok(running.text(Stream::Out))
}

/// Runs a program that has to fail, and returns all it said.
pub async fn failure(command: Command, limit: Duration) -> Result<String> {
    let running = command.spawn()?;
    let status = running.wait(limit).await?;
    let said = format!("{}\n{}", running.text(Stream::Out), running.text(Stream::Err));
    if status.success() {
        bail!("{} succeeded, which it must not: {said}", running.label());
    }
    Ok(said)
}

/// Waits until `look` says yes.
pub async fn eventually(
    what: &str,
    limit: Duration,
    mut look: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let last = look().await;
        if matches!(last, Ok(true)) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            last.with_context(|| format!("not within {limit:?}: {what}"))?;
            bail!("not within {limit:?}: {what}");
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Waits until something listens on this port of the pod's loopback, which no rule captures.
pub async fn listens(pod: &Pod, address: IpAddr, port: u16) -> Result<()> {
    let what = format!("{} listens on {address} port {port}", pod.name());
    eventually(&what, LIMIT, async || {
        Ok(pod.tcp_connect(SocketAddr::new(address, port)).await.is_ok())
    })
    .await
}

/// The numeric user and group of a name in `/etc/passwd`.
pub fn user(name: &str) -> Result<(u32, u32)> {
    let found = nix::unistd::User::from_name(name).context("cannot read /etc/passwd")?;
    let found =
        found.with_context(|| format!("there is no user {name}: is its server installed?"))?;
    Ok((found.uid.as_raw(), found.gid.as_raw()))
}

/// Text that nobody else says: at least 16 random characters.
pub fn random_word() -> Result<String> {
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid")
        .context("cannot read /proc/sys/kernel/random/uuid")?;
    Ok(uuid.trim().replace('-', ""))
}
