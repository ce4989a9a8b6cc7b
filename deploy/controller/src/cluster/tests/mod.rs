//! Against the fake of the Kubernetes API: each question, and what each failure is called.
//!
//! Never: a wait for time.

// SPDX-License-Identifier: Apache-2.0

mod follow;

use myelin_fake_api::{FakeApi, Fault, Resource, Rule, Trouble};
use serde_json::json;

use super::*;

const MAPS: &str = "/api/v1/namespaces/shop/configmaps";

async fn connected() -> (FakeApi, Cluster) {
    let api = FakeApi::start().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kubeconfig");
    std::fs::write(&path, api.kubeconfig()).unwrap();
    let cluster = Cluster::connect(Some(&path)).await.unwrap();
    (api, cluster)
}

fn map(name: &str) -> Value {
    json!({ "metadata": { "name": name, "namespace": "shop" }, "data": { "a": "1" } })
}

#[tokio::test]
async fn objects_are_made_read_replaced_patched_and_removed_by_the_version_that_was_read() {
    let (_api, cluster) = connected().await;
    let one = format!("{MAPS}/a");
    assert_eq!(cluster.read(&one).await.unwrap(), None);
    let mut first = cluster.create(MAPS, &map("a")).await.unwrap();
    let taken = cluster.create(MAPS, &map("a")).await.unwrap_err();
    assert!(matches!(taken, ClusterError::Conflict { .. }), "{taken}");
    first["data"]["a"] = json!("2");
    let second = cluster.replace(&one, &first).await.unwrap();
    let late = cluster.replace(&one, &first).await.unwrap_err();
    assert!(matches!(late, ClusterError::Conflict { .. }), "{late}");
    let change = json!([{ "op": "add", "path": "/data/b", "value": "3" }]);
    let third = cluster.patch(&one, &change).await.unwrap();
    assert_eq!(cluster.read(&one).await.unwrap().unwrap()["data"], json!({ "a": "2", "b": "3" }));
    assert!(!cluster.remove(&one, &second).await.unwrap(), "another one by now");
    assert!(cluster.remove(&one, &third).await.unwrap());
    assert!(!cluster.remove(&one, &third).await.unwrap(), "gone");
}

#[tokio::test]
async fn a_list_of_many_pages_is_whole() {
    let (api, cluster) = connected().await;
    for index in 0..=30 {
        api.put(&Resource::core("configmaps"), map(&format!("m{index}")));
    }
    let all = cluster.list(MAPS, 10).await.unwrap();
    assert_eq!((all.items.len(), all.version), (31, api.version().to_string()));
    let one = format!("{MAPS}?fieldSelector=metadata.name%3Dm7");
    assert_eq!(cluster.list(&one, 10).await.unwrap().items.len(), 1);
    let pages = api.requests().iter().filter(|it| it.path.contains("continue=")).count();
    assert_eq!(pages, 3);
}

#[tokio::test]
async fn a_change_ends_the_wait_and_so_does_a_version_that_is_too_old() {
    let (api, cluster) = connected().await;
    let path = format!("{MAPS}?fieldSelector=metadata.name%3Da");
    // What is there already counts where no version is known.
    api.put(&Resource::core("configmaps"), map("a"));
    cluster.changed(&path, None).await;
    let version = api.version().to_string();
    let waiting = cluster.changed(&path, Some(&version));
    tokio::pin!(waiting);
    let asked = async {
        while !api.requests().iter().any(|it| it.path.contains(&format!("Version={version}"))) {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = &mut waiting => panic!("nothing has changed"),
        () = asked => {}
    }
    api.remove(&Resource::core("configmaps"), "shop", "a").unwrap();
    waiting.await;
    // Both forms in which a server says that it has forgotten.
    for as_status in [true, false] {
        api.forget_history();
        api.too_old_is_a_status(as_status);
        cluster.changed(&path, Some("1")).await;
    }
}

#[tokio::test]
async fn failures_are_told_apart_and_hold_no_object() {
    let (api, cluster) = connected().await;
    let one = format!("{MAPS}/a");
    api.put(&Resource::core("configmaps"), map("a"));
    api.allow_only(vec![Rule::new("", "configmaps", &["get"], &["a"])]);
    let refused = cluster.list(MAPS, 10).await.unwrap_err();
    assert!(matches!(refused, ClusterError::Refused { code: 403, .. }));
    assert!(refused.to_string().contains("the rights of the chart"), "{refused}");
    for (fault, expected) in [(Fault::Answer(503), "(503: "), (Fault::Drop, "cannot be asked")] {
        api.trouble(Trouble::next(1, fault));
        let said = cluster.read(&one).await.unwrap_err().to_string();
        assert!(said.contains(expected) && !said.contains('\n'), "{said}");
        assert_eq!(api.requests().iter().filter(|it| it.path == one).count(), 1, "asked once");
        api.forget_requests();
        cluster.read(&one).await.unwrap().unwrap();
        api.forget_requests();
    }
}

#[tokio::test]
async fn a_way_to_no_cluster_is_an_error_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kubeconfig");
    for text in [None, Some(""), Some("{\"token\":\"hunter2\",\"clusters\":[")] {
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let said = Cluster::connect(Some(&path)).await.err().unwrap().to_string();
        assert!(said.starts_with("the kubeconfig ") && !said.contains('\n'), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}
