//! Real traffic through the mesh: servers and clients that nobody here wrote, real sidecars, a real
//! CA, and after each scene a wire that shows TLS 1.3 and nothing else. `control` plays the same
//! scenes without a mesh.
//!
//! Never: a client or a server that knows about the mesh.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod black_hole;
mod bounds;
mod bulk;
mod endings;
mod servers;

use anyhow::Result;
use myelin_tests::{Mesh, Options, Spec, Workload};

/// A mesh with a client and a server.
pub(crate) struct Stage {
    pub(crate) client: Workload,
    pub(crate) server: Workload,
    pub(crate) mesh: Mesh,
}

pub(crate) async fn stage() -> Result<Option<Stage>> {
    stage_of(Spec::new("client"), Spec::new("server")).await
}

pub(crate) async fn stage_of(client: Spec, server: Spec) -> Result<Option<Stage>> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(None) };
    let server = mesh.workload_of(server).await?;
    let client = mesh.workload_of(client).await?;
    Ok(Some(Stage { client, server, mesh }))
}
