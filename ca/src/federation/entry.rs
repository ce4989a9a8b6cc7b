//! Which trust domains we federate with: what an operator asks for, checked and written down.
//! Called through `federation` by `operator`.
//!
//! Never: our own domain, a URL without TLS, `https_spiffe` without a bundle to recognise the
//! endpoint by.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;

use hyper::Uri;
use myelin_identity::bundle::{ForeignBundle, MAX_FOREIGN, SpiffeDocument, TrustBundle};
use myelin_identity::id::{SpiffeId, TrustDomain};
use serde::{Deserialize, Serialize};

use super::seal::what_counts;
use super::{COMMIT_ATTEMPTS, FederationError, Roll, judge};
use crate::clock::UnixSeconds;
use crate::https::{self, HttpsUrl};
use crate::journal::{Batch, EndpointProfile, Entry, FederationRecord};

/// Longest URL: ten times what anybody writes, and short enough for a log line.
const MAX_URL_BYTES: usize = 1024;
/// Roots for one `https_web` endpoint: a private authority's, not the whole web's.
const MAX_WEB_ROOTS_BYTES: usize = 64 * 1024;

/// What the operator says of a foreign trust domain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AddRequest {
    pub trust_domain: String,
    pub profile: EndpointProfile,
    pub url: String,
    pub endpoint_spiffe_id: Option<String>,
    pub address: Option<SocketAddr>,
    /// The text of a SPIFFE bundle (JSON) or of PEM certificates.
    pub bundle: Option<String>,
    pub web_roots_pem: Option<String>,
    pub unlogged: bool,
}

/// Writes down a new federation. Its bundle, if one was given, counts from now on. A record of that
/// name which is not believed is written over.
pub async fn add(
    roll: &Roll,
    request: &AddRequest,
    now: UnixSeconds,
) -> Result<TrustDomain, FederationError> {
    let trust_domain = domain(&request.trust_domain)?;
    if trust_domain == *roll.own() {
        return Err(FederationError::OwnDomain(trust_domain));
    }
    let record = record(&trust_domain, request, now)?;
    let name = trust_domain.as_str();
    for _ in 0..COMMIT_ATTEMPTS {
        let view = roll.view().await?;
        if view.member(name).is_some() {
            return Err(FederationError::Known(trust_domain));
        }
        // Counted under the roll that the commit expects unchanged, so that two cannot slip in.
        let mut members = view.roll.members.clone();
        members.insert(name.to_owned(), what_counts(name, &record));
        if members.len() > MAX_FOREIGN {
            let flag = "--trust-domain";
            let why = format!("would be one more than {MAX_FOREIGN}; remove another first");
            return Err(FederationError::Flag { flag, why });
        }
        let mut batch = Batch::default();
        batch.write_over(name, roll.lies(name).await?, &record);
        if roll.commit(&view, members, batch).await? {
            return Ok(trust_domain);
        }
    }
    Err(FederationError::Contended)
}

/// Ends a federation: its bundle is gone from the very next reading of the set. What lies under that
/// name is removed, believed or not.
pub async fn remove(roll: &Roll, name: &str) -> Result<(), FederationError> {
    for _ in 0..COMMIT_ATTEMPTS {
        let view = roll.view().await?;
        let mut members = view.roll.members.clone();
        let listed = members.remove(name).is_some();
        let lies = roll.lies(name).await?;
        if !listed && lies.is_none() {
            return Err(FederationError::Unknown(domain(name)?));
        }
        let mut batch = Batch::default();
        if let Some(revision) = lies {
            batch.unchanged_since::<FederationRecord>(name, revision);
            batch.erase::<FederationRecord>(name);
        }
        if roll.commit(&view, members, batch).await? {
            return Ok(());
        }
    }
    Err(FederationError::Contended)
}

/// One of them.
pub async fn find(
    roll: &Roll,
    name: &str,
) -> Result<(TrustDomain, Entry<FederationRecord>), FederationError> {
    let view = roll.view().await?;
    if let Some(member) = view.member(name) {
        return Ok(member.clone());
    }
    match view.passed_over.into_iter().find(|it| it.name() == name) {
        Some(it) => {
            Err(FederationError::PassedOver { name: it.name(), word: it.word, why: it.why })
        }
        None => Err(FederationError::Unknown(domain(name)?)),
    }
}

pub(super) fn domain(name: &str) -> Result<TrustDomain, FederationError> {
    TrustDomain::parse(name)
        .map_err(|why| FederationError::Name { name: name.chars().take(80).collect(), why })
}

