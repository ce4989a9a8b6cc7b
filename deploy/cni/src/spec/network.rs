//! The network configuration that a runtime hands over on standard input, with our own keys.
//!
//! Never: changes a result that an earlier plugin of the chain made; lets a misspelt key pass.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{Code, NEWEST, Refusal, VERSIONS};

/// Longest network configuration: a few kilobytes, with every result of a chain inside.
pub(crate) const MAX_BYTES: u64 = 1024 * 1024;

/// Keys of the specification that are none of our business.
const OF_OTHERS: [&str; 12] = [
    "args",
    "capabilities",
    "cniVersions",
    "disableCheck",
    "disableGC",
    "dns",
    "ipMasq",
    "ipam",
    "loadOnlyInlinedPlugins",
    "name",
    "runtimeConfig",
    "type",
];
/// What runtimes may add, `cni.dev/valid-attachments` for one.
const OF_RUNTIMES: &str = "cni.dev/";

/// What the network says.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) version: String,
    kubeconfig: Option<PathBuf>,
    /// Namespaces whose pods are never injected, so that the API is not asked about them.
    pub(crate) exclude_namespaces: Vec<String>,
    previous: Option<Box<RawValue>>,
}

impl Network {
    /// # Errors
    /// With the version that the answer is to be in, as far as there is one.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, (Refusal, String)> {
        let newest = |refusal| (refusal, NEWEST.to_owned());
        let mut keys = keys(bytes).map_err(newest)?;
        let version: String =
            take(&mut keys, "cniVersion").map_err(newest)?.unwrap_or_else(|| "0.1.0".to_owned());
        if !VERSIONS.contains(&version.as_str()) {
            let msg = format!("cniVersion is {version:?}, which is not supported");
            let details = format!("supported: {}", VERSIONS.join(", "));
            return Err(newest(Refusal::new(Code::IncompatibleVersion, msg, details)));
        }
        Self::of(keys, &version).map_err(|refusal| (refusal, version))
    }

    fn of(mut keys: BTreeMap<String, Box<RawValue>>, version: &str) -> Result<Self, Refusal> {
        let kubeconfig: Option<PathBuf> = take(&mut keys, "kubeconfig")?;
        if kubeconfig.as_ref().is_some_and(|path| !path.is_absolute()) {
            let msg = "kubeconfig is no absolute path";
            return Err(Refusal::new(Code::InvalidNetwork, msg, "run `myelin-cni install` again"));
        }
        let exclude_namespaces = take(&mut keys, "exclude_namespaces")?.unwrap_or_default();
        let previous = keys.remove("prevResult").filter(|result| result.get() != "null");
        if previous.as_ref().is_some_and(|result| !result.get().starts_with('{')) {
            let msg = "prevResult is no object";
            return Err(Refusal::new(Code::InvalidNetwork, msg, ""));
        }
        for (key, value) in &keys {
            if !OF_OTHERS.contains(&key.as_str()) && !key.starts_with(OF_RUNTIMES) {
                let msg = format!("{key} = {} is no key of myelin-cni", value.get());
                let details = "it knows kubeconfig and exclude_namespaces; remove it";
                return Err(Refusal::new(Code::UnsupportedField, msg, details));
            }
        }
        let version = version.to_owned();
        Ok(Self { version, kubeconfig, exclude_namespaces, previous })
    }

    /// Whether this version of the specification has a command that came later than ADD and DEL.
    pub(crate) fn is_at_least(&self, version: &str) -> bool {
        let place = |wanted: &str| VERSIONS.iter().position(|known| *known == wanted);
        place(&self.version) >= place(version)
    }

    pub(crate) fn kubeconfig(&self) -> Result<&PathBuf, Refusal> {
        self.kubeconfig.as_ref().ok_or_else(|| {
            let msg = "kubeconfig is missing: pods could not be asked for";
            Refusal::new(Code::InvalidNetwork, msg, "run `myelin-cni install` again")
        })
    }

    /// What the plugins before us made, byte for byte.
    pub(crate) fn previous(&self) -> Result<&str, Refusal> {
        self.previous.as_ref().map(|result| result.get()).ok_or_else(|| {
            let msg = "prevResult is missing: myelin-cni makes no network of its own";
            let details = "chain it behind the plugin that makes the interface";
            Refusal::new(Code::InvalidNetwork, msg, details)
        })
    }
}

