//! The promises, kept over a fake of the Kubernetes API, and what only this store has to survive.
//!
//! Never: a real cluster; the suite for one is elsewhere.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use kube::config::Config;
use myelin_fake_api::{FakeApi, Resource, Rule};

use super::{absent, committed, put};
use crate::store::Store;
use crate::store::kubernetes::Kubernetes;

mod crashes;
mod interleaved;
mod log;
mod troubles;

super::keeps_all!(scratch);

async fn scratch() -> (FakeApi, Arc<dyn Store>) {
    let api = FakeApi::start().await.unwrap();
    // Nothing but what the documents say that the role has.
    api.allow_only(role());
    let store = open(&api).await;
    (api, Arc::new(store))
}

/// The role of docs/operate/kubernetes-store.md.
fn role() -> Vec<Rule> {
    let names: Vec<String> = (0..256).map(|index| format!("myelin-ca-{index}")).collect();
    let mut named: Vec<&str> = names.iter().map(String::as_str).collect();
    named.push("myelin-ca-head");
    vec![
        Rule::new("", "secrets", &["create"], &[]),
        Rule::new("", "secrets", &["get", "update"], &named),
        Rule::new("", "secrets", &["watch"], &["myelin-ca-head"]),
    ]
}

fn client(api: &FakeApi) -> kube::Client {
    kube::Client::try_from(Config::new(api.url().parse().unwrap())).unwrap()
}

async fn open(api: &FakeApi) -> Kubernetes {
    Kubernetes::open(client(api), "myelin-system", "myelin-ca").await.unwrap()
}

fn secrets() -> Resource {
    Resource::core("secrets")
}

/// A value of so many bytes that says which it is.
fn long(number: usize, bytes: usize) -> String {
    format!("{number:08}").chars().cycle().take(bytes).collect()
}

#[tokio::test]
async fn what_one_replica_commits_the_other_reads_at_once_and_hears_of() {
    use futures_util::StreamExt as _;
    let (api, one) = scratch().await;
    let two = open(&api).await;
    let mut heard = two.watch("", two.revision().await.unwrap()).await.unwrap();
    for number in 0..20 {
        let key = format!("k/{number}");
        let revision =
            committed(one.commit(vec![absent(&key)], vec![put(&key, "1")]).await.unwrap());
        assert_eq!(two.read(&key).await.unwrap().unwrap().revision, revision);
        let change = heard.next().await.unwrap().unwrap();
        assert_eq!((change.key, change.revision), (key, revision));
    }
}

#[tokio::test]
async fn two_meshes_in_one_namespace_do_not_see_each_other() {
    let api = FakeApi::start().await.unwrap();
    let one = open(&api).await;
    let two = Kubernetes::open(client(&api), "myelin-system", "other").await.unwrap();
    committed(one.commit(vec![], vec![put("a", "1")]).await.unwrap());
    assert_eq!(two.read("a").await.unwrap(), None);
    assert!(two.list("", None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn commit_alone_is_one_request_and_reads_that_come_together_share_theirs() {
    let (api, store) = scratch().await;
    committed(store.commit(vec![absent("a")], vec![put("a", "1")]).await.unwrap());
    api.forget_requests();
    committed(store.commit(vec![absent("b")], vec![put("b", "1"), put("c", "2")]).await.unwrap());
    let writes =
        |method: &str| api.requests().iter().filter(|request| request.method == method).count();
    assert_eq!((writes("PUT"), writes("GET")), (1, 0));
    api.forget_requests();
    let reads = (0..100).map(|_| store.read("b"));
    for read in futures_util::future::join_all(reads).await {
        assert!(read.unwrap().is_some());
    }
    assert!(writes("GET") <= 2, "{:?}", api.requests());
}
