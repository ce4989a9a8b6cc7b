//! What a measurement needs to find in a data directory: join tokens, hosts with live SVIDs, a long log.
//! Made before the CA under measurement starts, in this process, by the CA's own code. Called by all
//! measurements.
//!
//! Never: a record that is written past the CA's own encoders.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Parser as _;
use myelin_ca::app::{Builder, Running};
use myelin_ca::attest::{Attestors, Caller, RemoteAddr};
use myelin_ca::authority::tokens::TokenRequest;
use myelin_ca::config::{Cli, Command};
use myelin_ca::operator::{Answer, Ask};
use myelin_identity::bundle::TrustBundle;
use myelin_identity::issuance::{EXPORTER_BYTES, JoinToken, Lineage, LineageId};
use myelin_identity::log::entry_of;
use tempfile::TempDir;

use super::args::Options;
use super::ca::TRUST_DOMAIN;
use super::client::{Held, Host, Prepared, Right, ip};
use crate::pace;
use crate::show::Show;

/// Commits and log entries that wait at once: enough to fill every batch, below every bound.
const AT_ONCE: usize = 1024;
const EXPORTER: [u8; EXPORTER_BYTES] = [7; EXPORTER_BYTES];

/// A data directory with a CA of this process in it.
pub(crate) struct Stage {
    pub(crate) data: PathBuf,
    _own: Option<TempDir>,
    running: Arc<Running>,
    hosts: usize,
}

/// What stays when the stage is set: the directory, and by what the CA is known.
pub(crate) struct Set {
    pub(crate) data: PathBuf,
    pub(crate) bundle: Arc<TrustBundle>,
    _own: Option<TempDir>,
}

/// A host and the token that it may use once.
pub(crate) struct Joining {
    pub(crate) prepared: Prepared,
    pub(crate) secret: Vec<u8>,
}

impl Stage {
    /// In a directory of its own, which goes with the [`Set`].
    pub(super) async fn open(options: &Options) -> Result<Self> {
        let own = match &options.dir {
            Some(dir) => TempDir::new_in(dir)?,
            None => TempDir::new()?,
        };
        let stage = Self::at(&own.path().join("data")).await?;
        Ok(Self { _own: Some(own), ..stage })
    }

    pub(crate) async fn at(data: &Path) -> Result<Self> {
        let text = data.to_str().context("the directory's name is no text")?;
        let line = ["myelin-ca", "serve", "--trust-domain", TRUST_DOMAIN, "--data", text];
        let more = ["--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"];
        let Command::Serve(serve) = Cli::try_parse_from(line.iter().chain(&more))?.command else {
            bail!("serve was asked for");
        };
        let running = Arc::new(Builder::new(serve.config()?).start().await?);
        Ok(Self { data: data.to_owned(), _own: None, running, hosts: 0 })
    }

    /// Hosts that may join, their requests made.
    pub(crate) async fn joining(&mut self, count: usize, show: &Show) -> Result<Vec<Joining>> {
        let (first, running) = (self.hosts, self.running.clone());
        self.hosts += count;
        let each = |nth| join(running.clone(), nth);
        let done = |done| show.progress("join tokens", done, count);
        pace::at_once(first..first + count, AT_ONCE, each, done).await
    }

    /// Hosts that have an SVID.
    pub(crate) async fn holders(&mut self, count: usize, show: &Show) -> Result<Vec<(Host, Held)>> {
        let (first, running) = (self.hosts, self.running.clone());
        self.hosts += count;
        let each = |nth| {
            let running = running.clone();
            async move { hold(&running, join(running.clone(), nth).await?).await }
        };
        let done = |done| show.progress("live SVIDs", done, count);
        pace::at_once(first..first + count, AT_ONCE, each, done).await
    }

    /// Makes the log grow to `size`, with entries like `like` that differ in their serial numbers.
    pub(crate) async fn log(&self, size: usize, like: &Held, show: &Show) -> Result<()> {
        let log = &self.running.authority().logs().issuing;
        let there = usize::try_from(log.published().size)?;
        let issuer = like.chain.get(1).context("a chain has an issuer")?.to_vec();
        let (log, leaf) = (log.clone(), like.chain[0].to_vec());
        let each = |nth: usize| {
            let (log, issuer, mut leaf) = (log.clone(), issuer.clone(), leaf.clone());
            // Where a certificate of ours has its serial number.
            leaf[16..24].copy_from_slice(&(nth as u64).to_be_bytes());
            async move { Ok(log.append(entry_of(&leaf, &issuer)).await?.index) }
        };
        let done = |done| show.progress("log entries", there + done, size);
        pace::at_once(there..size, 2 * AT_ONCE, each, done).await?;
        Ok(())
    }

    /// Lets go of the directory, for the CA under measurement.
    pub(crate) async fn set(self) -> Result<Set> {
        let Self { data, _own, running, .. } = self;
        let bundle = running.authority().bundle();
        let running = Arc::into_inner(running).context("nobody else holds the CA")?;
        running.stop().await;
        Ok(Set { data, bundle, _own })
    }
}

async fn join(running: Arc<Running>, nth: usize) -> Result<Joining> {
    let request = TokenRequest {
        spiffe_id: format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/w{nth}"),
        addresses: vec![ip(nth)],
        ports: vec![],
        protocol: String::new(),
        ttl_seconds: 24 * 3600,
    };
    let Answer::Token(made) = running.ask(Ask::CreateToken(request)).await? else {
        bail!("a token was asked for");
    };
    let token: JoinToken = made.token.parse()?;
    let prepared = Prepared::new(Host::new(nth)?)?;
    Ok(Joining { prepared, secret: token.secret.reveal().to_vec() })
}

async fn hold(running: &Running, joining: Joining) -> Result<(Host, Held)> {
    let Joining { prepared, secret } = joining;
    let remote = RemoteAddr(SocketAddr::new(prepared.host.address.into(), 40_000));
    let caller = Caller { remote, peer: None, exporter: EXPORTER };
    let authority = running.authority();
    let request = prepared.request(&Right::Token(&secret), &EXPORTER)?;
    let proven = Attestors::default().prove(request, &caller, authority.clock().seconds()).await?;
    let issued = authority.issue(&caller, &proven).await?;
    let id = issued.lineage.0.as_slice().try_into().context("a lineage's id has 16 bytes")?;
    let lineage = Lineage { id: LineageId::from_bytes(id), generation: issued.generation };
    Ok(prepared.held(issued.chain, lineage))
}
