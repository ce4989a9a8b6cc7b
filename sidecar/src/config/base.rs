//! The sections that say who and where this sidecar is: the top of the file, `[ca]`, `[listen]`,
//! `[intercept]` and `[log]`. Called by `config::parse`.
//!
//! Never: opens the files that it names.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use myelin_identity::bundle::MAX_FOREIGN;
use myelin_identity::id::TrustDomain;

use super::error::ConfigError;
use super::field::{Field, may_be_meshed};
use super::section::{Section, nearest};
use super::{Ca, Intercept, Listen, Log, LogFormat, LogLevel};
use crate::addr::{CidrSet, Endpoint, ListenAddr};
use crate::credentials::Evidence;
use crate::directory::MAX_MESH_RANGES;
use crate::intercept::{MAX_EXCLUSIONS, parse_cidr};

/// Addresses of one workload: both families on a few interfaces.
const MAX_ADDRESSES: usize = 16;

/// Replicas of the CA, tried in turn.
const MAX_CA_ADDRESSES: usize = 16;

/// Operators' users on one machine.
const MAX_ADMIN_UIDS: usize = 32;

/// More runtimes than this on one machine contend for its memory bandwidth, not its cores.
const MAX_WORKERS: u64 = 256;

/// `sun_path` holds 108 bytes, its final NUL included (unix(7)).
const MAX_SOCKET_PATH_BYTES: usize = 107;

const MIN_LIFETIME: Duration = Duration::from_secs(5 * 60);
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Under `allow_short_lifetimes`: enough for a handshake, a renewal and a retry.
const MIN_TEST_LIFETIME: Duration = Duration::from_secs(5);

const DEFAULT_STATE_DIR: &str = "/var/lib/myelin";
const DEFAULT_ADMIN: &str = "/run/myelin/admin.sock";
const DEFAULT_OUTBOUND: u16 = 15_001;
const DEFAULT_INBOUND: u16 = 15_006;
const DEFAULT_OPS: u16 = 15_020;
const DEFAULT_PROBES: u16 = 15_021;
const DEFAULT_PROXY_UID: u32 = 1_337;
const DEFAULT_MARK: u32 = 0x6d79;

pub(super) const CA_KEYS: &[&str] = &[
    "address",
    "join_token_file",
    "kubernetes_token_file",
    "machine_certificate_file",
    "machine_key_file",
    "bundle_file",
    "lifetime",
    "allow_short_lifetimes",
];
pub(super) const LISTEN_KEYS: &[&str] =
    &["outbound", "inbound", "ops", "probes", "admin", "admin_uids", "workers"];
pub(super) const INTERCEPT_KEYS: &[&str] = &[
    "proxy_uid",
    "mark",
    "verify",
    "exclude_outbound_ports",
    "exclude_inbound_ports",
    "exclude_cidrs",
    "exclude_uids",
];
pub(super) const LOG_KEYS: &[&str] = &["level", "format", "witnesses", "witness_quorum", "servers"];

pub(super) fn trust_domain(root: &Section<'_>) -> Result<TrustDomain, ConfigError> {
    let expected = "a name of a-z, 0-9, `.`, `-` and `_`, without a scheme";
    let field = root.required("trust_domain", expected, "\"example.org\"")?;
    field.text(expected, "example.org", |text| TrustDomain::parse(text).ok())
}

/// Our own domain is not foreign, and each other one stands there once.
pub(super) fn federates_with(
    root: &Section<'_>,
    own: &TrustDomain,
) -> Result<BTreeSet<TrustDomain>, ConfigError> {
    let expected = format!("the name of a trust domain other than {own}, each once");
    domains(root, "federates_with", &expected, |domain| domain != own)
}

/// Of those that `federates_with` names.
pub(super) fn federates_unlogged(
    root: &Section<'_>,
    federates_with: &BTreeSet<TrustDomain>,
) -> Result<BTreeSet<TrustDomain>, ConfigError> {
    let expected = "the name of a trust domain that federates_with names, each once";
    domains(root, "federates_unlogged", expected, |domain| federates_with.contains(domain))
}

