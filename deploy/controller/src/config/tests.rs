//! The file's keys: what they become, what each wrong one says, and that the documentation lists
//! them all.
//!
//! Never: a file outside a temporary directory.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::inject::Privileges;

const IN_A_CLUSTER: &str = include_str!("../../examples/cluster.toml");

/// The first example of the documentation, which a user would copy.
fn example() -> &'static str {
    let document = include_str!("../../../../docs/INJECTION.md");
    document.split("```toml\n").nth(1).unwrap().split("```").next().unwrap()
}

#[test]
fn the_documented_example_is_understood() {
    let config = parse("controller.toml", example()).unwrap();
    assert_eq!(config.settings.trust_domain.as_str(), "cluster.local");
    assert_eq!(config.ca, CaAddress::Fixed(vec!["10.96.0.5:15010".parse().unwrap()]));
    assert_eq!(config.webhook.listen.to_string(), "[::]:15443");
    assert_eq!(config.ops.to_string(), "[::]:15022");
    assert_eq!(config.settings.namespace, "myelin-system");
    assert_eq!(config.settings.revision, "default");
    assert_eq!(config.settings.privileges, Privileges::Warn);
    assert!(!config.settings.cni && !config.log.json && config.bundle_config_map.is_none());
}

#[test]
fn every_key_reaches_its_room() {
    let config = parse("full.toml", include_str!("../../examples/full.toml")).unwrap();
    let settings = &config.settings;
    assert_eq!(settings.namespace, "mesh");
    assert_eq!(settings.mesh_cidrs.len(), 2);
    let CaAddress::Fixed(addresses) = &config.ca else { panic!("{:?}", config.ca) };
    assert_eq!(addresses.len(), 2);
    assert_eq!(settings.image_pull_policy.as_deref(), Some("Always"));
    assert_eq!(settings.revision, "canary");
    assert!(settings.cni && config.log.json);
    assert_eq!(settings.resources.cpu_limit.as_deref(), Some("2"));
    assert_eq!(settings.resources.memory_limit.as_deref(), Some("1Gi"));
    assert_eq!(settings.exceptions[0].port, Some(53));
    assert_eq!(settings.exceptions[1].port, None);
    assert_eq!(settings.privileges, Privileges::Refuse);
    assert_eq!(config.webhook.listen.port(), 9443);
    assert_eq!(config.ops.port(), 9022);
    let services = config.services.as_ref().unwrap();
    assert_eq!((services.listen.port(), services.address.len()), (9014, 2));
    assert_eq!(services.id.as_str(), "spiffe://cluster.local/ns/mesh/sa/controller");
    assert_eq!(services.state_dir.to_str(), Some("/var/lib/controller"));
    assert_eq!(services.policies.as_deref(), Some("mesh"));
    let told = settings.services.as_ref().unwrap();
    assert_eq!((&told.address, &told.id), (&services.address, &services.id));
    assert_eq!(settings.policies.as_ref(), Some(told));
    assert_eq!(config.log.level, "debug");
}

#[test]
fn a_service_stands_in_for_addresses() {
    let config = parse("cluster.toml", IN_A_CLUSTER).unwrap();
    assert_eq!(config.ca, CaAddress::Service("myelin-ca".to_owned()));
    assert_eq!(config.bundle_config_map.as_deref(), Some("myelin-trust-bundle"));
    let [namespace, service, configuration, secret] =
        ["myelin-system", "injector", "injector", "injector-certificate"].map(str::to_owned);
    let place = Place { namespace, secret, service, configuration };
    assert_eq!(config.webhook.certificate, Certificate::Kept(place));
    let default = parse("f", IN_A_CLUSTER.split("[webhook]").next().unwrap()).unwrap();
    let Certificate::Kept(place) = default.webhook.certificate else { panic!("{default:?}") };
    let Place { service, configuration, secret, .. } = &place;
    assert_eq!(
        [service, configuration, secret],
        ["myelin-controller", "myelin-injector", "myelin-webhook"]
    );
    assert!(config.services.is_none() && config.settings.services.is_none(), "off");
}

