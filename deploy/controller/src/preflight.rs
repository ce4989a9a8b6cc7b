//! What a cluster needs before Myelin is installed: asked of its API server, nothing changed. Called by
//! `main` (`preflight`).
//!
//! Never: calls something good that was not asked; writes anything but the reviews of our own access,
//! which the API server does not keep.

// SPDX-License-Identifier: Apache-2.0

use serde_json::{Value, json};

use crate::cluster::{Cluster, ClusterError};

/// The first minor version of Kubernetes in which init containers that run on (native sidecars) are on
/// by default.
const LEAST_MINOR: u32 = 29;

/// What the chart makes: API group, resource, kind, and whether it lies in the mesh's namespace.
pub const MADE: [(&str, &str, &str, bool); 15] = [
    ("", "namespaces", "Namespace", false),
    ("", "serviceaccounts", "ServiceAccount", true),
    ("", "configmaps", "ConfigMap", true),
    ("", "secrets", "Secret", true),
    ("", "services", "Service", true),
    ("apps", "deployments", "Deployment", true),
    ("apps", "statefulsets", "StatefulSet", true),
    ("apps", "daemonsets", "DaemonSet", true),
    ("policy", "poddisruptionbudgets", "PodDisruptionBudget", true),
    ("networking.k8s.io", "networkpolicies", "NetworkPolicy", true),
    ("rbac.authorization.k8s.io", "roles", "Role", true),
    ("rbac.authorization.k8s.io", "rolebindings", "RoleBinding", true),
    ("rbac.authorization.k8s.io", "clusterroles", "ClusterRole", false),
    ("rbac.authorization.k8s.io", "clusterrolebindings", "ClusterRoleBinding", false),
    (
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
        false,
    ),
];

/// What is served, and what for.
const SERVED: [(&str, &str); 2] = [
    ("admissionregistration.k8s.io/v1", "the injection webhook"),
    ("authentication.k8s.io/v1", "TokenReview, by which the CA knows pods"),
];

/// One need, and what was found of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    pub what: String,
    pub found: Found,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Met(String),
    /// What was seen, and what to do.
    Missing(String, String),
    /// Why nobody knows.
    Unknown(String),
}

/// All of them; `cluster`: the way there, or why there is none.
pub async fn look(cluster: Result<Cluster, ClusterError>, namespace: &str) -> Vec<Need> {
    let cluster = match cluster {
        Ok(cluster) => cluster,
        Err(why) => return unknown(&why.to_string()),
    };
    // Who does not answer the first question is not asked the others, each with its own patience.
    let found = match cluster.read("/version").await {
        Ok(told) => version(&told.unwrap_or_default()),
        Err(why) => return unknown(&why.to_string()),
    };
    let mut needs = vec![Need { what: version_word(), found }];
    for (group, purpose) in SERVED {
        needs
            .push(Need { what: served_word(group, purpose), found: served(&cluster, group).await });
    }
    for (group, resource, _, namespaced) in MADE {
        let within = if namespaced { namespace } else { "" };
        let found = allowed(&cluster, group, resource, within).await;
        needs.push(Need { what: made_word(group, resource), found });
    }
    needs
}

/// All as one object.
pub fn json(needs: &[Need]) -> Value {
    let checks: Vec<Value> = needs.iter().map(Need::json).collect();
    json!({ "ready": exit_code(needs) == 0, "checks": checks })
}

/// 0: all is there. 1: something is missing. 2: something is not known.
pub fn exit_code(needs: &[Need]) -> u8 {
    let any = |is: fn(&Found) -> bool| needs.iter().any(|need| is(&need.found));
    if any(|found| matches!(found, Found::Missing(..))) {
        1
    } else if any(|found| matches!(found, Found::Unknown(_))) {
        2
    } else {
        0
    }
}

