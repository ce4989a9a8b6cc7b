//! `caBundle` of our own webhooks in the MutatingWebhookConfiguration, by which the API server
//! believes us. Called by the room's door.
//!
//! Never: another field, or a webhook of somebody else's.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::secret::version;
use super::{CertificateError, Place};
use crate::cluster::{Cluster, ClusterError};

const ALL: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";

/// Certificates of one `caBundle` that are looked at; we write six at most.
const MAX_CERTIFICATES: usize = 32;

/// As it was at one moment.
pub(super) struct Registration {
    object: Value,
    /// Those of our webhooks, by where they stand.
    ours: Vec<usize>,
}

/// Where a watch of it looks.
pub(super) fn watched(place: &Place) -> String {
    format!("{ALL}?fieldSelector=metadata.name%3D{}", place.configuration)
}

pub(super) async fn read(
    cluster: &Cluster,
    place: &Place,
) -> Result<Registration, CertificateError> {
    let name = &place.configuration;
    match cluster.read(&format!("{ALL}/{name}")).await? {
        Some(object) => Registration::of(object, place),
        None => Err(CertificateError::NoRegistration { name: name.clone() }),
    }
}

/// `None`: somebody was faster, a replica most likely; the next look sees what came of it.
pub(super) async fn tell(
    cluster: &Cluster,
    place: &Place,
    registration: &Registration,
    ca_bundle: &str,
) -> Result<Option<Registration>, CertificateError> {
    let add = |index: &usize| {
        let path = format!("/webhooks/{index}/clientConfig/caBundle");
        json!({ "op": "add", "path": path, "value": ca_bundle })
    };
    // Webhooks are named by where they stand, so nobody may have moved them since.
    let seen = &registration.object["metadata"]["resourceVersion"];
    let test = json!({ "op": "test", "path": "/metadata/resourceVersion", "value": seen });
    let operations: Vec<Value> =
        std::iter::once(test).chain(registration.ours.iter().map(add)).collect();
    let path = format!("{ALL}/{}", place.configuration);
    match cluster.patch(&path, &Value::from(operations)).await {
        Ok(object) => Registration::of(object, place).map(Some),
        Err(ClusterError::Conflict { .. }) => Ok(None),
        // So says an API server of a test that failed, and of a patch that it does not want.
        Err(why @ ClusterError::Refused { code: 422, .. }) => {
            let now = cluster.read(&path).await?;
            let moved = now.is_some_and(|now| now["metadata"]["resourceVersion"] != *seen);
            if moved { Ok(None) } else { Err(why.into()) }
        }
        Err(why) => Err(why.into()),
    }
}

impl Registration {
    fn of(object: Value, place: &Place) -> Result<Self, CertificateError> {
        let webhooks = object["webhooks"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_ours = |webhook: &Value| {
            let service = &webhook["clientConfig"]["service"];
            service["name"] == *place.service && service["namespace"] == *place.namespace
        };
        let ours = webhooks.iter().enumerate().filter(|(_, webhook)| is_ours(webhook));
        let ours: Vec<usize> = ours.map(|(index, _)| index).collect();
        if ours.is_empty() {
            let (name, service) = (place.configuration.clone(), place.service.clone());
            return Err(CertificateError::NotOurs { name, service });
        }
        Ok(Self { object, ours })
    }

    pub(super) fn version(&self) -> Option<String> {
        version(&self.object)
    }

    /// Whether each of ours says just this.
    pub(super) fn says(&self, ca_bundle: &str) -> bool {
        self.bundles().all(|bundle| bundle == Some(ca_bundle))
    }

    /// The certificates that all of ours hold.
    fn certificates(&self) -> Vec<CertificateDer<'static>> {
        let mut bundles = self.bundles().map(|bundle| read_bundle(bundle.unwrap_or_default()));
        let first = bundles.next().unwrap_or_default();
        bundles.fold(first, |held, other| {
            held.into_iter().filter(|certificate| other.contains(certificate)).collect()
        })
    }

    fn bundles(&self) -> impl Iterator<Item = Option<&str>> {
        let webhooks = &self.object["webhooks"];
        self.ours.iter().map(|index| webhooks[*index]["clientConfig"]["caBundle"].as_str())
    }
}

fn read_bundle(base64: &str) -> Vec<CertificateDer<'static>> {
    let pem = BASE64_STANDARD.decode(base64).unwrap_or_default();
    let all = CertificateDer::pem_slice_iter(&pem).take(MAX_CERTIFICATES);
    all.filter_map(Result::ok).collect()
}

/// What the registration holds, and since when, as far as this replica saw it.
#[derive(Default)]
pub(super) struct Published(BTreeMap<Vec<u8>, u64>);

impl Published {
    pub(super) fn note(&mut self, registration: &Registration, now: u64) {
        let held = registration.certificates();
        let known = std::mem::take(&mut self.0);
        let since = |der: &[u8]| known.get(der).copied().unwrap_or(now);
        self.0 = held.iter().map(|der| (der.to_vec(), since(der))).collect();
    }

    /// Nothing is known to be there.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    pub(super) fn since(&self, certificate: &str) -> Option<u64> {
        let der = CertificateDer::from_pem_slice(certificate.as_bytes()).ok()?;
        self.0.get(der.as_ref()).copied()
    }
}
