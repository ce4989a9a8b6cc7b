//! The flags that say where replicas keep what they share.
//!
//! Never: opens a file; `app` does, when it knows that it will serve.

// SPDX-License-Identifier: Apache-2.0

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use myelin_identity::id::TrustDomain;

use super::ConfigError;
use crate::store::etcd::{EtcdEndpoint, EtcdEndpointError};

/// Most members that are tried for one answer; etcd advises against more than seven.
const MAX_ENDPOINTS: usize = 16;
/// Longest name of a namespace (a DNS label), and of what our Secrets' names begin with.
const MAX_NAME_BYTES: usize = 63;
/// What they begin with if nothing is said.
const DEFAULT_NAME: &str = "myelin-ca";

#[derive(Clone, Debug, Default, Args)]
pub struct StoreArgs {
    /// Where the CA keeps its state. embedded: a file in the data directory, for one CA. etcd: a
    /// cluster that several replicas share. kubernetes: Secrets that several replicas share.
    #[arg(long, value_enum, default_value = "embedded", env = "MYELIN_CA_STORE")]
    pub store: StoreKind,
    /// A member of the etcd cluster, such as https://10.0.0.1:2379. Repeat it for each member; one
    /// that does not answer is passed over.
    #[arg(long = "etcd-endpoint", value_name = "URL")]
    pub etcd_endpoint: Vec<String>,
    /// PEM file with the CA that signed the members' certificates.
    #[arg(long, value_name = "FILE")]
    pub etcd_ca: Option<PathBuf>,
    /// PEM file with this replica's client certificate for etcd.
    #[arg(long, value_name = "FILE", requires = "etcd_key")]
    pub etcd_cert: Option<PathBuf>,
    /// PEM file with the key of --etcd-cert (0600).
    #[arg(long, value_name = "FILE", requires = "etcd_cert")]
    pub etcd_key: Option<PathBuf>,
    /// What stands in front of every key, the same for all replicas. Default: /myelin/<trust
    /// domain>.
    #[arg(long, value_name = "PREFIX")]
    pub etcd_prefix: Option<String>,
    /// Namespace of the Secrets of --store kubernetes.
    #[arg(long, value_name = "NAMESPACE")]
    pub kubernetes_namespace: Option<String>,
    /// What the names of these Secrets begin with, the same for all replicas. Default: myelin-ca.
    #[arg(long, value_name = "NAME")]
    pub kubernetes_name: Option<String>,
    /// How to reach the Kubernetes API. Without it: as a pod does, by its service account.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum StoreKind {
    #[default]
    Embedded,
    Etcd,
    Kubernetes,
}

/// Where the state is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreConfig {
    Embedded,
    Etcd(EtcdFlags),
    Kubernetes(KubernetesFlags),
}

/// Secrets in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesFlags {
    pub namespace: String,
    pub name: String,
    /// None: as a pod does.
    pub kubeconfig: Option<PathBuf>,
}

/// An etcd cluster, and the files that let us in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdFlags {
    pub endpoints: Vec<EtcdEndpoint>,
    pub ca: Option<PathBuf>,
    /// Certificate and key.
    pub own: Option<(PathBuf, PathBuf)>,
    pub prefix: String,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreFlagError {
    #[error(
        "--store etcd needs --etcd-endpoint, such as https://10.0.0.1:2379, once for each member"
    )]
    NoEndpoint,
    #[error("--etcd-endpoint is given {0} times; at most {MAX_ENDPOINTS} are tried")]
    TooManyEndpoints(usize),
    #[error("--etcd-endpoint {0}")]
    Endpoint(#[from] EtcdEndpointError),
    #[error("{flag} is for --store {store} only; add that, or drop it")]
    NotThisStore { flag: &'static str, store: &'static str },
    #[error(
        "--kubeconfig is given and nothing here asks a Kubernetes API; add --store kubernetes, or --kubernetes-review where the CA serves, or drop it"
    )]
    IdleKubeconfig,
    #[error("--store kubernetes needs --kubernetes-namespace, such as myelin-system")]
    NoNamespace,
    #[error("{flag} {text:?} must be 1 to {MAX_NAME_BYTES} of a-z, 0-9 and -")]
    KubernetesName { flag: &'static str, text: String },
    #[error(
        "--etcd-endpoint {0} needs --etcd-ca FILE: the CA that signed the members' certificates, in PEM"
    )]
    NoCa(EtcdEndpoint),
    #[error("--etcd-prefix {0:?} must be 1 to 256 of a-z A-Z 0-9 . _ - /")]
    Prefix(String),
}