/// Nobody was asked.
fn unknown(why: &str) -> Vec<Need> {
    let served = SERVED.iter().map(|(group, purpose)| served_word(group, purpose));
    let made = MADE.iter().map(|(group, resource, ..)| made_word(group, resource));
    let all = [version_word()].into_iter().chain(served).chain(made);
    all.map(|what| Need { what, found: Found::Unknown(why.to_owned()) }).collect()
}

fn version_word() -> String {
    format!("Kubernetes 1.{LEAST_MINOR} or later, for native sidecars")
}

fn served_word(group: &str, purpose: &str) -> String {
    format!("API {group}, for {purpose}")
}

fn made_word(group: &str, resource: &str) -> String {
    let dot = if group.is_empty() { "" } else { "." };
    format!("permission to create {resource}{dot}{group}")
}

fn version(told: &Value) -> Found {
    let seen = told["gitVersion"].as_str().unwrap_or("no version").to_owned();
    // Some write "29+".
    let number = |text: &Value| {
        let digits: String = text.as_str()?.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    };
    match (number(&told["major"]), number(&told["minor"])) {
        (Some(major), Some(minor)) if (major, minor) >= (1, LEAST_MINOR) => Found::Met(seen),
        (Some(_), Some(_)) => {
            let fix = "upgrade the cluster: before it a Job would never end beside its sidecar";
            Found::Missing(seen, fix.to_owned())
        }
        _ => Found::Unknown(format!("the API server says {seen:?} of itself")),
    }
}

async fn served(cluster: &Cluster, group: &str) -> Found {
    match cluster.read(&format!("/apis/{group}")).await {
        Ok(Some(_)) => Found::Met("served".to_owned()),
        Ok(None) => {
            let fix = "let the API server serve it (--runtime-config)";
            Found::Missing("not served".to_owned(), fix.to_owned())
        }
        Err(why) => Found::Unknown(why.to_string()),
    }
}

async fn allowed(cluster: &Cluster, group: &str, resource: &str, namespace: &str) -> Found {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
        "spec": { "resourceAttributes": {
            "group": group, "resource": resource, "verb": "create", "namespace": namespace,
        }},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    match cluster.create(path, &review).await {
        Ok(review) if review["status"]["allowed"] == true => Found::Met("allowed".to_owned()),
        Ok(review) => {
            let why = review["status"]["reason"].as_str().filter(|why| !why.is_empty());
            let seen = why.unwrap_or("not allowed").chars().take(200).collect();
            let fix = "install as a user who may (cluster-admin may)";
            Found::Missing(seen, fix.to_owned())
        }
        Err(why) => Found::Unknown(why.to_string()),
    }
}

impl Need {
    /// One line for people.
    pub fn line(&self) -> String {
        match &self.found {
            Found::Met(seen) => format!("ok       {}: {seen}", self.what),
            Found::Missing(seen, fix) => format!("MISSING  {}: {seen}: {fix}", self.what),
            Found::Unknown(why) => format!("unknown  {}: {why}", self.what),
        }
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let (verdict, seen, fix) = match &self.found {
            Found::Met(seen) => ("met", seen.as_str(), ""),
            Found::Missing(seen, fix) => ("missing", seen.as_str(), fix.as_str()),
            Found::Unknown(why) => ("unknown", why.as_str(), ""),
        };
        json!({ "what": self.what, "verdict": verdict, "seen": seen, "fix": fix })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use myelin_fake_api::{FakeApi, Rule};

    use super::*;

    async fn connected(api: &FakeApi) -> Result<Cluster, ClusterError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kubeconfig");
        std::fs::write(&path, api.kubeconfig()).unwrap();
        Cluster::connect(Some(&path)).await
    }

    /// The needs that are not met, with what was found.
    async fn wanting(api: &FakeApi) -> Vec<(String, Found)> {
        let needs = look(connected(api).await, "myelin-system").await;
        assert_eq!(needs.len(), 1 + SERVED.len() + MADE.len());
        let wanting = needs.into_iter().filter(|need| !matches!(need.found, Found::Met(_)));
        wanting.map(|need| (need.what, need.found)).collect()
    }

