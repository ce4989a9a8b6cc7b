//! The chart as a cluster takes it: judged by the API server, installed, changed, taken away, and installed
//! again over what stayed.
//!
//! Never: waits for pods; nobody runs them.

// SPDX-License-Identifier: Apache-2.0

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::api::Api;
use crate::installed::{Installed, chart, documents, flags, folder};

/// Each of these is a cluster that somebody has.
const VALUES: [&str; 4] =
    ["values.yaml", "values-ha.yaml", "ci/everything.yaml", "ci/nothing.yaml"];

/// What other projects define, and a cluster may lack.
const FOREIGN: &str = "monitoring.coreos.com/";

#[test]
#[ignore = "needs KUBECONFIG"]
fn every_object_of_every_set_of_values_is_taken_by_the_api_server() -> Result<()> {
    let api = Api::named()?;
    let installed = Installed::nothing_yet(&api)?;
    let (namespace, place) = (&installed.namespace.name, chart());
    for values in VALUES {
        let file = folder("deploy/chart").join(values).display().to_string();
        let template = ["template", "myelin", &place, "--namespace", namespace, "--values", &file];
        let objects = documents(&api.helm(&[&template[..], &flags(&[])].concat())?)?;
        ensure!(objects.len() > 10, "{values}: {} objects", objects.len());
        let mut wrong = Vec::new();
        for mut object in objects {
            if object["apiVersion"].as_str().unwrap_or_default().starts_with(FOREIGN) {
                continue;
            }
            // An address is of the cluster's own range, which nobody tells.
            if object["kind"] == "Service" && object["spec"]["clusterIP"] != "None" {
                object["spec"]["clusterIP"].take();
            }
            // Strictly: a field that the server does not know is an error.
            let dry = ["create", "--dry-run=server", "--validate=strict", "-f=-", "-o=json"];
            match api.kubectl_with(&dry, &object.to_string()) {
                Ok(taken) => kept(&object, &serde_json::from_str(&taken)?, "", &mut wrong),
                Err(why) => wrong.push(format!("{} {}: {why:#}", object["kind"], named(&object))),
            }
        }
        ensure!(wrong.is_empty(), "{values}: {}", wrong.join("\n"));
    }
    Ok(())
}

#[test]
#[ignore = "needs KUBECONFIG"]
fn release_is_installed_changed_and_taken_away_and_what_stays_is_what_the_documents_name()
-> Result<()> {
    let api = Api::named()?;
    let mut release = Installed::with(&api, &["ca.namespaces={shop}"])?;
    is_as_sent(&api, &release)?;
    let secret = |name: &str| -> Result<Value> {
        api.read(&format!("/api/v1/namespaces/{}/secrets/{name}", release.namespace.name))
    };
    let seal_key = secret("myelin-ca-seal-key")?["data"]["seal.key"].clone();
    ensure!(seal_key.as_str().is_some_and(|key| key.len() == 44), "32 bytes in base64");

    // What others have written into it by now: an upgrade leaves that alone.
    let told = r#"[{"op":"add","path":"/webhooks/0/clientConfig/caBundle","value":"dG9sZA=="}]"#;
    let registration = ["mutatingwebhookconfiguration", "myelin-injector"];
    api.kubectl(&[&["patch"], &registration[..], &["--type=json", "-p", told]].concat())?;
    let kept_data = r#"{"data":{"tls.crt":"a2VwdA=="}}"#;
    release.namespace.kubectl(&[
        "patch",
        "secret",
        "myelin-webhook",
        "--type=merge",
        "-p",
        kept_data,
    ])?;

    release.upgrade(&[
        "ca.replicas=3",
        "ca.namespaces={shop,billing}",
        "controller.revision=canary",
    ])?;
    is_as_sent(&api, &release)?;
    let found = |path: &str| {
        api.read(&format!("/apis/apps/v1/namespaces/{}/{path}", release.namespace.name))
    };
    ensure!(
        found("statefulsets/myelin-ca")?["spec"]["replicas"] == 3,
        "the upgrade changed nothing"
    );
    ensure!(secret("myelin-ca-seal-key")?["data"]["seal.key"] == seal_key, "another seal key");
    let bundle = "--output=jsonpath={.webhooks[0].clientConfig.caBundle}";
    let bundle = api.kubectl(&[&["get"], &registration[..], &[bundle]].concat())?;
    ensure!(bundle == "dG9sZA==", "caBundle is {bundle:?}");
    ensure!(secret("myelin-webhook")?["data"]["tls.crt"] == "a2VwdA==", "the certificate is gone");

    release.uninstall()?;
    ensure!(release.objects()? == ["secret/myelin-ca-seal-key"], "{:?}", release.objects()?);

    // What stayed is taken up by the next one.
    let release = release.again(&[])?;
    let path = format!("/api/v1/namespaces/{}/secrets/myelin-ca-seal-key", release.namespace.name);
    ensure!(api.read(&path)?["data"]["seal.key"] == seal_key, "another seal key");
    Ok(())
}

/// Every object that helm sent is there with all that was sent of it.
fn is_as_sent(api: &Api, release: &Installed<'_>) -> Result<()> {
    let mut wrong = Vec::new();
    let sent = release.manifest()?;
    ensure!(sent.len() > 10, "{} objects", sent.len());
    for object in &sent {
        let kind = object["kind"].as_str().context("no kind")?;
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
        let asked = ["get", kind, named(object), "--namespace", namespace, "--output=json"];
        kept(object, &serde_json::from_str(&api.kubectl(&asked)?)?, "", &mut wrong);
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Names what of `sent` is not in `found`: what the server did not know, or thought better of.
fn kept(sent: &Value, found: &Value, at: &str, wrong: &mut Vec<String>) {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    match (sent, found) {
        (sent, found) if sent == found || (empty(sent) && empty(found)) => {}
        (Value::Object(fields), Value::Object(_)) => {
            for (name, value) in fields {
                kept(value, &found[name], &format!("{at}/{name}"), wrong);
            }
        }
        (Value::Array(items), Value::Array(others)) if items.len() == others.len() => {
            for (index, (item, other)) in items.iter().zip(others).enumerate() {
                kept(item, other, &format!("{at}/{index}"), wrong);
            }
        }
        _ => wrong.push(format!("{at}: sent {sent}, there is {found}")),
    }
}

fn named(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}
