//! Plaintext on a port that a controller makes permissive: it enters while nothing says who may, and what
//! runs ends when a rule or the mode says otherwise.
//!
//! Never: a source that the directory knows as meshed, which gets no plaintext anyway.

// SPDX-License-Identifier: Apache-2.0

use anyhow::{Result, ensure};
use myelin_identity::policy::{Mode, PolicyView};
use myelin_tests::running::{Running, ask};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{SOON, Stage, allows, stage};

/// Long after these tests.
const UNTIL: u64 = 4_000_000_000;

fn permissive() -> PolicyView {
    PolicyView { mode: Some(Mode::Permissive { until: UNTIL }), ..PolicyView::default() }
}

impl Stage {
    /// A plaintext connection that runs. A permissive port hears the client first.
    async fn enters(&self, from: &myelin_lab::Pod) -> Result<Running> {
        let mut at_client = from.tcp_connect(self.listener.local_addr()?).await?;
        at_client.write_all(b"hello").await?;
        let (mut at_server, _) = tokio::time::timeout(SOON, self.listener.accept()).await??;
        at_server.read_exact(&mut [0; 5]).await?;
        let mut running = Running { at_client, at_server };
        running.talk().await?;
        Ok(running)
    }

    /// A plaintext client is cut, unheard, for this reason.
    async fn turns_away(&self, from: &myelin_lab::Pod, word: &str) -> Result<()> {
        let before = self.server.metrics().await?.outcome("inbound", word);
        let mut stream = from.tcp_connect(self.listener.local_addr()?).await?;
        let mut heard = Vec::new();
        // The reset may come before or after this.
        let _ = stream.write_all(b"hello").await;
        let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut heard)).await?;
        ensure!(ended.is_err() && heard.is_empty(), "{ended:?} {heard:?}");
        self.server.outcome("inbound", word, before + 1.0).await
    }
}

#[tokio::test]
async fn plaintext_ends_when_a_rule_names_its_port_or_the_mode_becomes_strict() -> Result<()> {
    let Some(stage) = stage().await? else { return Ok(()) };
    let outsider = stage.mesh.pod("outsider")?;
    stage.controller.says(&permissive())?;
    stage.controller.start().await?;
    stage.server.ready().await?;
    let running = stage.enters(&outsider).await?;
    // A rule about the port: whoever has no identity is not let in by it, and goes.
    let mut named = allows("test");
    named.mode = permissive().mode;
    stage.controller.says(&named)?;
    running.ends_cut().await?;
    stage.server.outcome("inbound", "withdrawn", 1.0).await?;
    stage.turns_away(&outsider, "policy_denied").await?;
    ask(&stage.client.pod, &stage.listener).await?;

    stage.controller.says(&permissive())?;
    stage.counts(super::UPDATES, &[("outcome", "taken")], 3.0).await?;
    let running = stage.enters(&outsider).await?;
    stage.controller.says(&PolicyView { mode: Some(Mode::Strict), ..PolicyView::default() })?;
    running.ends_cut().await?;
    stage.server.outcome("inbound", "withdrawn", 2.0).await?;
    stage.turns_away(&outsider, "plaintext_refused").await
}
