//! A list: all of it or in pages. The pages of one list show one moment, as those of a real server.
//!
//! Never: a list of a moment that is past, but for its own further pages.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

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
    let too_old = || Refused::new(410, "Expired", "The provided continue parameter is too old");
    let (name, version, all, from) = match asked.continued.rsplit_once('@') {
        None if asked.continued.is_empty() => {
            let all = objects.all(&target.resource, &target.namespace);
            let chosen = all.filter(|object| asked.selectors.hold(object)).cloned().collect();
            (None, objects.version(), Arc::new(chosen), 0)
        }
        None => return Err(too_old()),
        Some((name, from)) => {
            let from: usize = from.parse().map_err(|_| too_old())?;
            let kept = objects.kept(name).ok_or_else(too_old)?;
            let from = from.min(kept.items.len());
            (Some(kept.name), kept.version, kept.items, from)
        }
    };
    let end = match asked.limit {
        0 => all.len(),
        limit => all.len().min(from + limit),
    };
    let mut items = all[from..end].to_vec();
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if end < all.len() {
        // A page may be asked for again, and with another limit.
        let name = name.unwrap_or_else(|| objects.keep(Arc::clone(&all)));
        metadata["continue"] = json!(format!("{name}@{end}"));
        metadata["remainingItemCount"] = json!(all.len() - end);
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
