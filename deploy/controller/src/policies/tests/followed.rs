//! Against the fake of the Kubernetes API: policies are followed through what befalls watches, and what
//! is thought of them is written into their status.
//!
//! Never: a schema; what a real API server refuses, the fake stores.

// SPDX-License-Identifier: Apache-2.0

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use myelin_fake_api::{FakeApi, Fault, Resource, Rule, Trouble};
use myelin_sidecar::addr::Clock;
use serde_json::json;

use super::*;
use crate::cluster::Cluster;
use crate::metrics::Metrics;
use crate::policies::{Following, Policies, keep};

/// Waits in follow and in the writer are seconds at most.
const LIMIT: Duration = Duration::from_secs(60);

fn authorizations() -> Resource {
    Resource::new("policy.myelin.dev", "v1alpha1", "authorizationpolicies")
}

fn authentications() -> Resource {
    Resource::new("policy.myelin.dev", "v1alpha1", "peerauthentications")
}

struct Fed {
    api: FakeApi,
    policies: Arc<Policies>,
    web: Following,
}

/// A replica of the controller that follows this API.
async fn replica(api: &FakeApi, directory: &Path) -> Arc<Policies> {
    let path = directory.join("kubeconfig");
    std::fs::write(&path, api.kubeconfig()).unwrap();
    let cluster = Cluster::connect(Some(&path)).await.unwrap();
    let metrics = Arc::new(Metrics::new());
    let policies = Policies::new(domain(), ROOT, Arc::clone(&metrics));
    policies.services(News::All(vec![service("shop/web", &[("app", "web")])]));
    policies.pods(News::All(vec![pod("shop/web-0", "web", &[("app", "web")], &["10.1.0.1"])]));
    let clock = Clock::new(|| SOON.0);
    tokio::spawn(keep(Arc::clone(&policies), cluster, metrics, clock));
    policies
}

async fn fed(directory: &Path) -> Fed {
    let api = FakeApi::start().await.unwrap();
    let policies = replica(&api, directory).await;
    eventually("both kinds were listed", || policies.is_complete()).await;
    let web = policies.follow(&id("shop/web"), &["10.1.0.1".parse().unwrap()]);
    Fed { api, policies, web }
}

async fn eventually(what: &str, mut is: impl FnMut() -> bool) {
    let seen = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LIMIT, seen).await.unwrap_or_else(|_| panic!("never: {what}"));
}

impl Fed {
    fn put(&self, name: &str, spec: &Value) {
        put(&self.api, name, spec);
    }

    /// Waits until web is told just this.
    async fn allows(&self, expected: &[&str]) {
        eventually(&format!("{expected:?}"), || lines(&told(&self.web.now()).allow) == expected)
            .await;
    }
}

fn put(api: &FakeApi, name: &str, spec: &Value) {
    let (namespace, name) = name.split_once('/').unwrap();
    // As `kubectl apply` does: the status stays.
    let before = api.read(&authorizations(), namespace, name);
    let mut object = json!({ "metadata": { "namespace": namespace, "name": name }, "spec": spec });
    if let Some(before) = before {
        object["status"] = before["status"].clone();
    }
    api.put(&authorizations(), object);
}

fn conditions(api: &FakeApi, name: &str) -> Vec<Value> {
    let (namespace, name) = name.split_once('/').unwrap();
    let object = api.read(&authorizations(), namespace, name).unwrap();
    object["status"]["conditions"].as_array().cloned().unwrap_or_default()
}

/// Status, reason and generation of `Accepted`.
fn said(api: &FakeApi, name: &str) -> String {
    let all = conditions(api, name);
    let ours = all.iter().find(|it| it["type"] == "Accepted");
    ours.map(|it| {
        let text = |field: &str| it[field].as_str().unwrap().to_owned();
        format!("{} {} {}", text("status"), text("reason"), it["observedGeneration"])
    })
    .unwrap_or_default()
}

fn ns(name: &str) -> Value {
    allow(&[80], json!({ "namespaces": [name] }))
}

fn writes(api: &FakeApi) -> usize {
    api.requests().iter().filter(|it| it.method == "PUT").count()
}

