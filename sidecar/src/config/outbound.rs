//! `[outbound]`: exceptions, services and static peers, as `directory` wants them. Called by
//! `config::parse`.
//!
//! Never: an exception for an address that the same file names as meshed.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;
use std::num::NonZeroU32;

use super::error::ConfigError;
use super::field::{Domains, Field};
use super::limits;
use super::section::Section;
use crate::addr::CidrSet;
use crate::directory::{
    Config, Exception, MAX_ENDPOINTS, MAX_STATIC, Place, Protocol, Service, StaticPeer,
};

pub(super) const KEYS: &[&str] = &["exception", "service", "peer"];
pub(super) const EXCEPTION_KEYS: &[&str] = &["name", "address", "port"];
pub(super) const SERVICE_KEYS: &[&str] =
    &["name", "address", "port", "endpoints", "ids", "protocol", "max_uses"];
pub(super) const PEER_KEYS: &[&str] = &["address", "port", "id", "protocol", "nat", "max_uses"];

pub(super) fn read(
    section: &Section<'_>,
    domains: Domains<'_>,
    mesh: CidrSet,
) -> Result<Config, ConfigError> {
    let mut taken = Taken::default();
    let mut config = Config { mesh, ..Config::default() };
    for entry in section.children("service", SERVICE_KEYS, MAX_STATIC)? {
        config.services.push(service(&entry, domains, &mut taken)?);
    }
    for entry in section.children("peer", PEER_KEYS, MAX_STATIC)? {
        config.peers.push(peer(&entry, domains, &mut taken)?);
    }
    for entry in section.children("exception", EXCEPTION_KEYS, MAX_STATIC)? {
        let name = entry.required("name", "what logs call this exception", "\"dns\"")?.name()?;
        let (address, place) = place(&entry)?;
        // Such an exception would never be reached, whatever its author thinks.
        taken.check(&address, (place.0, None))?;
        taken.claim(&address, place, "an exception")?;
        config.exceptions.push(Exception { name: name.into(), place });
    }
    Ok(config)
}

/// Each address and port has one meaning.
#[derive(Default)]
struct Taken(HashMap<Place, &'static str>);

impl Taken {
    fn claim(
        &mut self,
        field: &Field<'_>,
        at: Place,
        what: &'static str,
    ) -> Result<(), ConfigError> {
        self.check(field, at)?;
        self.0.insert(at, what);
        Ok(())
    }

    fn check(&self, field: &Field<'_>, at: Place) -> Result<(), ConfigError> {
        let Some(before) = self.0.get(&at) else { return Ok(()) };
        let expected = format!("an address and port that are not yet those of {before}");
        Err(field.wrong(expected, "keep one of the two entries"))
    }
}

fn place<'t>(section: &Section<'t>) -> Result<(Field<'t>, Place), ConfigError> {
    let field = section.required("address", "one exact IP address", "\"10.96.0.10\"")?;
    let address = field.ip()?;
    let port = section.field("port").map(|field| field.port()).transpose()?;
    Ok((field, (address, port)))
}

fn service(
    section: &Section<'_>,
    domains: Domains<'_>,
    taken: &mut Taken,
) -> Result<Service, ConfigError> {
    let name = section.required("name", "what logs call this service", "\"web\"")?.name()?;
    let (address, (ip, _)) = place(section)?;
    let port = section.required("port", "the service's port", "80")?.port()?;
    taken.claim(&address, (ip, Some(port)), "a service")?;
    let example = "\"10.1.2.3:8080\"";
    let endpoints = section
        .required("endpoints", "the addresses and ports of its workloads", &format!("[{example}]"))?
        .some(MAX_ENDPOINTS, "at least one address and port", example)?;
    let example = format!("\"spiffe://{}/ns/default/sa/web\"", domains.own);
    let ids = section
        .required("ids", "the IDs that its endpoints may have", &format!("[{example}]"))?
        .some(MAX_ENDPOINTS, "at least one SPIFFE ID", &example)?;
    Ok(Service {
        name: name.into(),
        address: (ip, port).into(),
        endpoints: endpoints.iter().map(Field::endpoint).collect::<Result<_, _>>()?,
        ids: ids.iter().map(|id| id.peer_id(domains)).collect::<Result<_, _>>()?,
        protocol: protocol(section)?,
        max_uses: max_uses(section)?,
    })
}

fn peer(
    section: &Section<'_>,
    domains: Domains<'_>,
    taken: &mut Taken,
) -> Result<StaticPeer, ConfigError> {
    let (address, place) = place(section)?;
    taken.claim(&address, place, "a peer")?;
    let example = format!("\"spiffe://{}/ns/default/sa/web\"", domains.own);
    let id = section.required("id", "the SPIFFE ID of whoever is there", &example)?;
    Ok(StaticPeer {
        place,
        id: id.peer_id(domains)?,
        protocol: protocol(section)?,
        nat: section.field("nat").map_or(Ok(false), |field| field.boolean())?,
        max_uses: max_uses(section)?,
    })
}

fn max_uses(section: &Section<'_>) -> Result<Option<NonZeroU32>, ConfigError> {
    let Some(field) = section.field("max_uses") else { return Ok(None) };
    let why = "1 makes a new connection for every use; more than limits.max_uses changes nothing";
    let number = field.integer(1..=u64::from(limits::MOST_USES), why, "1")?;
    Ok(u32::try_from(number).ok().and_then(NonZeroU32::new))
}

fn protocol(section: &Section<'_>) -> Result<Protocol, ConfigError> {
    let Some(field) = section.field("protocol") else { return Ok(Protocol::Myelin1) };
    let expected = "\"myelin/1\", \"mtls\" or \"mtls:\" and an ALPN";
    field.text(
        expected,
        "mtls:h2",
        |text| {
            if text.is_empty() { None } else { Protocol::parse(text) }
        },
    )
}