    #[tokio::test]
    async fn cluster_that_has_everything_lacks_nothing_and_nothing_is_written() {
        let api = FakeApi::start().await.unwrap();
        let before = api.version();
        assert_eq!(wanting(&api).await, []);
        assert_eq!(api.version(), before);
    }

    #[tokio::test]
    async fn each_need_that_is_not_met_is_named_with_what_to_do() {
        let api = FakeApi::start().await.unwrap();
        for (version, met) in [("v1.29.0", true), ("v1.28.15", false), ("v2.0.1", true)] {
            api.is_of_version(version);
            let found = wanting(&api).await;
            assert_eq!(found.is_empty(), met, "{version}: {found:?}");
            let named = found.iter().all(|(what, found)| {
                what.contains("native sidecars")
                    && matches!(found, Found::Missing(seen, _) if seen == version)
            });
            assert!(named, "{found:?}");
        }
        api.is_of_version("v1.33.0");
        api.serves_no("authentication.k8s.io/v1");
        let found = wanting(&api).await;
        assert!(found.len() == 1 && found[0].0.contains("TokenReview"), "{found:?}");
    }

    #[tokio::test]
    async fn permissions_are_asked_one_by_one() {
        let api = FakeApi::start().await.unwrap();
        let allow = |left_out: &str| {
            let rules = MADE.iter().filter(|(_, resource, ..)| *resource != left_out);
            api.allow_only(
                rules
                    .map(|(group, resource, ..)| Rule::new(group, resource, &["create"], &[]))
                    .collect(),
            );
        };
        allow("");
        assert_eq!(wanting(&api).await, []);
        for (group, resource, ..) in MADE {
            allow(resource);
            let found = wanting(&api).await;
            assert!(found.len() == 1 && found[0].0 == made_word(group, resource), "{found:?}");
            assert!(matches!(found[0].1, Found::Missing(..)), "{found:?}");
        }
    }

    #[tokio::test]
    async fn what_was_not_asked_or_not_answered_is_unknown_and_never_met() {
        let nobody = Err(ClusterError::Nowhere("no kubeconfig".to_owned()));
        let needs = look(nobody, "myelin-system").await;
        assert_eq!(needs.len(), 1 + SERVED.len() + MADE.len());
        assert!(needs.iter().all(
            |need| matches!(&need.found, Found::Unknown(why) if why.contains("--kubeconfig"))
        ));
        assert_eq!((exit_code(&needs), &json(&needs)["ready"]), (2, &json!(false)));
        let api = FakeApi::start().await.unwrap();
        api.vanish();
        let found = wanting(&api).await;
        assert_eq!(found.len(), 1 + SERVED.len() + MADE.len());
        assert!(found.iter().all(|(_, found)| matches!(found, Found::Unknown(_))), "{found:?}");
        api.heal();
        api.is_of_version("odd");
        let found = wanting(&api).await;
        assert!(found.len() == 1 && matches!(found[0].1, Found::Unknown(_)), "{found:?}");
    }

    /// What the chart renders is what is asked about.
    #[test]
    fn every_kind_that_the_chart_makes_is_asked_about() {
        let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../kustomize/base");
        let mut kinds = BTreeSet::new();
        for file in std::fs::read_dir(base).unwrap() {
            let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
            kinds.extend(
                text.lines()
                    .filter_map(|line| Some(line.strip_prefix("kind: ")?.trim().to_owned())),
            );
        }
        kinds.remove("Kustomization");
        assert!(kinds.len() > 10, "{kinds:?}");
        let unasked = kinds.iter().filter(|kind| !MADE.iter().any(|made| made.2 == kind.as_str()));
        assert_eq!(unasked.collect::<Vec<_>>(), Vec::<&String>::new());
    }
}
