//! The CA and the controller as pods of the mesh's own namespace. Called by `cluster`.
//!
//! Never: a privilege that the chart does not give them.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use super::admission::{Webhook, with_token};
use super::cluster::{Cluster, NAMESPACE, SYSTEM};
use super::tokens::ISSUER;
use crate::mesh::{MESH_CIDRS, TRUST_DOMAIN};
use crate::{binaries, ca, http};

const WEBHOOK_PORT: u16 = 15_443;
const SERVICE: &str = "myelin-controller.myelin-system.svc";

impl Cluster {
    pub(super) async fn start_systems(&mut self) -> Result<()> {
        let sidecar = self.engine.image("myelin-sidecar", &binaries::sidecar()?).await?;
        let image = self.engine.image("myelin-ca", &binaries::ca()?).await?;
        let ca = self.ca_pod(&image);
        let ca = Arc::new(self.sandbox(&with_token(&ca)?)?);
        self.watch.has_logs_at(ca.pod.addresses());
        self.run_pod(&ca).await?;
        let at = SocketAddr::new(ca.address(), ca::OPS_PORT);
        let bundle = http::request(&self.node, at, "GET", "/bundle.pem").await?.body;
        self.system.push(ca.clone());

        // What the notes of the installation ask for: the CA's roots as a ConfigMap.
        let data = json!({ "data": { "bundle.pem": bundle } });
        self.put("configmaps", SYSTEM, "myelin-trust-bundle", data);
        let roots = self.webhook_certificate()?;
        let configuration = self.controller_toml(&sidecar, SocketAddr::new(ca.address(), ca::PORT));
        let data = json!({ "data": { "controller.toml": configuration } });
        self.put("configmaps", SYSTEM, "myelin-controller", data);
        let image = self.engine.image("myelin-controller", &binaries::controller()?).await?;
        let controller = Arc::new(self.sandbox(&with_token(&controller_pod(&image))?)?);
        self.run_pod(&controller).await?;
        let at = SocketAddr::new(controller.address(), WEBHOOK_PORT);
        self.webhook = Some(Webhook { at, name: SERVICE.to_owned(), roots });
        self.system.push(controller);
        Ok(())
    }

    fn ca_pod(&self, image: &str) -> Value {
        self.put(
            "configmaps",
            SYSTEM,
            "jwks",
            json!({ "data": { "jwks.json": self.signer.jwks() } }),
        );
        let own = self.next_address();
        let mut container = system_container("ca", image);
        container["args"] = json!([
            "serve",
            format!("--trust-domain={TRUST_DOMAIN}"),
            "--data=/var/lib/myelin-ca/data",
            format!("--ca-address={own}"),
            format!("--kubernetes-issuer={ISSUER}"),
            "--kubernetes-jwks=/etc/cluster/jwks.json",
            "--kubernetes-review",
            "--store=kubernetes",
            format!("--kubernetes-namespace={SYSTEM}"),
            "--kubernetes-name=myelin-ca",
            "--seal-key-file=/var/lib/myelin-ca/seal.key",
            format!("--kubernetes-allow-namespace={NAMESPACE}"),
        ]);
        container["ports"] = json!([{ "name": "ops", "containerPort": ca::OPS_PORT }]);
        container["startupProbe"] = get("/livez");
        container["livenessProbe"] = get("/livez");
        container["readinessProbe"] = get("/readyz");
        container["volumeMounts"] = json!([
            { "name": "data", "mountPath": "/var/lib/myelin-ca" },
            { "name": "cluster", "mountPath": "/etc/cluster", "readOnly": true },
        ]);
        let volumes = json!([
            { "name": "data", "emptyDir": {} },
            { "name": "cluster", "configMap": { "name": "jwks" } },
        ]);
        system_pod("myelin-ca", container, volumes)
    }

    /// A root and the webhook's certificate as Helm draws them; yields the root for `caBundle`.
    fn webhook_certificate(&self) -> Result<String> {
        let mut of_root = CertificateParams::default();
        of_root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let (root_key, key) = (KeyPair::generate()?, KeyPair::generate()?);
        let root = of_root.self_signed(&root_key)?.pem();
        let issuer = Issuer::from_params(&of_root, &root_key);
        let leaf = CertificateParams::new([SERVICE.to_owned()])?.signed_by(&key, &issuer)?;
        let (leaf, key) =
            (BASE64_STANDARD.encode(leaf.pem()), BASE64_STANDARD.encode(key.serialize_pem()));
        let data = json!({ "data": { "tls.crt": leaf, "tls.key": key } });
        self.put("secrets", SYSTEM, "myelin-webhook", data);
        Ok(root)
    }

    fn controller_toml(&self, sidecar: &str, ca: SocketAddr) -> String {
        format!(
            "trust_domain = \"{TRUST_DOMAIN}\"\nmesh_cidrs = {MESH_CIDRS:?}\nnamespace = \"{SYSTEM}\"\n\
             [ca]\naddress = [\"{ca}\"]\nbundle_file = \"/etc/myelin-bundle/bundle.pem\"\n\
             [sidecar]\nimage = \"{sidecar}\"\n\
             [[sidecar.exception]]\nname = \"api\"\naddress = \"{}\"\n\
             [webhook]\ncertificate_file = \"/etc/myelin-webhook/tls.crt\"\n\
             key_file = \"/etc/myelin-webhook/tls.key\"\n",
            self.node.v4()
        )
    }
}

fn controller_pod(image: &str) -> Value {
    let mut container = system_container("controller", image);
    container["args"] = json!(["run", "--config=/etc/myelin/controller.toml"]);
    container["ports"] = json!([{ "name": "ops", "containerPort": 15_022 }]);
    container["livenessProbe"] = get("/live");
    container["readinessProbe"] = get("/ready");
    container["volumeMounts"] = json!([
        { "name": "configuration", "mountPath": "/etc/myelin", "readOnly": true },
        { "name": "bundle", "mountPath": "/etc/myelin-bundle", "readOnly": true },
        { "name": "certificate", "mountPath": "/etc/myelin-webhook", "readOnly": true },
    ]);
    let volumes = json!([
        { "name": "configuration", "configMap": { "name": "myelin-controller" } },
        { "name": "bundle", "configMap": { "name": "myelin-trust-bundle", "optional": true } },
        { "name": "certificate", "secret": { "secretName": "myelin-webhook", "defaultMode": 0o440 } },
    ]);
    system_pod("myelin-controller", container, volumes)
}

/// As the chart secures both.
fn system_container(name: &str, image: &str) -> Value {
    json!({
        "name": name, "image": image, "imagePullPolicy": "IfNotPresent",
        "resources": { "limits": { "memory": "512Mi" } },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
    })
}

fn system_pod(name: &str, container: Value, volumes: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "namespace": SYSTEM },
        "spec": {
            "serviceAccountName": name,
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 1337, "runAsGroup": 1337, "fsGroup": 1337,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [container],
            "volumes": volumes,
        },
    })
}

fn get(path: &str) -> Value {
    json!({ "httpGet": { "path": path, "port": "ops" } })
}
