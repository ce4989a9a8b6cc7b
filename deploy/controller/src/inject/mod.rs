//! What becomes of a pod: which patch makes it meshed, or why it is left alone, or why it is refused.
//! Called by `webhook` for the API server, and by whoever has manifests in his hands.
//!
//! The objects are JSON values, and the patch adds and replaces single fields: what a newer
//! Kubernetes has put into a pod passes through untouched, since nobody here writes a pod whole.
//!
//! An injected pod is judged like any other: what it should have is worked out anew, out of its
//! original probes, and only what is not there already is patched. So the patch of an injected pod
//! is empty, and one to which somebody has added a container since gets just what that one needs.
//!
//! Never: I/O, a clock, a pod that is half injected, a setting that was not understood and is passed
//! over.

// SPDX-License-Identifier: Apache-2.0

mod annotations;
mod conflicts;
mod containers;
mod patch;
mod pod;
mod probes;
mod refusal;
mod render;
mod settings;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub use self::annotations::{OURS, SETTINGS};
pub use self::patch::Patch;
pub use self::refusal::Refusal;
pub use self::settings::{Controllers, Exception, Privileges, Resources, Settings, is_quantity};

use self::annotations::Wishes;
use self::containers::Place;
use self::pod::Pod;

/// Says whether a namespace or a pod is meshed: `enabled`, or on a pod `disabled`.
pub const INJECT: &str = "myelin.dev/inject";

/// Says by which injector, where there are several: for upgrades a few pods at a time.
pub const REVISION: &str = "myelin.dev/rev";

const ENABLED: &str = "enabled";
const DISABLED: &str = "disabled";

/// Its pods come before everything that could inject them.
const KUBE_SYSTEM: &str = "kube-system";

/// Where a pod is going to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    pub name: String,
    pub labels: BTreeMap<String, String>,
}

/// What becomes of a pod.
#[derive(Debug)]
pub enum Decision {
    /// It is meshed once the patch is applied; an empty one: it is already.
    Injected {
        patch: Patch,
        warnings: Vec<String>,
    },
    /// It stays as it is.
    Left {
        why: Left,
        warnings: Vec<String>,
    },
    Refused(Refusal),
}

/// Why a pod stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Neither its namespace nor itself asks for more.
    NotAsked,
    /// Its own label says so.
    Disabled,
    /// It is another injector's.
    OtherRevision,
    /// It is part of what the mesh stands on.
    Foundation,
    /// It has no network of its own.
    HostNetwork,
    /// It runs where there is no nf_tables.
    Windows,
}

impl Left {
    pub const ALL: [Self; 6] = [
        Self::NotAsked,
        Self::Disabled,
        Self::OtherRevision,
        Self::Foundation,
        Self::HostNetwork,
        Self::Windows,
    ];

    /// As metrics and logs say it.
    pub fn word(self) -> &'static str {
        match self {
            Self::NotAsked => "not_asked",
            Self::Disabled => "disabled",
            Self::OtherRevision => "other_revision",
            Self::Foundation => "foundation",
            Self::HostNetwork => "host_network",
            Self::Windows => "windows",
        }
    }
}

/// Judges one pod, as the API server shows it.
pub fn inject(pod: &Value, namespace: &Namespace, settings: &Settings) -> Decision {
    match decide(pod, namespace, settings) {
        Ok(decision) => decision,
        Err(refusal) => Decision::Refused(refusal),
    }
}

fn decide(object: &Value, namespace: &Namespace, settings: &Settings) -> Result<Decision, Refusal> {
    let pod = Pod::read(object)?;
    let mut warnings = Vec::new();
    if let Some(why) = left(&pod, namespace, settings, &mut warnings)? {
        return Ok(Decision::Left { why, warnings });
    }
    let wishes = Wishes::read(&pod, &mut warnings)?;
    conflicts::names(&pod)?;
    conflicts::ports(&pod)?;
    conflicts::users(&pod)?;
    conflicts::privileges(&pod, settings.privileges, &mut warnings)?;
    let probes = probes::find(&pod, &mut warnings)?;
    let config = render::sidecar_toml(&pod, namespace, settings, &wishes, &probes)?;
    let mut patch = Patch::of(object);
    annotate(&mut patch, &probes, &config, settings);
    // First: they are named by where they stand before anything is put in front of them.
    for probe in &probes {
        probe.rewrite(&mut patch);
    }
    for volume in containers::volumes(settings) {
        patch.named("/spec/volumes", &volume, Place::Last);
    }
    let ours = containers::containers(settings, &wishes, &probes);
    for (index, container) in ours.iter().enumerate() {
        patch.named("/spec/initContainers", container, Place::At(index));
    }
    if settings.cni {
        patch.without("/spec/initContainers", containers::RULES);
    }
    Ok(Decision::Injected { patch, warnings })
}

/// Whether the pod is ours to touch at all.
fn left(
    pod: &Pod,
    namespace: &Namespace,
    settings: &Settings,
    warnings: &mut Vec<String>,
) -> Result<Option<Left>, Refusal> {
    let own = pod.metadata.labels.get(INJECT).map(String::as_str);
    let asked_itself = match own {
        Some(ENABLED) => true,
        Some(DISABLED) => return Ok(Some(Left::Disabled)),
        Some(other) => return Err(Refusal::label(INJECT, other, "enabled or disabled")),
        None => false,
    };
    let by_namespace = namespace.labels.get(INJECT).is_some_and(|word| word == ENABLED);
    if !asked_itself && !by_namespace {
        return Ok(Some(Left::NotAsked));
    }
    let revision = pod.metadata.labels.get(REVISION).or_else(|| namespace.labels.get(REVISION));
    if revision.is_some_and(|revision| *revision != settings.revision) {
        return Ok(Some(Left::OtherRevision));
    }
    if namespace.name == settings.namespace || namespace.name == KUBE_SYSTEM {
        return Ok(Some(Left::Foundation));
    }
    let (why, what) = if pod.spec.host_network {
        (
            Left::HostNetwork,
            "hostNetwork: it shares the node's network, whose traffic is not its own",
        )
    } else if pod.spec.os.name == "windows" {
        (Left::Windows, "os.name windows: there are no nf_tables")
    } else {
        return Ok(None);
    };
    if asked_itself {
        return Err(Refusal::CannotBeMeshed { what });
    }
    warnings.push(format!("myelin: this pod is not meshed ({what})"));
    Ok(Some(why))
}

fn annotate(patch: &mut Patch, probes: &[probes::Found], config: &str, settings: &Settings) {
    patch.annotation(annotations::SIDECAR_CONFIG, config);
    patch.annotation(annotations::TRUST_BUNDLE, &settings.bundle_pem);
    patch.annotation(annotations::INJECTED, &settings.revision);
    let mut originals: BTreeMap<&str, BTreeMap<&str, &Value>> = BTreeMap::new();
    for probe in probes {
        let of_container = originals.entry(&probe.container).or_default();
        of_container.insert(probe.kind.field(), &probe.original);
    }
    if !originals.is_empty() {
        patch.annotation(annotations::ORIGINAL_PROBES, &json!(originals).to_string());
    }
}
