//! A list: all of it or in pages. The pages of one list show one moment, as those of a real server.
//!
//! Never: a list of a moment that is past, but for its own further pages.

// SPDX-License-Identifier: Apache-2.0

use serde_json::{Value, json};

use crate::objects::Objects;
use crate::path::Target;
use crate::selectors::Selectors;
use crate::status::Refused;

/// What the query of a list says.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) selectors: Selectors,
    pub(crate) limit: usize,
    pub(crate) continued: String,
    pub(crate) version: u64,
}

pub(crate) fn list(
    objects: &mut Objects,
    target: &Target,
    asked: &Asked,
) -> Result<Value, Refused> {
    if asked.version > objects.version() {
        let message = format!("Too large resource version: {}", asked.version);
        return Err(Refused::new(504, "Timeout", message));
    }
    let (version, mut items) = if asked.continued.is_empty() {
        let all = objects.all(&target.resource, &target.namespace);
        let chosen = all.filter(|object| asked.selectors.hold(object)).cloned().collect();
        (objects.version(), chosen)
    } else {
        let page = objects.pages.remove(&asked.continued);
        page.ok_or_else(|| {
            Refused::new(410, "Expired", "The provided continue parameter is too old")
        })?
    };
    let rest = match asked.limit {
        0 => Vec::new(),
        limit => items.split_off(limit.min(items.len())),
    };
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if !rest.is_empty() {
        let continued = format!("page-{version}-{}", objects.suffix());
        metadata["continue"] = json!(continued);
        metadata["remainingItemCount"] = json!(rest.len());
        objects.pages.insert(continued, (version, rest));
    }
    // Items of a list do not say what they are; the list does.
    for fields in items.iter_mut().filter_map(Value::as_object_mut) {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    Ok(json!({
        "kind": format!("{}List", target.resource.kind()),
        "apiVersion": target.resource.api_version(),
        "metadata": metadata,
        "items": items,
    }))
}