#[tokio::test]
async fn changes_arrive_through_broken_watches_and_versions_that_are_too_old() {
    let directory = tempfile::tempdir().unwrap();
    let fed = fed(directory.path()).await;
    fed.put("shop/it", &ns("a"));
    fed.allows(&["shop/it 80 < ns a @ "]).await;
    fed.api.disconnect_watches();
    fed.put("shop/it", &ns("b"));
    fed.allows(&["shop/it 80 < ns b @ "]).await;
    for (as_status, name) in [(true, "c"), (false, "d")] {
        fed.api.too_old_is_a_status(as_status);
        fed.api.trouble(Trouble::next(6, Fault::Drop));
        fed.api.disconnect_watches();
        fed.put("shop/it", &ns(name));
        fed.api.forget_history();
        fed.allows(&[&format!("shop/it 80 < ns {name} @ ")]).await;
    }
    fed.api.vanish();
    fed.put("shop/late", &ns("e"));
    fed.api.heal();
    fed.allows(&["shop/it 80 < ns d @ ", "shop/late 80 < ns e @ "]).await;
    fed.api.remove(&authorizations(), "shop", "it").unwrap();
    fed.allows(&["shop/late 80 < ns e @ "]).await;
    fed.api.put(
        &authentications(),
        json!({ "metadata": { "namespace": "shop", "name": "all" }, "spec": { "mode": "Strict" } }),
    );
    eventually("the other kind", || told(&fed.web.now()).mode.is_some()).await;
}

#[tokio::test]
async fn an_object_that_nobody_can_read_costs_only_itself() {
    let directory = tempfile::tempdir().unwrap();
    let fed = fed(directory.path()).await;
    fed.put("shop/good", &ns("a"));
    let deep = (0..200).fold(json!({}), |deep, _| json!({ "action": deep }));
    for (name, spec) in [("text", json!("x")), ("null", Value::Null), ("deep", deep)] {
        fed.put(&format!("shop/{name}"), &spec);
    }
    fed.api.disconnect_watches();
    fed.api.forget_history();
    // They close what they may be about, and nothing of another namespace.
    eventually("closed", || !told(&fed.web.now()).deny.is_empty()).await;
    for name in ["text", "null"] {
        fed.api.remove(&authorizations(), "shop", name).unwrap();
    }
    fed.put("shop/good", &ns("b"));
    // The last one is too deep for our reader, and there all the same.
    eventually("read on", || said(&fed.api, "shop/good") == "True Accepted 2").await;
    assert!(!told(&fed.web.now()).deny.is_empty());
    let other = fed.policies.follow(&id("other/web"), &["10.1.0.7".parse().unwrap()]);
    assert_eq!(told(&other.now()), PolicyView::default());
    fed.api.remove(&authorizations(), "shop", "deep").unwrap();
    fed.allows(&["shop/good 80 < ns b @ "]).await;
    assert!(told(&fed.web.now()).deny.is_empty());
}

#[tokio::test]
async fn a_status_says_what_is_thought_of_a_policy_once() {
    let directory = tempfile::tempdir().unwrap();
    let fed = fed(directory.path()).await;
    let is = async |name: &str, expected: &str| {
        eventually(expected, || said(&fed.api, name) == expected).await;
    };
    fed.put("shop/it", &ns("a"));
    is("shop/it", "True Accepted 1").await;
    let first = conditions(&fed.api, "shop/it")[0].clone();
    assert_eq!(first["lastTransitionTime"], SOON.1);
    fed.put("shop/it", &ns("Not A Namespace"));
    is("shop/it", "False Invalid 2").await;
    let message = conditions(&fed.api, "shop/it")[0]["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("spec.rules[0].from[0]: "), "{message}");
    fed.put("shop/it", &target("Service", "none", ns("a")));
    is("shop/it", "False TargetNotFound 3").await;
    fed.policies.services(News::Now(service("shop/none", &[])));
    fed.policies.services(News::Now(service("shop/none", &[("app", "none")])));
    is("shop/it", "True Accepted 3").await;
    // Nothing changes, so nothing is written.
    fed.put("shop/other", &ns("b"));
    is("shop/other", "True Accepted 1").await;
    let before = writes(&fed.api);
    fed.api.disconnect_watches();
    fed.api.forget_history();
    fed.put("shop/other", &ns("b"));
    fed.put("shop/last", &ns("c"));
    is("shop/last", "True Accepted 1").await;
    assert_eq!(writes(&fed.api), before + 1);
}

#[tokio::test]
async fn conditions_of_others_stay_and_conflicts_are_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let fed = fed(directory.path()).await;
    let theirs = json!({ "type": "Reviewed", "status": "True", "reason": "ByHand" });
    let ours = json!({ "type": "Accepted", "status": "True", "reason": "Accepted",
        "message": "an older controller's words", "observedGeneration": 1,
        "lastTransitionTime": "2020-01-01T00:00:00Z" });
    fed.api.trouble(Trouble::next(2, Fault::Answer(409)).on("PUT"));
    fed.api.put(
        &authorizations(),
        json!({ "metadata": { "namespace": "shop", "name": "it" }, "spec": ns("a"),
            "status": { "conditions": [theirs, ours], "note": 1 } }),
    );
    let is_ours = || {
        conditions(&fed.api, "shop/it")
            .iter()
            .any(|it| it["message"] != ours["message"] && it["type"] == "Accepted")
    };
    eventually("our words", is_ours).await;
    let now = conditions(&fed.api, "shop/it");
    assert_eq!((now.len(), &now[0]), (2, &theirs));
    // It was true before.
    assert_eq!(now[1]["lastTransitionTime"], ours["lastTransitionTime"]);
    let object = fed.api.read(&authorizations(), "shop", "it").unwrap();
    assert_eq!(object["status"]["note"], 1);
    assert_eq!(writes(&fed.api), 3);
    // A replica of another mind about the same spec is not argued with.
    let mut object = object;
    object["status"]["conditions"][1]["message"] = json!("a newer controller's words");
    fed.api.put(&authorizations(), object);
    fed.put("shop/other", &ns("b"));
    eventually("the next one", || !said(&fed.api, "shop/other").is_empty()).await;
    assert_eq!(conditions(&fed.api, "shop/it")[1]["message"], "a newer controller's words");
    // One that is taken away is written again.
    let mut object = fed.api.read(&authorizations(), "shop", "it").unwrap();
    object["status"] = json!({});
    fed.api.put(&authorizations(), object);
    eventually("again", || said(&fed.api, "shop/it") == "True Accepted 1").await;
}

