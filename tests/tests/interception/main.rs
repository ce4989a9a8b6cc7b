//! The rules and the two listeners together, end to end: what is captured, what is not, and that
//! nothing readable leaves when the sidecar is dead (T30-T35, T57, T58, T62).
//!
//! Never: a sidecar that was told more than its operator would tell it.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod again;
mod capture;
mod operator;
mod permissive;
mod probes;
mod ranges;

use anyhow::{Result, ensure};
use myelin_tests::programs::{LIMIT, output};
use myelin_tests::servers::Nginx;
use myelin_tests::{Mesh, Options, Spec, Workload, scenes};

/// A mesh with a client, a server and nginx on port 80, whose page is the canary.
pub(crate) struct Stage {
    pub(crate) client: Workload,
    pub(crate) server: Workload,
    /// Serves as long as the stage stands.
    _nginx: Nginx,
    pub(crate) mesh: Mesh,
}

pub(crate) async fn stage() -> Result<Option<Stage>> {
    stage_of(Spec::new("client"), Spec::new("server")).await
}

pub(crate) async fn stage_of(client: Spec, server: Spec) -> Result<Option<Stage>> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(None) };
    let server = mesh.workload_of(server).await?;
    let client = mesh.workload_of(client).await?;
    let nginx = Nginx::start(&server.pod, mesh.dir(), 80).await?;
    nginx.page("page", mesh.canary().as_bytes())?;
    Ok(Some(Stage { client, server, _nginx: nginx, mesh }))
}

impl Stage {
    /// The page comes over both families.
    pub(crate) async fn demand_page(&self) -> Result<()> {
        for server in [self.server.v4(80), self.server.v6(80)] {
            let url = format!("http://{server}/page");
            let said = output(scenes::curl(&self.client.pod, &[], &url)?, LIMIT).await?;
            ensure!(said == self.mesh.canary(), "{url} said {said:?}");
        }
        Ok(())
    }
}
