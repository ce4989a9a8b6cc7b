//! The hub as it is fed by the API: a fake of it that disconnects, forgets and is away.
//!
//! Never: waits for time; what has arrived is waited for.

// SPDX-License-Identifier: Apache-2.0

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use myelin_fake_api::{FakeApi, Fault, Resource, Trouble};
use serde_json::Value;

use super::{WEB, domain, endpoint, place, pod_at, service, shown, slice};
use crate::cluster::Cluster;
use crate::services::hub::{Hub, Stream};
use crate::services::{PODS, SERVICES, SLICES};

/// Far more than any of it takes; who waits so long has failed.
const LIMIT: Duration = Duration::from_secs(60);

struct Fed {
    api: FakeApi,
    stream: Stream,
}

impl Fed {
    fn put(&self, resource: &Resource, object: Value) {
        self.api.put(resource, object);
    }

    fn endpoints(&self, addresses: &[&str]) {
        let endpoints: Vec<Value> =
            addresses.iter().map(|address| endpoint(address, "first", Some(true), false)).collect();
        self.put(&slices(), slice("web-1", &endpoints));
    }

    /// Waits until just these addresses are behind the service.
    async fn shows(&self, addresses: &[&str]) {
        let expected: Vec<String> =
            addresses.iter().map(|address| format!("{address}:8080 web")).collect();
        let seen = async {
            while self.seen() != expected {
                self.stream.mailbox.woken().await;
            }
        };
        let waited = tokio::time::timeout(LIMIT, seen).await;
        assert!(waited.is_ok(), "seen are {:?}, expected {expected:?}", self.seen());
    }

    fn seen(&self) -> Vec<String> {
        shown(self.stream.view(place(WEB)).as_ref())
    }
}

fn slices() -> Resource {
    Resource::new("discovery.k8s.io", "v1", "endpointslices")
}

/// A hub that follows a fake API with one service.
async fn fed(directory: &Path) -> Fed {
    let api = FakeApi::start().await.unwrap();
    let path = directory.join("kubeconfig");
    std::fs::write(&path, api.kubeconfig()).unwrap();
    let cluster = Cluster::connect(Some(&path)).await.unwrap();
    let hub = Hub::new(domain());
    let mut stream = hub.join(&[]);
    stream.watch(place(WEB));
    let follower = Arc::clone(&hub);
    tokio::spawn(async move {
        let hub = &follower;
        tokio::join!(
            cluster.follow(SERVICES, |news| hub.services(news)),
            cluster.follow(SLICES, |news| hub.slices(news)),
            cluster.follow(PODS, |news| hub.pods(news)),
        )
    });
    let fed = Fed { api, stream };
    fed.put(&Resource::core("services"), service("web", &["10.96.0.80"]));
    let all = ["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5"];
    fed.put(&Resource::core("pods"), pod_at("first", "web", &all));
    fed.endpoints(&["10.1.0.1"]);
    fed.shows(&["10.1.0.1"]).await;
    fed
}

#[tokio::test]
async fn changes_arrive_through_broken_watches_and_versions_that_are_too_old() {
    let directory = tempfile::tempdir().unwrap();
    let fed = fed(directory.path()).await;
    fed.endpoints(&["10.1.0.2"]);
    fed.shows(&["10.1.0.2"]).await;
    fed.api.disconnect_watches();
    fed.endpoints(&["10.1.0.3"]);
    fed.shows(&["10.1.0.3"]).await;
    for (as_status, address) in [(true, "10.1.0.4"), (false, "10.1.0.5")] {
        fed.api.too_old_is_a_status(as_status);
        // What happens while nobody watches is forgotten before anybody does again.
        fed.api.trouble(Trouble::next(6, Fault::Drop));
        fed.api.disconnect_watches();
        fed.endpoints(&[address]);
        fed.api.forget_history();
        fed.shows(&[address]).await;
    }
    fed.api.remove(&slices(), "shop", "web-1").unwrap();
    fed.shows(&[]).await;
}

#[tokio::test]
async fn an_api_server_that_is_away_changes_nothing_until_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let fed = fed(directory.path()).await;
    fed.api.forget_requests();
    fed.api.vanish();
    // Each of the three has tried again, and heard nothing.
    let tried = async {
        let asks = |path: &str| fed.api.requests().iter().any(|it| it.path.starts_with(path));
        while ![SERVICES, SLICES, PODS].iter().all(|path| asks(path)) {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(LIMIT, tried).await.is_ok(), "{:?}", fed.api.requests());
    assert_eq!(fed.seen(), ["10.1.0.1:8080 web"]);
    fed.endpoints(&["10.1.0.2"]);
    fed.api.heal();
    fed.shows(&["10.1.0.2"]).await;
}

#[tokio::test]
async fn a_cluster_of_many_pages_is_read_whole() {
    let directory = tempfile::tempdir().unwrap();
    let fed = fed(directory.path()).await;
    for index in 0..1_200 {
        let (name, address) =
            (format!("pod-{index}"), format!("10.2.{}.{}", index / 250, index % 250));
        fed.put(&Resource::core("pods"), pod_at(&name, "web", &[&address]));
    }
    fed.api.forget_history();
    fed.api.disconnect_watches();
    fed.put(&slices(), slice("web-1", &[endpoint("10.2.4.199", "pod-1199", Some(true), false)]));
    fed.shows(&["10.2.4.199"]).await;
}
