//! HAProxy in TCP mode with mutual TLS 1.3, on explicit ports. Called by `peers`.
//!
//! Never: transparent interception, which is not what it does in this place; so it is spared the
//! cost of address translation that Myelin and Envoy have in their figures.

// SPDX-License-Identifier: Apache-2.0

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Result;

use super::super::stage::{BULK, REQUESTS, Side, Stage, address};
use super::certificates::{Files, dns};
use super::{Launch, Pair, at_client, between};

pub(super) const ABOUT: &str = "tcp mode, explicit ports (no interception, no address \
    translation); TLS session resumption on (its default); chain and name verified, no SPIFFE ID";

/// Timeouts have no default there; the number of connections has one that depends on the machine.
const HEAD: &str = "global\n  nbthread 1\n  maxconn 9000\n  \
    ssl-default-bind-options ssl-min-ver TLSv1.3\n  \
    ssl-default-server-options ssl-min-ver TLSv1.3\n\
    defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n";

pub(super) fn set_up(stage: &Stage, program: &Path) -> Result<Pair> {
    let files = Files::write(stage)?;
    let (mut client, mut server) = (HEAD.to_owned(), HEAD.to_owned());
    for port in [REQUESTS, BULK] {
        write!(
            client,
            "listen port{port}\n  bind 127.0.0.1:{}\n  server s {}:{} ssl crt {} ca-file {} \
             verify required verifyhost {name} sni str({name})\n",
            at_client(port),
            address(2),
            between(port),
            files.all(Side::Client).display(),
            files.root.display(),
            name = dns(Side::Server),
        )?;
        write!(
            server,
            "listen port{port}\n  bind {}:{} ssl crt {} ca-file {} verify required\n  \
             server s 127.0.0.1:{port}\n",
            address(2),
            between(port),
            files.all(Side::Server).display(),
            files.root.display(),
        )?;
    }
    let launch = |side: Side, text: &str| -> Result<Launch> {
        let file = stage.write(&format!("{}.cfg", side.name()), text, false)?;
        let args = ["-db", "-q", "-f", &file.to_string_lossy()].map(str::to_owned).to_vec();
        Ok(Launch { side, program: program.to_owned(), args, is_captured: false })
    };
    let launches = vec![launch(Side::Server, &server)?, launch(Side::Client, &client)?];
    let pair = Pair::explicit(launches);
    Ok(pair.note(stage, "server.cfg", &server).note(stage, "client.cfg", &client))
}
