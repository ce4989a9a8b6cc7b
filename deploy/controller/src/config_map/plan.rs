//! What is to be done about the ConfigMaps at this moment. Pure. Called by the room's door.
//!
//! Replicas read the bundle from files that the kubelet brings up to date one after the other, so
//! for a minute they differ. The one whose file has changed writes; the others, who find a bundle
//! that somebody of ours wrote whole, wait until their own file says the same. What somebody else
//! wrote is mended at once.
//!
//! Never: touches a ConfigMap that is not labelled as ours, whatever its name.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};

use myelin_identity::bundle::TrustBundle;
use myelin_identity::id::TrustDomain;
use serde_json::{Value, json};

/// The bundle's field.
pub(super) const FIELD: &str = "bundle.pem";

/// By which we know what is ours.
pub(super) const OURS: (&str, &str) = ("app.kubernetes.io/managed-by", "myelin-controller");

/// The hash of the bundle that one of us wrote.
pub(super) const HASH: &str = "myelin.dev/bundle-hash";

/// A bundle as it is to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) pem: String,
    pub(super) hash: String,
}

/// What there is.
#[derive(Default)]
pub(super) struct Found {
    /// Meshed namespaces; `false`: it is on its way out, and takes nothing new.
    pub(super) meshed: BTreeMap<String, bool>,
    /// Those that are labelled as ours, by namespace.
    pub(super) maps: BTreeMap<String, Value>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) create: BTreeSet<String>,
    pub(super) replace: BTreeSet<String>,
    pub(super) remove: BTreeSet<String>,
    /// Another replica wrote these, whole, and not what we would write.
    pub(super) others: BTreeSet<String>,
    pub(super) right: usize,
}

/// `own`: the mesh's own namespace, where nothing is ours. `overrule`: others' bundles are replaced.
pub(super) fn plan(
    found: &Found,
    wanted: &Wanted,
    domain: &TrustDomain,
    own: &str,
    overrule: bool,
) -> Plan {
    let mut plan = Plan::default();
    for (namespace, takes) in found.meshed.iter().filter(|(namespace, _)| *namespace != own) {
        let list = match found.maps.get(namespace) {
            None if *takes => &mut plan.create,
            None => continue,
            Some(map) if says(map, wanted) => {
                plan.right += 1;
                continue;
            }
            Some(map) if !overrule && is_whole(map, domain) => &mut plan.others,
            Some(_) => &mut plan.replace,
        };
        list.insert(namespace.clone());
    }
    for (namespace, map) in &found.maps {
        let ours = map["metadata"]["labels"][OURS.0] == OURS.1;
        if ours && namespace != own && !found.meshed.contains_key(namespace) {
            plan.remove.insert(namespace.clone());
        }
    }
    plan
}

/// The object that there shall be, with whatever else somebody has put on the one that is there.
pub(super) fn object(name: &str, namespace: &str, there: Option<&Value>, wanted: &Wanted) -> Value {
    let mut object = there.cloned().unwrap_or_else(|| {
        json!({ "metadata": { "name": name, "namespace": namespace, "labels": {}, "annotations": {} } })
    });
    object["apiVersion"] = json!("v1");
    object["kind"] = json!("ConfigMap");
    for (table, (key, value)) in [("labels", OURS), ("annotations", (HASH, wanted.hash.as_str()))] {
        object["metadata"][table][key] = json!(value);
    }
    object["data"] = json!({ FIELD: wanted.pem });
    if let Some(fields) = object.as_object_mut() {
        fields.remove("binaryData");
    }
    object
}

fn says(map: &Value, wanted: &Wanted) -> bool {
    map["data"] == json!({ FIELD: wanted.pem })
        && map["metadata"]["annotations"][HASH] == *wanted.hash
        && map["binaryData"].as_object().is_none_or(serde_json::Map::is_empty)
}

/// Whether one of us wrote all of it: a bundle, and its hash.
fn is_whole(map: &Value, domain: &TrustDomain) -> bool {
    let Some(pem) = map["data"][FIELD].as_str() else { return false };
    let Ok(bundle) = TrustBundle::from_pem(domain.clone(), 0, pem) else { return false };
    let hash = bundle.hash().to_string();
    says(map, &Wanted { pem: pem.to_owned(), hash })
}