/// The request as it will rest, if everything in it fits together.
pub(super) fn record(
    trust_domain: &TrustDomain,
    request: &AddRequest,
    now: UnixSeconds,
) -> Result<FederationRecord, FederationError> {
    check_url(&request.url)?;
    let endpoint_id = endpoint_id(trust_domain, request)?;
    if let Some(pem) = &request.web_roots_pem {
        check_web_roots(request.profile, pem)?;
    }
    let bundle = match &request.bundle {
        Some(text) => {
            let document = read_bundle(trust_domain, text)?;
            ForeignBundle::check_size(&document.bundle)?;
            Some(judge::record(&document, 0, now))
        }
        None if request.profile == EndpointProfile::HttpsSpiffe => {
            let why = format!(
                "is missing: with https_spiffe the endpoint is recognised by the bundle of \
                 {trust_domain}; get it from its operators (their CA prints it with `bundle show \
                 --json`) and name the file"
            );
            return Err(FederationError::Flag { flag: "--bundle", why });
        }
        None => None,
    };
    Ok(FederationRecord {
        profile: request.profile,
        url: request.url.clone(),
        endpoint_id,
        address: request.address,
        web_roots_pem: request.web_roots_pem.clone(),
        unlogged: request.unlogged,
        added: now,
        bundle,
        failure: None,
    })
}

fn endpoint_id(
    trust_domain: &TrustDomain,
    request: &AddRequest,
) -> Result<Option<String>, FederationError> {
    let wrong = |why: String| FederationError::Flag { flag: "--endpoint-spiffe-id", why };
    match (request.profile, &request.endpoint_spiffe_id) {
        (EndpointProfile::HttpsSpiffe, Some(text)) => {
            let id = SpiffeId::parse(text).map_err(|why| wrong(format!("{text:?}: {why}")))?;
            if id.trust_domain() != trust_domain {
                return Err(wrong(format!(
                    "{id} is not in {trust_domain}, whose bundle it would serve; name an endpoint \
                     that serves its own domain"
                )));
            }
            Ok(Some(id.to_string()))
        }
        // Another Myelin: its CA serves its bundle under its own ID.
        (EndpointProfile::HttpsSpiffe, None) => Ok(Some(SpiffeId::ca(trust_domain).to_string())),
        (EndpointProfile::HttpsWeb, None) => Ok(None),
        (EndpointProfile::HttpsWeb, Some(_)) => {
            Err(wrong("goes with --profile https_spiffe only; drop it".to_owned()))
        }
    }
}

fn check_url(url: &str) -> Result<(), FederationError> {
    let wrong = |why| FederationError::Url { url: url.chars().take(200).collect(), why };
    if url.len() > MAX_URL_BYTES {
        return Err(wrong("is longer than 1024 bytes"));
    }
    if url.contains('#') {
        return Err(wrong("has a fragment, which no server sees"));
    }
    let uri: Uri = url.parse().map_err(|_| wrong("cannot be read"))?;
    if uri.scheme_str() != Some("https") {
        return Err(wrong("does not begin with https://"));
    }
    let authority = uri.authority().ok_or_else(|| wrong("names no host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("has a user name, which has no meaning there"));
    }
    let port = authority.as_str().trim_start_matches(authority.host());
    let is_usable = port.is_empty() || uri.port_u16().is_some_and(|port| port != 0);
    if !is_usable {
        return Err(wrong("has no usable port"));
    }
    let named = HttpsUrl::parse(url).map(|_| ());
    named.ok_or_else(|| wrong("names no host that a certificate could name"))
}

fn check_web_roots(profile: EndpointProfile, pem: &str) -> Result<(), FederationError> {
    let wrong = |why: &str| FederationError::Flag { flag: "--web-roots", why: why.to_owned() };
    if profile != EndpointProfile::HttpsWeb {
        return Err(wrong("goes with --profile https_web only; drop it"));
    }
    if pem.len() > MAX_WEB_ROOTS_BYTES {
        return Err(wrong("is larger than 64 KiB; name the one authority that you mean"));
    }
    https::roots(pem.as_bytes())
        .map(|_| ())
        .map_err(|why| FederationError::Flag { flag: "--web-roots", why })
}

/// JSON begins with a brace; PEM says no sequence, so anything fetched later is newer.
fn read_bundle(trust_domain: &TrustDomain, text: &str) -> Result<SpiffeDocument, FederationError> {
    if text.trim_start().starts_with('{') {
        return Ok(SpiffeDocument::read(trust_domain.clone(), text)?);
    }
    let bundle = TrustBundle::from_pem(trust_domain.clone(), 0, text)?;
    Ok(SpiffeDocument { bundle, refresh_hint_seconds: None })
}
