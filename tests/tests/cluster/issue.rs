//! The CA at a real API server: two replicas that share their state through its Secrets, pods that it is
//! asked about, and what the role does not let the CA do.
//!
//! Never: a kubelet; the test says what a kubelet would say of a pod.

// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arc_swap::ArcSwap;
use myelin_identity::bundle::TrustBundle;
use myelin_identity::id::TrustDomain;
use myelin_sidecar::addr::{Clock, Endpoint};
use myelin_sidecar::credentials::{self, Desk, Evidence, Snapshot, Store};
use myelin_sidecar::directory::Learned;
use myelin_sidecar::metrics::Metrics;
use myelin_sidecar::net::Dialer;
use myelin_tests::forge::now;
use myelin_tests::programs::{LIMIT, eventually};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::api::{Api, Namespace};
use crate::installed::{Installed, TRUST_DOMAIN};
use crate::programs::Program;
use crate::replica::Replica;

/// Names of the mesh's own things in its namespace.
const HEAD: &str = "myelin-ca-head";

/// A sidecar's own way to an SVID, without the rest of a sidecar.
struct Holder {
    store: Arc<Store>,
    ca: Arc<Program>,
    keeping: JoinHandle<()>,
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

impl Holder {
    /// At this replica, by the token in this file.
    fn new(api: &Api, at: &Replica, name: &str, token: PathBuf) -> Result<Self> {
        let clock = Clock::new(now);
        let store = Store::new(vec![], clock.clone(), None);
        let domain = TrustDomain::parse(TRUST_DOMAIN)?;
        let bundle = at.operate(&["bundle", "show"])?;
        let config = credentials::Config {
            trust_domain: domain.clone(),
            id: None,
            cas: vec![Endpoint(at.grpc)],
            state_dir: api.dir().join(format!("state-{name}")),
            join_token: None,
            evidence: Evidence::KubernetesToken(token),
            pinned: Some(TrustBundle::from_pem(domain, 1, &bundle)?),
            lifetime: None,
            dialer: Dialer::new(None, LIMIT),
            workload: None,
        };
        let desk = Desk::new(Arc::new(ArcSwap::from_pointee(Learned::default())));
        let (kept, counted) = (Arc::clone(&store), Arc::new(Metrics::new()));
        let keeping = tokio::spawn(async move {
            let never = std::future::pending();
            // How it ends is seen by what the store holds.
            let _ = credentials::run(config, kept, desk, counted, clock, never).await;
        });
        Ok(Self { store, ca: Arc::clone(&at.program), keeping })
    }

    async fn identity(&self) -> Result<Arc<Snapshot>> {
        let issued = eventually("the CA issued", LIMIT, async || Ok(self.store.load().is_some()));
        issued.await.with_context(|| self.ca.last_words())?;
        self.store.load().context("the identity is gone")
    }

    /// Waits until the CA has refused in this word, and nothing was issued.
    async fn is_refused(&self, word: &str) -> Result<()> {
        self.ca.says(&format!("\"outcome\":\"{word}\"")).await?;
        ensure!(self.store.load().is_none(), "an SVID was issued all the same");
        Ok(())
    }
}

/// A pod as a kubelet would report it, and a token that is bound to it.
fn pod(api: &Api, namespace: &Namespace<'_>, name: &str, address: &str) -> Result<PathBuf> {
    make(api, namespace, name)?;
    let status = json!({ "status": {
        "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
    }});
    namespace.kubectl(&[
        "patch",
        "pod",
        name,
        "--subresource=status",
        "--type=merge",
        "-p",
        &status.to_string(),
    ])?;
    token(api, namespace, name)
}

/// A pod of which no kubelet has said anything yet.
fn make(api: &Api, namespace: &Namespace<'_>, name: &str) -> Result<()> {
    api.create(&[json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": namespace.name },
        "spec": {
            "serviceAccountName": "web", "automountServiceAccountToken": false,
            "containers": [{ "name": "app", "image": "nobody-pulls-it" }],
        },
    })])
}

fn token(api: &Api, namespace: &Namespace<'_>, pod: &str) -> Result<PathBuf> {
    let audience = format!("--audience=myelin-ca/{TRUST_DOMAIN}");
    let bound = format!("--bound-object-name={pod}");
    let asked = ["create", "token", "web", &audience, "--bound-object-kind=Pod", &bound];
    let path = api.dir().join(format!("token-{pod}"));
    std::fs::write(&path, namespace.kubectl(&asked)?.trim())?;
    Ok(path)
}

