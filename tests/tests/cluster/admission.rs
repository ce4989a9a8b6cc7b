//! The controller at a real API server: its certificate and registration, the API server's own questions to
//! its webhook, and the bundle's ConfigMap, all under the service account and the roles of the chart.
//!
//! The chart's registration leads to a Service behind which there is no pod. So a second one stands beside it for
//! the namespaces of the test: the same webhooks, by the address of this machine (`front`).
//!
//! Never: a review that the test wrote.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use myelin_tests::binaries;
use myelin_tests::programs::{LIMIT, eventually};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};

use crate::api::{Api, Namespace};
use crate::front::{Front, own_address};
use crate::installed::Installed;
use crate::programs::Program;

const REGISTRATIONS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
/// Of the namespaces whose pods the second registration is about.
const LABEL: &str = "myelin.dev/suite";

/// A controller beside the test.
struct Controller {
    program: Program,
    webhook: SocketAddr,
    bundle: String,
}

impl Controller {
    /// With the chart's own file, but for addresses and paths.
    async fn start(api: &Api, installed: &Installed<'_>) -> Result<Self> {
        let namespace = &installed.namespace.name;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let bundle = params.self_signed(&KeyPair::generate()?)?.pem();
        let file = |name: &str| api.dir().join(name).display().to_string();
        std::fs::write(file("bundle.pem"), &bundle)?;
        let map = format!("/api/v1/namespaces/{namespace}/configmaps/myelin-controller");
        let told = api.read(&map)?;
        let told = told["data"]["controller.toml"].as_str().context("no controller.toml")?;
        let told = told
            .replace("/etc/myelin-bundle/bundle.pem", &file("bundle.pem"))
            .replace("[::]:15443", "127.0.0.1:0")
            .replace("[::]:15022", "127.0.0.1:0");
        std::fs::write(file("controller.toml"), told)?;
        let mut command = Command::new(binaries::controller()?);
        command.args(["run", "--config", &file("controller.toml"), "--kubeconfig"]);
        command.arg(api.as_account(namespace, "myelin-controller")?);
        let program = Program::start(&mut command)?;
        let line: Value = serde_json::from_str(&program.says("\"listening\"").await?)?;
        let webhook = line["webhook"].as_str().context("no address of its webhook")?.parse()?;
        Ok(Self { program, webhook, bundle })
    }

    /// What it had registered as `caBundle`, in all of its webhooks.
    async fn registered(&self, api: &Api) -> Result<(Value, Vec<u8>)> {
        let path = format!("{REGISTRATIONS}/myelin-injector");
        let mut found = Value::Null;
        let told = eventually("the API server is told by what to believe it", LIMIT, async || {
            found = api.read(&path)?;
            let all = found["webhooks"].as_array().context("no webhooks")?;
            Ok(all.iter().all(|webhook| webhook["clientConfig"]["caBundle"].is_string()))
        });
        told.await.with_context(|| self.program.last_words())?;
        let bundle = found["webhooks"][0]["clientConfig"]["caBundle"].as_str();
        let bundle = BASE64_STANDARD.decode(bundle.context("no caBundle")?)?;
        Ok((found, bundle))
    }
}

/// A registration that goes with the test.
struct Registered<'a>(&'a Api, String);

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let _ = self.0.kubectl(&["delete", "mutatingwebhookconfiguration", &self.1]);
    }
}

/// The chart's webhooks once more, by the address of `front`, for namespaces with the label of this test.
fn second<'a>(api: &'a Api, first: &Value, front: &Front, test: &str) -> Result<Registered<'a>> {
    let mut webhooks = first["webhooks"].clone();
    for webhook in webhooks.as_array_mut().context("no webhooks")? {
        let url = format!("https://{}/inject", front.at);
        webhook["clientConfig"] =
            json!({ "url": url, "caBundle": BASE64_STANDARD.encode(&front.pem) });
        webhook["namespaceSelector"] = json!({ "matchLabels": { LABEL: test } });
    }
    let name = format!("myelin-suite-{test}");
    api.create(&[json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": { "name": name }, "webhooks": webhooks,
    })])?;
    Ok(Registered(api, name))
}

