//! Federation as one CA process runs it: the set of foreign bundles told before the doors open, the
//! keeper, and our own bundle endpoint if it is asked for.
//!
//! Never: a door that opens before the foreign bundles are known.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::endpoint::EndpointTls;
use super::{AppError, listen_on};
use crate::api::{Stopping, federation};
use crate::authority::{Authority, OwnSvid};
use crate::config::ServeConfig;
use crate::federation::Keeper;
use crate::metrics::Metrics;

/// Our bundle endpoint, bound and about to serve.
pub(super) struct Open {
    listener: TcpListener,
    address: SocketAddr,
    tls: EndpointTls,
    refresh_hint: Duration,
}

pub(super) async fn open(
    config: &ServeConfig,
    own: &OwnSvid,
    authority: &Authority,
) -> Result<Option<Open>, AppError> {
    let Some(wanted) = &config.federation else { return Ok(None) };
    let tls = EndpointTls::open(&wanted.identity, own, authority.clock().clone())?;
    let (listener, address) = listen_on("--federation-listen", wanted.listen).await?;
    Ok(Some(Open { listener, address, tls, refresh_hint: wanted.refresh_hint }))
}

/// Starts keeper and endpoint; returns where the endpoint listens, and its TLS for the upkeep.
pub(super) async fn start(
    open: Option<Open>,
    (authority, metrics, stopping): (Arc<Authority>, Metrics, Stopping),
    tasks: &mut JoinSet<()>,
) -> Result<(Option<SocketAddr>, Option<EndpointTls>), AppError> {
    let (roll, clock) = (authority.roll().clone(), authority.clock().clone());
    let keeper = Keeper::start(roll, clock, metrics.clone()).await?;
    let mut told = keeper.told();
    let first = told.borrow_and_update().clone();
    authority.federate(first).await?;
    tasks.spawn(pass_on(told, authority.clone(), stopping.clone()));
    tasks.spawn(keeper.run(stopping.clone()));
    let Some(open) = open else { return Ok((None, None)) };
    let Open { listener, address, tls, refresh_hint } = open;
    let served = tls.current.clone();
    let endpoint = federation::Endpoint { authority, metrics, tls: served, refresh_hint };
    tasks.spawn(federation::serve(listener, endpoint, stopping));
    Ok((Some(address), Some(tls)))
}

/// From the keeper to the watchers.
async fn pass_on(
    mut told: watch::Receiver<Arc<myelin_identity::bundle::ForeignBundles>>,
    authority: Arc<Authority>,
    mut stopping: Stopping,
) {
    loop {
        tokio::select! {
            changed = told.changed() => if changed.is_err() { return },
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
        let set = told.borrow_and_update().clone();
        tracing::info!(epoch = set.epoch(), domains = set.bundles().len(), "foreign bundles told");
        // What could not be said now is said with the next heartbeat.
        if let Err(error) = authority.federate(set).await {
            tracing::error!(%error, "cannot tell sidecars of foreign bundles yet");
        }
    }
}