fn domains(
    root: &Section<'_>,
    key: &str,
    expected: &str,
    fits: impl Fn(&TrustDomain) -> bool,
) -> Result<BTreeSet<TrustDomain>, ConfigError> {
    let Some(field) = root.field(key) else { return Ok(BTreeSet::new()) };
    let mut domains = BTreeSet::new();
    for entry in field.list(MAX_FOREIGN)? {
        let fresh = |domain: &TrustDomain| fits(domain) && !domains.contains(domain);
        let read = |text: &str| TrustDomain::parse(text).ok().filter(fresh);
        let domain = entry.text(expected, "partner.example", read)?;
        domains.insert(domain);
    }
    Ok(domains)
}

pub(super) fn mesh(root: &Section<'_>) -> Result<CidrSet, ConfigError> {
    let expected = "the address ranges of pods, services and hosts in the mesh (no default)";
    let field = root.required("mesh_cidrs", expected, "[\"10.0.0.0/8\"]")?;
    let ranges = field.some(MAX_MESH_RANGES, expected, "\"10.0.0.0/8\"")?;
    Ok(CidrSet::new(ranges.iter().map(range).collect::<Result<_, _>>()?))
}

pub(super) fn addresses(root: &Section<'_>, mesh: &CidrSet) -> Result<Vec<IpAddr>, ConfigError> {
    let Some(field) = root.field("addresses") else { return Ok(Vec::new()) };
    let read = |entry: &Field<'_>| {
        let address = entry.ip()?;
        if mesh.contains(address) {
            return Ok(address);
        }
        Err(entry.wrong("an address within mesh_cidrs", "add its range to mesh_cidrs"))
    };
    let entries = field.some(MAX_ADDRESSES, "this workload's addresses", "\"10.1.2.3\"")?;
    entries.iter().map(read).collect()
}

pub(super) fn state_dir(root: &Section<'_>) -> Result<PathBuf, ConfigError> {
    path_or(root, "state_dir", DEFAULT_STATE_DIR)
}

pub(super) fn ca(root: &Section<'_>) -> Result<Ca, ConfigError> {
    let section = root.child("ca", CA_KEYS)?;
    let expected = "the CA's IP address and port, or a list of them";
    let field = section.required("address", expected, "\"10.0.0.2:15010\"")?;
    let entries = if field.value.is_array() {
        field.some(MAX_CA_ADDRESSES, expected, "\"10.0.0.2:15010\"")?
    } else {
        vec![field]
    };
    let path = |key, example| section.field(key).map(|field| field.path(example)).transpose();
    Ok(Ca {
        addresses: entries
            .iter()
            .map(|entry| entry.endpoint().map(Endpoint))
            .collect::<Result<_, _>>()?,
        join_token_file: path("join_token_file", "/etc/myelin/join-token")?,
        evidence: evidence(&section)?,
        bundle_file: path("bundle_file", "/etc/myelin/bundle.pem")?,
        lifetime: lifetime(&section)?,
    })
}

pub(super) fn listen(root: &Section<'_>) -> Result<Listen, ConfigError> {
    let section = root.child("listen", LISTEN_KEYS)?;
    let admin = match section.field("admin") {
        Some(field) => socket_path(&field, DEFAULT_ADMIN)?,
        None => PathBuf::from(DEFAULT_ADMIN),
    };
    let uids = section.field("admin_uids").map(|field| field.list(MAX_ADMIN_UIDS)).transpose()?;
    let workers = section
        .field("workers")
        .map(|field| field.integer(1..=MAX_WORKERS, "one for each core", "2"))
        .transpose()?;
    let listen = Listen {
        outbound: listener(&section, "outbound", DEFAULT_OUTBOUND)?,
        inbound: listener(&section, "inbound", DEFAULT_INBOUND)?,
        ops: listener(&section, "ops", DEFAULT_OPS)?,
        probes: listener(&section, "probes", DEFAULT_PROBES)?,
        admin,
        admin_uids: uids.iter().flatten().map(Field::uid).collect::<Result<_, _>>()?,
        workers: workers.and_then(|count| NonZeroUsize::new(usize::try_from(count).ok()?)),
    };
    distinct_ports(&section, &listen)?;
    Ok(listen)
}

