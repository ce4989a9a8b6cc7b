//! nginx's stream module with mutual TLS 1.3, on explicit ports. Called by `peers`.
//!
//! Never: transparent interception, as with HAProxy; never its HTTP proxy.

// SPDX-License-Identifier: Apache-2.0

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::super::stage::{BULK, REQUESTS, Side, Stage, address};
use super::certificates::{Files, dns};
use super::{Launch, Pair, at_client, between};

pub(super) const ABOUT: &str = "stream module, explicit ports (no interception, no address \
    translation); TLS session resumption on (its default); chain and name verified, no SPIFFE ID";

/// Where Debian and others keep it.
const MODULES: [&str; 2] = [
    "/usr/lib/nginx/modules/ngx_stream_module.so",
    "/usr/lib64/nginx/modules/ngx_stream_module.so",
];

pub(super) fn module() -> Result<PathBuf> {
    let found = MODULES.iter().map(PathBuf::from).find(|path| path.is_file());
    found.context("nginx's stream module is not installed: Debian package libnginx-mod-stream")
}

pub(super) fn set_up(stage: &Stage, program: &Path) -> Result<Pair> {
    let files = Files::write(stage)?;
    let (mut client, mut server) = (head(stage, Side::Client)?, head(stage, Side::Server)?);
    for port in [REQUESTS, BULK] {
        write!(
            client,
            "  server {{\n    listen 127.0.0.1:{} backlog=4096;\n    proxy_pass {}:{};\n    \
             proxy_timeout 1h;\n    proxy_ssl on;\n    proxy_ssl_protocols TLSv1.3;\n    \
             proxy_ssl_certificate {};\n    proxy_ssl_certificate_key {};\n    \
             proxy_ssl_trusted_certificate {};\n    proxy_ssl_verify on;\n    \
             proxy_ssl_verify_depth 3;\n    proxy_ssl_name {};\n  }}\n",
            at_client(port),
            address(2),
            between(port),
            files.chain(Side::Client).display(),
            files.key(Side::Client).display(),
            files.root.display(),
            dns(Side::Server),
        )?;
        write!(
            server,
            "  server {{\n    listen {}:{} ssl backlog=4096;\n    proxy_pass 127.0.0.1:{port};\n\
             \x20   proxy_timeout 1h;\n    ssl_protocols TLSv1.3;\n    ssl_certificate {};\n    \
             ssl_certificate_key {};\n    ssl_client_certificate {};\n    ssl_verify_client on;\n\
             \x20   ssl_verify_depth 3;\n  }}\n",
            address(2),
            between(port),
            files.chain(Side::Server).display(),
            files.key(Side::Server).display(),
            files.root.display(),
        )?;
    }
    client.push_str("}\n");
    server.push_str("}\n");
    let launch = |side: Side, text: &str| -> Result<Launch> {
        let file = stage.write(&format!("{}.conf", side.name()), text, false)?;
        let args = ["-e", "stderr", "-c", &file.to_string_lossy()].map(str::to_owned).to_vec();
        Ok(Launch { side, program: program.to_owned(), args, is_captured: false })
    };
    let launches = vec![launch(Side::Server, &server)?, launch(Side::Client, &client)?];
    let pair = Pair::explicit(launches);
    Ok(pair.note(stage, "server.conf", &server).note(stage, "client.conf", &client))
}

/// One worker, and room for the connections of the memory measurement.
fn head(stage: &Stage, side: Side) -> Result<String> {
    let pid = stage.path(&format!("{}-nginx.pid", side.name()));
    Ok(format!(
        "load_module {};\ndaemon off;\nworker_processes 1;\npid {};\nerror_log stderr error;\n\
         worker_rlimit_nofile 20000;\nevents {{ worker_connections 18000; }}\nstream {{\n",
        module()?.display(),
        pid.display(),
    ))
}
