//! Certificates that live for seconds: renewed under load without one failed request (T40), a CA
//! that is away for most of a life and for longer (T41) or behind a black hole (T48), a CA that is killed while it issues (T45).
//!
//! Never: a restart of a sidecar where the issue says that none is needed.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod black_hole;
mod intermediate;
mod load;
mod outage;
mod power_cut;

use anyhow::{Context, Result};
use myelin_tests::Workload;

/// A gauge of a sidecar.
pub(crate) async fn gauge(workload: &Workload, name: &str) -> Result<f64> {
    Ok(workload.metrics().await?.sum(name, &[]))
}

/// Unix seconds, as the certificates count them.
pub(crate) fn now() -> f64 {
    myelin_tests::forge::now() as f64
}

/// The serial of a sidecar's current SVID, as its operator sees it.
pub(crate) async fn serial(workload: &Workload) -> Result<String> {
    let page =
        myelin_tests::http::over_socket(&workload.admin_socket(), "GET", "/certs", "").await?;
    let certs: serde_json::Value = serde_json::from_str(&page.body)?;
    let serial = find(&certs, "serial").with_context(|| format!("no serial in {certs}"))?;
    Ok(serial.to_owned())
}

fn find<'a>(value: &'a serde_json::Value, key: &str) -> Option<&'a str> {
    match value {
        serde_json::Value::Object(map) => map
            .get(key)
            .and_then(serde_json::Value::as_str)
            .or_else(|| map.values().find_map(|inner| find(inner, key))),
        serde_json::Value::Array(items) => items.iter().find_map(|inner| find(inner, key)),
        _ => None,
    }
}
