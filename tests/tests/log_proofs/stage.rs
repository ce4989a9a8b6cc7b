//! What every test of this suite stands on: the CA in the test's hands, a workload with a real sidecar
//! that answers, and a pod in which the test itself is a peer.
//!
//! Never: a verdict; the tests give those.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use myelin_identity::bundle::ForeignBundles;
use myelin_lab::Pod;
use myelin_sidecar::addr::Clock;
use myelin_sidecar::relay::{Arrived, Carrier, Link, Step};
use myelin_sidecar::tls::{self, Configs, Deadline};
use myelin_sidecar::wire::{Acceptor, Dialer, Event, Refuse};
use myelin_tests::forge::{Credential, now};
use myelin_tests::knock::{BUDGET, dial};
pub(crate) use myelin_tests::knock::{SOON, Said, open};
use myelin_tests::{Mesh, Options, Spec, Workload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::ca::LogCa;

pub(crate) const PORT: u16 = 7_000;

pub(crate) const STRANGER: &str = "spiffe://mesh.test/ns/test/sa/stranger";

pub(crate) struct Stage {
    pub(crate) mesh: Mesh,
    pub(crate) ca: LogCa,
    pub(crate) server: Workload,
    pub(crate) stranger: Pod,
}

impl Stage {
    pub(crate) async fn set(spec: Spec) -> Result<Option<Self>> {
        Self::set_with(spec, None).await
    }

    /// The CA says this of other trust domains.
    pub(crate) async fn set_with(
        spec: Spec,
        foreign: Option<ForeignBundles>,
    ) -> Result<Option<Self>> {
        let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(None) };
        let ca = LogCa::start(&mesh.pod("log-ca")?, foreign).await?;
        let server = workload(&mesh, &ca, spec).await?;
        let stranger = mesh.pod("stranger")?;
        let listener = server.pod.tcp_listen(server.v4(PORT)).await?;
        tokio::spawn(echo(listener));
        Ok(Some(Self { mesh, ca, server, stranger }))
    }

    /// Another workload of this CA.
    pub(crate) async fn workload(&self, spec: Spec) -> Result<Workload> {
        workload(&self.mesh, &self.ca, spec).await
    }

    /// A leaf for the stranger's own addresses, signed by the intermediate and in no log.
    pub(crate) fn secret(&self) -> Result<Credential> {
        self.ca.sign(STRANGER, self.stranger.addresses())
    }

    pub(crate) fn configs(&self, own: &Credential) -> Result<Configs> {
        let clock = Clock::new(now);
        let alpns = [b"h2".to_vec()];
        Ok(Configs::build(&own.chain, &own.key, &self.ca.bundle(), &alpns, &clock)?)
    }

    /// A mesh connection from the stranger to the workload, showing this proof.
    pub(crate) async fn connect(&self, own: &Credential, proof: &[u8]) -> Result<Link<Dialer>> {
        dial(&self.stranger, self.server.v4(PORT), &self.configs(own)?, proof).await
    }

    /// The same, and what the first use on it hears.
    pub(crate) async fn knock(&self, own: &Credential, proof: &[u8]) -> Result<Said> {
        let mut link = self.connect(own, proof).await?;
        open(&mut link).await
    }

    /// The workload's sidecar refuses this dialer, and says why in this word.
    pub(crate) async fn demand_refused(
        &self,
        name: &str,
        own: &Credential,
        proof: &[u8],
        word: &str,
    ) -> Result<()> {
        let before = self.server.metrics().await?.outcome("inbound", word);
        let said = self.knock(own, proof).await.with_context(|| name.to_owned())?;
        ensure!(said == Said::Refused(Refuse::NotLogged), "{name}: {said:?}");
        self.server.outcome("inbound", word, before + 1.0).await.context(name.to_owned())
    }

    /// The stranger's pod answers one mesh connection as `own` with this proof; the number of uses
    /// that were opened comes back.
    pub(crate) async fn answer_once(
        &self,
        own: &Credential,
        proof: Vec<u8>,
    ) -> Result<JoinHandle<Result<u32>>> {
        let on = SocketAddr::new(self.stranger.v4(), PORT);
        let listener = self.stranger.tcp_listen(on).await?;
        let configs = self.configs(own)?;
        Ok(tokio::spawn(async move {
            let (tcp, _) = tokio::time::timeout(SOON, listener.accept()).await??;
            let session = tls::accept(tcp, &configs, None, Deadline(SOON)).await?;
            let mut link = Link::new(session.records, Acceptor::new(BUDGET));
            if link.greet(&proof, SOON, |_| ()).await.is_err() {
                return Ok(0);
            }
            let opened = link.event(SOON, |event| matches!(event, Event::Opened(_))).await;
            if !matches!(opened, Ok(Some(true))) {
                return Ok(0);
            }
            link.control(Acceptor::accept)?;
            link.flush().await?;
            Ok(1)
        }))
    }

    /// Waits until `/ready` shows this in its condition `log`.
    pub(crate) async fn log_condition(&self, met: bool, words: &str) -> Result<()> {
        myelin_tests::programs::eventually(words, SOON * 2, async || {
            let page = self.server.ops("/ready").await?;
            let page: serde_json::Value = serde_json::from_str(&page.body)?;
            let conditions = page["conditions"].as_array().context("no conditions")?;
            let log = conditions.iter().find(|it| it["name"] == "log").context("no log")?;
            let why = log["why"].as_str().unwrap_or_default();
            ensure!(log["met"] == met && why.contains(words), "{log}");
            Ok(true)
        })
        .await
    }
}

/// Whether the workload still answers on this use.
pub(crate) async fn echoes(link: &mut Link<Dialer>) -> bool {
    tokio::time::timeout(SOON, echo_once(link)).await.is_ok_and(|said| said.is_ok())
}

async fn echo_once(link: &mut Link<Dialer>) -> Result<()> {
    const WORDS: &[u8] = b"are you there?";
    link.send(WORDS)?;
    link.flush().await?;
    let mut heard = Vec::new();
    while heard.len() < WORDS.len() {
        if Carrier::records(link).chunk().is_empty() {
            let more = std::future::poll_fn(|cx| Carrier::records(link).poll_read(cx)).await?;
            ensure!(matches!(more, Arrived::Progress), "the connection ended");
            continue;
        }
        match link.step()? {
            Step::Deliver(bytes) => {
                heard.extend_from_slice(&Carrier::records(link).chunk()[..bytes]);
                Carrier::records(link).consume(bytes);
            }
            other => anyhow::bail!("expected the use's bytes, got {other:?}"),
        }
    }
    ensure!(heard == WORDS);
    Ok(())
}

async fn workload(mesh: &Mesh, ca: &LogCa, spec: Spec) -> Result<Workload> {
    let pod = mesh.pod(&spec.name)?;
    let token = ca.token(&spec.id(), pod.addresses());
    let workload = mesh.prepare_at(pod, ca.endpoint, &token, spec).await?;
    workload.run().await?;
    Ok(workload)
}

async fn echo(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut buffer = [0; 4_096];
            while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..read]).await.is_err() {
                    break;
                }
            }
        });
    }
}