fn account(api: &Api, namespace: &Namespace<'_>) -> Result<()> {
    api.create(&[json!({
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": { "name": "web", "namespace": namespace.name },
    })])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs KUBECONFIG"]
async fn pods_get_their_own_addresses_at_either_replica_and_whatever_is_not_theirs_is_refused()
-> Result<()> {
    let api = Api::named()?;
    let shop = api.namespace("shop", &[])?;
    account(&api, &shop)?;
    let installed = Installed::with(&api, &["trustDomain=prod.example"])?;
    let one = Replica::start(&api, &installed, "one", &shop.name).await?;
    let two = Replica::start(&api, &installed, "two", &shop.name).await?;
    let id = format!("spiffe://{TRUST_DOMAIN}/ns/{}/sa/web", shop.name);
    for (replica, name, address) in [(&one, "web-1", "10.9.0.1"), (&two, "web-2", "10.9.0.2")] {
        let holder = Holder::new(&api, replica, name, pod(&api, &shop, name, address)?)?;
        let held = holder.identity().await?;
        let svid = &held.svid;
        let expected: IpAddr = address.parse()?;
        ensure!(svid.id().to_string() == id && svid.ip_sans() == [expected], "{svid:?}");
    }

    // A pod with an address that another has, one that no kubelet has said anything of, and one that was
    // there when its token was made.
    let taken = Holder::new(&api, &two, "taken", pod(&api, &shop, "taken", "10.9.0.1")?)?;
    taken.is_refused("address_taken").await?;
    make(&api, &shop, "early")?;
    let early = Holder::new(&api, &one, "early", token(&api, &shop, "early")?)?;
    early.is_refused("pod_no_address").await?;
    let gone = pod(&api, &shop, "gone", "10.9.0.4")?;
    shop.kubectl(&["delete", "pod", "gone", "--grace-period=0", "--force"])?;
    let gone = Holder::new(&api, &one, "gone", gone)?;
    gone.is_refused("jwt_refused").await?;

    // The address of one that goes is the next one's.
    shop.kubectl(&["delete", "pod", "web-1", "--grace-period=0", "--force"])?;
    taken.identity().await.context("the address of a pod that is gone stays taken")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs KUBECONFIG"]
async fn replica_that_was_killed_comes_back_and_a_root_is_replaced_at_either() -> Result<()> {
    let api = Api::named()?;
    let shop = api.namespace("shop", &[])?;
    account(&api, &shop)?;
    let installed = Installed::with(&api, &["trustDomain=prod.example"])?;
    let one = Replica::start(&api, &installed, "one", &shop.name).await?;
    let two = Replica::start(&api, &installed, "two", &shop.name).await?;
    let holder = Holder::new(&api, &two, "web", pod(&api, &shop, "web", "10.9.0.1")?)?;
    let before = holder.identity().await?;
    drop(one);
    two.operate(&["rotate", "prepare"])?;
    let one = Replica::start(&api, &installed, "one", &shop.name).await?;
    let status = |replica: &Replica| replica.operate(&["rotate", "status"]);
    ensure!(status(&one)?.contains("prepared"), "{}", status(&one)?);
    // Whoever holds an SVID says that it trusts both; each move waits for that.
    let moved = async |replica: &Replica, to: &str| {
        eventually(to, LIMIT, async || replica.operate(&["rotate", to]).map(|_| true)).await
    };
    moved(&one, "activate").await?;
    moved(&two, "retire").await?;
    let renewed = async || {
        let held = holder.store.load().context("the identity is gone")?;
        Ok(held.svid.leaf() != before.svid.leaf() && held.bundle.roots().len() == 1)
    };
    eventually("the SVID is of the new root, and the old one is forgotten", LIMIT, renewed).await?;
    ensure!(status(&one)? == status(&two)?, "{}\n{}", status(&one)?, status(&two)?);
    Ok(())
}

#[test]
#[ignore = "needs KUBECONFIG"]
fn roles_of_ca_and_controller_give_what_they_need_and_nothing_beside_it() -> Result<()> {
    let api = Api::named()?;
    let installed = Installed::with(&api, &["controller.services.clusterIP="])?;
    let system = &installed.namespace.name;
    let all = "--all-namespaces";
    let may = |who: &str, verb: &str, what: &str, place: &str| -> Result<bool> {
        let account = format!("--as=system:serviceaccount:{system}:{who}");
        let place = if place == all { place.to_owned() } else { format!("--namespace={place}") };
        // Its exit code is the answer as well.
        let args = ["auth", "can-i", verb, what, &account, &place];
        Ok(api.kubectl(&args).is_ok_and(|said| said.trim() == "yes"))
    };
    let segment = "secrets/myelin-ca-255";
    let head = format!("secrets/{HEAD}");
    let rights = [
        ("myelin-ca", "create", "tokenreviews.authentication.k8s.io", all, true),
        ("myelin-ca", "get", "pods", all, true),
        ("myelin-ca", "update", head.as_str(), system, true),
        ("myelin-ca", "watch", head.as_str(), system, true),
        ("myelin-ca", "update", segment, system, true),
        ("myelin-ca", "create", "secrets", system, true),
        ("myelin-ca", "watch", segment, system, false),
        ("myelin-ca", "get", "secrets/myelin-ca-256", system, false),
        ("myelin-ca", "get", "secrets/myelin-webhook", system, false),
        ("myelin-ca", "delete", head.as_str(), system, false),
        ("myelin-ca", "list", "secrets", system, false),
        ("myelin-ca", "get", head.as_str(), "default", false),
        ("myelin-ca", "list", "pods", all, false),
        ("myelin-ca", "create", "serviceaccounts/token", system, false),
        ("myelin-controller", "update", "secrets/myelin-webhook", system, true),
        ("myelin-controller", "patch", "mutatingwebhookconfigurations/myelin-injector", all, true),
        ("myelin-controller", "patch", "mutatingwebhookconfigurations/another", all, false),
        ("myelin-controller", "list", "configmaps/myelin-trust-bundle", all, true),
        ("myelin-controller", "list", "configmaps", all, false),
        ("myelin-controller", "create", "secrets", system, false),
        ("myelin-controller", "get", head.as_str(), system, false),
        ("myelin-controller", "list", "pods", all, false),
    ];
    let wrong = rights.iter().filter_map(|(who, verb, what, place, expected)| {
        let found = may(who, verb, what, place).ok()?;
        (found != *expected).then(|| format!("{who}: {verb} {what} in {place}: {found}"))
    });
    let wrong: Vec<String> = wrong.collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