/// A line of the full example, what stands there instead, and what is said of it.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "trust_domain = \"cluster.local\"",
        "trust_domian = \"x\"",
        "f:2:1: unknown field `trust_domian`, expected one of `trust_domain`",
    ),
    ("trust_domain = \"cluster.local\"", "", "missing field `trust_domain`: add it to this table"),
    (
        "trust_domain = \"cluster.local\"",
        "trust_domain = \"a b\"",
        "f:2:16: `trust_domain` is \"a b\", expected a name of a-z",
    ),
    (
        "trust_domain = \"cluster.local\"",
        "trust_domain = 5",
        "f:2:16: invalid type: integer `5`, expected a string: correct it there",
    ),
    ("trust_domain = \"cluster.local\"", "trust_domain = ", "f:2:"),
    (
        "mesh_cidrs = [\"10.0.0.0/8\", \"fd00::/8\"]",
        "mesh_cidrs = []",
        "`mesh_cidrs` is [], expected 1 to 64 entries",
    ),
    (
        "mesh_cidrs = [\"10.0.0.0/8\", \"fd00::/8\"]",
        "mesh_cidrs = [\"10.0.0.1/8\"]",
        "f:3:15: `mesh_cidrs` is \"10.0.0.1/8\"",
    ),
    (
        "address = [\"10.96.0.5:15010\", \"10.96.0.6:15010\"]",
        "address = [\"10.96.0.5:0\"]",
        "`ca.address` is \"10.96.0.5:0\"",
    ),
    (
        "address = [\"10.96.0.5:15010\", \"10.96.0.6:15010\"]",
        "",
        "expected either an address or a service: remove or add one",
    ),
    (
        "address = [\"10.96.0.5:15010\", \"10.96.0.6:15010\"]",
        "address = [\"10.96.0.5:15010\"]\nservice = \"myelin-ca\"",
        "expected either an address or a service: remove or add one",
    ),
    (
        "address = [\"10.96.0.5:15010\", \"10.96.0.6:15010\"]",
        "service = \"Myelin\"",
        "`ca.service` is \"Myelin\", expected 1 to 63 of a-z",
    ),
    (
        "namespace = \"mesh\"",
        "namespace = \"Mesh\"",
        "`namespace` is \"Mesh\", expected 1 to 63 of a-z",
    ),
    (
        "image_pull_policy = \"Always\"",
        "image_pull_policy = \"always\"",
        "expected Always or IfNotPresent or Never",
    ),
    (
        "cpu_limit = \"2\"",
        "cpu_limit = \"two\"",
        "`sidecar.resources.cpu_limit` is \"two\", expected a Kubernetes quantity",
    ),
    (
        "privileges = \"refuse\"",
        "privileges = \"deny\"",
        "`webhook.privileges` is \"deny\", expected warn or refuse",
    ),
    (
        "listen = \"[::]:9443\"",
        "listen = \"9443\"",
        "`webhook.listen` is \"9443\", expected an IP address",
    ),
    ("key_file = \"/etc/myelin/webhook/tls.key\"", "", "`webhook` is [webhook]"),
    (
        "key_file = \"/etc/myelin/webhook/tls.key\"",
        "key_file = \"/tls.key\"\ncertificate_secret = \"mine\"",
        "expected certificate_file and key_file, or neither of them",
    ),
    (
        "port = 53",
        "port = 70000",
        "`sidecar.exception.port` is 70000, expected a port from 1 to 65535",
    ),
    (
        "name = \"api\"",
        "name = \"dns\"",
        "`sidecar.exception.name` is \"dns\", expected each name once",
    ),
    (
        "address = [\"10.96.0.7:15014\", \"[fd00::7]:15014\"]",
        "address = []",
        "`services.address` is [], expected 1 to 16 entries",
    ),
    (
        "service_account = \"controller\"",
        "service_account = \"Controller\"",
        "`services.service_account` is \"Controller\", expected 1 to 63 of a-z",
    ),
    ("token_file = \"/etc/myelin/identity/token\"", "", "missing field `token_file`"),
    ("level = \"debug\"", "level = \"all\"", "`log.level` is \"all\", expected error or warn"),
    ("cni = true", "cni = \"yes\"", "invalid type: string \"yes\", expected a boolean"),
];

#[test]
fn each_wrong_input_is_one_line_that_says_where_what_and_how_to_fix_it() {
    let full = include_str!("../../examples/full.toml");
    for (line, instead, expected) in WRONG {
        assert_eq!(full.matches(*line).count(), 1, "{line}");
        let complaint = parse("f", &full.replace(line, instead)).unwrap_err().to_string();
        assert!(complaint.contains(expected), "{instead}: {complaint}");
        assert!(!complaint.contains('\n') && complaint.starts_with("f:"), "{complaint}");
    }
}

#[test]
fn a_file_that_others_may_write_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("controller.toml");
    fs::write(&path, example()).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    load(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    assert!(load(&path).unwrap_err().to_string().contains("chmod o-w"));
    let absent = load(&directory.path().join("none.toml")).unwrap_err().to_string();
    assert!(absent.contains("cannot be read"), "{absent}");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, [0xff]).unwrap();
    assert!(load(&path).unwrap_err().to_string().contains("is no text"));
}

#[test]
fn the_documentation_lists_every_key_and_no_other() {
    let document = include_str!("../../../../docs/INJECTION.md");
    let (_, section) = document.split_once("\n## The controller's file").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let documented: BTreeSet<String> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(str::to_owned))
        .collect();
    // The two examples together have every key.
    let mut coded = BTreeSet::new();
    for text in [include_str!("../../examples/full.toml"), IN_A_CLUSTER] {
        keys("", &toml::from_str(text).unwrap(), &mut coded);
    }
    assert_eq!(documented, coded);
}

fn keys(path: &str, table: &toml::Table, found: &mut BTreeSet<String>) {
    for (key, value) in table {
        let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match value {
            toml::Value::Table(inner) => keys(&full, inner, found),
            toml::Value::Array(entries) if entries.iter().all(toml::Value::is_table) => {
                for entry in entries.iter().filter_map(toml::Value::as_table) {
                    keys(&full, entry, found);
                }
            }
            _ => drop(found.insert(full)),
        }
    }
}
