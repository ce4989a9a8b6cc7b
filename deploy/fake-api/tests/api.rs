//! What the fake promises, over HTTP: that tests which stand on it stand on something.
//!
//! Never: a client library; requests are written as they go over the wire.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use myelin_fake_api::{FakeApi, Fault, PodToken, Resource, Rule, Trouble};
use serde_json::{Value, json};
use tokio::net::TcpStream;

const SECRETS: &str = "/api/v1/namespaces/shop/secrets";
const MERGE: &str = "application/merge-patch+json";

async fn send(
    api: &FakeApi,
    method: &str,
    path: &str,
    media: &str,
    body: &Value,
) -> Result<Response<Incoming>, hyper::Error> {
    let stream = TcpStream::connect(api.address()).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let request = Request::builder().method(method).uri(path).header("host", "fake");
    let request = request.header("content-type", media).header("accept", media);
    sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap()).await
}

async fn asked(api: &FakeApi, method: &str, path: &str, body: Value) -> (u16, Value) {
    let response = send(api, method, path, "application/json", &body).await.unwrap();
    read(response).await
}

async fn read(response: Response<Incoming>) -> (u16, Value) {
    let code = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap())
}

fn secret(name: &str, value: &str) -> Value {
    json!({"metadata": {"name": name}, "stringData": {"a": value}})
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// Events of a watch, line by line.
struct Watch(Incoming, Vec<u8>);

impl Watch {
    async fn start(api: &FakeApi, path: &str) -> Self {
        let response = send(api, "GET", path, "application/json", &Value::Null).await.unwrap();
        assert_eq!(response.status().as_u16(), 200);
        Self(response.into_body(), Vec::new())
    }

    /// None: it has ended. An error: it was cut.
    async fn next(&mut self) -> Result<Option<(String, Value)>, hyper::Error> {
        loop {
            if let Some(end) = self.1.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.1.drain(..=end).collect();
                let mut event: Value = serde_json::from_slice(&line).unwrap();
                let kind = event["type"].as_str().unwrap().to_owned();
                return Ok(Some((kind, event["object"].take())));
            }
            let frame = tokio::time::timeout(Duration::from_secs(10), self.0.frame()).await;
            match frame.expect("an event in time") {
                Some(frame) => self.1.extend(frame?.into_data().unwrap()),
                None => return Ok(None),
            }
        }
    }

    async fn event(&mut self) -> (String, Value) {
        self.next().await.unwrap().expect("the watch goes on")
    }
}

#[tokio::test]
async fn objects_are_made_read_replaced_patched_and_deleted_with_a_version_each_time() {
    let api = FakeApi::start().await.unwrap();
    let one = format!("{SECRETS}/one");
    let (code, made) = asked(&api, "POST", SECRETS, secret("one", "1")).await;
    assert_eq!(
        (code, made["kind"].as_str(), made["data"]["a"].as_str()),
        (201, Some("Secret"), Some("MQ=="))
    );
    let (code, status) = asked(&api, "POST", SECRETS, secret("one", "1")).await;
    assert_eq!((code, status["reason"].as_str()), (409, Some("AlreadyExists")));
    let mut changed = made.clone();
    changed["data"]["a"] = json!("Mg==");
    let (code, second) = asked(&api, "PUT", &one, changed.clone()).await;
    assert_eq!(code, 200);
    assert!(version(&second) > version(&made));
    // The same again is based on what is no more.
    changed["data"]["a"] = json!("Mw==");
    let (code, status) = asked(&api, "PUT", &one, changed).await;
    assert_eq!(
        (code, status["reason"].as_str(), status["kind"].as_str()),
        (409, Some("Conflict"), Some("Status"))
    );
    // What changes nothing has no new version.
    let (_, same) = asked(&api, "PUT", &one, second.clone()).await;
    assert_eq!(version(&same), version(&second));
    let patch = json!({"metadata": {"labels": {"x": "y"}}});
    let patched = send(&api, "PATCH", &one, MERGE, &patch).await.unwrap();
    let (code, patched) = read(patched).await;
    assert_eq!((code, patched["metadata"]["labels"]["x"].as_str()), (200, Some("y")));
    let (code, _) = asked(&api, "DELETE", &one, Value::Null).await;
    assert_eq!(code, 200);
    for method in ["GET", "DELETE"] {
        let (code, status) = asked(&api, method, &one, Value::Null).await;
        assert_eq!((code, status["reason"].as_str()), (404, Some("NotFound")));
    }
    let (code, _) = asked(&api, "PUT", &one, patched).await;
    assert_eq!(code, 404);
}

