//! What can go wrong with the Kubernetes API, told apart by what to do about it. Called by the room's
//! door.
//!
//! Never: what an object holds; of an answer only the API server's own words about a refusal, cut.

// SPDX-License-Identifier: Apache-2.0

use std::error::Error;
use std::path::PathBuf;

use hyper::StatusCode;
use serde::Deserialize;

/// Longest part of the API server's words that goes into our log.
const MAX_QUOTED_CHARS: usize = 300;

/// Causes of one error that are told.
const MAX_CAUSES: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("the kubeconfig {path} cannot be used: {why}: name one that kubectl understands")]
    Kubeconfig { path: PathBuf, why: String },
    #[error(
        "no Kubernetes API is known: {0}: run in a pod with a service account, or name a file with --kubeconfig"
    )]
    Nowhere(String),
    #[error("{what}: somebody else wrote first")]
    Conflict { what: String },
    #[error("{what}: the API server refuses it ({code}: {why}){}", hint(*code))]
    Refused { what: String, code: u16, why: String },
    #[error("{what}: the API server cannot be asked: {why}: it is asked again")]
    Unreachable { what: String, why: String },
    #[error("{what}: the API server's answer cannot be read: {why}: it is asked again")]
    Unreadable { what: String, why: String },
    #[error(
        "{what}: the API server's answer is longer than {most} bytes: no object is, so ask for fewer"
    )]
    TooLong { what: String, most: usize },
    #[error("{what}: there are more objects than any cluster has: ask for fewer by a selector")]
    TooMany { what: String },
}

fn hint(code: u16) -> &'static str {
    match code {
        401 | 403 => ": give the controller's service account the rights of the chart",
        _ => "",
    }
}

/// What is read of an answer that is no success.
#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    message: String,
}

pub(super) fn refused(what: String, status: StatusCode, body: &[u8]) -> ClusterError {
    if status == StatusCode::CONFLICT {
        return ClusterError::Conflict { what };
    }
    let said = serde_json::from_slice::<Status>(body).unwrap_or_default().message;
    ClusterError::Refused { what, code: status.as_u16(), why: quoted(&said) }
}

/// Where in an answer it stands, and not what stands there.
pub(super) fn no_json(what: String, why: &serde_json::Error) -> ClusterError {
    let why = format!("no JSON at line {}, column {}", why.line(), why.column());
    ClusterError::Unreadable { what, why }
}

/// What a client says of a failed connection has its reason (a certificate, a refusal) further down.
pub(super) fn causes(error: &dyn Error) -> String {
    let (mut said, mut cause) = (error.to_string(), error.source());
    for _ in 0..MAX_CAUSES {
        let Some(error) = cause else { break };
        let words = error.to_string();
        // Some repeat in their own words what they were caused by.
        if !said.contains(&words) {
            said = format!("{said}: {words}");
        }
        cause = error.source();
    }
    quoted(&said)
}

/// One line, bounded.
pub(super) fn quoted(said: &str) -> String {
    said.chars().filter(|c| !c.is_control()).take(MAX_QUOTED_CHARS).collect()
}
