//! The Secret that the replicas share: read whole, written whole, by compare-and-swap on its
//! resource version. Called by the room's door.
//!
//! Never: another Secret; overwrites what was not read.

// SPDX-License-Identifier: Apache-2.0

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use super::Place;
use super::kept::{Kept, MAX_BEFORE, Pair, certificates};
use crate::cluster::{Cluster, ClusterError};

/// Fields of the Secret; the first two are those of type `kubernetes.io/tls`.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const NEXT_CERTIFICATE: &str = "next.crt";
const NEXT_KEY: &str = "next.key";
const BEFORE: [&str; MAX_BEFORE] = ["before-0.crt", "before-1.crt", "before-2.crt", "before-3.crt"];
const BEFORE_UNTIL: &str = "before.until";

/// What there was.
pub(super) struct Found {
    /// As the API server said it; `None`: no such Secret.
    object: Option<Value>,
    /// `None`: nothing that could be served.
    pub(super) kept: Option<Kept>,
}

impl Found {
    /// Whether there is something in it, of use or not.
    pub(super) fn is_filled(&self) -> bool {
        let data = self.object.as_ref().and_then(|object| object["data"].as_object());
        data.is_some_and(|data| !data.is_empty())
    }

    pub(super) fn version(&self) -> Option<String> {
        version(self.object.as_ref()?)
    }
}

pub(super) fn version(object: &Value) -> Option<String> {
    object["metadata"]["resourceVersion"].as_str().map(str::to_owned)
}

/// `latest`: no certificate that is served no more is published for longer.
pub(super) async fn read(
    cluster: &Cluster,
    place: &Place,
    latest: u64,
) -> Result<Found, ClusterError> {
    let object = cluster.read(&path(place, &place.secret)).await?;
    let kept = object.as_ref().and_then(|object| kept(&object["data"]));
    // A time that no replica writes is none.
    let kept = kept.map(|kept| match kept.before_until > latest {
        true => Kept { before_until: 0, ..kept },
        false => kept,
    });
    Ok(Found { object, kept })
}

/// The version that it has then.
pub(super) async fn write(
    cluster: &Cluster,
    place: &Place,
    found: &Found,
    wanted: &Kept,
) -> Result<Option<String>, ClusterError> {
    let data = data(wanted);
    let written = match &found.object {
        None => {
            let object = json!({
                "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                "metadata": { "name": place.secret, "namespace": place.namespace },
                "data": data,
            });
            cluster.create(&path(place, ""), &object).await?
        }
        Some(object) => {
            // Labels and whatever else somebody has put there stay.
            let mut object = object.clone();
            object["data"] = Value::Object(data);
            cluster.replace(&path(place, &place.secret), &object).await?
        }
    };
    Ok(version(&written))
}

fn path(place: &Place, name: &str) -> String {
    let all = format!("/api/v1/namespaces/{}/secrets", place.namespace);
    if name.is_empty() { all } else { format!("{all}/{name}") }
}

fn kept(data: &Value) -> Option<Kept> {
    let text = |field: &str| {
        let bytes = BASE64_STANDARD.decode(data[field].as_str()?).ok()?;
        String::from_utf8(bytes).ok().filter(|text| !text.is_empty())
    };
    let pair = |certificate: &str, key: &str| Pair::read(&text(certificate)?, &text(key)?);
    let certificate = |field: &str| certificates(&text(field)?);
    Some(Kept {
        serving: pair(CERTIFICATE, KEY)?,
        next: pair(NEXT_CERTIFICATE, NEXT_KEY),
        before: BEFORE.into_iter().filter_map(certificate).collect(),
        before_until: text(BEFORE_UNTIL).and_then(|text| text.parse().ok()).unwrap_or_default(),
    })
}

fn data(kept: &Kept) -> Map<String, Value> {
    let mut data = Map::new();
    let mut put = |field: &str, text: &str| {
        data.insert(field.to_owned(), json!(BASE64_STANDARD.encode(text)));
    };
    put(CERTIFICATE, &kept.serving.certificate);
    put(KEY, &kept.serving.key);
    if let Some(next) = &kept.next {
        put(NEXT_CERTIFICATE, &next.certificate);
        put(NEXT_KEY, &next.key);
    }
    for (field, certificate) in BEFORE.into_iter().zip(&kept.before) {
        put(field, certificate);
    }
    if !kept.before.is_empty() {
        put(BEFORE_UNTIL, &kept.before_until.to_string());
    }
    data
}
