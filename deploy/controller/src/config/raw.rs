//! The file as serde reads it: every key once, each value with its place. Called by `read`.
//!
//! Never: a default that means something; those are `read`'s.

// SPDX-License-Identifier: Apache-2.0

use serde::Deserialize;
use toml::Spanned;

pub(super) type Text = Spanned<String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) trust_domain: Text,
    pub(super) mesh_cidrs: Spanned<Vec<Text>>,
    pub(super) namespace: Option<Text>,
    pub(super) ca: Spanned<Ca>,
    pub(super) sidecar: Sidecar,
    pub(super) webhook: Option<Spanned<Webhook>>,
    pub(super) services: Option<Services>,
    #[serde(default)]
    pub(super) ops: Ops,
    #[serde(default)]
    pub(super) log: Log,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ca {
    pub(super) address: Option<Spanned<Vec<Text>>>,
    pub(super) service: Option<Text>,
    pub(super) bundle_file: Text,
    pub(super) bundle_config_map: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sidecar {
    pub(super) image: Text,
    pub(super) image_pull_policy: Option<Text>,
    pub(super) revision: Option<Text>,
    #[serde(default)]
    pub(super) cni: bool,
    #[serde(default)]
    pub(super) resources: Resources,
    #[serde(default)]
    pub(super) exception: Vec<Exception>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resources {
    pub(super) cpu_request: Option<Text>,
    pub(super) cpu_limit: Option<Text>,
    pub(super) memory_request: Option<Text>,
    pub(super) memory_limit: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exception {
    pub(super) name: Text,
    pub(super) address: Text,
    pub(super) port: Option<Spanned<i64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Webhook {
    pub(super) listen: Option<Text>,
    pub(super) privileges: Option<Text>,
    pub(super) service: Option<Text>,
    pub(super) configuration: Option<Text>,
    pub(super) certificate_secret: Option<Text>,
    pub(super) certificate_file: Option<Text>,
    pub(super) key_file: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Services {
    pub(super) listen: Option<Text>,
    pub(super) address: Spanned<Vec<Text>>,
    pub(super) service_account: Option<Text>,
    pub(super) token_file: Text,
    pub(super) state_dir: Option<Text>,
    #[serde(default)]
    pub(super) policies: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ops {
    pub(super) listen: Option<Text>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Log {
    pub(super) level: Option<Text>,
    pub(super) format: Option<Text>,
}
