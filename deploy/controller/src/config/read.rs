//! From the file's text to what each room wants, value by value. Called by `load` and by tests.
//!
//! Never: opens the files that it names.

// SPDX-License-Identifier: Apache-2.0

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use myelin_identity::id::{SpiffeId, TrustDomain};
use toml::Spanned;

use super::error::{ConfigError, Source};
use super::raw::{self, Text};
use super::{CaAddress, Certificate, Config, Log, Webhook};
use crate::certificate::Place;
use crate::inject::{Controllers, Exception, Privileges, Resources, Settings, is_quantity};
use crate::services;

/// What the sidecar's own file takes of each (docs/CONFIG.md).
const MAX_MESH_RANGES: usize = 64;
const MAX_CA_ADDRESSES: usize = 16;
const MAX_CONTROLLERS: usize = 16;
const MAX_EXCEPTIONS: usize = 1024;

const DEFAULT_NAMESPACE: &str = "myelin-system";
const DEFAULT_REVISION: &str = "default";
const DEFAULT_SERVICE: &str = "myelin-controller";
const DEFAULT_CONFIGURATION: &str = "myelin-injector";
const DEFAULT_SECRET: &str = "myelin-webhook";
const DEFAULT_WEBHOOK: &str = "[::]:15443";
const DEFAULT_SERVICES: &str = "[::]:15014";
const DEFAULT_ACCOUNT: &str = "myelin-controller";
const DEFAULT_STATE_DIR: &str = "/var/lib/myelin";
const DEFAULT_OPS: &str = "[::]:15022";

/// Reads a configuration from its text; `name` is what errors call the file.
pub fn parse(name: &str, text: &str) -> Result<Config, ConfigError> {
    let source = Source { name, text };
    let file: raw::File = toml::from_str(text).map_err(|why| source.syntax(&why))?;
    let reader = Reader(source);
    let mut settings = reader.settings(&file)?;
    let services = reader.services(&file, &settings)?;
    settings.services =
        services.as_ref().map(|it| Controllers { address: it.address.clone(), id: it.id.clone() });
    let are_told = services.as_ref().is_some_and(|services| services.policies.is_some());
    settings.policies = settings.services.clone().filter(|_| are_told);
    Ok(Config {
        settings,
        services,
        ca: reader.ca(&file.ca)?,
        bundle_file: reader.path("ca.bundle_file", &file.ca.get_ref().bundle_file)?,
        bundle_config_map: match &file.ca.get_ref().bundle_config_map {
            Some(name) => Some(reader.named("ca.bundle_config_map", Some(name), "")?),
            None => None,
        },
        webhook: reader.webhook(&file)?,
        ops: reader.listen("ops.listen", file.ops.listen.as_ref(), DEFAULT_OPS)?,
        log: reader.log(&file.log)?,
    })
}

struct Reader<'t>(Source<'t>);

