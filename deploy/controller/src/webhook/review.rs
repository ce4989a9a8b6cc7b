//! One question of the API server's in, its answer out: AdmissionReview of admission.k8s.io/v1.
//! Pure. Called by the room's door.
//!
//! Never: an answer to a question that was not asked; a patch together with a refusal.

// SPDX-License-Identifier: Apache-2.0

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::inject::{Decision, INJECT, Left, Namespace, Settings, inject};
use crate::metrics::Reviewed;

const VERSION: &str = "admission.k8s.io/v1";

/// The API server passes on 4 KiB of warnings, and cuts each at 256 characters.
const MAX_WARNINGS: usize = 15;
const MAX_WARNING_CHARS: usize = 256;

/// What is answered, and what is told to metrics and logs.
#[derive(Debug)]
pub struct Verdict {
    /// The AdmissionReview as JSON.
    pub answer: Vec<u8>,
    pub reviewed: Reviewed,
    pub warnings: usize,
    /// Namespace and name, as far as the pod has one yet.
    pub what: String,
}

#[derive(Debug, thiserror::Error)]
pub enum BadReview {
    #[error("no AdmissionReview of {VERSION}: {0}")]
    Unreadable(String),
    #[error(
        "the AdmissionReview is of {seen}, expected {VERSION}: set admissionReviewVersions to [\"v1\"]"
    )]
    Version { seen: String },
    #[error("the AdmissionReview holds no request")]
    NoRequest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<Request>,
}

#[derive(Deserialize)]
struct Request {
    uid: String,
    #[serde(default)]
    kind: Kind,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    operation: String,
    #[serde(default)]
    object: Value,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Kind {
    group: String,
    kind: String,
}

/// Judges the pod of one review.
pub fn judge(body: &[u8], settings: &Settings) -> Result<Verdict, BadReview> {
    let review: Review =
        serde_json::from_slice(body).map_err(|why| BadReview::Unreadable(why.to_string()))?;
    if review.api_version != VERSION || review.kind != "AdmissionReview" {
        let seen: String = review.api_version.chars().take(64).collect();
        return Err(BadReview::Version { seen });
    }
    let request = review.request.ok_or(BadReview::NoRequest)?;
    let what = named(&request);
    let is_new_pod = request.kind.group.is_empty()
        && request.kind.kind == "Pod"
        && request.operation == "CREATE";
    let decision = if is_new_pod {
        // Who is asked about was chosen by the API server's selectors, which know the namespace's
        // labels of this moment better than we could.
        let labels = [(INJECT.to_owned(), "enabled".to_owned())].into();
        let namespace = Namespace { name: request.namespace, labels };
        inject(&request.object, &namespace, settings)
    } else {
        Decision::Left { why: Left::NotAsked, warnings: Vec::new() }
    };
    Ok(answered(&request.uid, what, decision))
}

fn answered(uid: &str, what: String, decision: Decision) -> Verdict {
    let mut response = json!({ "uid": uid, "allowed": true });
    let (reviewed, warnings) = match decision {
        Decision::Injected { patch, warnings } if patch.is_empty() => {
            (Reviewed::Unchanged, warnings)
        }
        Decision::Injected { patch, warnings } => {
            let operations = Value::from(patch.operations().to_vec()).to_string();
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(BASE64_STANDARD.encode(operations));
            (Reviewed::Injected, warnings)
        }
        Decision::Left { why, warnings } => (Reviewed::Left(why.word()), warnings),
        Decision::Refused(refusal) => {
            response["allowed"] = json!(false);
            let message = format!("myelin: {refusal}");
            response["status"] = json!({ "code": 403, "reason": "Forbidden", "message": message });
            (Reviewed::Refused(refusal.word()), Vec::new())
        }
    };
    let shown: Vec<String> = warnings
        .iter()
        .take(MAX_WARNINGS)
        .map(|warning| warning.chars().take(MAX_WARNING_CHARS).collect())
        .collect();
    if !shown.is_empty() {
        response["warnings"] = json!(shown);
    }
    let answer = json!({ "apiVersion": VERSION, "kind": "AdmissionReview", "response": response });
    Verdict { answer: answer.to_string().into_bytes(), reviewed, warnings: shown.len(), what }
}

/// For the log: a pod of a Deployment has no name yet when it is admitted.
fn named(request: &Request) -> String {
    let metadata = &request.object["metadata"];
    let name = metadata["name"].as_str().or_else(|| metadata["generateName"].as_str());
    let text = format!("{}/{}", request.namespace, name.unwrap_or_default());
    text.chars().filter(|c| !c.is_control()).take(320).collect()
}
