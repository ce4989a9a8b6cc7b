//! What evidence from outside the mesh shows, in the form in which entries select by it.
//!
//! Never: a pattern; a selector is a whole text that holds or does not.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::journal::{Hex, PodRecord};

/// Longest selector: a DNS name of 253 bytes or a URI of a workload, with what stands before it.
pub const MAX_SELECTOR_BYTES: usize = 512;

/// The kinds of selectors that attestors show, each with its colon.
const KINDS: [&str; 11] = [
    "k8s:ns:",
    "k8s:sa:",
    "k8s:pod-name:",
    "k8s:pod-uid:",
    "k8s:node-name:",
    "k8s:issuer:",
    "x509:san:dns:",
    "x509:san:ip:",
    "x509:san:uri:",
    "x509:subject:cn:",
    "x509:issuer-hash:",
];

/// One thing that is true of a caller, such as `k8s:ns:shop`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector(String);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("selector {0:?} is of no kind that an attestor shows; expected one of: {all}", all = KINDS.join(" "))]
    Kind(String),
    #[error("selector {0:?} has no value after its kind")]
    Empty(String),
    #[error(
        "selector {0:?} is compared whole: there are no patterns; write one entry for each value"
    )]
    Pattern(String),
    #[error("selector {text:?} would never hold: {expected}")]
    NeverShown { text: String, expected: String },
    #[error(
        "a selector has at most {MAX_SELECTOR_BYTES} bytes, without white space or control characters"
    )]
    Length,
}

/// What one attestor found out about a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    /// The attestor's word.
    pub attestor: &'static str,
    pub selectors: Vec<Selector>,
    /// Of whom this is evidence, if one host key at a time may stand for it.
    pub bound_to: Option<BoundTo>,
    /// Namespace and service account, if there are such.
    pub service_account: Option<(String, String)>,
    /// Addresses that the evidence itself names.
    pub addresses: Vec<IpAddr>,
    /// The addresses are of before: who has evidence is away.
    pub is_remembered: bool,
    /// The pod, if it is one.
    pub pod: Option<PodRecord>,
}

/// Where the cluster says that a pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whereabouts {
    /// Nowhere, for good.
    Gone,
    /// There, with these addresses.
    At(Vec<IpAddr>),
    /// Nobody could or would say.
    Unknown,
}

impl Attested {
    /// A pod of which the cluster says at this moment that it has this address.
    pub fn is_said_to_live_at(&self, address: IpAddr) -> bool {
        self.pod.is_some() && !self.is_remembered && self.addresses.contains(&address)
    }
}

impl Whereabouts {
    /// Whether it is known not to have this address.
    pub fn is_not_at(&self, address: IpAddr) -> bool {
        match self {
            Self::Gone => true,
            Self::At(addresses) => !addresses.contains(&address),
            Self::Unknown => false,
        }
    }
}

/// A pod or a machine, as a hash of what tells it from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundTo {
    pub name: Hex,
    pub lasts: Lasts,
}

/// How long its host key is the only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasts {
    /// A pod's state ends with the pod.
    ForGood,
    /// A machine may lose its state directory: it comes back when its SVID has ended.
    WithTheSvid,
}

impl Selector {
    /// What an attestor found, whatever it is: it is compared, never parsed.
    pub(super) fn found(kind: &'static str, value: &str) -> Self {
        debug_assert!(KINDS.contains(&kind), "{kind}");
        Self(format!("{kind}{value}"))
    }

