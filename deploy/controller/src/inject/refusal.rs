//! Why a pod may not be made: what was seen, what was expected, what to do, in one line for whoever
//! sent it. Called by every file of this room.
//!
//! Never: a reason without its remedy, or more of the pod than the value in question.

// SPDX-License-Identifier: Apache-2.0

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the object cannot be read as a pod: {why}: correct the manifest")]
    NoPod { why: String },
    #[error("label {label} is {seen:?}, expected {expected}: correct or remove it")]
    Label { label: &'static str, seen: String, expected: &'static str },
    #[error(
        "label myelin.dev/inject is enabled, but the pod cannot be meshed ({what}): remove one of the two"
    )]
    CannotBeMeshed { what: &'static str },
    #[error("annotation {name} is {seen:?}, expected {expected}: {fix}")]
    Annotation { name: String, seen: String, expected: String, fix: String },
    #[error("there is no annotation {name}, expected one of {known}: correct or remove it")]
    UnknownAnnotation { name: String, known: String },
    #[error("annotation {name} is written by the injector: remove it")]
    OwnAnnotation { name: String },
    #[error("{what} {name} has the name of one that the injector adds: choose another name")]
    NameTaken { what: &'static str, name: String },
    #[error(
        "container {container} mounts volume {volume}, which holds the sidecar's own identity: remove the mount"
    )]
    OwnVolume { container: String, volume: String },
    #[error("container {container} uses port {port}, which is the sidecar's {whose}: move it")]
    PortTaken { container: String, port: i64, whose: &'static str },
    #[error(
        "container {container} runs as user {uid}, whose connections are the sidecar's own and pass unprotected: choose another runAsUser"
    )]
    SidecarsUser { container: String, uid: i64 },
    #[error("{what}: remove it, or have the mesh's operator set webhook.privileges = \"warn\"")]
    Privileged { what: String },
    #[error("the {kind} probe of container {container} {why}: correct the probe")]
    Probe { container: String, kind: &'static str, why: String },
    #[error("the sidecar would not take its configuration: {why}")]
    Configuration { why: String },
}

impl Refusal {
    pub const WORDS: [&str; 9] = [
        "no_pod",
        "label",
        "cannot_be_meshed",
        "annotation",
        "name_taken",
        "port_taken",
        "privileged",
        "probe",
        "configuration",
    ];

    /// As metrics and logs say it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NoPod { .. } => "no_pod",
            Self::Label { .. } => "label",
            Self::CannotBeMeshed { .. } => "cannot_be_meshed",
            Self::Annotation { .. }
            | Self::UnknownAnnotation { .. }
            | Self::OwnAnnotation { .. } => "annotation",
            Self::NameTaken { .. } | Self::OwnVolume { .. } => "name_taken",
            Self::PortTaken { .. } => "port_taken",
            Self::SidecarsUser { .. } | Self::Privileged { .. } => "privileged",
            Self::Probe { .. } => "probe",
            Self::Configuration { .. } => "configuration",
        }
    }

    pub(super) fn label(label: &'static str, seen: &str, expected: &'static str) -> Self {
        Self::Label { label, seen: shortened(seen), expected }
    }

    pub(super) fn annotation(name: &str, seen: &str, expected: &str, fix: &str) -> Self {
        let (expected, fix) = (expected.to_owned(), fix.to_owned());
        Self::Annotation { name: name.to_owned(), seen: shortened(seen), expected, fix }
    }
}

/// As much of a stranger's value as one line takes.
fn shortened(text: &str) -> String {
    const MAX_CHARS: usize = 60;
    let mut line: String = text.chars().take(MAX_CHARS).collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        line.push_str("..");
    }
    line
}
