//! What follows from Services, EndpointSlices and Pods, and who is woken by a change of them.
//!
//! Never: a socket; the API server's words are values.

// SPDX-License-Identifier: Apache-2.0

mod elsewhere;
mod followed;

use std::net::SocketAddr;
use std::sync::Arc;

use myelin_identity::id::TrustDomain;
use myelin_identity::services::{EncodedService, EndpointView, ServiceView};
use serde_json::{Value, json};

use super::catalog::Catalog;
use super::hub::Hub;
use super::objects::{Node, Pod, Service, Slice};
use crate::cluster::{News, Read};

const WEB: &str = "10.96.0.80:80";
const WEB_V6: &str = "[fd00::80]:80";

fn domain() -> TrustDomain {
    TrustDomain::parse("td.example").unwrap()
}

fn read<T: Read>(object: Value) -> T {
    serde_json::from_value(object).unwrap()
}

fn gone<T>(object: &Value) -> News<T> {
    News::Gone(serde_json::from_value(object["metadata"].clone()).unwrap())
}

fn service(name: &str, addresses: &[&str]) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "shop", "resourceVersion": "1" },
        "spec": {
            "clusterIP": addresses.first(), "clusterIPs": addresses,
            "ports": [
                { "name": "http", "port": 80, "targetPort": "web" },
                { "name": "dns", "port": 53, "protocol": "UDP" },
                { "name": "metrics", "port": 9090, "protocol": "TCP" },
            ],
        },
    })
}

fn endpoint(address: &str, pod: &str, ready: Option<bool>, terminating: bool) -> Value {
    json!({
        "addresses": [address],
        "conditions": { "ready": ready, "serving": true, "terminating": terminating },
        "targetRef": { "kind": "Pod", "namespace": "shop", "name": pod },
        "nodeName": "node-1", "zone": "a",
    })
}

fn slice(name: &str, endpoints: &[Value]) -> Value {
    let is_v6 = endpoints.iter().any(|it| it["addresses"][0].as_str().unwrap().contains(':'));
    json!({
        "metadata": {
            "name": name, "namespace": "shop", "resourceVersion": "1",
            "labels": { "kubernetes.io/service-name": "web" },
        },
        "addressType": if is_v6 { "IPv6" } else { "IPv4" },
        "endpoints": endpoints,
        "ports": [
            { "name": "http", "port": 8080, "protocol": "TCP" },
            { "name": "dns", "port": 5353, "protocol": "UDP" },
        ],
    })
}

/// A pod at the address that `catalog` names for it.
fn pod(name: &str, account: &str, host_network: bool) -> Value {
    let addresses: &[&str] = match name {
        "first" => &["10.1.0.1", "fd00::1"],
        "second" => &["10.1.0.2"],
        "leaving" => &["10.1.0.3"],
        "starting" => &["10.1.0.4"],
        "unknown" => &["10.1.0.5"],
        "host" => &["10.9.0.1"],
        _ => &["10.1.0.99"],
    };
    let mut pod = pod_at(name, account, addresses);
    pod["spec"]["hostNetwork"] = json!(host_network);
    pod
}

fn pod_at(name: &str, account: &str, addresses: &[&str]) -> Value {
    let ips: Vec<Value> = addresses.iter().map(|address| json!({ "ip": address })).collect();
    json!({
        "metadata": {
            "name": name, "namespace": "shop", "resourceVersion": "1",
            "annotations": { "large": "x".repeat(1_000) },
        },
        "spec": {
            "serviceAccountName": account, "nodeName": "node-1",
            "containers": [{ "name": "web" }],
        },
        "status": { "podIPs": ips, "phase": "Running" },
    })
}

/// A service with a pod of each kind behind it.
fn catalog() -> Catalog {
    let mut catalog = Catalog::new(domain());
    let services = [service("web", &["10.96.0.80", "fd00::80"]), service("headless", &["None"])];
    catalog.services(News::All(services.into_iter().map(read).collect()));
    let endpoints = [
        endpoint("10.1.0.3", "leaving", Some(false), true),
        endpoint("10.1.0.2", "second", None, false),
        endpoint("10.1.0.1", "first", Some(true), false),
        endpoint("10.1.0.4", "starting", Some(false), false),
        endpoint("10.9.0.1", "host", Some(true), false),
        endpoint("10.1.0.5", "unknown", Some(true), false),
        json!({ "addresses": ["10.9.9.9"], "conditions": { "ready": true } }),
    ];
    let slices = [
        slice("web-1", &endpoints),
        // An endpoint that moves from slice to slice is in both.
        slice("web-2", &[endpoint("10.1.0.1", "first", Some(true), false)]),
        slice("web-6", &[endpoint("fd00::1", "first", Some(true), false)]),
    ];
    catalog.slices(News::All(slices.into_iter().map(read).collect()));
    let pods = [
        pod("first", "web", false),
        pod("second", "", false),
        pod("leaving", "web", false),
        pod("starting", "web", false),
        pod("host", "web", true),
    ];
    catalog.pods(News::All(pods.into_iter().map(read).collect()));
    catalog
}

