//! Keepers of the ConfigMaps against the fake of the Kubernetes API, with no more rights than the
//! chart gives.
//!
//! Never: a wait for time, but where a test follows events.

// SPDX-License-Identifier: Apache-2.0

use std::fmt::Write;

use myelin_fake_api::{FakeApi, Fault, Resource, Rule, Trouble};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};

use super::*;

const NAME: &str = "myelin-trust-bundle";

struct Stage {
    api: FakeApi,
    kubeconfig: tempfile::NamedTempFile,
}

/// One controller.
struct Replica {
    keeper: Keeper,
    memory: Memory,
    now: Instant,
}

/// A bundle as it is held, of this many new roots.
fn bundle(roots: usize) -> Arc<String> {
    let mut pem = String::new();
    for root in 0..roots {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, format!("root {root}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        write!(pem, "{}", root.pem()).unwrap();
    }
    let domain = "cluster.local".parse().unwrap();
    Arc::new(TrustBundle::from_pem(domain, 0, &pem).unwrap().to_pem())
}

fn maps() -> Resource {
    Resource::core("configmaps")
}

impl Stage {
    async fn start() -> Self {
        let api = FakeApi::start().await.unwrap();
        api.allow_only(vec![
            Rule::new("", "namespaces", &["list", "watch"], &[]),
            Rule::new("", "configmaps", &["create"], &[]),
            Rule::new("", "configmaps", &["list", "watch", "update", "delete"], &[NAME]),
        ]);
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(kubeconfig.path(), api.kubeconfig()).unwrap();
        let stage = Self { api, kubeconfig };
        for name in ["shop", "bank", "kube-system", "myelin-system"] {
            stage.namespace(name, "enabled");
        }
        stage.namespace("plain", "disabled");
        stage
    }

    fn namespace(&self, name: &str, inject: &str) {
        let labels = json!({ "myelin.dev/inject": inject });
        let namespace = json!({ "metadata": { "name": name, "labels": labels } });
        self.api.put(&Resource::core("namespaces"), namespace);
    }

    async fn replica(&self) -> Replica {
        let keeper = Keeper {
            cluster: Cluster::connect(Some(self.kubeconfig.path())).await.unwrap(),
            name: NAME.to_owned(),
            namespace: "myelin-system".to_owned(),
            trust_domain: "cluster.local".parse().unwrap(),
            bundle: Held::default(),
            metrics: Arc::new(Metrics::new()),
        };
        Replica { keeper, memory: Memory::default(), now: Instant::now() }
    }

    fn map(&self, namespace: &str) -> Option<Value> {
        self.api.read(&maps(), namespace, NAME)
    }

    /// What the namespace's says, if it is as we write it.
    fn said(&self, namespace: &str) -> Option<String> {
        let map = self.map(namespace)?;
        assert_eq!(map["metadata"]["labels"][plan::OURS.0], plan::OURS.1);
        assert_eq!(map["data"].as_object().unwrap().len(), 1);
        Some(map["data"][plan::FIELD].as_str()?.to_owned())
    }

    fn writes(&self) -> usize {
        self.api.requests().iter().filter(|request| request.method != "GET").count()
    }
}

impl Replica {
    async fn look(&mut self, bundle: &Arc<String>) -> Result<(), MapError> {
        let (bundle, now) = (Arc::clone(bundle), self.now);
        self.keeper.look(bundle, &mut self.memory, &mut Seen::default(), now).await
    }
}

#[tokio::test]
async fn each_meshed_namespace_has_the_bundle_and_no_other_has() {
    let (stage, one) = (Stage::start().await, bundle(1));
    let foreign =
        json!({ "metadata": { "name": NAME, "namespace": "plain" }, "data": { "x": "y" } });
    stage.api.put(&maps(), foreign);
    let leaving = json!({ "metadata": {
        "name": "leaving", "labels": { "myelin.dev/inject": "enabled" },
        "deletionTimestamp": "2026-01-01T00:00:00Z",
    } });
    stage.api.put(&Resource::core("namespaces"), leaving);
    let mut replica = stage.replica().await;
    replica.look(&one).await.unwrap();
    for namespace in ["shop", "bank"] {
        assert_eq!(stage.said(namespace).as_deref(), Some(one.as_str()));
    }
    assert_eq!(stage.api.all(&maps()).len(), 3, "with the one of somebody else's");
    // Nothing changes: nothing is written.
    let writes = stage.writes();
    replica.look(&one).await.unwrap();
    assert_eq!(stage.writes(), writes);
    // One leaves the mesh, one comes, and one is gone with all that was in it.
    stage.namespace("shop", "disabled");
    stage.namespace("plain", "disabled");
    stage.namespace("new", "enabled");
    stage.api.remove(&Resource::core("namespaces"), "", "bank").unwrap();
    replica.look(&one).await.unwrap();
    assert_eq!((stage.map("shop"), stage.map("bank")), (None, None));
    assert_eq!(stage.said("new").as_deref(), Some(one.as_str()));
    assert_eq!(stage.map("plain").unwrap()["data"], json!({ "x": "y" }));
    // Another bundle.
    let two = bundle(2);
    replica.look(&two).await.unwrap();
    assert_eq!(stage.said("new").as_deref(), Some(two.as_str()));
}

#[tokio::test]
async fn what_somebody_edits_is_mended_and_what_else_they_add_stays() {
    let (stage, one) = (Stage::start().await, bundle(1));
    let mut replica = stage.replica().await;
    replica.look(&one).await.unwrap();
    let edits: [fn(&mut Value); 6] = [
        |map| map["data"]["bundle.pem"] = json!("-----BEGIN CERTIFICATE-----"),
        |map| map["data"]["bundle.pem"] = json!(bundle(1).as_str()),
        |map| map["data"]["more"] = json!("x"),
        |map| map["data"] = Value::Null,
        |map| map["binaryData"] = json!({ "x": "eA==" }),
        |map| map["metadata"]["annotations"][plan::HASH] = json!("0"),
    ];
    for (index, edit) in edits.into_iter().enumerate() {
        let mut map = stage.map("shop").unwrap();
        map["metadata"]["labels"]["theirs"] = json!("kept");
        edit(&mut map);
        stage.api.put(&maps(), map);
        replica.look(&one).await.unwrap();
        assert_eq!(stage.said("shop").as_deref(), Some(one.as_str()), "edit {index}");
        let map = stage.map("shop").unwrap();
        assert_eq!(map["metadata"]["labels"]["theirs"], "kept");
        assert!(map["binaryData"].is_null(), "edit {index}");
    }
    stage.api.remove(&maps(), "shop", NAME).unwrap();
    replica.look(&one).await.unwrap();
    assert_eq!(stage.said("shop").as_deref(), Some(one.as_str()));
}

#[tokio::test]
async fn replicas_whose_files_differ_for_a_while_do_not_write_in_turns() {
    let (stage, old, new) = (Stage::start().await, bundle(1), bundle(2));
    let (mut one, mut other) = (stage.replica().await, stage.replica().await);
    one.look(&old).await.unwrap();
    other.look(&old).await.unwrap();
    one.look(&new).await.unwrap();
    let writes = stage.writes();
    for _ in 0..17 {
        other.now += Duration::from_secs(10);
        other.look(&old).await.unwrap();
        one.look(&new).await.unwrap();
    }
    other.look(&new).await.unwrap();
    assert_eq!((stage.writes(), stage.said("shop").as_deref()), (writes, Some(new.as_str())));
    // The twin: one that finds another's bundle and goes on having its own is heard at last, for it
    // may be the only one that is left.
    let mut third = stage.replica().await;
    third.look(&old).await.unwrap();
    third.now += PATIENCE - Duration::from_secs(1);
    third.look(&old).await.unwrap();
    assert_eq!(stage.writes(), writes);
    third.now += Duration::from_secs(1);
    third.look(&old).await.unwrap();
    assert_eq!(stage.said("shop").as_deref(), Some(old.as_str()));
}

#[tokio::test]
async fn a_name_that_somebody_has_taken_is_left_to_them() {
    let (stage, one) = (Stage::start().await, bundle(1));
    let theirs = json!({ "metadata": { "name": NAME, "namespace": "shop" }, "data": { "x": "y" } });
    stage.api.put(&maps(), theirs);
    let mut replica = stage.replica().await;
    for round in 0..3 {
        replica.look(&one).await.unwrap();
        assert_eq!(replica.memory.said, round > 0, "once may be another replica's");
    }
    assert_eq!(stage.map("shop").unwrap()["data"], json!({ "x": "y" }));
    assert_eq!(stage.said("bank").as_deref(), Some(one.as_str()));
    stage.api.remove(&maps(), "shop", NAME).unwrap();
    replica.look(&one).await.unwrap();
    assert_eq!(stage.said("shop").as_deref(), Some(one.as_str()));
}

#[tokio::test]
async fn trouble_with_one_namespace_keeps_no_other_from_its_bundle() {
    let (stage, one) = (Stage::start().await, bundle(1));
    let mut replica = stage.replica().await;
    let at = |fault| Trouble::next(1, fault).on("POST").at("/namespaces/bank/");
    stage.api.trouble(at(Fault::Answer(403)));
    let said = replica.look(&one).await.unwrap_err().to_string();
    assert!(said.starts_with("1 ConfigMaps") && said.contains("namespaces/bank"), "{said}");
    assert_eq!((stage.map("bank"), stage.said("shop").is_some()), (None, true));
    // Done, and the answer lost: the next look finds it.
    stage.api.trouble(at(Fault::LoseAnswer));
    replica.look(&one).await.unwrap_err();
    replica.look(&one).await.unwrap();
    // A new bundle that one write of did not reach is written there later, and at once.
    let two = bundle(2);
    stage.api.trouble(Trouble::next(1, Fault::Answer(500)).on("PUT").at("/namespaces/bank/"));
    replica.look(&two).await.unwrap_err();
    assert_eq!(stage.said("shop").as_deref(), Some(two.as_str()));
    assert_eq!(stage.said("bank").as_deref(), Some(one.as_str()));
    replica.look(&two).await.unwrap();
    assert_eq!(stage.said("bank").as_deref(), Some(two.as_str()));
    stage.api.vanish();
    assert!(replica.look(&two).await.unwrap_err().to_string().contains("cannot be asked"));
}

#[tokio::test]
async fn namespaces_edits_and_another_bundle_are_followed() {
    let (stage, one, two) = (Stage::start().await, bundle(1), bundle(2));
    let Replica { keeper, .. } = stage.replica().await;
    let held = Arc::clone(&keeper.bundle);
    let following = tokio::spawn(async move { keeper.follow().await });
    let until = async |what: &str, met: &dyn Fn() -> bool| {
        while !met() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(!following.is_finished(), "{what}");
        }
    };
    let says = |namespace: &str, bundle: &Arc<String>| {
        stage.said(namespace).as_deref() == Some(bundle.as_str())
    };
    held.store(Some(Arc::clone(&one)));
    until("the first", &|| says("shop", &one) && says("bank", &one)).await;
    stage.namespace("new", "enabled");
    until("a namespace", &|| says("new", &one)).await;
    stage.api.remove(&maps(), "bank", NAME).unwrap();
    until("an edit", &|| says("bank", &one)).await;
    held.store(Some(Arc::clone(&two)));
    until("a bundle", &|| ["shop", "bank", "new"].iter().all(|name| says(name, &two))).await;
    stage.namespace("new", "disabled");
    until("a namespace that leaves", &|| stage.map("new").is_none()).await;
    following.abort();
}
