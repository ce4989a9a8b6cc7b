//! The mesh itself as the chart installs it: the objects of the rendered base, and the pods that the
//! cluster's own controllers make of them. Called by `systems`.
//!
//! Never: an object of the test's own where the chart has one.

// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;

use anyhow::{Context, Result};
use myelin_fake_api::{FakeApi, Resource, Rule};
use serde_json::{Value, json};

use super::container::{text, texts};

const BASE: &str = include_str!("../../../deploy/kustomize/base/myelin.yaml");

/// The first address that the cluster gives to a Service that names none.
const FIRST_SERVICE: [u8; 4] = [10, 96, 0, 10];

pub(super) struct Chart {
    objects: Vec<Value>,
}

impl Chart {
    pub(super) fn read() -> Result<Self> {
        // As Kubernetes reads YAML: 0400 is a file mode.
        let options = serde_saphyr::options! { legacy_octal_numbers: true };
        let mut objects: Vec<Value> = serde_saphyr::from_multiple_with_options(BASE, options)?;
        objects.retain(Value::is_object);
        for (number, service) in (0..).zip(of_kind(&mut objects, "Service")) {
            if service["spec"]["clusterIP"].is_null() {
                let [a, b, c, d] = FIRST_SERVICE;
                service["spec"]["clusterIP"] = json!(format!("{a}.{b}.{c}.{}", d + number));
            }
        }
        Ok(Self { objects })
    }

    /// Puts every object where it belongs.
    pub(super) fn install(&self, api: &FakeApi) -> Result<()> {
        for object in &self.objects {
            api.put(&resource(object)?, object.clone());
        }
        Ok(())
    }

    /// What its roles allow, to whomever: the fake API knows no users.
    pub(super) fn rules(&self) -> Result<Vec<Rule>> {
        let mut rules = Vec::new();
        let roles = self.objects.iter().filter_map(|object| object["rules"].as_array());
        for rule in roles.flatten() {
            let [groups, resources, verbs, names] =
                ["apiGroups", "resources", "verbs", "resourceNames"].map(|key| texts(&rule[key]));
            let (verbs, names) = (verbs?, names?);
            for group in groups? {
                for resource in resources.as_ref().ok().into_iter().flatten() {
                    let (group, resource) = (group.clone(), resource.clone());
                    let (verbs, names) = (verbs.clone(), names.clone());
                    rules.push(Rule { group, resource, verbs, names });
                }
            }
        }
        Ok(rules)
    }

    /// The first pod of a StatefulSet or a Deployment.
    pub(super) fn pod(&self, kind: &str, name: &str) -> Result<Value> {
        let set = self.find(kind, name)?;
        let mut pod = set["spec"]["template"].clone();
        pod["metadata"]["name"] = json!(format!("{name}-0"));
        pod["metadata"]["namespace"] = set["metadata"]["namespace"].clone();
        for claim in set["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten() {
            let volume = json!({ "name": claim["metadata"]["name"], "emptyDir": {} });
            let volumes = pod["spec"]["volumes"].as_array_mut().context("no volumes")?;
            volumes.push(volume);
        }
        Ok(pod)
    }

    pub(super) fn service_address(&self, name: &str) -> Result<IpAddr> {
        Ok(text(&self.find("Service", name)?["spec"], "clusterIP")?.parse()?)
    }

    fn find(&self, kind: &str, name: &str) -> Result<&Value> {
        let is = |o: &&Value| o["kind"] == kind && o["metadata"]["name"] == name;
        let found = self.objects.iter().find(is);
        found.with_context(|| format!("the chart has no {kind} {name}"))
    }
}

fn of_kind<'a>(objects: &'a mut [Value], kind: &'a str) -> impl Iterator<Item = &'a mut Value> {
    objects.iter_mut().filter(move |object| object["kind"] == kind)
}

pub(super) fn resource(object: &Value) -> Result<Resource> {
    let version = text(object, "apiVersion")?;
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let one = text(object, "kind")?.to_lowercase();
    let plural = match one.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{one}s"),
    };
    Ok(Resource::new(group, version, &plural))
}