fn pod(namespace: &str, name: &str, metadata: &Value) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {
            "automountServiceAccountToken": false, "serviceAccountName": "web",
            "containers": [{
                "name": "app", "image": "nobody-pulls-it",
                "readinessProbe": { "httpGet": { "path": "/healthz", "port": 8080 } },
            }],
        },
    });
    pod["metadata"]["name"] = json!(name);
    pod["metadata"]["namespace"] = json!(namespace);
    pod
}

fn account(api: &Api, namespace: &Namespace<'_>) -> Result<()> {
    let metadata = json!({ "name": "web", "namespace": namespace.name });
    api.create(&[json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata })])
}

fn names(pod: &Value, list: &str) -> Vec<String> {
    let all = pod["spec"][list].as_array().into_iter().flatten();
    all.filter_map(|it| it["name"].as_str().map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs KUBECONFIG"]
async fn api_server_asks_the_webhook_and_pods_are_meshed_left_alone_or_refused() -> Result<()> {
    let api = Api::named()?;
    let installed = Installed::with(&api, &[])?;
    let shop = api.namespace("shop", &[])?;
    shop.kubectl(&["label", "namespace", &shop.name, &format!("{LABEL}={}", shop.name)])?;
    account(&api, &shop)?;
    let controller = Controller::start(&api, &installed).await?;
    let (first, bundle) = controller.registered(&api).await?;
    let name = format!("myelin-controller.{}.svc", installed.namespace.name);
    let on = own_address(&api.url()?)?;
    let front = Front::serve(on, controller.webhook, &name, &bundle).await?;
    let _second = second(&api, &first, &front, &shop.name)?;

    let dry = ["create", "--dry-run=server", "--filename=-", "--output=json"];
    let asked = |pod: &Value| -> Result<Value> {
        Ok(serde_json::from_str(&api.kubectl_with(&dry, &pod.to_string())?)?)
    };
    // Each API server hears of a registration in its own time.
    let mut meshed = Value::Null;
    let heard = eventually("a pod is meshed", LIMIT, async || {
        meshed = asked(&pod(&shop.name, "web-1", &json!({})))?;
        Ok(names(&meshed, "initContainers").contains(&"myelin-sidecar".to_owned()))
    });
    heard.await.with_context(|| controller.program.last_words())?;
    ensure!(names(&meshed, "containers") == ["app"], "{meshed}");
    ensure!(names(&meshed, "initContainers").len() == 2, "{meshed}");
    ensure!(meshed["metadata"]["annotations"]["myelin.dev/injected"] == "default", "{meshed}");
    ensure!(names(&meshed, "volumes").contains(&"myelin-identity".to_owned()), "{meshed}");
    let probe = &meshed["spec"]["containers"][0]["readinessProbe"]["httpGet"];
    ensure!(probe["port"] != 8080, "the probe asks the workload's own port: {probe}");

    // It is the same pod when it is asked about again.
    let again = pod_of(&meshed);
    let twice = asked(&again)?;
    ensure!(twice["spec"] == meshed["spec"], "{}\n{}", twice["spec"], meshed["spec"]);

    let own = json!({ "labels": { "myelin.dev/inject": "disabled" } });
    let alone = asked(&pod(&shop.name, "web-2", &own))?;
    ensure!(names(&alone, "initContainers").is_empty(), "{alone}");
    let wrong = json!({ "annotations": { "myelin.dev/drain-timeout": "soon" } });
    let wrong = pod(&shop.name, "web-3", &wrong).to_string();
    let why = api.refused(&["create", "--filename=-"], &wrong)?;
    ensure!(why.contains("myelin.dev/drain-timeout") && why.contains("soon"), "{why}");

    // Nobody answers, and nothing that is to be meshed is made.
    drop(controller);
    let late = pod(&shop.name, "web-4", &json!({})).to_string();
    let why = api.refused(&["create", "--filename=-"], &late)?;
    ensure!(why.contains("injector.myelin.dev"), "{why}");
    ensure!(shop.kubectl(&["get", "pods", "--output=name"])?.trim().is_empty(), "a pod is there");
    let sidecar = &meshed["spec"]["initContainers"];
    let stays = sidecar.as_array().into_iter().flatten().any(|it| it["restartPolicy"] == "Always");
    ensure!(stays, "the API server has no native sidecars (Kubernetes before 1.29): {sidecar}");
    Ok(())
}

/// What somebody would make anew out of a pod that was read.
fn pod_of(read: &Value) -> Value {
    let mut pod = read.clone();
    pod["metadata"] = json!({
        "name": read["metadata"]["name"], "namespace": read["metadata"]["namespace"],
        "annotations": read["metadata"]["annotations"], "labels": read["metadata"]["labels"],
    });
    pod.as_object_mut().map(|fields| fields.remove("status"));
    pod
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs KUBECONFIG"]
async fn certificate_is_made_and_mended_and_the_bundle_lies_in_meshed_namespaces_only() -> Result<()>
{
    let api = Api::named()?;
    let installed = Installed::with(&api, &[])?;
    let meshed = api.namespace("meshed", &[("myelin.dev/inject", "enabled")])?;
    let other = api.namespace("other", &[])?;
    let controller = Controller::start(&api, &installed).await?;
    let (_, bundle) = controller.registered(&api).await?;
    let secret = format!("/api/v1/namespaces/{}/secrets/myelin-webhook", installed.namespace.name);
    let certificate = || -> Result<Vec<u8>> {
        let text = api.read(&secret)?["data"]["tls.crt"].as_str().unwrap_or_default().to_owned();
        Ok(BASE64_STANDARD.decode(text)?)
    };
    ensure!(certificate()? == bundle, "what is registered is not what the Secret holds");

    // Somebody overwrites what the API server believes.
    let wrong = json!([{
        "op": "replace", "path": "/webhooks/1/clientConfig/caBundle",
        "value": BASE64_STANDARD.encode(&controller.bundle),
    }]);
    let patch = ["patch", "mutatingwebhookconfiguration", "myelin-injector", "--type=json", "-p"];
    api.kubectl(&[&patch[..], &[&wrong.to_string()]].concat())?;
    let mended = eventually("the caBundle is mended", LIMIT, async || {
        let found = api.read(&format!("{REGISTRATIONS}/myelin-injector"))?;
        let all = found["webhooks"].as_array().context("no webhooks")?;
        let expected = BASE64_STANDARD.encode(&bundle);
        Ok(all.iter().all(|webhook| webhook["clientConfig"]["caBundle"] == expected))
    });
    mended.await.with_context(|| controller.program.last_words())?;

    let map = |namespace: &Namespace<'_>| -> Result<Value> {
        let said = namespace.kubectl(&[
            "get",
            "configmap",
            "myelin-trust-bundle",
            "--ignore-not-found",
            "--output=json",
        ])?;
        Ok(serde_json::from_str(&said).unwrap_or_default())
    };
    let there = |namespace: &Namespace<'_>| -> Result<bool> {
        Ok(map(namespace)?["data"].as_object().is_some_and(|data| {
            data.values()
                .any(|text| text.as_str().is_some_and(|text| text.contains(&controller.bundle)))
        }))
    };
    let published =
        eventually("the bundle is in the meshed namespace", LIMIT, async || there(&meshed));
    published.await.with_context(|| controller.program.last_words())?;
    ensure!(map(&other)?.is_null(), "{}", map(&other)?);
    // A namespace that leaves the mesh loses it, and one that comes gets it.
    api.kubectl(&["label", "namespace", &meshed.name, "myelin.dev/inject-"])?;
    api.kubectl(&["label", "namespace", &other.name, "myelin.dev/inject=enabled"])?;
    let moved = eventually("the bundle follows the label", LIMIT, async || {
        Ok(there(&other)? && map(&meshed)?.is_null())
    });
    moved.await.with_context(|| controller.program.last_words())?;

    // The chart's own registration leads to nobody: a pod that is to be meshed is not made.
    account(&api, &other)?;
    let refused = pod(&other.name, "web", &json!({})).to_string();
    let why = api.refused(&["create", "--filename=-"], &refused)?;
    ensure!(why.contains("namespace.injector.myelin.dev"), "{why}");
    Ok(())
}
