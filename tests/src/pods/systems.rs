//! The CA and the controller as pods of the mesh's own namespace, as the chart writes them, and what
//! its notes ask an operator to do. Called by `cluster`.
//!
//! Never: a right that the chart gives to nobody: the fake API knows no users, so each of them has what
//! the chart gives to all of them together.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use myelin_fake_api::Resource;
use serde_json::json;

use super::admission::{Webhook, with_token};
use super::chart::Chart;
use super::cluster::{Cluster, NAMESPACE, SYSTEM};
use super::kubelet::Ended;
use crate::programs::{LIMIT, eventually, random_word};
use crate::{binaries, ca, http};

const WEBHOOK_PORT: u16 = 15_443;
const REGISTRATION: &str = "myelin-injector";

impl Cluster {
    pub(super) async fn start_systems(&mut self) -> Result<()> {
        let chart = Chart::read()?;
        chart.install(&self.api)?;
        self.api.allow_only(chart.rules()?);
        self.engine.image("myelin-sidecar", &binaries::sidecar()?).await?;
        self.start_ca(&chart).await?;
        self.start_controller(&chart).await
    }

    async fn start_ca(&mut self, chart: &Chart) -> Result<()> {
        self.engine.image("myelin-ca", &binaries::ca()?).await?;
        // What Helm draws by lot.
        let key = BASE64_STANDARD.encode(random_word()?);
        let data = json!({ "data": { "seal.key": key } });
        self.put("secrets", SYSTEM, "myelin-ca-seal-key", data);
        let mut pod = chart.pod("StatefulSet", "myelin-ca")?;
        // ca.namespaces of the chart's values, of which the base has none.
        let allow = json!(format!("--kubernetes-allow-namespace={NAMESPACE}"));
        let args = pod["spec"]["containers"][0]["args"].as_array_mut();
        args.context("no arguments")?.push(allow);
        let ca = Arc::new(self.sandbox(&with_token(&pod)?)?);
        // What kube-proxy does for its Service: packets for that address go to the pod.
        let service = chart.service_address("myelin-ca")?;
        ca.pod.add_address(service, 32)?;
        self.gateway = Some(ca.address());
        self.watch.has_logs_at(&[ca.address(), service]);
        self.run_pod(&ca).await?;
        // What the notes of the installation ask for.
        let at = SocketAddr::new(ca.address(), ca::OPS_PORT);
        let bundle = http::request(&self.node, at, "GET", "/bundle.pem").await?.body;
        let data = json!({ "data": { "bundle.pem": bundle } });
        self.put("configmaps", SYSTEM, "myelin-trust-bundle", data);
        self.system.push(ca);
        Ok(())
    }

    async fn start_controller(&mut self, chart: &Chart) -> Result<()> {
        self.engine.image("myelin-controller", &binaries::controller()?).await?;
        let pod = chart.pod("Deployment", "myelin-controller")?;
        let controller = Arc::new(self.sandbox(&with_token(&pod)?)?);
        self.run_pod(&controller).await?;
        let at = SocketAddr::new(controller.address(), WEBHOOK_PORT);
        let name = format!("myelin-controller.{SYSTEM}.svc");
        self.webhook = Some(Webhook { at, name, roots: self.ca_bundle().await? });
        self.system.push(controller);
        Ok(())
    }

    /// Ends the mesh's own pods; how they ended, the last one first.
    pub async fn stop_systems(&mut self) -> Result<Vec<Ended>> {
        let mut ended = Vec::new();
        for played in std::mem::take(&mut self.system).iter().rev() {
            ended.push(self.delete(played).await?);
        }
        Ok(ended)
    }

    /// By what the API server believes the webhook.
    async fn ca_bundle(&self) -> Result<String> {
        let (group, plural) = ("admissionregistration.k8s.io", "mutatingwebhookconfigurations");
        let resource = Resource::new(group, "v1", plural);
        let mut bundle = String::new();
        eventually("the webhook is registered", LIMIT, async || {
            let found = self.api.read(&resource, "", REGISTRATION).context("no registration")?;
            let written = found["webhooks"][0]["clientConfig"]["caBundle"].as_str();
            let Some(written) = written else { return Ok(false) };
            bundle = String::from_utf8(BASE64_STANDARD.decode(written)?)?;
            Ok(true)
        })
        .await?;
        Ok(bundle)
    }
}
