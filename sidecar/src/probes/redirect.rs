//! Where a redirect leads, by the kubelet's rule: on the same host it is followed, elsewhere it is
//! an answer like any other (and counts as success). Pure. Called by `http`.
//!
//! Never: another host than the one that was dialled.

// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;

use hyper::header::{HeaderMap, LOCATION};
use hyper::http::uri::PathAndQuery;
use hyper::{StatusCode, Uri};

/// What is asked for, on the address that was dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) https: bool,
    pub(super) port: u16,
    pub(super) target: PathAndQuery,
}

/// The next request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) place: Place,
    /// The redirect named host and scheme itself.
    pub(super) absolute: bool,
}

/// A redirect that cannot be read, on which the kubelet's client fails.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Nowhere;

/// Where to ask next; `None`: the answer stands.
pub(super) fn next(
    status: StatusCode,
    headers: &HeaderMap,
    at: &Place,
    ip: IpAddr,
) -> Result<Option<Next>, Nowhere> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = headers.get(LOCATION) else { return Ok(None) };
    let location = location.to_str().map_err(|_| Nowhere)?;
    let location = location.split('#').next().unwrap_or_default();
    if location.is_empty() {
        return Ok(None);
    }
    if let Some(rest) = location.strip_prefix("//") {
        let scheme = if at.https { "https" } else { "http" };
        return absolute(&format!("{scheme}://{rest}"), ip);
    }
    let names_a_scheme = location.split(['/', '?']).next().is_some_and(|head| head.contains(':'));
    if names_a_scheme {
        return absolute(location, ip);
    }
    let target = resolved(at.target.as_str(), location).parse().map_err(|_| Nowhere)?;
    Ok(Some(Next { place: Place { target, ..at.clone() }, absolute: false }))
}

fn absolute(location: &str, ip: IpAddr) -> Result<Option<Next>, Nowhere> {
    let uri: Uri = location.parse().map_err(|_| Nowhere)?;
    let https = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(Nowhere),
    };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    // Compared as the text of the address that was dialled, as the kubelet does.
    if host != ip.to_string() {
        return Ok(None);
    }
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    let target = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    Ok(Some(Next { place: Place { https, port, target }, absolute: true }))
}

/// RFC 3986 section 5.2.3, without the removal of dot segments.
fn resolved(from: &str, location: &str) -> String {
    let path = from.split('?').next().unwrap_or("/");
    if location.starts_with('/') {
        return location.to_owned();
    }
    if location.starts_with('?') {
        return format!("{path}{location}");
    }
    let folder = path.rfind('/').map_or("/", |slash| &path[..=slash]);
    format!("{folder}{location}")
}
