//! `[inbound]`: what ports demand and who may enter, as `policy` wants it. Called by
//! `config::parse`.
//!
//! Never: permissive without an end, a rule that names nobody by accident.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{HashMap, HashSet};

use myelin_identity::id::{SpiffeId, TrustDomain};

use super::Listen;
use super::base::{excluded_range, word};
use super::error::ConfigError;
use super::field::{Domains, Field};
use super::section::Section;
use crate::addr::CidrSet;
use crate::directory::MAX_ALPN_BYTES;
use crate::policy::{
    Author, Config, MAX_CIDRS_IN_RULE, MAX_NAMES_IN_RULE, MAX_PORTS, MAX_RULES, Mode, PlainMtls,
    PortConfig, Ports, Rule,
};

pub(super) const KEYS: &[&str] = &["mode", "until", "port", "allow", "deny", "audit"];
pub(super) const PORT_KEYS: &[&str] =
    &["port", "mode", "until", "server_first", "workload_tls", "plain_mtls", "alpn"];
pub(super) const RULE_KEYS: &[&str] = &["name", "ports", "ids", "namespaces", "cidrs"];

pub(super) fn read(
    section: &Section<'_>,
    domains: Domains<'_>,
    listen: &Listen,
) -> Result<Config, ConfigError> {
    let default = mode(section)?.unwrap_or(Mode::Strict);
    let mut ports = HashMap::new();
    for entry in section.children("port", PORT_KEYS, MAX_PORTS)? {
        let field = entry.required("port", "the port of the workload", "8080")?;
        let number = field.port()?;
        if listen.takes(number) {
            let fix = "name a port that the workload listens on";
            return Err(field.wrong("no port of the sidecar itself", fix));
        }
        if ports.insert(number, port(&entry)?).is_some() {
            return Err(field.wrong("each port once", "join both entries"));
        }
    }
    Ok(Config {
        trust_domain: domains.own.clone(),
        default,
        ports,
        allow: rules(section, "allow", domains)?,
        deny: rules(section, "deny", domains)?,
        audit: rules(section, "audit", domains)?,
    })
}

fn mode(section: &Section<'_>) -> Result<Option<Mode>, ConfigError> {
    let until = section.field("until");
    let wanted = section.field("mode");
    let permissive =
        wanted.map(|field| word(&field, &[("strict", false), ("permissive", true)])).transpose()?;
    match (permissive, until) {
        (Some(true), Some(until)) => Ok(Some(Mode::Permissive { until: until.date()? })),
        (Some(true), None) => {
            let expected = "the date on which permissive mode ends";
            Err(section.missing("until", expected, "until = 2026-03-31T18:00:00Z"))
        }
        (_, Some(until)) => {
            let fix = "remove it, or set mode = \"permissive\" beside it";
            Err(until.wrong("no date, since mode is not \"permissive\" there", fix))
        }
        (Some(false), None) => Ok(Some(Mode::Strict)),
        (None, None) => Ok(None),
    }
}

fn port(section: &Section<'_>) -> Result<PortConfig, ConfigError> {
    let flag = |key| section.field(key).map_or(Ok(false), |field| field.boolean());
    let plain = flag("plain_mtls")?;
    let alpn = match section.field("alpn") {
        Some(field) if !plain => {
            let fix = "set plain_mtls = true beside it, or remove it";
            return Err(field.wrong("no ALPN without plain_mtls", fix));
        }
        Some(field) => Some(alpn(&field)?),
        None => None,
    };
    Ok(PortConfig {
        mode: mode(section)?,
        server_first: flag("server_first")?,
        workload_tls: flag("workload_tls")?,
        plain_mtls: plain.then_some(PlainMtls { alpn }),
    })
}

fn alpn(field: &Field<'_>) -> Result<Vec<u8>, ConfigError> {
    let expected = "an ALPN of 1 to 255 visible characters other than myelin/1";
    field.text(expected, "h2", |text| {
        let fits = (1..=MAX_ALPN_BYTES).contains(&text.len()) && text != "myelin/1";
        (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| text.into())
    })
}

fn rules(section: &Section<'_>, key: &str, domains: Domains<'_>) -> Result<Vec<Rule>, ConfigError> {
    let mut names = HashSet::new();
    let mut rules = Vec::new();
    for entry in section.children(key, RULE_KEYS, MAX_RULES)? {
        let field = entry.required("name", "what verdicts call this rule", "\"web\"")?;
        let name = field.name()?;
        if !names.insert(name.clone()) {
            return Err(field.wrong("each name once", "choose another name"));
        }
        rules.push(rule(&entry, name, domains)?);
    }
    Ok(rules)
}

fn rule(section: &Section<'_>, name: String, domains: Domains<'_>) -> Result<Rule, ConfigError> {
    let (ids, namespaces) = (section.field("ids"), section.field("namespaces"));
    let cidrs = section.field("cidrs");
    if ids.is_none() && namespaces.is_none() && cidrs.is_none() {
        let expected = "the peers that this rule is about, by ID, namespace or address";
        return Err(section.missing("ids", expected, "namespaces = [\"shop\"]"));
    }
    let rule = Rule {
        name: name.into(),
        author: Author::File,
        ports: ports(section)?,
        ids: each(ids.as_ref(), |entry| entry.peer_id(domains))?,
        namespaces: each(namespaces.as_ref(), |entry| namespace(entry, domains.own))?,
        cidrs: ranges(cidrs.as_ref())?,
    };
    // An empty list means nobody; addresses alone mean anybody from there. Not both in one rule.
    match ids.or(namespaces) {
        Some(list) if cidrs.is_some() && rule.ids.is_empty() && rule.namespaces.is_empty() => {
            let fix = "remove it, so that the rule goes by address alone";
            Err(list.wrong("peers by name beside cidrs", fix))
        }
        _ => Ok(rule),
    }
}

fn ranges(list: Option<&Field<'_>>) -> Result<CidrSet, ConfigError> {
    let Some(field) = list else { return Ok(CidrSet::default()) };
    let expected = "the ranges of addresses that peers come from";
    let entries = field.some(MAX_CIDRS_IN_RULE, expected, "\"10.1.0.0/16\"")?;
    entries.iter().map(excluded_range).collect::<Result<_, _>>().map(CidrSet::new)
}

fn ports(section: &Section<'_>) -> Result<Ports, ConfigError> {
    let Some(field) = section.field("ports") else { return Ok(Ports::All) };
    let entries = field.list(MAX_PORTS)?;
    if entries.is_empty() {
        return Ok(Ports::All);
    }
    entries.iter().map(Field::port).collect::<Result<_, _>>().map(Ports::Only)
}

fn each<T: Eq + std::hash::Hash>(
    list: Option<&Field<'_>>,
    read: impl Fn(&Field<'_>) -> Result<T, ConfigError>,
) -> Result<HashSet<T>, ConfigError> {
    match list {
        Some(field) => field.list(MAX_NAMES_IN_RULE)?.iter().map(read).collect(),
        None => Ok(HashSet::new()),
    }
}

/// A namespace is one segment of an ID's path, so it is read as part of one.
fn namespace(field: &Field<'_>, own: &TrustDomain) -> Result<String, ConfigError> {
    let expected = "a whole namespace of letters, digits, `.`, `-` and `_` (no patterns)";
    field.text(expected, "shop", |text| {
        SpiffeId::workload(own, text, "any").ok().map(|_| text.to_owned())
    })
}