    /// `k8s` or `x509`.
    pub fn family(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let plain = |c: char| !c.is_control() && !c.is_whitespace();
        if text.len() > MAX_SELECTOR_BYTES || !text.chars().all(plain) {
            return Err(SelectorError::Length);
        }
        let kind = KINDS.iter().find(|kind| text.starts_with(**kind));
        let kind = kind.ok_or_else(|| SelectorError::Kind(text.to_owned()))?;
        let value = &text[kind.len()..];
        if value.is_empty() {
            return Err(SelectorError::Empty(text.to_owned()));
        }
        if value.contains('*') {
            return Err(SelectorError::Pattern(text.to_owned()));
        }
        if let Some(expected) = never_shown(kind, value) {
            return Err(SelectorError::NeverShown { text: text.to_owned(), expected });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A DNS subdomain (RFC 1123), which Kubernetes demands of namespaces, service accounts, pods and
/// nodes, uids included: so that no name can be mistaken for two, nor leave the SPIFFE ID that it
/// becomes a part of.
pub(super) fn is_kubernetes_name(text: &str) -> bool {
    let plain = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.'
    };
    (1..=253).contains(&text.len())
        && text.bytes().all(plain)
        && !text.split('.').any(str::is_empty)
}

/// Why no attestor shows this value, with the spelling in which one would. An entry that waits for
/// it would grant nothing, and a deny entry would let everybody pass.
fn never_shown(kind: &str, value: &str) -> Option<String> {
    match kind {
        "x509:san:dns:" => value.bytes().any(|byte| byte.is_ascii_uppercase()).then(|| {
            format!("DNS names are shown in lower case; write {kind}{}", value.to_ascii_lowercase())
        }),
        "x509:san:ip:" => match value.parse::<IpAddr>() {
            Err(_) => {
                Some(format!("{value:?} is no IP address; a selector names one, not a range"))
            }
            Ok(address) => {
                let shown = address.to_canonical().to_string();
                (shown != value).then(|| {
                    format!("the same address is shown in one way only; write {kind}{shown}")
                })
            }
        },
        "x509:issuer-hash:" => {
            let plain = value.replace(':', "").to_ascii_lowercase();
            let hash = plain.len() == 64 && plain.bytes().all(|byte| byte.is_ascii_hexdigit());
            match (hash, plain == value) {
                (true, true) => None,
                (true, false) => Some(format!("it is shown without colons in lower case; write {kind}{plain}")),
                (false, _) => Some("expected the SHA-256 of the issuing certificate, 64 hexadecimal digits in lower case".to_owned()),
            }
        }
        "k8s:ns:" | "k8s:sa:" | "k8s:pod-name:" | "k8s:pod-uid:" | "k8s:node-name:" => {
            (!is_kubernetes_name(value)).then(|| {
                "Kubernetes gives names of a-z, 0-9, - and . only, at most 253 bytes".to_owned()
            })
        }
        // An issuer, a URI and a common name are whatever they are.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_whole_texts_of_a_known_kind() {
        let hash = format!("x509:issuer-hash:{}", "ab".repeat(32));
        let colons = format!("x509:issuer-hash:{}", vec!["AB"; 32].join(":"));
        for good in [
            "k8s:ns:shop",
            "k8s:issuer:https://Issuer.example/A",
            "x509:san:dns:vm-1.example.org",
            "x509:san:ip:10.0.0.1",
            "x509:san:ip:2001:db8::1",
            "x509:san:uri:a:b",
            "x509:subject:cn:VM-1",
            &hash,
        ] {
            assert_eq!(good.parse::<Selector>().unwrap().as_str(), good);
        }
        for (wrong, expected) in [
            ("shop", "no kind"),
            ("k8s:pod-label:app:web", "no kind"),
            ("k8s:ns:", "no value"),
            ("k8s:ns:shop-*", "no patterns"),
            ("k8s:ns:a b", "white space"),
            ("x509:san:dns:VM-1.Example.org", "write x509:san:dns:vm-1.example.org"),
            ("x509:san:ip:10.0.0.0/24", "no IP address"),
            ("x509:san:ip:::ffff:10.0.0.1", "write x509:san:ip:10.0.0.1"),
            ("x509:san:ip:2001:DB8:0::1", "write x509:san:ip:2001:db8::1"),
            ("x509:issuer-hash:abcd", "64 hexadecimal digits"),
            (&colons, "write x509:issuer-hash:abab"),
            ("k8s:ns:Shop", "a-z, 0-9"),
            ("k8s:sa:shop/web", "a-z, 0-9"),
            ("k8s:pod-uid:a..b", "a-z, 0-9"),
        ] {
            let error = wrong.parse::<Selector>().unwrap_err().to_string();
            assert!(error.contains(expected), "{wrong}: {error}");
        }
        assert!(format!("k8s:ns:{}", "x".repeat(MAX_SELECTOR_BYTES)).parse::<Selector>().is_err());
    }
}
