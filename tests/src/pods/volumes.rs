//! The volumes of a pod as the kubelet makes them: an empty directory that anybody may write in,
//! projected files behind the symbolic links by which the kubelet swaps them. Called by `kubelet`.
//!
//! Never: a path of the host.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use myelin_fake_api::{FakeApi, Resource};
use serde_json::Value;

use super::container::{known, text};
use super::front::Front;
use super::tokens::{Bearer, Signer};

/// As Kubernetes writes files when nobody says otherwise.
const DEFAULT_MODE: u32 = 0o644;

/// Of a token that names no audience.
const API_AUDIENCE: &str = "https://kubernetes.default.svc";

/// The directories of one pod's volumes by name.
#[derive(Debug)]
pub(super) struct Volumes {
    places: BTreeMap<String, PathBuf>,
}

/// What volumes are filled from.
pub(super) struct Source<'a> {
    pub(super) api: &'a FakeApi,
    pub(super) front: &'a Front,
    pub(super) signer: &'a Signer,
    pub(super) pod: &'a Value,
    pub(super) bearer: &'a Bearer,
}

struct Files {
    texts: Vec<(String, Vec<u8>)>,
    mode: u32,
}

impl Volumes {
    pub(super) fn make(dir: &Path, source: &Source<'_>) -> Result<Self> {
        let mut places = BTreeMap::new();
        let group = source.pod["spec"]["securityContext"]["fsGroup"].as_u64();
        for volume in source.pod["spec"]["volumes"].as_array().into_iter().flatten() {
            let name = text(volume, "name")?;
            let place = dir.join(name);
            fs::create_dir_all(&place)?;
            if volume["emptyDir"].is_object() {
                // Anybody may write in it, and nobody may remove what is another's.
                fs::set_permissions(&place, PermissionsExt::from_mode(0o777))?;
                if let Some(group) = group {
                    chown(&place, None, Some(u32::try_from(group)?))?;
                    fs::set_permissions(&place, PermissionsExt::from_mode(0o2777))?;
                }
            } else {
                fs::set_permissions(&place, PermissionsExt::from_mode(0o755))?;
                let files = source.files(volume).with_context(|| format!("volume {name}"))?;
                files.write(&place, group)?;
            }
            places.insert(name.to_owned(), place);
        }
        Ok(Self { places })
    }

    /// Where a mount takes its files from.
    pub(super) fn place(&self, volume: &str, sub_path: Option<&str>) -> Result<PathBuf> {
        let place = self.places.get(volume).with_context(|| format!("no volume {volume}"))?;
        match sub_path {
            None => Ok(place.clone()),
            // The kubelet resolves the links before it mounts the one file.
            Some(sub) => Ok(fs::canonicalize(place.join(sub))?),
        }
    }
}

impl Source<'_> {
    fn files(&self, volume: &Value) -> Result<Files> {
        let mode = |of: &Value| of["defaultMode"].as_u64().map(u32::try_from).transpose();
        if volume["projected"].is_object() {
            let projected = &volume["projected"];
            known(projected, &["defaultMode", "sources"])?;
            let mut texts = Vec::new();
            for source in projected["sources"].as_array().into_iter().flatten() {
                self.project(source, &mut texts)?;
            }
            return Ok(Files { texts, mode: mode(projected)?.unwrap_or(DEFAULT_MODE) });
        }
        for (field, plural) in [("configMap", "configmaps"), ("secret", "secrets")] {
            let of = &volume[field];
            if !of.is_object() {
                continue;
            }
            known(of, &["name", "secretName", "defaultMode", "items", "optional"])?;
            let name = of["name"].as_str().or_else(|| of["secretName"].as_str());
            let texts = self.object(plural, name.context("it names no object")?, of)?;
            return Ok(Files { texts, mode: mode(of)?.unwrap_or(DEFAULT_MODE) });
        }
        bail!("volumes of this kind are not played: {volume}")
    }

    fn project(&self, source: &Value, texts: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
        known(source, &["downwardAPI", "serviceAccountToken", "configMap"])?;
        for item in source["downwardAPI"]["items"].as_array().into_iter().flatten() {
            let field = text(&item["fieldRef"], "fieldPath")?;
            if field == "metadata.namespace" {
                let namespace = text(&self.pod["metadata"], "namespace")?.as_bytes().to_vec();
                texts.push((text(item, "path")?.to_owned(), namespace));
                continue;
            }
            let name = field.strip_prefix("metadata.annotations['");
            let name = name.and_then(|rest| rest.strip_suffix("']"));
            let name = name.with_context(|| format!("field {field} is not played"))?;
            let annotation = &self.pod["metadata"]["annotations"][name];
            let annotation =
                annotation.as_str().with_context(|| format!("no annotation {name}"))?;
            texts.push((text(item, "path")?.to_owned(), annotation.as_bytes().to_vec()));
        }
        if let Some(token) = source["serviceAccountToken"].as_object() {
            let token = Value::Object(token.clone());
            known(&token, &["audience", "expirationSeconds", "path"])?;
            let life = token["expirationSeconds"].as_u64().context("no expirationSeconds")?;
            let audience = token["audience"].as_str().unwrap_or(API_AUDIENCE);
            let made = self.signer.token(self.bearer, audience, life)?;
            self.api.allow_token(&made, self.bearer.reviewed(audience));
            if audience == API_AUDIENCE {
                self.front.allow(&made);
            }
            texts.push((text(&token, "path")?.to_owned(), made.into_bytes()));
        }
        if source["configMap"].is_object() {
            let of = &source["configMap"];
            texts.extend(self.object("configmaps", text(of, "name")?, of)?);
        }
        Ok(())
    }

    fn object(&self, plural: &str, name: &str, of: &Value) -> Result<Vec<(String, Vec<u8>)>> {
        let namespace = text(&self.pod["metadata"], "namespace")?;
        let found = match self.api.read(&Resource::core(plural), namespace, name) {
            Some(found) => found,
            None if of["optional"] == true => return Ok(Vec::new()),
            None => bail!("there is no {plural}/{name}: the kubelet would wait for it"),
        };
        let mut texts = Vec::new();
        for (key, value) in found["data"].as_object().into_iter().flatten() {
            let value = value.as_str().context("data that is no text")?;
            let bytes = match plural {
                "secrets" => BASE64_STANDARD.decode(value)?,
                _ => value.as_bytes().to_vec(),
            };
            let items = of["items"].as_array();
            let path = match items {
                None => Some(key.as_str()),
                Some(items) => {
                    let item = items.iter().find(|item| item["key"] == *key);
                    item.and_then(|item| item["path"].as_str())
                }
            };
            texts.extend(path.map(|path| (path.to_owned(), bytes)));
        }
        Ok(texts)
    }
}

impl Files {
    /// `..data` points to the directory of this moment, and each file is a link through it.
    fn write(&self, place: &Path, group: Option<u64>) -> Result<()> {
        let moment = place.join("..2026_01_01_00_00_00.1");
        fs::create_dir(&moment)?;
        fs::set_permissions(&moment, PermissionsExt::from_mode(0o755))?;
        symlink("..2026_01_01_00_00_00.1", place.join("..data"))?;
        for (path, bytes) in &self.texts {
            let file = moment.join(path);
            fs::write(&file, bytes)?;
            let mut mode = self.mode;
            if let Some(group) = group {
                chown(&file, None, Some(u32::try_from(group)?))?;
                mode |= (mode & 0o400) >> 3;
            }
            fs::set_permissions(&file, PermissionsExt::from_mode(mode))?;
            symlink(Path::new("..data").join(path), place.join(path))?;
        }
        Ok(())
    }
}