fn place(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn shown(view: Option<&ServiceView>) -> Vec<String> {
    let show = |it: &EndpointView| {
        let account = it.id.service_account().unwrap();
        format!("{} {account}{}", it.address, if it.terminating { " leaves" } else { "" })
    };
    view.map_or_else(
        || vec!["no service".to_owned()],
        |view| view.endpoints.iter().map(show).collect(),
    )
}

#[test]
fn a_services_endpoints_are_those_that_serve_and_have_an_identity() {
    let catalog = catalog();
    let web = catalog.view(place(WEB)).unwrap();
    let expected = ["10.1.0.1:8080 web", "10.1.0.2:8080 default", "10.1.0.3:8080 web leaves"];
    assert_eq!(shown(Some(&web)), expected);
    assert_eq!((web.name.as_str(), web.unmeshed), ("shop/web", 3));
    assert!(web.endpoints.iter().all(|it| it.zone.as_deref() == Some("a")));
    assert_eq!(shown(catalog.view(place(WEB_V6)).as_ref()), ["[fd00::1]:8080 web"]);
    // A port that no slice has, one that is not TCP, one that is none.
    assert!(shown(catalog.view(place("10.96.0.80:9090")).as_ref()).is_empty());
    for nobody in ["10.96.0.80:53", "10.96.0.80:81", "10.1.0.1:8080"] {
        assert_eq!(shown(catalog.view(place(nobody)).as_ref()), ["no service"], "{nobody}");
    }
}

/// The API server takes these from whoever may write slices.
#[test]
fn a_slice_that_nobody_can_mean_costs_only_itself() {
    let mut catalog = catalog();
    for port in [-1_i64, 0, 70_000] {
        let mut hostile = slice("web-1", &[endpoint("10.1.0.1", "first", Some(true), false)]);
        hostile["ports"][0]["port"] = json!(port);
        catalog.slices(News::Now(read(hostile)));
        let web = catalog.view(place(WEB)).unwrap();
        assert!(web.endpoints.iter().all(|it| it.address.port() == 8080), "{port}");
        assert_eq!(shown(catalog.view(place(WEB_V6)).as_ref()), ["[fd00::1]:8080 web"]);
    }
    let mut hostile = slice("web-1", &[endpoint("10.1.0.2", "second", Some(true), false)]);
    hostile["endpoints"][0]["zone"] = json!("z".repeat(64));
    catalog.slices(News::Now(read(hostile)));
    let web = catalog.view(place(WEB)).unwrap();
    let second = web.endpoints.iter().find(|it| it.address.to_string() == "10.1.0.2:8080");
    assert_eq!(second.unwrap().zone, None);
}

#[test]
fn news_touch_the_addresses_that_they_concern_and_no_others() {
    let mut catalog = catalog();
    let both: super::catalog::Touched = [place(WEB).ip(), place(WEB_V6).ip()].into();
    let none = super::catalog::Touched::new();
    // The same pod again says nothing new.
    assert_eq!(catalog.pods(News::Now(read(pod("first", "web", false)))), none);
    assert_eq!(catalog.pods(News::Now(read(pod("elsewhere", "web", false)))), none);
    assert_eq!(catalog.pods(News::Now(read(pod("unknown", "web", false)))), both);
    assert!(shown(catalog.view(place(WEB)).as_ref()).contains(&"10.1.0.5:8080 web".to_owned()));
    assert_eq!(catalog.pods(gone(&pod("unknown", "web", false))), both);
    assert_eq!(catalog.slices(gone(&slice("web-6", &[]))), both);
    assert!(shown(catalog.view(place(WEB_V6)).as_ref()).is_empty());
    assert_eq!(catalog.services(News::Now(read(service("other", &["10.96.0.81"])))).len(), 1);
    // Its address goes to another service.
    assert_eq!(catalog.services(gone(&service("web", &[]))), both);
    assert_eq!(shown(catalog.view(place(WEB)).as_ref()), ["no service"]);
    catalog.services(News::Now(read(service("next", &["10.96.0.80"]))));
    assert_eq!(catalog.view(place(WEB)).unwrap().name, "shop/next");
}

#[test]
fn a_list_replaces_what_was_known() {
    let mut catalog = catalog();
    assert_eq!(catalog.slices(News::All(Vec::new())).len(), 2);
    assert!(shown(catalog.view(place(WEB)).as_ref()).is_empty());
    assert_eq!(catalog.services(News::All(Vec::new())).len(), 2);
    assert_eq!(shown(catalog.view(place(WEB)).as_ref()), ["no service"]);
}

#[test]
fn a_callers_zone_is_its_nodes() {
    let mut catalog = catalog();
    let node = |zone: &str| -> Node {
        let labels = json!({ "topology.kubernetes.io/zone": zone });
        read(json!({ "metadata": { "name": "node-1", "labels": labels } }))
    };
    let at =
        |catalog: &Catalog| catalog.zone(&["10.1.0.1".parse().unwrap()]).map(ToString::to_string);
    assert_eq!(at(&catalog), None);
    catalog.nodes(News::Now(node("a")));
    assert_eq!(at(&catalog).as_deref(), Some("a"));
    assert_eq!(catalog.zone(&["10.7.7.7".parse().unwrap()]), None);
    catalog.nodes(News::Gone(node("a").metadata));
    assert_eq!(at(&catalog), None);
}

#[test]
fn whoever_watches_a_place_is_woken_by_its_changes_and_by_no_others() {
    let hub = Hub::new(domain());
    assert!(!hub.is_complete());
    hub.services(News::All(vec![read(service("web", &["10.96.0.80"]))]));
    hub.slices(News::All(Vec::new()));
    assert!(!hub.is_complete(), "before pods were listed");
    hub.pods(News::All(vec![read(pod("first", "web", false))]));
    assert!(hub.is_complete());
    let (mut one, mut other) = (hub.join(&[]), hub.join(&[]));
    one.watch(place(WEB));
    other.watch(place("10.96.0.99:80"));
    assert!(one.now(place(WEB)).is_some() && other.now(place("10.96.0.99:80")).is_none());
    let ready =
        || read::<Slice>(slice("web-1", &[endpoint("10.1.0.1", "first", Some(true), false)]));
    hub.slices(News::Now(ready()));
    assert_eq!(one.mailbox.take().touched.into_iter().collect::<Vec<_>>(), [place(WEB)]);
    // The same once more is no news.
    hub.slices(News::Now(ready()));
    assert!(one.mailbox.take().touched.is_empty());
    hub.services(News::Now(read(service("late", &["10.96.0.99"]))));
    assert_eq!(other.mailbox.take().touched.len(), 1);
    assert!(other.now(place("10.96.0.99:80")).is_some() && one.mailbox.take().touched.is_empty());
    one.forget(place(WEB));
    hub.slices(News::All(Vec::new()));
    assert!(one.mailbox.take().touched.is_empty());
    assert!(one.now(place(WEB)).is_none(), "nobody watches it");
}

fn version(hub: &Arc<Hub>, at: &str) -> Option<String> {
    let mut stream = hub.join(&[]);
    stream.watch(place(at));
    stream.now(place(at)).as_ref().map(EncodedService::version).map(|it| format!("{it:?}"))
}

fn fed() -> Arc<Hub> {
    let hub = Hub::new(domain());
    let endpoints =
        ["10.1.0.1", "10.1.0.2"].map(|address| endpoint(address, "first", Some(true), false));
    hub.pods(News::All(vec![read::<Pod>(pod_at("first", "web", &["10.1.0.1", "10.1.0.2"]))]));
    hub.slices(News::All(
        endpoints
            .iter()
            .enumerate()
            .map(|(index, endpoint)| {
                read(slice(&format!("web-{index}"), std::slice::from_ref(endpoint)))
            })
            .collect(),
    ));
    hub.services(News::All(vec![read::<Service>(service("web", &["10.96.0.80"]))]));
    hub
}

#[test]
fn two_controllers_give_one_state_one_version() {
    let (one, other) = (fed(), Hub::new(domain()));
    // The same in another order, and in one slice.
    other.services(News::All(vec![read(service("web", &["10.96.0.80"]))]));
    let endpoints =
        ["10.1.0.2", "10.1.0.1"].map(|address| endpoint(address, "first", Some(true), false));
    other.slices(News::Now(read(slice("web-9", &endpoints))));
    other.pods(News::Now(read(pod_at("first", "web", &["10.1.0.1", "10.1.0.2"]))));
    assert!(version(&one, WEB).is_some());
    assert_eq!(version(&one, WEB), version(&other, WEB));
    assert_eq!(version(&one, "10.96.0.99:80"), None);
}