impl Reader<'_> {
    fn settings(&self, file: &raw::File) -> Result<Settings, ConfigError> {
        let sidecar = &file.sidecar;
        let expected = "a name of a-z, 0-9, `.`, `-` and `_`, without a scheme";
        let trust_domain = self.text("trust_domain", &file.trust_domain, expected, |text| {
            TrustDomain::parse(text).ok()
        })?;
        let policies = ["Always", "IfNotPresent", "Never"];
        let pull = sidecar.image_pull_policy.as_ref();
        let pull = pull.map(|set| self.word("sidecar.image_pull_policy", set, &policies));
        let refuse =
            match &file.webhook.as_ref().and_then(|table| table.get_ref().privileges.as_ref()) {
                Some(set) => self.word("webhook.privileges", set, &["warn", "refuse"])? == "refuse",
                None => false,
            };
        Ok(Settings {
            trust_domain,
            mesh_cidrs: self.list(
                "mesh_cidrs",
                &file.mesh_cidrs,
                MAX_MESH_RANGES,
                "a range such as 10.0.0.0/8, its first address in front",
                |text| text.parse::<IpNet>().ok().filter(|range| range.addr() == range.network()),
            )?,
            namespace: self.named("namespace", file.namespace.as_ref(), DEFAULT_NAMESPACE)?,
            ca: Vec::new(),
            exceptions: self.exceptions(&sidecar.exception)?,
            image: self.text("sidecar.image", &sidecar.image, "an image's reference", |text| {
                let fits = (1..=512).contains(&text.len());
                (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| text.to_owned())
            })?,
            image_pull_policy: pull.transpose()?,
            revision: self.named(
                "sidecar.revision",
                sidecar.revision.as_ref(),
                DEFAULT_REVISION,
            )?,
            cni: sidecar.cni,
            resources: self.resources(&sidecar.resources)?,
            privileges: if refuse { Privileges::Refuse } else { Privileges::Warn },
            bundle_pem: "".into(),
            services: None,
            policies: None,
        })
    }

    fn webhook(&self, file: &raw::File) -> Result<Webhook, ConfigError> {
        let none = raw::Webhook::default();
        let (table, span) = match &file.webhook {
            Some(table) => (table.get_ref(), table.span()),
            None => (&none, 0..0),
        };
        let kept = [&table.service, &table.configuration, &table.certificate_secret];
        let certificate = match (&table.certificate_file, &table.key_file) {
            (Some(certificate), Some(key)) if kept == [&None; 3] => Certificate::Files {
                certificate: self.path("webhook.certificate_file", certificate)?,
                key: self.path("webhook.key_file", key)?,
            },
            (None, None) => {
                let [service, configuration, secret] = kept.map(Option::as_ref);
                let named =
                    |key: &str, text, default| self.named(&format!("webhook.{key}"), text, default);
                Certificate::Kept(Place {
                    namespace: self.named(
                        "namespace",
                        file.namespace.as_ref(),
                        DEFAULT_NAMESPACE,
                    )?,
                    service: named("service", service, DEFAULT_SERVICE)?,
                    configuration: named("configuration", configuration, DEFAULT_CONFIGURATION)?,
                    secret: named("certificate_secret", secret, DEFAULT_SECRET)?,
                })
            }
            _ => {
                let expected = "certificate_file and key_file, or neither of them and perhaps service, configuration and certificate_secret";
                let fix = "remove the others";
                return Err(self.0.wrong(span, "webhook", expected, fix));
            }
        };
        let listen = self.listen("webhook.listen", table.listen.as_ref(), DEFAULT_WEBHOOK)?;
        Ok(Webhook { listen, certificate })
    }

    fn ca(&self, table: &Spanned<raw::Ca>) -> Result<CaAddress, ConfigError> {
        let raw::Ca { address, service, .. } = table.get_ref();
        match (address, service) {
            (Some(list), None) => {
                let expected = "an IP address and a port from 1 to 65535";
                let read = self.list("ca.address", list, MAX_CA_ADDRESSES, expected, self::address);
                read.map(CaAddress::Fixed)
            }
            (None, Some(name)) => self.named("ca.service", Some(name), "").map(CaAddress::Service),
            _ => {
                let expected = "either an address or a service";
                Err(self.0.wrong(table.span(), "ca", expected, "remove or add one of the two"))
            }
        }
    }

    fn services(
        &self,
        file: &raw::File,
        settings: &Settings,
    ) -> Result<Option<services::Config>, ConfigError> {
        let Some(raw) = &file.services else { return Ok(None) };
        let account = raw.service_account.as_ref();
        let account = self.named("services.service_account", account, DEFAULT_ACCOUNT)?;
        let id = SpiffeId::workload(&settings.trust_domain, &settings.namespace, &account);
        Ok(Some(services::Config {
            listen: self.listen("services.listen", raw.listen.as_ref(), DEFAULT_SERVICES)?,
            address: self.list(
                "services.address",
                &raw.address,
                MAX_CONTROLLERS,
                "an IP address and a port from 1 to 65535",
                address,
            )?,
            id: id.expect("names of Kubernetes are good in a SPIFFE ID"),
            token_file: self.path("services.token_file", &raw.token_file)?,
            state_dir: match &raw.state_dir {
                Some(set) => self.path("services.state_dir", set)?,
                None => DEFAULT_STATE_DIR.into(),
            },
            policies: raw.policies.then(|| settings.namespace.clone()),
        }))
    }

    fn text<T>(
        &self,
        key: &str,
        text: &Text,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let fix = "write another value";
        read(text.get_ref()).ok_or_else(|| self.0.wrong(text.span(), key, expected, fix))
    }

    fn word(&self, key: &str, text: &Text, known: &[&str]) -> Result<String, ConfigError> {
        let expected = known.join(" or ");
        self.text(key, text, &expected, |seen| known.contains(&seen).then(|| seen.to_owned()))
    }

    /// A list with at least one entry.
    fn list<T>(
        &self,
        key: &str,
        list: &Spanned<Vec<Text>>,
        most: usize,
        expected: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, ConfigError> {
        let entries = list.get_ref();
        if entries.is_empty() || entries.len() > most {
            let expected = format!("1 to {most} entries");
            return Err(self.0.wrong(list.span(), key, expected, "there is no default"));
        }
        entries.iter().map(|entry| self.text(key, entry, expected, &read)).collect()
    }

    fn path(&self, key: &str, text: &Text) -> Result<PathBuf, ConfigError> {
        self.text(key, text, "an absolute path", |text| {
            (text.starts_with('/') && !text.contains('\0')).then(|| PathBuf::from(text))
        })
    }

    fn listen(
        &self,
        key: &str,
        text: Option<&Text>,
        default: &str,
    ) -> Result<SocketAddr, ConfigError> {
        let expected = "an IP address ([::] for all of both families) and a port";
        match text {
            Some(text) => self.text(key, text, expected, |text| text.parse().ok()),
            None => Ok(default.parse().expect("the defaults are addresses")),
        }
    }

    /// The name of an object in Kubernetes (RFC 1123), which a label's value takes as well.
    fn named(&self, key: &str, text: Option<&Text>, default: &str) -> Result<String, ConfigError> {
        let Some(text) = text else { return Ok(default.to_owned()) };
        self.text(key, text, "1 to 63 of a-z, 0-9 and -, no - at its ends", |text| {
            is_name(text).then(|| text.to_owned())
        })
    }

    fn exceptions(&self, list: &[raw::Exception]) -> Result<Vec<Exception>, ConfigError> {
        let mut read: Vec<Exception> = Vec::new();
        for entry in list {
            let name = self.named("sidecar.exception.name", Some(&entry.name), "")?;
            if read.iter().any(|other| other.name == name) || read.len() == MAX_EXCEPTIONS {
                let expected = format!("each name once, and at most {MAX_EXCEPTIONS}");
                let (span, key) = (entry.name.span(), "sidecar.exception.name");
                return Err(self.0.wrong(span, key, expected, "rename or remove it"));
            }
            let address = self.text(
                "sidecar.exception.address",
                &entry.address,
                "one IP address, no range",
                |text| text.parse::<IpAddr>().ok(),
            )?;
            let port = entry.port.as_ref().map(|port| {
                let number = u16::try_from(*port.get_ref()).ok().filter(|number| *number != 0);
                number.ok_or_else(|| {
                    let (span, key) = (port.span(), "sidecar.exception.port");
                    self.0.wrong(span, key, "a port from 1 to 65535", "write for example 53")
                })
            });
            read.push(Exception { name, address, port: port.transpose()? });
        }
        Ok(read)
    }

    fn resources(&self, raw: &raw::Resources) -> Result<Resources, ConfigError> {
        let read = |key: &str, set: &Option<Text>, default: Option<String>| match set {
            None => Ok(default),
            Some(text) => {
                let expected = "a Kubernetes quantity such as \"50m\" or \"64Mi\"";
                let read = |text: &str| is_quantity(text).then(|| Some(text.to_owned()));
                self.text(&format!("sidecar.resources.{key}"), text, expected, read)
            }
        };
        let default = Resources::default();
        Ok(Resources {
            cpu_request: read("cpu_request", &raw.cpu_request, default.cpu_request)?,
            cpu_limit: read("cpu_limit", &raw.cpu_limit, default.cpu_limit)?,
            memory_request: read("memory_request", &raw.memory_request, default.memory_request)?,
            memory_limit: read("memory_limit", &raw.memory_limit, default.memory_limit)?,
        })
    }

    fn log(&self, raw: &raw::Log) -> Result<Log, ConfigError> {
        let levels = ["error", "warn", "info", "debug", "trace"];
        let level = match &raw.level {
            Some(text) => self.word("log.level", text, &levels)?,
            None => "info".to_owned(),
        };
        let json = match &raw.format {
            Some(text) => self.word("log.format", text, &["human", "json"])? == "json",
            None => false,
        };
        Ok(Log { level, json })
    }
}

fn address(text: &str) -> Option<SocketAddr> {
    let address: SocketAddr = text.parse().ok()?;
    (address.port() != 0 && !address.ip().is_unspecified()).then_some(address)
}

fn is_name(text: &str) -> bool {
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    (1..=63).contains(&text.len())
        && text.bytes().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}
