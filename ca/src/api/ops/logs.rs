//! The logs as c2sp.org/tlog-tiles has them, below `/log/` (SVIDs) and `/root-log/` (intermediates)
//! of the ops port: static files, to be cached or copied by anybody.
//!
//! Never: a file that no signed checkpoint covers.

// SPDX-License-Identifier: Apache-2.0

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use hyper::{Response, StatusCode};
use myelin_identity::log::Resource;

use super::{text, typed};
use crate::log::Logs;

/// A file that is there once never changes.
const FOR_EVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// What a log shows under this path; `None` if the path is none of a log's.
pub(super) async fn answer(logs: &Logs, path: &str) -> Option<Response<Full<Bytes>>> {
    let (resource, read) = if let Some(path) = path.strip_prefix("/log/") {
        let resource = Resource::parse(path)?;
        (resource, logs.issuing.read(resource).await)
    } else {
        let resource = Resource::parse(path.strip_prefix("/root-log/")?)?;
        (resource, logs.root.read(resource).await)
    };
    Some(match (read, resource) {
        (Ok(Some(note)), Resource::Checkpoint) => text(StatusCode::OK, note),
        (Ok(Some(bytes)), _) => {
            let mut response = typed(StatusCode::OK, "application/octet-stream", bytes);
            response.headers_mut().insert(CACHE_CONTROL, FOR_EVER);
            response
        }
        (Ok(None), _) => text(
            StatusCode::NOT_FOUND,
            "the log has not grown that far, or keeps the full tile only\n",
        ),
        (Err(error), _) => {
            tracing::error!(%error, %resource, "cannot serve a file of the log");
            text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the file cannot be read; see the CA's own log\n",
            )
        }
    })
}