pub(super) fn intercept(root: &Section<'_>) -> Result<Intercept, ConfigError> {
    let section = root.child("intercept", INTERCEPT_KEYS)?;
    let uid = section.field("proxy_uid");
    let proxy_uid = uid.as_ref().map_or(Ok(DEFAULT_PROXY_UID), Field::uid)?;
    let mark = match section.field("mark") {
        Some(field) => {
            let max = u64::from(u32::MAX);
            let mark = field.integer(0..=max, "a socket mark of 32 bits, 0 for none", "0x6d79")?;
            u32::try_from(mark).expect("the range ends at 2^32 - 1")
        }
        None => DEFAULT_MARK,
    };
    if let Some(uid) = uid.filter(|_| proxy_uid == 0 && mark == 0) {
        // Without a mark, everything that root sends would leave unprotected.
        let expected = "a user of the sidecar's own, since `intercept.mark` is 0";
        return Err(uid.wrong(expected, "name that user, or set a mark"));
    }
    let verify = section.field("verify").map_or(Ok(true), |field| field.boolean())?;
    Ok(Intercept {
        proxy_uid,
        mark,
        verify,
        exclude_outbound_ports: excluded(&section, "exclude_outbound_ports", Field::port)?,
        exclude_inbound_ports: excluded(&section, "exclude_inbound_ports", Field::port)?,
        exclude_cidrs: excluded(&section, "exclude_cidrs", excluded_range)?,
        exclude_uids: excluded(&section, "exclude_uids", Field::uid)?,
    })
}

/// One of the lists that `intercept apply` takes as well.
fn excluded<'t, T>(
    section: &Section<'t>,
    key: &str,
    read: impl Fn(&Field<'t>) -> Result<T, ConfigError>,
) -> Result<Vec<T>, ConfigError> {
    let Some(field) = section.field(key) else { return Ok(Vec::new()) };
    field.list(MAX_EXCLUSIONS)?.iter().map(read).collect()
}

pub(super) fn excluded_range(entry: &Field<'_>) -> Result<IpNet, ConfigError> {
    let expected = "a range such as 10.0.0.0/8, its first address in front, or one address";
    entry.text(expected, "192.0.2.0/24", |text| parse_cidr(text).ok())
}

pub(super) fn log(root: &Section<'_>) -> Result<Log, ConfigError> {
    use LogLevel::{Debug, Error, Info, Trace, Warn};
    let section = root.child("log", LOG_KEYS)?;
    let level = section.field("level").map(|field| {
        word(&field, &[Error, Warn, Info, Debug, Trace].map(|level| (level.word(), level)))
    });
    let format = section.field("format").map(|field| {
        word(&field, &[LogFormat::Human, LogFormat::Json].map(|format| (format.word(), format)))
    });
    Ok(Log {
        level: level.transpose()?.unwrap_or(Info),
        format: format.transpose()?.unwrap_or(LogFormat::Human),
    })
}

/// One of a few words.
pub(super) fn word<T: Copy>(field: &Field<'_>, words: &[(&str, T)]) -> Result<T, ConfigError> {
    let seen = field.value.as_str().unwrap_or_default();
    if let Some((_, meant)) = words.iter().find(|(word, _)| *word == seen) {
        return Ok(*meant);
    }
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let quoted: Vec<String> = known.iter().map(|word| format!("\"{word}\"")).collect();
    let fix = match nearest(seen, &known) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => "write one of these".to_owned(),
    };
    Err(field.wrong(quoted.join(" or "), fix))
}

fn range(entry: &Field<'_>) -> Result<IpNet, ConfigError> {
    let expected = "a range such as 10.0.0.0/8 or fd00::/8 of addresses that may be meshed";
    let range = entry.text(expected, "10.0.0.0/8", |text| text.parse::<IpNet>().ok())?;
    if range.addr() != range.network() {
        let fix = format!("write \"{}\"", range.trunc());
        return Err(entry.wrong("the first address of its range", fix));
    }
    if range.prefix_len() == 0 {
        let fix = "list the ranges of pods, services and hosts";
        return Err(entry.wrong("less than the whole internet", fix));
    }
    if !may_be_meshed(range.addr()) {
        let fix = "remove it: loopback, link-local and multicast are never mesh";
        return Err(entry.wrong("addresses that may be meshed", fix));
    }
    Ok(range)
}

