//! What the API server is asked, and what its answers are worth: tokens and pods in each state that
//! T38 and a cluster's life know, over a fake of the API.
//!
//! Never: a case that needs no API server; the room above has those.

// SPDX-License-Identifier: Apache-2.0

use kube::config::Config;
use myelin_fake_api::{FakeApi, Fault, PodToken, Resource, Rule, Trouble};
use serde_json::{Value, json};

use super::{AUDIENCE, Cluster, NOW, claims, header};
use crate::attest::Whereabouts;
use crate::journal::PodRecord;

const POD: &str = "web-7d9f-x2";
const UID: &str = "9a8b-77";

/// A cluster with one running pod and its token.
struct Stage {
    api: FakeApi,
    cluster: Cluster,
    token: String,
}

impl Stage {
    async fn new() -> Self {
        let api = FakeApi::start().await.unwrap();
        // All that the role has.
        api.allow_only(vec![
            Rule::new("authentication.k8s.io", "tokenreviews", &["create"], &[]),
            Rule::new("", "pods", &["get"], &[]),
        ]);
        let mut cluster = Cluster::new();
        let client = kube::Client::try_from(Config::new(api.url().parse().unwrap())).unwrap();
        cluster.attestor = cluster.attestor.reviewed(client);
        let token = cluster.mint(&header(), &claims());
        let stage = Self { api, cluster, token };
        stage.pod(|_| {});
        stage.known(|_| {});
        stage
    }

    /// The pod as the cluster has it, but for this change.
    fn pod(&self, change: impl Fn(&mut Value)) {
        let mut pod = json!({
            "metadata": {"name": POD, "namespace": "shop", "uid": UID},
            "spec": {"serviceAccountName": "web", "nodeName": "node-1"},
            "status": {
                "phase": "Running", "podIP": "10.1.2.3", "hostIP": "192.0.2.9",
                "podIPs": [{"ip": "10.1.2.3"}, {"ip": "fd00::3"}],
                "hostIPs": [{"ip": "192.0.2.9"}],
            },
        });
        change(&mut pod);
        self.api.put(&Resource::core("pods"), pod);
    }

    /// The token as the API server knows it, but for this change.
    fn known(&self, change: impl Fn(&mut PodToken)) {
        let mut token = PodToken {
            audiences: vec![AUDIENCE.to_owned()],
            namespace: "shop".to_owned(),
            service_account: "web".to_owned(),
            pod: Some((POD.to_owned(), UID.to_owned())),
            node: None,
            // So that what our own look at the pod finds is seen.
            outlives_its_pod: true,
        };
        change(&mut token);
        self.api.allow_token(&self.token, token);
    }

    async fn attest(&self) -> Result<Vec<String>, &'static str> {
        let attested = self.cluster.attest(&self.token).await?;
        Ok(attested.addresses.iter().map(ToString::to_string).collect())
    }
}

fn good() -> Result<Vec<String>, &'static str> {
    Ok(vec!["10.1.2.3".to_owned(), "fd00::3".to_owned()])
}

/// What differs, and the word for it.
type Case = (&'static str, fn(&Stage), &'static str);

/// What the API server says of the token.
const OF_THE_TOKEN: &[Case] = &[
    ("withdrawn", |s| s.api.revoke_token(&s.token), "jwt_refused"),
    ("for others", |s| s.known(|it| it.audiences = vec!["vault".to_owned()]), "jwt_refused"),
    (
        "of a gone pod",
        |s| {
            s.known(|it| it.outlives_its_pod = false);
            s.api.remove(&Resource::core("pods"), "shop", POD);
        },
        "jwt_refused",
    ),
    (
        "of another pod",
        |s| s.known(|it| it.pod = Some((POD.to_owned(), "0".to_owned()))),
        "jwt_contradicts",
    ),
    (
        "of another name",
        |s| s.known(|it| it.pod = Some(("db".to_owned(), UID.to_owned()))),
        "jwt_contradicts",
    ),
    ("of no pod", |s| s.known(|it| it.pod = None), "jwt_contradicts"),
    (
        "of another account",
        |s| s.known(|it| it.service_account = "db".to_owned()),
        "jwt_contradicts",
    ),
    ("of another namespace", |s| s.known(|it| it.namespace = "bank".to_owned()), "jwt_contradicts"),
];

