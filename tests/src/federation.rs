//! One CA federates with another as an operator would type it, over the bundle endpoint of the other.
//! Called by the suites that need foreign trust domains.
//!
//! Never: a bundle that was carried by hand but the one that recognises the endpoint.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::ca::Ca;

const ENDPOINT_PORT: u16 = 15_012;

/// Flags of a CA that others may federate with.
pub fn flags() -> Vec<String> {
    vec!["--federation-listen".to_owned(), format!("[::]:{ENDPOINT_PORT}")]
}

/// `ca` federates with the domain of `other`; what the command said comes back.
pub async fn federate(ca: &Ca, domain: &str, other: &Ca, directory: &Path) -> Result<String> {
    let bundle = directory.join(format!("bundle-of-{domain}.json"));
    std::fs::write(&bundle, other.bundle_json().await?)?;
    let url = format!("https://{}/", SocketAddr::new(other.pod().v4(), ENDPOINT_PORT));
    let bundle = bundle.display().to_string();
    let named = ["federation", "add", "--trust-domain", domain, "--profile", "https_spiffe"];
    let found = ["--url", &url, "--bundle", &bundle, "--unlogged"];
    let said = ca.operate(&[&named[..], &found[..]].concat()).await?;
    ensure!(said.contains("fetched: sequence"), "{said}");
    Ok(said)
}
