//! Where injected sidecars find the CA: addresses from the file, or those of the CA's Service, asked
//! of the API and followed. Called by `app`; `webhook` loads what is held.
//!
//! Never: forgets an address because the API cannot be asked, or because the Service is gone for now.

// SPDX-License-Identifier: Apache-2.0

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::Value;

use crate::cluster::{Cluster, ClusterError};

/// Between two looks while something is wrong.
const AGAIN: Duration = Duration::from_secs(2);

/// The port of the Service that speaks the protocol of issuance.
const PORT: &str = "grpc";

/// As sidecars are told. Empty: not known yet.
pub type Held = Arc<ArcSwap<Vec<SocketAddr>>>;

#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("there is no Service {namespace}/{name}: install the CA, or correct ca.service")]
    Missing { namespace: String, name: String },
    #[error(
        "the Service {name} has no address of its own (its clusterIP is {seen}): sidecars are told addresses, so give it one, or name the CA's in ca.address"
    )]
    Headless { name: String, seen: String },
    #[error("the Service {name} has no port named {PORT}: name the CA's port so")]
    Portless { name: String },
}

/// The Service, and who wants to know.
pub struct Source {
    pub cluster: Cluster,
    pub namespace: String,
    pub service: String,
    pub held: Held,
}

impl Source {
    /// Asks at once, when it changes, and every few minutes. Until dropped.
    pub async fn follow(&self) -> Infallible {
        let all = format!("/api/v1/namespaces/{}/services", self.namespace);
        let one = format!("{all}?fieldSelector=metadata.name%3D{}", self.service);
        let mut said = None;
        loop {
            let looked = self.look().await;
            let wrong = looked.as_ref().err().map(ToString::to_string);
            // Said once, not every few seconds.
            if wrong != said {
                match &wrong {
                    Some(why) => tracing::error!("{why}"),
                    None => tracing::info!(service = %self.service, "the CA's Service is there"),
                }
                said = wrong;
            }
            match looked {
                Ok(version) => self.cluster.changed(&one, Some(&version)).await,
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// The version of what was seen.
    async fn look(&self) -> Result<String, ServiceError> {
        let (namespace, name) = (&self.namespace, &self.service);
        let path = format!("/api/v1/namespaces/{namespace}/services/{name}");
        let Some(service) = self.cluster.read(&path).await? else {
            let (namespace, name) = (namespace.clone(), name.clone());
            return Err(ServiceError::Missing { namespace, name });
        };
        let addresses = addresses(&service, name)?;
        if **self.held.load() != addresses {
            tracing::info!(?addresses, "pods are told this address of the CA from now on");
            self.held.store(Arc::new(addresses));
        }
        Ok(service["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned())
    }
}

/// One of each family that the Service has.
fn addresses(service: &Value, name: &str) -> Result<Vec<SocketAddr>, ServiceError> {
    let spec = &service["spec"];
    let port = spec["ports"].as_array().into_iter().flatten().find(|port| port["name"] == PORT);
    let port = port.and_then(|port| port["port"].as_u64()).and_then(|port| port.try_into().ok());
    let port = port.ok_or_else(|| ServiceError::Portless { name: name.to_owned() })?;
    let many = spec["clusterIPs"].as_array().into_iter().flatten();
    let mut texts: Vec<&str> = many.filter_map(Value::as_str).collect();
    if texts.is_empty() {
        texts.extend(spec["clusterIP"].as_str());
    }
    let parsed: Result<Vec<IpAddr>, _> = texts.iter().map(|text| text.parse()).collect();
    match parsed {
        Ok(found) if !found.is_empty() => {
            Ok(found.into_iter().map(|address| SocketAddr::new(address, port)).collect())
        }
        _ => {
            let seen = texts.join(",").chars().take(60).collect();
            Err(ServiceError::Headless { name: name.to_owned(), seen })
        }
    }
}

#[cfg(test)]
mod tests {
    use myelin_fake_api::{FakeApi, Resource, Rule};
    use serde_json::json;

    use super::*;

    /// Until sidecars are told this.
    async fn told(held: &Held, expected: &str) {
        while held.load().iter().map(ToString::to_string).collect::<Vec<_>>() != [expected] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn the_service_is_followed_and_what_was_known_stays_while_nobody_can_be_asked() {
        let api = FakeApi::start().await.unwrap();
        // As much as the chart's role allows.
        let rights = Rule::new("", "services", &["get", "watch"], &["myelin-ca"]);
        api.allow_only(vec![rights]);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kubeconfig");
        std::fs::write(&path, api.kubeconfig()).unwrap();
        let service = |address: &str| {
            let ports = json!([{ "name": "grpc", "port": 15010 }]);
            let metadata = json!({ "name": "myelin-ca", "namespace": "mesh" });
            json!({ "metadata": metadata, "spec": { "clusterIP": address, "ports": ports } })
        };
        let held = Held::default();
        let source = Source {
            cluster: Cluster::connect(Some(&path)).await.unwrap(),
            namespace: "mesh".to_owned(),
            service: "myelin-ca".to_owned(),
            held: Arc::clone(&held),
        };
        let missing = source.look().await.unwrap_err().to_string();
        assert!(missing.contains("no Service mesh/myelin-ca"), "{missing}");
        let following = tokio::spawn(async move { source.follow().await });
        let services = Resource::core("services");
        api.put(&services, service("10.96.0.5"));
        told(&held, "10.96.0.5:15010").await;
        api.put(&services, service("10.96.0.6"));
        told(&held, "10.96.0.6:15010").await;
        // Gone, and then nobody there to ask: what was known stays.
        let asked = || api.requests().iter().filter(|it| !it.path.contains("watch")).count();
        for trouble in
            [&(|| drop(api.remove(&services, "mesh", "myelin-ca"))) as &dyn Fn(), &|| api.vanish()]
        {
            let before = asked();
            trouble();
            while asked() < before + 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(held.load().len(), 1);
        }
        api.heal();
        api.put(&services, service("10.96.0.7"));
        told(&held, "10.96.0.7:15010").await;
        following.abort();
    }

    #[test]
    fn a_services_addresses_are_read_and_what_has_none_is_refused() {
        let ports = json!([{"name": "ops", "port": 15011}, {"name": "grpc", "port": 15010}]);
        let read = |spec: Value| match addresses(&json!({ "spec": spec }), "ca") {
            Ok(found) => found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Err(why) => why.to_string(),
        };
        for (spec, expected) in [
            (json!({"clusterIP": "10.96.0.5", "ports": ports}), "10.96.0.5:15010"),
            (
                json!({"clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5", "fd00::5"], "ports": ports}),
                "10.96.0.5:15010 [fd00::5]:15010",
            ),
        ] {
            assert_eq!(read(spec), expected);
        }
        for (spec, expected) in [
            (json!({"clusterIP": "None", "ports": ports}), "its clusterIP is None"),
            (json!({"ports": ports}), "has no address of its own"),
            (json!({"clusterIP": "", "ports": ports}), "has no address of its own"),
            (json!({"clusterIP": "10.96.0.5", "ports": [{"port": 15010}]}), "no port named grpc"),
            (json!({"clusterIP": "10.96.0.5"}), "no port named grpc"),
            (json!({"clusterIP": "10.96.0.5", "ports": [{"name": "grpc", "port": 99999}]}), "grpc"),
            (json!("x"), "no port named grpc"),
        ] {
            let said = read(spec.clone());
            assert!(said.contains(expected) && !said.contains('\n'), "{spec}: {said}");
        }
    }
}
