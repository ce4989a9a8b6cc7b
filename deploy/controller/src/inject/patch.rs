//! A JSON patch (RFC 6902) that grows against one object: each step names what shall be there, and
//! adds an operation only if it is not there already. Called by the other files of this room.
//!
//! Never: an operation on anything that nobody named; a whole object written where a field will do.

// SPDX-License-Identifier: Apache-2.0

use serde_json::{Value, json};

use super::containers::Place;

/// The operations, in their order.
#[derive(Debug)]
pub struct Patch {
    /// What the object will be.
    object: Value,
    operations: Vec<Value>,
}

impl Patch {
    pub(super) fn of(object: &Value) -> Self {
        Self { object: object.clone(), operations: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The document of RFC 6902.
    pub fn operations(&self) -> &[Value] {
        &self.operations
    }

    /// The object with the patch applied.
    pub fn object(&self) -> &Value {
        &self.object
    }

    pub(super) fn annotation(&mut self, name: &str, value: &str) {
        if self.object.pointer("/metadata").is_none_or(Value::is_null) {
            self.set("/metadata", json!({}));
        }
        let all = "/metadata/annotations";
        if self.object.pointer(all).is_none_or(Value::is_null) {
            self.set(all, json!({}));
        }
        let escaped = name.replace('~', "~0").replace('/', "~1");
        self.set(&format!("{all}/{escaped}"), json!(value));
    }

    /// The entry of a list that bears this name is as `wanted` says, in that place.
    pub(super) fn named(&mut self, list: &str, wanted: &Value, place: Place) {
        if self.object.pointer(list).is_none_or(Value::is_null) {
            self.set(list, json!([]));
        }
        let here = self.find(list, &wanted["name"]);
        match (here, place) {
            (Some(index), Place::At(wished)) if index != wished => {
                self.remove(list, index);
                self.insert(list, wished, wanted);
            }
            (Some(index), _) => {
                let at = format!("{list}/{index}");
                if !self.object.pointer(&at).is_some_and(|found| as_written(found, wanted)) {
                    self.set(&at, wanted.clone());
                }
            }
            (None, Place::At(wished)) => self.insert(list, wished, wanted),
            (None, Place::Last) => {
                let end = self.object.pointer(list).and_then(Value::as_array).map_or(0, Vec::len);
                self.insert(list, end, wanted);
            }
        }
    }

    /// No entry of a list bears this name.
    pub(super) fn without(&mut self, list: &str, name: &str) {
        if let Some(index) = self.find(list, &json!(name)) {
            self.remove(list, index);
        }
    }

    /// The member at this pointer is this value.
    pub(super) fn set(&mut self, pointer: &str, value: Value) {
        let found = self.object.pointer(pointer);
        if found == Some(&value) {
            return;
        }
        let operation = if found.is_some() { "replace" } else { "add" };
        self.operations.push(json!({ "op": operation, "path": pointer, "value": value }));
        if let Some(found) = self.object.pointer_mut(pointer) {
            *found = value;
        } else if let Some((parent, key)) = pointer.rsplit_once('/')
            && let Some(parent) = self.object.pointer_mut(parent).and_then(Value::as_object_mut)
        {
            parent.insert(key.replace("~1", "/").replace("~0", "~"), value);
        }
    }

    /// There is no such member.
    pub(super) fn unset(&mut self, pointer: &str) {
        if self.object.pointer(pointer).is_none() {
            return;
        }
        self.operations.push(json!({ "op": "remove", "path": pointer }));
        if let Some((parent, key)) = pointer.rsplit_once('/')
            && let Some(parent) = self.object.pointer_mut(parent).and_then(Value::as_object_mut)
        {
            parent.remove(&key.replace("~1", "/").replace("~0", "~"));
        }
    }

    fn find(&self, list: &str, name: &Value) -> Option<usize> {
        let entries = self.object.pointer(list)?.as_array()?;
        entries.iter().position(|entry| entry.get("name") == Some(name))
    }

    fn insert(&mut self, list: &str, index: usize, value: &Value) {
        let path = format!("{list}/{index}");
        self.operations.push(json!({ "op": "add", "path": path, "value": value }));
        if let Some(entries) = self.object.pointer_mut(list).and_then(Value::as_array_mut) {
            entries.insert(index.min(entries.len()), value.clone());
        }
    }

    fn remove(&mut self, list: &str, index: usize) {
        let path = format!("{list}/{index}");
        self.operations.push(json!({ "op": "remove", "path": path }));
        if let Some(entries) = self.object.pointer_mut(list).and_then(Value::as_array_mut) {
            entries.remove(index);
        }
    }
}

/// Is it ours, and nothing else? The API server adds its defaults to what we once wrote. Whatever else
/// stands in it may be of the pod's author, who would run with our rights.
fn as_written(found: &Value, wanted: &Value) -> bool {
    let (Some(found), Some(wanted)) = (found.as_object(), wanted.as_object()) else { return false };
    found.iter().all(|(key, value)| wanted.contains_key(key) || is_default(key, value))
        && wanted.iter().all(|(key, wanted)| match found.get(key) {
            // Requests default to limits, and a LimitRange fills in both.
            Some(found) if key == "resources" => covers(found, wanted),
            found => found == Some(wanted),
        })
}

fn is_default(key: &str, value: &Value) -> bool {
    match key {
        "imagePullPolicy" => true,
        "terminationMessagePath" => value == "/dev/termination-log",
        "terminationMessagePolicy" => value == "File",
        _ => false,
    }
}

/// Is everything that is wanted there?
fn covers(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, wanted)| found.get(key).is_some_and(|found| covers(found, wanted))),
        _ => found == wanted,
    }
}
