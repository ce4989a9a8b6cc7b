//! What a reload of the configuration changes, and what of the file waits for a restart: `/config`
//! shows the values in force and names the others. Called by `view`. Pure.
//!
//! Never: shows a value that nothing goes by yet.

// SPDX-License-Identifier: Apache-2.0

use serde_json::Value;

/// What takes effect at a reload; everything else in the file was read at the start.
const RELOADED: [&str; 5] =
    ["federates_with", "federates_unlogged", "mesh_cidrs", "inbound", "outbound"];

/// The name under which `/config` lists the keys that the file has other values for.
const RESTART_NEEDED: &str = "restart_needed";

/// Brings what is shown up to date with a file that was read again: the values in force, and the
/// names of those that the file has changed in vain.
pub(super) fn in_force(shown: &Value, file: Value) -> (Value, Vec<String>) {
    let mut now = shown.as_object().cloned().unwrap_or_default();
    let mut waiting = Vec::new();
    let Value::Object(file) = file else { return (Value::Object(now), waiting) };
    for (key, wanted) in file {
        if RELOADED.contains(&key.as_str()) {
            now.insert(key, wanted);
        } else {
            let held = now.get(&key).unwrap_or(&Value::Null);
            differences(&key, held, &wanted, &mut waiting);
        }
    }
    now.remove(RESTART_NEEDED);
    if !waiting.is_empty() {
        now.insert(RESTART_NEEDED.to_owned(), waiting.clone().into());
    }
    (Value::Object(now), waiting)
}

/// Keys by their full names; a table that is on one side only is one difference.
fn differences(name: &str, held: &Value, wanted: &Value, found: &mut Vec<String>) {
    match (held, wanted) {
        (Value::Object(held), Value::Object(wanted)) => {
            for (key, wanted) in wanted {
                let held = held.get(key).unwrap_or(&Value::Null);
                differences(&format!("{name}.{key}"), held, wanted, found);
            }
        }
        _ if held == wanted => {}
        _ => found.push(name.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file(idle: &str, mode: &str, socket: Value) -> Value {
        json!({
            "mesh_cidrs": ["10.0.0.0/8"],
            "inbound": { "mode": mode },
            "limits": { "idle_timeout": idle, "max_uses": 4 },
            "workload_api": socket,
        })
    }

    #[test]
    fn a_value_that_needs_a_restart_is_named_and_the_old_one_is_shown() {
        let started = file("1h", "strict", Value::Null);
        let (shown, waiting) = in_force(&started, file("2h", "permissive", json!({ "sds": true })));
        assert_eq!(waiting, ["limits.idle_timeout", "workload_api"]);
        assert_eq!(shown["restart_needed"], json!(waiting));
        assert_eq!(shown["inbound"]["mode"], "permissive", "in force at once");
        assert_eq!(shown["limits"], json!({ "idle_timeout": "1h", "max_uses": 4 }));
        assert_eq!(shown["workload_api"], Value::Null);
        // The file says again what is in force: nothing waits any more.
        let (shown, waiting) = in_force(&shown, file("1h", "permissive", Value::Null));
        assert!(waiting.is_empty());
        assert_eq!(shown, file("1h", "permissive", Value::Null));
    }

    #[test]
    fn what_the_file_says_as_before_needs_no_restart() {
        let started = file("1h", "strict", json!({ "sds": false }));
        assert_eq!(in_force(&started, started.clone()), (started, Vec::new()));
    }
}
