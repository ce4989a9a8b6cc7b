//! What a request does to the objects: one function a verb, with the rules that clients lean on.
//!
//! Never: a schema; what it does not know it stores as it came.

// SPDX-License-Identifier: Apache-2.0

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};

use crate::objects::Objects;
use crate::path::{Key, Target};
use crate::status::Refused;

/// What a Secret's values may have together, as the API server counts: decoded.
const MAX_SECRET_BYTES: usize = 1024 * 1024;
/// Largest object that etcd takes.
const MAX_OBJECT_BYTES: usize = 1536 * 1024;

pub(crate) fn read(objects: &Objects, target: &Target) -> Result<Value, Refused> {
    let found = objects.read(&key(target)?);
    found.cloned().ok_or_else(|| Refused::not_found(target))
}

pub(crate) fn create(
    objects: &mut Objects,
    target: &Target,
    mut object: Value,
) -> Result<Value, Refused> {
    named_as(target, &object)?;
    let mut name = text(&object, "/metadata/name");
    let prefix = text(&object, "/metadata/generateName");
    if name.is_empty() && !prefix.is_empty() {
        name = format!("{prefix}{}", objects.suffix());
        object["metadata"]["name"] = json!(name);
    }
    if name.is_empty() {
        return Err(Refused::invalid("metadata.name: Required value: name or generateName"));
    }
    if !text(&object, "/metadata/resourceVersion").is_empty() {
        return Err(Refused::bad("resourceVersion should not be set on objects to be created"));
    }
    let key = target.resource.key(&target.namespace, &name);
    if objects.read(&key).is_some() {
        return Err(Refused::exists(target, &name));
    }
    objects.newborn(&mut object);
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    store(objects, target, key, object)
}

/// PUT, and what a patch comes to.
pub(crate) fn replace(
    objects: &mut Objects,
    target: &Target,
    mut object: Value,
) -> Result<Value, Refused> {
    named_as(target, &object)?;
    let key = key(target)?;
    let before = objects.read(&key).cloned().ok_or_else(|| Refused::not_found(target))?;
    let version = text(&object, "/metadata/resourceVersion");
    if version.is_empty() && target.resource.name == "leases" {
        return Err(Refused::invalid(
            "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update",
        ));
    }
    if !version.is_empty() && version != text(&before, "/metadata/resourceVersion") {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        return Err(Refused::conflict(target, why));
    }
    let uid = text(&object, "/metadata/uid");
    if !uid.is_empty() && uid != text(&before, "/metadata/uid") {
        return Err(Refused::conflict(target, "Precondition failed: UID in precondition differs"));
    }
    if target.subresource.is_some() {
        let status = object["status"].take();
        object = before.clone();
        object["status"] = status;
    } else {
        keep_what_is_not_the_clients(&mut object, &before);
    }
    object["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
    if object == before {
        return Ok(before);
    }
    if is_over(&object) {
        return objects.remove(&key).ok_or_else(|| Refused::not_found(target));
    }
    store(objects, target, key, object)
}

pub(crate) fn delete(
    objects: &mut Objects,
    target: &Target,
    options: &Value,
) -> Result<Value, Refused> {
    let key = key(target)?;
    let before = objects.read(&key).cloned().ok_or_else(|| Refused::not_found(target))?;
    for field in ["uid", "resourceVersion"] {
        let wanted = &options["preconditions"][field];
        if wanted.is_string() && *wanted != before["metadata"][field] {
            return Err(Refused::conflict(target, "Precondition failed"));
        }
    }
    let held = before["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
    if !held {
        objects.remove(&key);
        return Ok(json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {"name": target.name, "kind": target.resource.name},
        }));
    }
    if !before["metadata"]["deletionTimestamp"].is_null() {
        return Ok(before);
    }
    let mut dying = before;
    dying["metadata"]["deletionTimestamp"] = dying["metadata"]["creationTimestamp"].clone();
    store(objects, target, key, dying)
}

/// It was deleted, and its last finalizer is gone.
fn is_over(object: &Value) -> bool {
    let metadata = &object["metadata"];
    !metadata["deletionTimestamp"].is_null()
        && metadata["finalizers"].as_array().is_none_or(Vec::is_empty)
}

fn keep_what_is_not_the_clients(object: &mut Value, before: &Value) {
    for field in ["uid", "creationTimestamp", "generation", "deletionTimestamp"] {
        match &before["metadata"][field] {
            Value::Null => {
                if let Some(metadata) = object["metadata"].as_object_mut() {
                    metadata.remove(field);
                }
            }
            kept => object["metadata"][field] = kept.clone(),
        }
    }
    if let (Some(fields), Some(status)) = (object.as_object_mut(), before.get("status")) {
        fields.insert("status".to_owned(), status.clone());
    }
    if object["spec"] != before["spec"] {
        let generation = before["metadata"]["generation"].as_u64().unwrap_or(0);
        object["metadata"]["generation"] = json!(generation + 1);
    }
}

fn store(
    objects: &mut Objects,
    target: &Target,
    key: Key,
    mut object: Value,
) -> Result<Value, Refused> {
    object["apiVersion"] = json!(target.resource.api_version());
    object["kind"] = json!(target.resource.kind());
    object["metadata"]["name"] = json!(key.name);
    if !key.namespace.is_empty() {
        object["metadata"]["namespace"] = json!(key.namespace);
    }
    if target.resource.group.is_empty() && target.resource.name == "secrets" {
        fits_a_secret(&mut object)?;
    }
    if object.to_string().len() > MAX_OBJECT_BYTES {
        let message = "etcdserver: request is too large";
        return Err(Refused::new(413, "RequestEntityTooLarge", message));
    }
    Ok(objects.store(key, object))
}

/// `stringData` goes into `data`, which must be base64 and within its bound.
fn fits_a_secret(object: &mut Value) -> Result<(), Refused> {
    if let Some(fields) = object.as_object_mut()
        && let Some(Value::Object(plain)) = fields.remove("stringData")
    {
        for (name, value) in plain {
            let value = BASE64_STANDARD.encode(value.as_str().unwrap_or_default());
            object["data"][name] = json!(value);
        }
    }
    let mut bytes = 0;
    for (name, value) in object["data"].as_object().into_iter().flatten() {
        let decoded = value.as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
        let wrong = || Refused::bad(format!("Secret: data.{name}: illegal base64 data"));
        bytes += decoded.ok_or_else(wrong)?.len();
    }
    if bytes > MAX_SECRET_BYTES {
        let message = format!("data: Too long: may not be more than {MAX_SECRET_BYTES} bytes");
        return Err(Refused::invalid(message));
    }
    if object["data"].is_null()
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("data");
    }
    if object["type"].is_null() {
        object["type"] = json!("Opaque");
    }
    Ok(())
}

/// What the body says about itself is what the path says.
fn named_as(target: &Target, object: &Value) -> Result<(), Refused> {
    if !object.is_object() {
        return Err(Refused::bad("the body is no object"));
    }
    let (name, namespace) = (text(object, "/metadata/name"), text(object, "/metadata/namespace"));
    if !namespace.is_empty() && namespace != target.namespace {
        return Err(Refused::bad("the namespace of the object does not match the request"));
    }
    match &target.name {
        Some(expected) if !name.is_empty() && name != *expected => {
            Err(Refused::bad("the name of the object does not match the name on the URL"))
        }
        _ => Ok(()),
    }
}

fn key(target: &Target) -> Result<Key, Refused> {
    let name = target.name.as_deref().ok_or_else(Refused::no_such_path)?;
    Ok(target.resource.key(&target.namespace, name))
}

fn text(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}
