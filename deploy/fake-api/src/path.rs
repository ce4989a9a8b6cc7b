//! From a request's path to what it names: group and version, resource, namespace, name and
//! subresource. Pure.
//!
//! Never: knows which resources there are.

// SPDX-License-Identifier: Apache-2.0

/// A kind of objects, as paths name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    /// Empty: the core group.
    pub group: String,
    pub version: String,
    /// In the plural, such as `pods`.
    pub name: String,
}

/// Where an object lies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) group: String,
    pub(crate) resource: String,
    /// Empty: of the cluster.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) resource: Resource,
    /// Empty: of the cluster, or of all namespaces.
    pub(crate) namespace: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
}

/// Kinds of resources whose kind is not their name without its last letter.
const KINDS: [(&str, &str); 21] = [
    ("authorizationpolicies", "AuthorizationPolicy"),
    ("clusterrolebindings", "ClusterRoleBinding"),
    ("clusterroles", "ClusterRole"),
    ("clustertrustbundles", "ClusterTrustBundle"),
    ("configmaps", "ConfigMap"),
    ("cronjobs", "CronJob"),
    ("customresourcedefinitions", "CustomResourceDefinition"),
    ("daemonsets", "DaemonSet"),
    ("endpoints", "Endpoints"),
    ("endpointslices", "EndpointSlice"),
    ("mutatingwebhookconfigurations", "MutatingWebhookConfiguration"),
    ("networkpolicies", "NetworkPolicy"),
    ("peerauthentications", "PeerAuthentication"),
    ("podcertificaterequests", "PodCertificateRequest"),
    ("poddisruptionbudgets", "PodDisruptionBudget"),
    ("podmonitors", "PodMonitor"),
    ("replicasets", "ReplicaSet"),
    ("rolebindings", "RoleBinding"),
    ("serviceaccounts", "ServiceAccount"),
    ("statefulsets", "StatefulSet"),
    ("validatingwebhookconfigurations", "ValidatingWebhookConfiguration"),
];

impl Resource {
    /// `group` is empty for the core group.
    pub fn new(group: &str, version: &str, name: &str) -> Self {
        let [group, version, name] = [group, version, name].map(str::to_owned);
        Self { group, version, name }
    }

    /// One of the core group, version v1.
    pub fn core(name: &str) -> Self {
        Self::new("", "v1", name)
    }

    /// As objects say it: `v1` or `group/version`.
    pub fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    pub(crate) fn key(&self, namespace: &str, name: &str) -> Key {
        Key {
            group: self.group.clone(),
            resource: self.name.clone(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// What objects of this resource say that they are.
    pub(crate) fn kind(&self) -> String {
        let known = KINDS.iter().find(|(name, _)| *name == self.name);
        if let Some((_, kind)) = known {
            return (*kind).to_owned();
        }
        let one = self.name.strip_suffix('s').unwrap_or(&self.name);
        let mut letters = one.chars();
        let first = letters.next().map(|c| c.to_ascii_uppercase());
        first.into_iter().chain(letters).collect()
    }
}

/// None: nothing that this server has.
pub(crate) fn parse(path: &str) -> Option<Target> {
    let mut parts = path.strip_prefix('/')?.split('/');
    let (group, version) = match parts.next()? {
        "api" => ("", parts.next()?),
        "apis" => (parts.next()?, parts.next()?),
        _ => return None,
    };
    let rest: Vec<&str> = parts.collect();
    let target = |namespace: &str, resource: &str, rest: &[&str]| {
        let whole = rest.iter().all(|part| !part.is_empty()) && !resource.is_empty();
        (whole && rest.len() <= 2).then(|| Target {
            resource: Resource::new(group, version, resource),
            namespace: namespace.to_owned(),
            name: rest.first().map(|name| (*name).to_owned()),
            subresource: rest.get(1).map(|name| (*name).to_owned()),
        })
    };
    match rest.as_slice() {
        ["namespaces", _, "status" | "finalize"] => target("", "namespaces", &rest[1..]),
        ["namespaces", namespace, resource, rest @ ..] if group.is_empty() || !rest.is_empty() => {
            target(namespace, resource, rest)
        }
        ["namespaces", namespace, resource] => target(namespace, resource, &[]),
        [resource, rest @ ..] => target("", resource, rest),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_what_the_api_conventions_say() {
        let table = [
            ("/api/v1/pods", ("", "pods", "", None, None)),
            ("/api/v1/namespaces/shop/pods", ("", "pods", "shop", None, None)),
            ("/api/v1/namespaces/shop/pods/a", ("", "pods", "shop", Some("a"), None)),
            (
                "/api/v1/namespaces/shop/pods/a/status",
                ("", "pods", "shop", Some("a"), Some("status")),
            ),
            ("/api/v1/namespaces", ("", "namespaces", "", None, None)),
            ("/api/v1/namespaces/shop", ("", "namespaces", "", Some("shop"), None)),
            (
                "/api/v1/namespaces/shop/status",
                ("", "namespaces", "", Some("shop"), Some("status")),
            ),
            (
                "/apis/coordination.k8s.io/v1/namespaces/a/leases",
                ("coordination.k8s.io", "leases", "a", None, None),
            ),
            (
                "/apis/authentication.k8s.io/v1/tokenreviews",
                ("authentication.k8s.io", "tokenreviews", "", None, None),
            ),
        ];
        for (path, (group, resource, namespace, name, subresource)) in table {
            let target = parse(path).unwrap();
            assert_eq!(
                (target.resource.group.as_str(), target.resource.name.as_str()),
                (group, resource),
                "{path}"
            );
            assert_eq!(target.namespace, namespace, "{path}");
            assert_eq!(target.name.as_deref(), name, "{path}");
            assert_eq!(target.subresource.as_deref(), subresource, "{path}");
        }
        for wrong in ["/", "/healthz", "/api/v1", "/api/v1/pods//status", "/api/v1/a/b/c/d"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn kinds_are_what_objects_say() {
        for (resource, kind) in [("pods", "Pod"), ("configmaps", "ConfigMap"), ("leases", "Lease")]
        {
            assert_eq!(Resource::core(resource).kind(), kind);
        }
    }
}