/// At most one way to attest: two would leave open which one the CA's entries are about.
fn evidence(section: &Section<'_>) -> Result<Evidence, ConfigError> {
    let path = |key, example| {
        let field = section.field(key);
        field.as_ref().map(|field| field.path(example)).transpose()
    };
    let token = path("kubernetes_token_file", "/var/run/secrets/myelin/token")?;
    let certificate = path("machine_certificate_file", "/etc/ssl/machine.crt")?;
    let key = path("machine_key_file", "/etc/ssl/private/machine.key")?;
    let only = |key: &str| match section.field(key) {
        Some(field) => Err(field.wrong("one way to attest only", "remove the other ones")),
        None => Ok(()),
    };
    match (token, certificate, key) {
        (None, None, None) => Ok(Evidence::None),
        (Some(token), None, None) => {
            only("join_token_file")?;
            Ok(Evidence::KubernetesToken(token))
        }
        (None, Some(certificate), Some(key)) => {
            only("join_token_file")?;
            Ok(Evidence::Machine { certificate, key })
        }
        (Some(_), _, _) => {
            only("machine_certificate_file")?;
            only("machine_key_file").map(|()| Evidence::None)
        }
        (None, Some(_), None) => Err(section.missing(
            "machine_key_file",
            "the key of machine_certificate_file",
            "machine_key_file = \"/etc/ssl/private/machine.key\"",
        )),
        (None, None, Some(_)) => Err(section.missing(
            "machine_certificate_file",
            "the certificate of machine_key_file",
            "machine_certificate_file = \"/etc/ssl/machine.crt\"",
        )),
    }
}

fn lifetime(section: &Section<'_>) -> Result<Option<Duration>, ConfigError> {
    let short = section.field("allow_short_lifetimes").map(|field| field.boolean()).transpose()?;
    let (min, why) = match short {
        Some(true) => (MIN_TEST_LIFETIME, "with `allow_short_lifetimes`, for tests"),
        _ => (MIN_LIFETIME, "shorter only in tests, with `allow_short_lifetimes = true`"),
    };
    section.field("lifetime").map(|field| field.duration(min..=MAX_LIFETIME, why)).transpose()
}

fn listener(section: &Section<'_>, key: &str, port: u16) -> Result<ListenAddr, ConfigError> {
    let Some(field) = section.field(key) else {
        return Ok(ListenAddr(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))));
    };
    let expected = "an IP address ([::] for all of both families) and a port from 1 to 65535";
    field.text(expected, &format!("[::]:{port}"), |text| {
        text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0).map(ListenAddr)
    })
}

/// Interception steers by port alone, so the ports must differ even on different addresses.
fn distinct_ports(section: &Section<'_>, listen: &Listen) -> Result<(), ConfigError> {
    let ports = [
        ("outbound", listen.outbound),
        ("inbound", listen.inbound),
        ("ops", listen.ops),
        ("probes", listen.probes),
    ];
    for (index, (key, address)) in ports.iter().enumerate() {
        let clash = ports
            .iter()
            .enumerate()
            .find(|(other, (_, at))| *other != index && at.port() == address.port());
        if let (Some((_, (other, _))), Some(field)) = (clash, section.field(key)) {
            let expected = format!("another port than `listen.{other}`");
            return Err(field.wrong(expected, "give each listener a port of its own"));
        }
    }
    Ok(())
}

/// `example` is what is written where there is nothing better to do.
pub(super) fn socket_path(field: &Field<'_>, example: &str) -> Result<PathBuf, ConfigError> {
    let path = field.path(example)?;
    if path.as_os_str().len() > MAX_SOCKET_PATH_BYTES {
        let expected = format!("at most {MAX_SOCKET_PATH_BYTES} bytes (the kernel's limit)");
        return Err(field.wrong(expected, "choose a shorter path"));
    }
    Ok(path)
}

fn path_or(section: &Section<'_>, key: &str, default: &str) -> Result<PathBuf, ConfigError> {
    match section.field(key) {
        Some(field) => field.path(default),
        None => Ok(PathBuf::from(default)),
    }
}