#[tokio::test]
async fn what_the_api_server_will_never_take_waits_for_another_spec() {
    let directory = tempfile::tempdir().unwrap();
    let fed = fed(directory.path()).await;
    let tries = |name: &str| {
        let path = format!("/{name}/status");
        fed.api.requests().iter().filter(|it| it.path.ends_with(&path)).count()
    };
    fed.api.trouble(Trouble::next(1, Fault::Answer(422)).on("PUT"));
    fed.put("shop/a", &ns("a"));
    eventually("a try", || tries("a") == 1).await;
    // A later round, after the wait that follows a failed one.
    fed.api.trouble(Trouble::next(1, Fault::Answer(503)).on("PUT"));
    fed.put("shop/b", &ns("b"));
    eventually("the second try", || said(&fed.api, "shop/b") == "True Accepted 1").await;
    assert_eq!((tries("a"), tries("b")), (1, 2));
    fed.put("shop/a", &ns("c"));
    eventually("another spec", || said(&fed.api, "shop/a") == "True Accepted 2").await;
}

#[tokio::test]
async fn replicas_write_each_status_once_together() {
    let directory = tempfile::tempdir().unwrap();
    let fed = fed(directory.path()).await;
    let others =
        [replica(&fed.api, directory.path()).await, replica(&fed.api, directory.path()).await];
    for policies in &others {
        eventually("listed", || policies.is_complete()).await;
    }
    for index in 0..20 {
        fed.put(&format!("shop/p{index}"), &ns("a"));
    }
    let all = || (0..20).all(|at| said(&fed.api, &format!("shop/p{at}")) == "True Accepted 1");
    eventually("all are judged", all).await;
    let version = fed.api.version();
    // Whoever lost a race looks again, and finds it written.
    fed.put("shop/last", &ns("a"));
    eventually("the last", || said(&fed.api, "shop/last") == "True Accepted 1").await;
    assert_eq!(fed.api.version(), version + 2, "the object, and one write of its status");
}

#[tokio::test]
async fn the_charts_rights_are_enough_and_without_them_policies_still_hold() {
    let directory = tempfile::tempdir().unwrap();
    let fed = fed(directory.path()).await;
    let group = "policy.myelin.dev";
    let read = ["authorizationpolicies", "peerauthentications"]
        .map(|it| Rule::new(group, it, &["get", "list", "watch"], &[]));
    fed.api.allow_only(read.to_vec());
    fed.put("shop/it", &ns("a"));
    fed.allows(&["shop/it 80 < ns a @ "]).await;
    let refused = || fed.api.requests().iter().any(|it| it.path.ends_with("/it/status"));
    eventually("a try", refused).await;
    assert_eq!(said(&fed.api, "shop/it"), "");
    let mut rules = read.to_vec();
    rules.push(Rule::new(group, "authorizationpolicies/status", &["update", "patch"], &[]));
    fed.api.allow_only(rules);
    eventually("written after all", || said(&fed.api, "shop/it") == "True Accepted 1").await;
}
