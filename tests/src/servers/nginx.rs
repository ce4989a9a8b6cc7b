//! nginx, serving files over HTTP.
//!
//! Never: TLS of its own; that is the mesh's part.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use myelin_lab::{Pod, Proc};

use super::{LOOPBACK_V4, LOOPBACK_V6};
use crate::binaries;
use crate::mesh::subdir;
use crate::programs::listens;

#[derive(Debug)]
pub struct Nginx {
    pub port: u16,
    root: PathBuf,
    process: Proc,
}

impl Nginx {
    pub async fn start(pod: &Pod, dir: &Path, port: u16) -> Result<Self> {
        let dir = subdir(dir, &format!("nginx-{}-{port}", pod.name()))?;
        let root = subdir(&dir, "html")?;
        let place = dir.display();
        let config = format!(
            "daemon off; user root; worker_processes 1; pid {place}/pid; error_log stderr info;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; keepalive_requests 1000000; client_max_body_size 0;\n\
             client_body_temp_path {place}/body; proxy_temp_path {place}/proxy;\n\
             fastcgi_temp_path {place}/fastcgi; uwsgi_temp_path {place}/uwsgi;\n\
             scgi_temp_path {place}/scgi;\n\
             server {{ listen 0.0.0.0:{port} backlog=4096; listen [::]:{port} ipv6only=on backlog=4096;\n\
             root {}; }} }}\n",
            root.display()
        );
        let path = dir.join("nginx.conf");
        fs::write(&path, config)?;
        let process = pod
            .command(binaries::installed("nginx", "nginx")?)
            .args(["-e", "stderr", "-c"])
            .arg(path)
            .spawn()?;
        listens(pod, LOOPBACK_V4, port).await?;
        listens(pod, LOOPBACK_V6, port).await?;
        Ok(Self { port, root, process })
    }

    /// Serves these bytes under `/name`.
    pub fn page(&self, name: &str, bytes: &[u8]) -> Result<()> {
        Ok(fs::write(self.root.join(name), bytes)?)
    }

    /// Where files are that it serves.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn process(&self) -> &Proc {
        &self.process
    }
}
