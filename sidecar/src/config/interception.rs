//! Which rules a configuration asks for, in the words of `intercept`. `app` asks it of the whole
//! configuration, the CNI plugin of a pod's text, of which it reads nothing else: the rest is the
//! sidecar's own business, which may be of a later version than the plugin.
//!
//! Never: another reading of `[listen]` and `[intercept]` than the sidecar's own; of `[[probe]]` more
//! than whether there is one.

// SPDX-License-Identifier: Apache-2.0

use toml::de::DeTable;

use super::error::ConfigError;
use super::section::Section;
use super::source::Source;
use super::{Config, Intercept, Listen, base, syntax};
use crate::intercept;

/// The rules that go with the configuration in `text`; `name` is what errors call it.
pub fn interception(name: &str, text: &str) -> Result<intercept::Config, ConfigError> {
    let source = Source { name: name.into(), text };
    let table = DeTable::parse(text).map_err(|why| syntax(&source, &why))?;
    let root = Section::of_somebody(&source, table.get_ref());
    let probes = root.field("probe");
    let has_probes =
        probes.is_some_and(|list| list.value.as_array().is_some_and(|all| !all.is_empty()));
    Ok(wanted(&base::listen(&root)?, &base::intercept(&root)?, has_probes))
}

impl Config {
    pub fn interception(&self) -> intercept::Config {
        wanted(&self.listen, &self.intercept, !self.probes.is_empty())
    }
}

fn wanted(listen: &Listen, intercept: &Intercept, has_probes: bool) -> intercept::Config {
    intercept::Config {
        proxy_uid: intercept.proxy_uid,
        mark: intercept.mark,
        outbound_port: listen.outbound.port(),
        inbound_port: listen.inbound.port(),
        ops_port: listen.ops.port(),
        probe_port: has_probes.then(|| listen.probes.port()),
        exclude_outbound_ports: intercept.exclude_outbound_ports.clone(),
        exclude_inbound_ports: intercept.exclude_inbound_ports.clone(),
        exclude_cidrs: intercept.exclude_cidrs.clone(),
        exclude_uids: intercept.exclude_uids.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    const WHOLE: &str = r#"
trust_domain = "example.org"
mesh_cidrs = ["10.0.0.0/8"]
ca.address = "10.0.0.2:15010"
listen.outbound = "[::]:16001"
[intercept]
proxy_uid = 1400
exclude_inbound_ports = [22]
exclude_cidrs = ["192.0.2.0/24"]
[[probe]]
container = "web"
kind = "liveness"
action = "tcp"
port = 80
"#;

    #[test]
    fn a_part_is_read_as_in_the_whole_and_what_a_later_version_adds_elsewhere_is_passed_over() {
        let whole = parse("file", WHOLE).unwrap().interception();
        assert_eq!((whole.outbound_port, whole.proxy_uid), (16001, 1400));
        assert_eq!(whole.probe_port, Some(15021));
        let without = WHOLE.split("[[probe]]").next().unwrap();
        assert_eq!(interception("file", without).unwrap().probe_port, None, "nobody is there");
        assert_eq!(interception("file", WHOLE).unwrap(), whole);
        let later = format!("later = 1\n{WHOLE}\n[[of_tomorrow]]\nname = \"x\"\n");
        assert!(parse("file", &later).is_err());
        assert_eq!(interception("file", &later).unwrap(), whole);
    }

    #[test]
    fn a_part_that_is_wrong_is_refused_with_its_place() {
        for (text, named) in [
            ("[intercept]\nexclude_port = [1]", "intercept.exclude_port"),
            ("[listen]\ninbound = \"[::]:15001\"", "15001"),
            ("[intercept]\nexclude_cidrs = [\"10.0.0.1/8\"]", "exclude_cidrs"),
            ("[intercept", "pod:1"),
        ] {
            let refused = interception("pod", text).unwrap_err().to_string();
            assert!(refused.contains(named), "{text}: {refused}");
        }
    }
}
