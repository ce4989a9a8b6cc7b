//! One mesh connection as a peer makes it, with whatever proof its maker likes, and what its first use
//! hears. Called by the suites that show proofs to real sidecars.
//!
//! Never: a verdict; the tests give those.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::time::Duration;

use anyhow::{Context, Result};
use myelin_lab::Pod;
use myelin_sidecar::addr::Endpoint;
use myelin_sidecar::relay::Link;
use myelin_sidecar::tls::{self, Configs, Deadline, Offer};
use myelin_sidecar::wire::{Budget, Dialer, Event, Refuse};

/// Far beyond what a sidecar takes to answer.
pub const SOON: Duration = Duration::from_secs(15);
pub const BUDGET: Budget = Budget { max_uses: NonZeroU64::MAX, max_bytes: NonZeroU64::MAX };

/// What an acceptor said to the first use.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    Accepted,
    Refused(Refuse),
}

/// A mesh connection from this pod, showing this proof.
pub async fn dial(
    from: &Pod,
    to: SocketAddr,
    configs: &Configs,
    proof: &[u8],
) -> Result<Link<Dialer>> {
    let tcp = from.tcp_connect(to).await?;
    let session = tls::dial(tcp, Endpoint(to), Offer::Myelin1, configs, Deadline(SOON)).await?;
    let mut link = Link::new(session.records, Dialer::new(BUDGET));
    link.greet(proof, SOON, |_| ()).await?;
    Ok(link)
}

/// Opens a use and hears what becomes of it.
pub async fn open(link: &mut Link<Dialer>) -> Result<Said> {
    link.control(Dialer::open)?;
    link.flush().await?;
    let said = link.event(SOON, |event| match event {
        Event::Accepted(_) => Some(Said::Accepted),
        Event::Refused(_, why) => Some(Said::Refused(why)),
        _ => None,
    });
    said.await?.flatten().context("neither accepted nor refused")
}