/// What VERSION is asked with: any version, or none.
pub(crate) fn asked_version(bytes: &[u8]) -> Result<Option<String>, Refusal> {
    if bytes.is_empty() { Ok(None) } else { take(&mut keys(bytes)?, "cniVersion") }
}

fn keys(bytes: &[u8]) -> Result<BTreeMap<String, Box<RawValue>>, Refusal> {
    serde_json::from_slice(bytes).map_err(|why| {
        let msg = "the network configuration on standard input cannot be read";
        Refusal::new(Code::Undecodable, msg, why.to_string())
    })
}

fn take<T: DeserializeOwned>(
    keys: &mut BTreeMap<String, Box<RawValue>>,
    key: &str,
) -> Result<Option<T>, Refusal> {
    let Some(value) = keys.remove(key) else { return Ok(None) };
    serde_json::from_str(value.get()).map(Some).map_err(|why| {
        let msg = format!("{key} = {} is not understood", value.get());
        Refusal::new(Code::InvalidNetwork, msg, why.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_specification_and_ours_are_read_and_others_are_refused() {
        let network = Network::read(
            br#"{"cniVersion":"1.0.0","name":"n","type":"myelin-cni","kubeconfig":"/etc/k",
                "exclude_namespaces":["kube-system"],"runtimeConfig":{},"cni.dev/x":1,
                "prevResult": {"b": 1,  "a": 1.50}}"#,
        )
        .unwrap();
        assert_eq!(network.previous().unwrap(), r#"{"b": 1,  "a": 1.50}"#, "byte for byte");
        assert_eq!(network.kubeconfig().unwrap().to_str(), Some("/etc/k"));
        assert_eq!(network.exclude_namespaces, ["kube-system"]);
        assert!(network.is_at_least("0.4.0") && !network.is_at_least("1.1.0"));
        for (text, code, named) in [
            ("", Code::Undecodable, "standard input"),
            ("[]", Code::Undecodable, "standard input"),
            ("{\"cniVersion\"", Code::Undecodable, "standard input"),
            ("{}", Code::IncompatibleVersion, "0.1.0"),
            (r#"{"cniVersion":"0.2.0"}"#, Code::IncompatibleVersion, "0.2.0"),
            (r#"{"cniVersion":"2.0.0"}"#, Code::IncompatibleVersion, "2.0.0"),
            (r#"{"cniVersion":1}"#, Code::InvalidNetwork, "cniVersion"),
            (r#"{"cniVersion":"1.1.0","kubeConfig":"/x"}"#, Code::UnsupportedField, "kubeConfig"),
            (r#"{"cniVersion":"1.1.0","kubeconfig":"x"}"#, Code::InvalidNetwork, "kubeconfig"),
            (r#"{"cniVersion":"1.1.0","prevResult":[]}"#, Code::InvalidNetwork, "prevResult"),
        ] {
            let (refused, _) = Network::read(text.as_bytes()).unwrap_err();
            assert_eq!(refused.code, code, "{text}");
            assert!(refused.msg.contains(named), "{text}: {}", refused.msg);
        }
        let bare = Network::read(br#"{"cniVersion":"1.1.0","prevResult":null}"#).unwrap();
        assert_eq!(bare.previous().unwrap_err().code, Code::InvalidNetwork);
        assert_eq!(bare.kubeconfig().unwrap_err().code, Code::InvalidNetwork);
    }
}
