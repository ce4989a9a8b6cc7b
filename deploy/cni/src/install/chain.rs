//! A network configuration list with us at its end, or without us: texts in, texts out. Called by
//! `install`.
//!
//! Never: a file; a change of what other plugins of the chain say.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::spec::VERSIONS;

/// By this name a runtime finds the program in its directory.
pub(crate) const TYPE: &str = "myelin-cni";

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChainError {
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    #[error("its cniVersion is {0:?}; expected one of {list}", list = VERSIONS.join(", "))]
    Version(String),
    #[error("it has no plugins: a chain begins with the one that makes the interface")]
    Empty,
}

type List = BTreeMap<String, Box<RawValue>>;

/// Our place in the chain.
pub(crate) struct Link<'a> {
    pub(crate) kubeconfig: &'a str,
    pub(crate) exclude_namespaces: &'a [String],
}

/// The list with this link behind all others; `None`: it is there already, just so.
pub(crate) fn chained(text: &str, link: &Link<'_>) -> Result<Option<String>, ChainError> {
    let (mut list, mut plugins) = read(text)?;
    let version = list.get("cniVersion").map_or("\"\"", |version| version.get());
    let version: String = serde_json::from_str(version).unwrap_or_default();
    if !VERSIONS.contains(&version.as_str()) {
        return Err(ChainError::Version(version));
    }
    let wanted = raw(&serde_json::json!({
        "type": TYPE,
        "kubeconfig": link.kubeconfig,
        "exclude_namespaces": link.exclude_namespaces,
    }))?;
    let ours = plugins.iter().filter(|plugin| is_ours(plugin)).count();
    let is_last = plugins.last().is_some_and(|last| same(last, &wanted));
    if ours == 1 && is_last {
        return Ok(None);
    }
    plugins.retain(|plugin| !is_ours(plugin));
    if plugins.is_empty() {
        return Err(ChainError::Empty);
    }
    plugins.push(wanted);
    list.insert("plugins".to_owned(), raw(&plugins)?);
    written(&list).map(Some)
}

/// The list without us; `None`: we were not in it.
pub(crate) fn unchained(text: &str) -> Result<Option<String>, ChainError> {
    let (mut list, mut plugins) = read(text)?;
    let before = plugins.len();
    plugins.retain(|plugin| !is_ours(plugin));
    if plugins.len() == before {
        return Ok(None);
    }
    list.insert("plugins".to_owned(), raw(&plugins)?);
    written(&list).map(Some)
}

fn read(text: &str) -> Result<(List, Vec<Box<RawValue>>), ChainError> {
    let unreadable = |why: serde_json::Error| ChainError::Unreadable(why.to_string());
    let mut list: List = serde_json::from_str(text).map_err(unreadable)?;
    let plugins = match list.remove("plugins") {
        Some(plugins) => serde_json::from_str(plugins.get()).map_err(unreadable)?,
        None => return Err(ChainError::Empty),
    };
    Ok((list, plugins))
}

fn is_ours(plugin: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Named {
        r#type: String,
    }
    serde_json::from_str::<Named>(plugin.get()).is_ok_and(|named| named.r#type == TYPE)
}

fn same(one: &RawValue, other: &RawValue) -> bool {
    let value = |text: &RawValue| serde_json::from_str::<serde_json::Value>(text.get()).ok();
    value(one) == value(other)
}

fn raw(value: &impl serde::Serialize) -> Result<Box<RawValue>, ChainError> {
    to_raw_value(value).map_err(|why| ChainError::Unreadable(why.to_string()))
}

fn written(list: &List) -> Result<String, ChainError> {
    let text = serde_json::to_string_pretty(list);
    text.map(|text| text + "\n").map_err(|why| ChainError::Unreadable(why.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLANNEL: &str = r#"{"name":"cbr0","cniVersion":"1.0.0","plugins":[
        {"type":"flannel","delegate":{"hairpinMode":true,"mtu":1.50}},{"type":"portmap"}]}"#;

    fn link(namespaces: &[String]) -> Link<'_> {
        Link { kubeconfig: "/etc/cni/net.d/x", exclude_namespaces: namespaces }
    }

    fn types(text: &str) -> Vec<String> {
        let list: serde_json::Value = serde_json::from_str(text).unwrap();
        let plugins = list["plugins"].as_array().unwrap().iter();
        plugins.map(|plugin| plugin["type"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_plugin_is_put_at_the_end_once_and_taken_out_again() {
        let chained_once = chained(FLANNEL, &link(&[])).unwrap().unwrap();
        assert_eq!(types(&chained_once), ["flannel", "portmap", TYPE]);
        assert!(chained_once.contains(r#"{"hairpinMode":true,"mtu":1.50}"#), "as it was");
        assert_eq!(chained(&chained_once, &link(&[])).unwrap(), None, "nothing to do");
        // Other settings, an older entry in the middle, two entries: one, at the end.
        let other = chained(&chained_once, &link(&["a".to_owned()])).unwrap().unwrap();
        assert_eq!(types(&other), ["flannel", "portmap", TYPE]);
        let middle = r#"{"cniVersion":"1.1.0","plugins":[{"type":"a"},{"type":"myelin-cni"},
            {"type":"b"},{"type":"myelin-cni"}]}"#;
        assert_eq!(types(&chained(middle, &link(&[])).unwrap().unwrap()), ["a", "b", TYPE]);
        let without = unchained(&chained_once).unwrap().unwrap();
        assert_eq!(types(&without), ["flannel", "portmap"]);
        assert_eq!(unchained(&without).unwrap(), None);
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&without), value(FLANNEL), "nothing else has changed");
    }

    #[test]
    fn what_is_no_list_of_a_version_that_we_speak_is_left_alone() {
        for (text, named) in [
            ("{\"plugins\"", "read"),
            (r#"{"cniVersion":"0.2.0","plugins":[{"type":"a"}]}"#, "0.2.0"),
            (r#"{"plugins":[{"type":"a"}]}"#, "cniVersion"),
            (r#"{"cniVersion":"1.0.0","type":"bridge"}"#, "no plugins"),
            (r#"{"cniVersion":"1.0.0","plugins":[]}"#, "no plugins"),
            (r#"{"cniVersion":"1.0.0","plugins":[{"type":"myelin-cni"}]}"#, "no plugins"),
        ] {
            let refused = chained(text, &link(&["x".to_owned()])).unwrap_err().to_string();
            assert!(refused.contains(named), "{text}: {refused}");
        }
    }
}