#[tokio::test]
async fn generated_names_differ_and_wrong_names_and_sizes_are_refused() {
    let api = FakeApi::start().await.unwrap();
    let generated = json!({"metadata": {"generateName": "web-"}});
    let (_, one) = asked(&api, "POST", SECRETS, generated.clone()).await;
    let (_, two) = asked(&api, "POST", SECRETS, generated).await;
    assert_ne!(one["metadata"]["name"], two["metadata"]["name"]);
    assert!(one["metadata"]["name"].as_str().unwrap().starts_with("web-"));
    let whole = "x".repeat(1024 * 1024);
    let (code, _) = asked(&api, "POST", SECRETS, secret("whole", &whole)).await;
    assert_eq!(code, 201);
    let (code, _) = asked(&api, "POST", SECRETS, secret("more", &format!("{whole}x"))).await;
    assert_eq!(code, 422);
    let maps = "/api/v1/namespaces/shop/configmaps";
    let map = json!({"metadata": {"name": "m"}, "data": {"a": "x".repeat(1600 * 1024)}});
    assert_eq!(asked(&api, "POST", maps, map).await.0, 413);
    for (path, body, expected) in [
        (SECRETS, json!({"metadata": {}}), 422),
        (SECRETS, json!({"metadata": {"name": "a", "namespace": "b"}}), 400),
        ("/api/v1", json!({}), 404),
    ] {
        assert_eq!(asked(&api, "POST", path, body).await.0, expected);
    }
}

#[tokio::test]
async fn status_is_written_through_its_subresource_only_and_finalizers_delay_the_end() {
    let api = FakeApi::start().await.unwrap();
    let pods = "/api/v1/namespaces/shop/pods";
    let pod = json!({
        "metadata": {"name": "a", "finalizers": ["x/y"]}, "status": {"phase": "Running"},
    });
    let (_, made) = asked(&api, "POST", pods, pod).await;
    assert!(made["status"].is_null());
    let one = format!("{pods}/a");
    let status = json!({"status": {"phase": "Running"}});
    let patched = send(&api, "PATCH", &format!("{one}/status"), MERGE, &status).await.unwrap();
    assert_eq!(read(patched).await.1["status"]["phase"], "Running");
    let other = json!({"status": {"phase": "Failed"}, "spec": {"nodeName": "n"}});
    let (_, patched) = read(send(&api, "PATCH", &one, MERGE, &other).await.unwrap()).await;
    assert_eq!(
        (patched["status"]["phase"].as_str(), patched["spec"]["nodeName"].as_str()),
        (Some("Running"), Some("n"))
    );
    asked(&api, "DELETE", &one, Value::Null).await;
    let (code, dying) = asked(&api, "GET", &one, Value::Null).await;
    assert_eq!(code, 200);
    assert!(dying["metadata"]["deletionTimestamp"].is_string());
    let last = json!({"metadata": {"finalizers": null}});
    send(&api, "PATCH", &one, MERGE, &last).await.unwrap();
    assert_eq!(asked(&api, "GET", &one, Value::Null).await.0, 404);
}