/// What the pod is like.
const OF_THE_POD: &[Case] = &[
    ("pod is gone", |s| drop(s.api.remove(&Resource::core("pods"), "shop", POD)), "pod_gone"),
    ("pod came again", |s| s.pod(|it| it["metadata"]["uid"] = json!("other")), "pod_gone"),
    ("pod succeeded", |s| s.pod(|it| it["status"]["phase"] = json!("Succeeded")), "pod_gone"),
    ("pod failed", |s| s.pod(|it| it["status"]["phase"] = json!("Failed")), "pod_gone"),
    (
        "pod of others",
        |s| s.pod(|it| it["spec"]["serviceAccountName"] = json!("db")),
        "jwt_contradicts",
    ),
    ("host network", |s| s.pod(|it| it["spec"]["hostNetwork"] = json!(true)), "pod_host_network"),
    (
        "a node's address",
        |s| s.pod(|it| it["status"]["hostIPs"] = json!([{"ip": "fd00::3"}])),
        "pod_host_network",
    ),
    ("no address", |s| s.pod(|it| it["status"] = json!({"phase": "Pending"})), "pod_no_address"),
    ("no role", |s| s.api.allow_only(vec![]), "review_unavailable"),
    (
        "half a role",
        |s| {
            s.api.allow_only(vec![Rule::new(
                "authentication.k8s.io",
                "tokenreviews",
                &["create"],
                &[],
            )]);
        },
        "review_unavailable",
    ),
];

#[tokio::test]
async fn running_pod_gets_the_addresses_of_its_status_and_anything_else_is_refused_in_its_word() {
    for (what, change, word) in OF_THE_TOKEN.iter().chain(OF_THE_POD) {
        let stage = Stage::new().await;
        assert_eq!(stage.attest().await, good(), "before: {what}");
        change(&stage);
        assert_eq!(stage.attest().await, Err(*word), "{what}");
    }
}

