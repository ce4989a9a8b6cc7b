//! Manifests in, the same manifests out, with just what the webhook would put into their pods: Pods, and
//! every kind that has a template of them. Called by `myelin-controller inject`; pure.
//!
//! A namespace counts as meshed here, since somebody asks for it; a pod's own label still wins, as
//! everywhere.
//!
//! Never: asks a cluster; half an answer: one refusal, and nothing is written.

// SPDX-License-Identifier: Apache-2.0

mod documents;
#[cfg(test)]
mod tests;
mod workloads;
mod yaml;

use serde_json::Value;

use self::documents::Document;
use self::workloads::Workload;
use crate::inject::{Decision, INJECT, Namespace, Settings, inject};

/// All of it: hundreds of manifests, each of some ten kilobytes.
pub const MAX_INPUT_BYTES: usize = 16 * 1024 * 1024;

/// The answer, and what there is to say beside it.
#[derive(Debug)]
pub struct Answer {
    /// The documents in their order; those in which nothing changed as they were, to the byte.
    pub text: String,
    /// A line each: warnings, and pods that stay as they are.
    pub notes: Vec<String>,
    /// Pods and templates that were changed.
    pub injected: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("the manifests have more than {MAX_INPUT_BYTES} bytes: give them in parts")]
    TooLarge,
    #[error("document {number} cannot be read: {why}: correct it, as YAML or JSON")]
    Unreadable { number: usize, why: String },
    #[error("{}", .0.join("\n"))]
    Refused(Vec<String>),
}

/// `namespace`: of documents that name none.
pub fn inject_all(
    text: &str,
    namespace: &str,
    settings: &Settings,
) -> Result<Answer, ManifestError> {
    if text.len() > MAX_INPUT_BYTES {
        return Err(ManifestError::TooLarge);
    }
    let (mut answer, mut refused) =
        (Answer { text: String::new(), notes: Vec::new(), injected: 0 }, Vec::new());
    for document in documents::split(text)? {
        let Document { raw, value, .. } = &document;
        let mut changed = value.clone();
        let mut any = false;
        for workload in workloads::find(value, namespace) {
            any |= judged(&workload, &mut changed, settings, &mut answer, &mut refused);
        }
        if any {
            answer.text.push_str(&document.written(&changed));
        } else {
            answer.text.push_str(raw);
        }
    }
    if refused.is_empty() { Ok(answer) } else { Err(ManifestError::Refused(refused)) }
}

/// Whether this one's pod was changed.
fn judged(
    workload: &Workload,
    document: &mut Value,
    settings: &Settings,
    answer: &mut Answer,
    refused: &mut Vec<String>,
) -> bool {
    let Workload { pointer, name, namespace } = workload;
    let Some(pod) = document.pointer_mut(pointer) else { return false };
    // As the webhook takes it: the API server asks about meshed namespaces only.
    let labels = [(INJECT.to_owned(), "enabled".to_owned())].into();
    let namespace = Namespace { name: namespace.clone(), labels };
    let (told, changes) = match inject(pod, &namespace, settings) {
        Decision::Injected { patch, warnings } => {
            let changes = !patch.is_empty();
            answer.injected += usize::from(changes);
            *pod = patch.object().clone();
            (warnings, changes)
        }
        Decision::Left { why, warnings } => {
            answer.notes.push(format!("{name}: left as it is ({})", why.word()));
            (warnings, false)
        }
        Decision::Refused(refusal) => {
            refused.push(format!("{name}: {refusal}"));
            (Vec::new(), false)
        }
    };
    answer.notes.extend(told.into_iter().map(|warning| format!("{name}: {warning}")));
    changes
}