impl StoreArgs {
    /// `reviews`: the API server is asked about pods, whatever the store.
    pub(super) fn config(
        &self,
        trust_domain: &TrustDomain,
        reviews: bool,
    ) -> Result<StoreConfig, ConfigError> {
        self.only_of_its_store(reviews)?;
        match self.store {
            StoreKind::Embedded => Ok(StoreConfig::Embedded),
            StoreKind::Etcd => self.etcd(default_prefix(trust_domain)),
            StoreKind::Kubernetes => self.kubernetes(),
        }
        .map_err(ConfigError::from)
    }

    /// A flag of another store would be ignored without a word.
    fn only_of_its_store(&self, reviews: bool) -> Result<(), StoreFlagError> {
        let (etcd, kubernetes) = ((StoreKind::Etcd, "etcd"), (StoreKind::Kubernetes, "kubernetes"));
        for (flag, given, (kind, store)) in [
            ("--etcd-endpoint", !self.etcd_endpoint.is_empty(), etcd),
            ("--etcd-ca", self.etcd_ca.is_some(), etcd),
            ("--etcd-cert", self.etcd_cert.is_some(), etcd),
            ("--etcd-prefix", self.etcd_prefix.is_some(), etcd),
            ("--kubernetes-namespace", self.kubernetes_namespace.is_some(), kubernetes),
            ("--kubernetes-name", self.kubernetes_name.is_some(), kubernetes),
        ] {
            if given && kind != self.store {
                return Err(StoreFlagError::NotThisStore { flag, store });
            }
        }
        if self.kubeconfig.is_some() && self.store != StoreKind::Kubernetes && !reviews {
            return Err(StoreFlagError::IdleKubeconfig);
        }
        Ok(())
    }

    fn kubernetes(&self) -> Result<StoreConfig, StoreFlagError> {
        let namespace = self.kubernetes_namespace.clone().ok_or(StoreFlagError::NoNamespace)?;
        let name = self.kubernetes_name.clone().unwrap_or_else(|| DEFAULT_NAME.to_owned());
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        for (flag, text) in [("--kubernetes-namespace", &namespace), ("--kubernetes-name", &name)] {
            if !(1..=MAX_NAME_BYTES).contains(&text.len()) || !text.bytes().all(plain) {
                return Err(StoreFlagError::KubernetesName { flag, text: text.clone() });
            }
        }
        let kubeconfig = self.kubeconfig.clone();
        Ok(StoreConfig::Kubernetes(KubernetesFlags { namespace, name, kubeconfig }))
    }

    /// For a command beside the server, which need not know the trust domain where a prefix or a file
    /// says enough.
    pub(super) fn config_beside(
        &self,
        trust_domain: Option<&TrustDomain>,
    ) -> Result<StoreConfig, ConfigError> {
        self.only_of_its_store(false)?;
        let prefix = match (self.store, trust_domain) {
            (StoreKind::Embedded, _) => return Ok(StoreConfig::Embedded),
            (StoreKind::Kubernetes, _) => return Ok(self.kubernetes()?),
            (StoreKind::Etcd, Some(domain)) => default_prefix(domain),
            (StoreKind::Etcd, None) => {
                self.etcd_prefix.clone().ok_or(ConfigError::NoTrustDomain)?
            }
        };
        Ok(self.etcd(prefix)?)
    }

    fn etcd(&self, default_prefix: String) -> Result<StoreConfig, StoreFlagError> {
        let endpoints: Result<Vec<EtcdEndpoint>, _> =
            self.etcd_endpoint.iter().map(|text| text.parse()).collect();
        let endpoints = endpoints?;
        if endpoints.is_empty() {
            return Err(StoreFlagError::NoEndpoint);
        }
        if endpoints.len() > MAX_ENDPOINTS {
            return Err(StoreFlagError::TooManyEndpoints(endpoints.len()));
        }
        if let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.tls)
            && self.etcd_ca.is_none()
        {
            return Err(StoreFlagError::NoCa(endpoint.clone()));
        }
        let prefix = self.etcd_prefix.clone().unwrap_or(default_prefix);
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
        if !(1..=256).contains(&prefix.len()) || !prefix.bytes().all(fits) {
            return Err(StoreFlagError::Prefix(prefix));
        }
        let own = self.etcd_cert.clone().zip(self.etcd_key.clone());
        Ok(StoreConfig::Etcd(EtcdFlags { endpoints, ca: self.etcd_ca.clone(), own, prefix }))
    }
}

