//! Patches: a JSON merge patch (RFC 7396) and a JSON patch (RFC 6902), told apart by media type.
//!
//! Never: server-side apply or strategic merges, which need schemas.

// SPDX-License-Identifier: Apache-2.0

use serde_json::Value;

use crate::status::Refused;

/// The object as the patch makes it.
pub(crate) fn applied(object: &Value, media_type: &str, patch: &[u8]) -> Result<Value, Refused> {
    let unread = |error: serde_json::Error| Refused::bad(format!("the patch: {error}"));
    let mut patched = object.clone();
    match media_type.split(';').next().unwrap_or_default().trim() {
        "application/merge-patch+json" => {
            let patch: Value = serde_json::from_slice(patch).map_err(unread)?;
            json_patch::merge(&mut patched, &patch);
        }
        "application/json-patch+json" => {
            let patch: json_patch::Patch = serde_json::from_slice(patch).map_err(unread)?;
            json_patch::patch(&mut patched, &patch)
                .map_err(|error| Refused::invalid(format!("the patch: {error}")))?;
        }
        other => {
            let message = format!("this fake takes no patch of type {other:?}");
            return Err(Refused::new(415, "UnsupportedMediaType", message));
        }
    }
    Ok(patched)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_kinds_of_patch_change_what_they_say_and_others_are_refused() {
        let object = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": [1]});
        let merge = br#"{"metadata": {"labels": {"a": null, "c": "3"}}}"#;
        let merged = applied(&object, "application/merge-patch+json", merge).unwrap();
        assert_eq!(merged, json!({"metadata": {"labels": {"b": "2", "c": "3"}}, "spec": [1]}));
        let json_patch = br#"[{"op": "test", "path": "/spec/0", "value": 1},
            {"op": "add", "path": "/spec/-", "value": 2}]"#;
        let patched = applied(&object, "application/json-patch+json", json_patch).unwrap();
        assert_eq!(patched["spec"], json!([1, 2]));
        let failing = br#"[{"op": "test", "path": "/spec/0", "value": 7}]"#;
        for (media, patch, code) in [
            ("application/json-patch+json", failing.as_slice(), 422),
            ("application/json-patch+json", b"{".as_slice(), 400),
            ("application/strategic-merge-patch+json", b"{}".as_slice(), 415),
            ("application/apply-patch+yaml", b"{}".as_slice(), 415),
        ] {
            assert_eq!(applied(&object, media, patch).unwrap_err().code, code, "{media}");
        }
    }
}
