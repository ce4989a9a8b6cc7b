//! Myelin as the chart installs it, for one test, and taken away after it. Called by the stories of this
//! suite.
//!
//! Never: touches an installation that somebody else made; leaves one behind.

// SPDX-License-Identifier: Apache-2.0

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use myelin_tests::binaries;
use serde_json::Value;

use crate::api::{Api, Namespace};

pub(crate) const TRUST_DOMAIN: &str = "prod.example";
const RELEASE: &str = "myelin";
const REGISTRATION: &str = "mutatingwebhookconfigurations/myelin-injector";

/// Every kind that the chart makes.
const KINDS: &str = "serviceaccounts,configmaps,secrets,services,deployments,statefulsets,daemonsets,\
    poddisruptionbudgets,networkpolicies,roles,rolebindings,clusterroles,clusterrolebindings,\
    mutatingwebhookconfigurations";

/// A release in a namespace of its own.
pub(crate) struct Installed<'a> {
    pub(crate) namespace: Namespace<'a>,
    api: &'a Api,
    is_there: bool,
}

impl<'a> Installed<'a> {
    /// By `myelin install` with these values of `--set`.
    pub(crate) fn with(api: &'a Api, sets: &[&str]) -> Result<Self> {
        let installed = Self::nothing_yet(api)?;
        installed.again(sets)
    }

    /// The namespace for it.
    pub(crate) fn nothing_yet(api: &'a Api) -> Result<Self> {
        let there = api.kubectl(&["get", REGISTRATION, "--ignore-not-found", "--output=name"])?;
        ensure!(
            there.trim().is_empty(),
            "there is a {REGISTRATION} already: this suite installs a Myelin of its own, and a cluster has \
             room for one. Uninstall yours, or name another cluster in KUBECONFIG"
        );
        let namespace = api.namespace("system", &[])?;
        Ok(Self { namespace, api, is_there: false })
    }

    pub(crate) fn again(mut self, sets: &[&str]) -> Result<Self> {
        // Also if it fails halfway.
        self.is_there = true;
        self.myelin("install", &[&["--chart", &chart()], &*flags(sets)].concat())?;
        Ok(self)
    }

    /// `helm upgrade` with these values over those that there are.
    pub(crate) fn upgrade(&self, sets: &[&str]) -> Result<()> {
        let chart = chart();
        let fixed = ["upgrade", RELEASE, &chart, "--namespace", &self.namespace.name];
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        let all: Vec<&str> = fixed.into_iter().chain(["--reuse-values"]).chain(sets).collect();
        self.api.helm(&all).map(drop)
    }

    /// By `myelin uninstall`; what it printed.
    pub(crate) fn uninstall(&mut self) -> Result<String> {
        let said = self.myelin("uninstall", &[])?;
        self.is_there = false;
        Ok(said)
    }

    /// What helm sent.
    pub(crate) fn manifest(&self) -> Result<Vec<Value>> {
        documents(&self.api.helm(&["get", "manifest", RELEASE, "-n", &self.namespace.name])?)
    }

    /// All of the chart's objects in the whole cluster, by kind and name.
    pub(crate) fn objects(&self) -> Result<Vec<String>> {
        let label = "--selector=app.kubernetes.io/part-of=myelin";
        let asked = ["get", KINDS, "--all-namespaces", label, "--output=name"];
        Ok(self.api.kubectl(&asked)?.lines().map(str::to_owned).collect())
    }

    fn myelin(&self, verb: &str, more: &[&str]) -> Result<String> {
        let mut command = Command::new(binaries::tool()?);
        command.arg(verb).args(["--namespace", &self.namespace.name]).args(more);
        let output = command.env("KUBECONFIG", self.api.kubeconfig()).output()?;
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        ensure!(output.status.success(), "myelin {verb}: {said}");
        Ok(said)
    }
}

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        if self.is_there {
            let _ = self.api.helm(&["uninstall", RELEASE, "--namespace", &self.namespace.name]);
        }
    }
}

/// The values of a test over those that this cluster needs: `MYELIN_CLUSTER_SET`, separated by blanks.
pub(crate) fn flags<'a>(sets: &[&'a str]) -> Vec<&'a str> {
    let own = env::var("MYELIN_CLUSTER_SET").unwrap_or_default();
    // They live as long as the process, which is one test.
    let own: &'static str = own.leak();
    let all = own.split_whitespace().chain(sets.iter().copied());
    all.flat_map(|set| ["--set", set]).collect()
}

pub(crate) fn chart() -> String {
    folder("deploy/chart").display().to_string()
}

/// A folder or file of the repository.
pub(crate) fn folder(below: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(below)
}

/// The objects of a stream of YAML.
pub(crate) fn documents(yaml: &str) -> Result<Vec<Value>> {
    // As Kubernetes reads YAML: 0400 is a file mode.
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let all: Vec<Value> = serde_saphyr::from_multiple_with_options(yaml, options)
        .context("what helm rendered is no YAML")?;
    Ok(all.into_iter().filter(Value::is_object).collect())
}