fn default_prefix(trust_domain: &TrustDomain) -> String {
    format!("/myelin/{trust_domain}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(change: impl Fn(&mut StoreArgs)) -> Result<StoreConfig, String> {
        args_of_who_reviews(false, change)
    }

    fn args_of_who_reviews(
        reviews: bool,
        change: impl Fn(&mut StoreArgs),
    ) -> Result<StoreConfig, String> {
        let mut args = StoreArgs::default();
        change(&mut args);
        let domain = TrustDomain::parse("prod.example").unwrap();
        args.config(&domain, reviews).map_err(|error| error.to_string())
    }

    #[test]
    fn etcd_has_endpoints_and_a_prefix_of_the_trust_domain() {
        let StoreConfig::Etcd(flags) = args(|args| {
            args.store = StoreKind::Etcd;
            args.etcd_endpoint = vec!["https://a".into(), "https://b:1".into()];
            args.etcd_ca = Some("ca.pem".into());
        })
        .unwrap() else {
            panic!("etcd was asked for");
        };
        assert_eq!(flags.prefix, "/myelin/prod.example");
        let shown: Vec<_> = flags.endpoints.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["https://a:2379", "https://b:1"]);
        assert_eq!(args(|_| {}).unwrap(), StoreConfig::Embedded);
    }

    #[test]
    fn wrong_flags_are_one_line_with_the_fix() {
        type Change = fn(&mut StoreArgs);
        let etcd = |args: &mut StoreArgs| args.store = StoreKind::Etcd;
        let table: [(Change, bool, &str); 6] = [
            (|_| {}, true, "needs --etcd-endpoint"),
            (|args| args.etcd_endpoint = vec!["https://a".into()], true, "needs --etcd-ca"),
            (|args| args.etcd_endpoint = vec!["http://a".into()], true, "plaintext"),
            (|args| args.etcd_endpoint = vec!["a:2379".into()], true, "no etcd endpoint"),
            (|args| args.etcd_endpoint = vec!["https://a".into()], false, "--store etcd only"),
            (|args| args.etcd_prefix = Some("x".into()), false, "--store etcd only"),
        ];
        for (change, with_etcd, expected) in table {
            let error = args(|args| {
                change(args);
                if with_etcd {
                    etcd(args);
                }
            })
            .unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let kubernetes = |change: Change| {
            args(move |args| {
                args.store = StoreKind::Kubernetes;
                change(args);
            })
        };
        let table: [(Change, &str); 3] = [
            (|_| {}, "needs --kubernetes-namespace"),
            (|args| args.kubernetes_namespace = Some("A b".into()), "--kubernetes-namespace"),
            (|args| args.etcd_prefix = Some("x".into()), "--store etcd only"),
        ];
        for (change, expected) in table {
            let error = kubernetes(change).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        for unused in [StoreKind::Embedded, StoreKind::Etcd] {
            let error = args(|args| {
                args.store = unused;
                args.kubeconfig = Some("cluster.yaml".into());
            })
            .unwrap_err();
            assert!(error.contains("nothing here asks a Kubernetes API"), "{error}");
        }
        let kubeconfig = |args: &mut StoreArgs| args.kubeconfig = Some("cluster.yaml".into());
        assert_eq!(args_of_who_reviews(true, kubeconfig), Ok(StoreConfig::Embedded));
        let error = args(|args| args.kubernetes_name = Some("x".into())).unwrap_err();
        assert!(error.contains("--store kubernetes only"), "{error}");
        let good = kubernetes(|args| args.kubernetes_namespace = Some("myelin-system".into()));
        let StoreConfig::Kubernetes(flags) = good.unwrap() else { panic!("asked for") };
        assert_eq!(flags.name, "myelin-ca");
        let error = args(|args| {
            etcd(args);
            args.etcd_endpoint = vec!["http://[::1]".into()];
            args.etcd_prefix = Some("a b".into());
        });
        assert!(error.unwrap_err().contains("--etcd-prefix"));
    }
}