#[tokio::test]
async fn pages_of_a_list_show_one_moment_and_are_too_old_once_it_is_forgotten() {
    let api = FakeApi::start().await.unwrap();
    let configs = Resource::core("configmaps");
    for name in ["a", "b", "c"] {
        api.put(&configs, json!({"metadata": {"name": name, "namespace": "shop"}}));
    }
    let path = "/api/v1/configmaps?limit=2";
    let (_, page) = asked(&api, "GET", path, Value::Null).await;
    let names = |page: &Value| {
        let items = page["items"].as_array().unwrap();
        items
            .iter()
            .map(|it| it["metadata"]["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (names(&page).as_slice(), page["kind"].as_str()),
        (["a", "b"].map(str::to_owned).as_slice(), Some("ConfigMapList"))
    );
    api.put(&configs, json!({"metadata": {"name": "d", "namespace": "shop"}}));
    let next = format!("{path}&continue={}", page["metadata"]["continue"].as_str().unwrap());
    let (_, rest) = asked(&api, "GET", &next, Value::Null).await;
    assert_eq!(names(&rest), ["c"]);
    assert_eq!(version(&rest), version(&page));
    let (_, page) = asked(&api, "GET", path, Value::Null).await;
    api.forget_history();
    let next = format!("{path}&continue={}", page["metadata"]["continue"].as_str().unwrap());
    let (code, status) = asked(&api, "GET", &next, Value::Null).await;
    assert_eq!((code, status["reason"].as_str()), (410, Some("Expired")));
}

#[tokio::test]
async fn watch_tells_what_happens_from_a_version_on_within_its_selectors() {
    let api = FakeApi::start().await.unwrap();
    let (_, made) = asked(&api, "POST", SECRETS, secret("one", "1")).await;
    let before = version(&made);
    let labelled = |app: &str| json!({"metadata": {"labels": {"app": app}}});
    let one = format!("{SECRETS}/one");
    for app in ["web", "db"] {
        send(&api, "PATCH", &one, MERGE, &labelled(app)).await.unwrap();
    }
    let path = format!("{SECRETS}?watch=true&resourceVersion={before}");
    let mut all = Watch::start(&api, &path).await;
    let mut web = Watch::start(&api, &format!("{path}&labelSelector=app%3Dweb")).await;
    for app in ["web", "db"] {
        let (kind, object) = all.event().await;
        assert_eq!(
            (kind.as_str(), object["metadata"]["labels"]["app"].as_str()),
            ("MODIFIED", Some(app))
        );
    }
    assert_eq!(web.event().await.0, "ADDED");
    assert_eq!(web.event().await.0, "DELETED");
    api.remove(&Resource::core("secrets"), "shop", "one");
    let (kind, object) = all.event().await;
    assert_eq!((kind.as_str(), version(&object)), ("DELETED", api.version()));
    // Without a version it begins with what there is.
    asked(&api, "POST", SECRETS, secret("two", "2")).await;
    let mut now = Watch::start(&api, &format!("{SECRETS}?watch=1&allowWatchBookmarks=true")).await;
    assert_eq!(now.event().await.0, "ADDED");
    api.bookmark();
    let (kind, object) = now.event().await;
    assert_eq!((kind.as_str(), version(&object)), ("BOOKMARK", api.version()));
}

#[tokio::test]
async fn watch_that_is_too_old_is_told_410_and_a_cut_one_breaks() {
    let api = FakeApi::start().await.unwrap();
    let (_, made) = asked(&api, "POST", SECRETS, secret("one", "1")).await;
    asked(&api, "POST", SECRETS, secret("two", "1")).await;
    api.forget_history();
    let path = format!("{SECRETS}?watch=true&resourceVersion={}", version(&made));
    let mut watch = Watch::start(&api, &path).await;
    let (kind, status) = watch.event().await;
    assert_eq!(
        (kind.as_str(), status["code"].as_u64(), status["reason"].as_str()),
        ("ERROR", Some(410), Some("Expired"))
    );
    assert!(watch.next().await.unwrap().is_none());
    api.too_old_is_a_status(true);
    assert_eq!(asked(&api, "GET", &path, Value::Null).await.0, 410);
    let now = format!("{SECRETS}?watch=true&resourceVersion={}", api.version());
    let mut watch = Watch::start(&api, &now).await;
    api.disconnect_watches();
    assert!(watch.next().await.is_err());
    let over = format!("{now}&timeoutSeconds=0");
    assert!(Watch::start(&api, &over).await.next().await.unwrap().is_none());
}

#[tokio::test]
async fn trouble_comes_as_ordered_and_lost_answers_were_done() {
    let api = FakeApi::start().await.unwrap();
    api.trouble(Trouble::next(2, Fault::Answer(429)).on("POST"));
    for _ in 0..2 {
        let (code, status) = asked(&api, "POST", SECRETS, secret("one", "1")).await;
        assert_eq!((code, status["reason"].as_str()), (429, Some("TooManyRequests")));
    }
    api.trouble(Trouble::next(1, Fault::LoseAnswer).on("POST"));
    let post = async |name: &str| {
        send(&api, "POST", SECRETS, "application/json", &secret(name, "1")).await
    };
    assert!(post("one").await.is_err());
    assert_eq!(asked(&api, "GET", &format!("{SECRETS}/one"), Value::Null).await.0, 200);
    api.trouble(Trouble::next(1, Fault::Drop).at("/secrets"));
    assert!(post("two").await.is_err());
    assert_eq!(asked(&api, "GET", &format!("{SECRETS}/two"), Value::Null).await.0, 404);
    api.vanish_after(1);
    assert!(post("two").await.is_ok());
    assert!(post("three").await.is_err());
    assert!(post("four").await.is_err());
    api.heal();
    assert_eq!(asked(&api, "POST", SECRETS, secret("three", "1")).await.0, 201);
    assert_eq!(api.requests().len(), 10);
}

#[tokio::test]
async fn tokens_are_genuine_for_their_audience_while_their_pod_is_there() {
    let api = FakeApi::start().await.unwrap();
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let reviewed = async |text: &str, audience: &str| {
        let review = json!({"spec": {"token": text, "audiences": [audience]}});
        asked(&api, "POST", reviews, review).await.1["status"].clone()
    };
    let pods = Resource::core("pods");
    let pod = json!({"metadata": {"name": "web-1", "namespace": "shop"}});
    let uid = api.put(&pods, pod)["metadata"]["uid"].as_str().unwrap().to_owned();
    api.allow_token(
        "good",
        PodToken {
            audiences: vec!["ours".to_owned()],
            namespace: "shop".to_owned(),
            service_account: "web".to_owned(),
            pod: Some(("web-1".to_owned(), uid.clone())),
            ..PodToken::default()
        },
    );
    let status = reviewed("good", "ours").await;
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["user"]["username"], "system:serviceaccount:shop:web");
    assert_eq!(status["user"]["extra"]["authentication.kubernetes.io/pod-uid"], json!([uid]));
    for (text, audience) in [("good", "theirs"), ("bad", "ours")] {
        assert_eq!(reviewed(text, audience).await["authenticated"], false, "{text} {audience}");
    }
    let request =
        json!({"spec": {"audiences": ["ours"], "boundObjectRef": {"name": "web-1", "uid": uid}}});
    let path = "/api/v1/namespaces/shop/serviceaccounts/web/token";
    let (_, made) = asked(&api, "POST", path, request).await;
    let made = made["status"]["token"].as_str().unwrap().to_owned();
    assert_eq!(reviewed(&made, "ours").await["authenticated"], true);
    api.remove(&pods, "shop", "web-1");
    for text in ["good", &made] {
        assert_eq!(reviewed(text, "ours").await["authenticated"], false);
    }
}

#[tokio::test]
async fn only_what_a_rule_allows_is_answered() {
    let api = FakeApi::start().await.unwrap();
    api.allow_only(vec![
        Rule::new("", "secrets", &["get", "watch"], &["one"]),
        Rule::new("", "secrets", &["create"], &[]),
    ]);
    let one = format!("{SECRETS}/one");
    assert_eq!(asked(&api, "POST", SECRETS, secret("one", "1")).await.0, 201);
    assert_eq!(asked(&api, "GET", &one, Value::Null).await.0, 200);
    let named = format!("{SECRETS}?watch=1&fieldSelector=metadata.name%3Done");
    assert_eq!(Watch::start(&api, &named).await.event().await.0, "ADDED");
    for (method, path) in
        [("DELETE", one.as_str()), ("GET", SECRETS), ("GET", &format!("{SECRETS}?watch=1"))]
    {
        let (code, status) = asked(&api, method, path, Value::Null).await;
        assert_eq!((code, status["reason"].as_str()), (403, Some("Forbidden")), "{method} {path}");
    }
}