/// T38's own cases: the API server hears of none of them, and could not save them.
#[tokio::test]
async fn token_that_is_wrong_by_itself_is_refused_before_the_api_server_is_asked() {
    type Broken = (fn(&mut Value), &'static str);
    let table: &[Broken] = &[
        (|it| it["aud"] = json!(["vault"]), "jwt_audience"),
        (|it| it["aud"] = json!([AUDIENCE, "vault"]), "jwt_audience"),
        (|it| it["exp"] = json!(NOW - 100), "jwt_expired"),
        (|it| drop(it.as_object_mut().unwrap().remove("exp")), "jwt_not_pod_bound"),
        (|it| it["iss"] = json!("https://elsewhere"), "jwt_issuer"),
        (
            |it| drop(it["kubernetes.io"].as_object_mut().unwrap().remove("pod")),
            "jwt_not_pod_bound",
        ),
    ];
    for (change, word) in table {
        let mut stage = Stage::new().await;
        let mut broken = claims();
        change(&mut broken);
        stage.token = stage.cluster.mint(&header(), &broken);
        stage.known(|_| {});
        assert_eq!(stage.attest().await, Err(*word));
        assert!(stage.api.requests().is_empty(), "{word}");
    }
    let mut stage = Stage::new().await;
    stage.token = stage.cluster.mint(&json!({"alg": "none", "kid": "ec"}), &claims());
    stage.known(|_| {});
    assert_eq!(stage.attest().await, Err("jwt_algorithm"));
    assert!(stage.api.requests().is_empty());
}

#[tokio::test]
async fn while_the_api_is_away_pods_that_were_seen_go_on_and_nobody_new_is_let_in() {
    let stage = Stage::new().await;
    assert_eq!(stage.attest().await, good());
    let lives_there = async || {
        let attested = stage.cluster.attest(&stage.token).await.unwrap();
        attested.is_said_to_live_at("10.1.2.3".parse().unwrap())
    };
    assert!(lives_there().await);
    stage.api.vanish();
    assert_eq!(stage.attest().await, good());
    assert!(!lives_there().await, "memory takes nobody's address");
    let mut other = claims();
    other["kubernetes.io"]["pod"] = json!({"name": "web-2", "uid": "new"});
    let stranger = stage.cluster.mint(&header(), &other);
    assert_eq!(stage.cluster.attest(&stranger).await.unwrap_err(), "review_unavailable");
    // And what the keys alone can tell is still told.
    let mut late = claims();
    late["exp"] = json!(NOW - 100);
    let late = stage.cluster.mint(&header(), &late);
    assert_eq!(stage.cluster.attest(&late).await.unwrap_err(), "jwt_expired");
    stage.api.heal();
    stage.api.remove(&Resource::core("pods"), "shop", POD);
    assert_eq!(stage.attest().await, Err("pod_gone"), "memory is for outages only");
    stage.api.vanish();
    let refused = Err("review_unavailable");
    assert_eq!(stage.attest().await, refused, "who was refused is not remembered");
}

#[tokio::test]
async fn outage_is_what_the_api_says_of_itself_and_no_refusal() {
    for (code, expected) in
        [(500, good()), (503, good()), (429, good()), (403, Err("review_unavailable"))]
    {
        let stage = Stage::new().await;
        assert_eq!(stage.attest().await, good());
        stage.api.trouble(Trouble::next(1, Fault::Answer(code)));
        assert_eq!(stage.attest().await, expected, "{code}");
    }
}

/// What happened to a pod, and whether it is known to have left its address.
#[tokio::test]
async fn pod_is_gone_only_if_the_api_says_so_of_that_very_pod() {
    type Happened = (&'static str, fn(&Stage), Whereabouts);
    let at = |addresses: &[&str]| {
        Whereabouts::At(addresses.iter().map(|text| text.parse().unwrap()).collect())
    };
    let home = || at(&["10.1.2.3", "fd00::3"]);
    let table: [Happened; 11] = [
        ("nothing", |_| {}, home()),
        (
            "removed",
            |s| drop(s.api.remove(&Resource::core("pods"), "shop", POD)),
            Whereabouts::Gone,
        ),
        ("came again", |s| s.pod(|it| it["metadata"]["uid"] = json!("other")), Whereabouts::Gone),
        (
            "succeeded",
            |s| s.pod(|it| it["status"]["phase"] = json!("Succeeded")),
            Whereabouts::Gone,
        ),
        ("failed", |s| s.pod(|it| it["status"]["phase"] = json!("Failed")), Whereabouts::Gone),
        (
            "ends, and has not yet",
            |s| s.pod(|it| it["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z")),
            home(),
        ),
        ("unknown phase", |s| s.pod(|it| it["status"]["phase"] = json!("Unknown")), home()),
        (
            "moved",
            |s| s.pod(|it| it["status"] = json!({"phase": "Running", "podIP": "10.9.9.9"})),
            at(&["10.9.9.9"]),
        ),
        ("no role", |s| s.api.allow_only(vec![]), Whereabouts::Unknown),
        // A proxy's, say: it is not the API server that does not know the pod.
        (
            "a bare 404",
            |s| s.api.trouble(Trouble::next(1, Fault::Stray(404))),
            Whereabouts::Unknown,
        ),
        ("API is away", |s| s.api.vanish(), Whereabouts::Unknown),
    ];
    for (what, happens, expected) in table {
        let stage = Stage::new().await;
        let attested = stage.cluster.attest(&stage.token).await.unwrap();
        let pod = attested.pod.unwrap();
        assert_eq!((pod.name.as_str(), pod.uid.as_str(), pod.gone), (POD, UID, false));
        happens(&stage);
        assert_eq!(stage.cluster.attestor.whereabouts(&pod).await, expected, "{what}");
        let elsewhere = PodRecord { issuer: "https://another.cluster".to_owned(), ..pod };
        let nobody = stage.cluster.attestor.whereabouts(&elsewhere).await;
        assert_eq!(nobody, Whereabouts::Unknown, "{what}, of another cluster");
    }
}
