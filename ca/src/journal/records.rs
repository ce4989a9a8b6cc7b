//! The records themselves, in the form in which they rest in the store.
//!
//! Never: behaviour beyond what one record can say about itself.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{LogPlace, PodRecord, Record};
use crate::clock::UnixSeconds;
use crate::replica::ReplicaId;

/// Bytes that are shown and stored as lower-case hexadecimal: hashes, serials, lineage ids.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hex(pub Vec<u8>);

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Bytes that are stored as base64: certificates, sealed keys.
#[derive(Clone, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

/// A CA certificate and its sealed key. `name`: [`super::root_name`] or [`ISSUING`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IssuerRecord {
    pub certificate_der: Blob,
    pub sealed_key: Blob,
}

/// A key of ours that waits for its certificate from a root that is not here. `name`: see
/// [`request_name`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RequestRecord {
    pub created: UnixSeconds,
    pub csr_der: Blob,
    pub sealed_key: Blob,
}

/// A join token. `name`: the hash of its secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TokenRecord {
    pub grant: Grant,
    pub created: UnixSeconds,
    pub expires: UnixSeconds,
    pub used: Option<Redeemed>,
}

/// Who redeemed a token, enough to know that same caller again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redeemed {
    pub at: UnixSeconds,
    pub host: Hex,
    pub lineage: Hex,
}

/// What attestation grants, and so what the certificate says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub spiffe_id: String,
    pub addresses: Vec<IpAddr>,
    /// Empty: every port.
    pub ports: Vec<u16>,
    /// Empty: `myelin/1`.
    pub protocol: String,
}

/// A host key that attests. `name`: the hash of its public key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HostRecord {
    pub grant: Grant,
    /// The lineage that may be renewed; each attestation by the host key alone starts another.
    pub lineage: Hex,
    /// After an alarm or a revocation nothing is issued to this key any more.
    pub denied: bool,
    /// The numbers of the denials that bar it: it is let in again when none is left.
    #[serde(default)]
    pub barred_by: BTreeSet<u64>,
    /// The attestor whose evidence it must show at every issue; none: it redeemed a join token.
    #[serde(default)]
    pub attested_by: Option<String>,
    /// The pod that attested; none: no pod, or a record of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRecord>,
    /// When the host's next issue would be due at the sustained rate (the "theoretical arrival
    /// time" of GCRA).
    pub next_due: UnixSeconds,
    /// Its unexpired certificates, so that an alarm finds them all; ended ones go with the next issue.
    pub held: Vec<Held>,
}

/// One chain of renewals. `name`: its random id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LineageRecord {
    pub host: Hex,
    pub generation: u64,
    pub serial: Hex,
    pub not_after: UnixSeconds,
    pub request_key: Hex,
    pub csr_key: Hex,
    pub leaf_der: Blob,
    /// Its issuer, by the SHA-256 of that certificate, which is itself in the root's log: one copy of
    /// it there and not one in each record.
    pub issuer: Hex,
    pub state: LineageState,
    /// The certificate's place in an issuing log.
    #[serde(default)]
    pub logged: Option<LogPlace>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineageState {
    Live,
    Superseded,
    Denied,
}

/// Who lives at an address. `name`: the address. One record for all its ports, so that claims on
/// `*` and on single ports meet in one compare-and-swap.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AddressRecord {
    pub claims: Vec<Claim>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// None: every port.
    pub port: Option<u16>,
    pub spiffe_id: String,
    pub protocol: String,
    pub host: Hex,
    pub serial: Hex,
    pub not_after: UnixSeconds,
    /// The root that the SVID chains to.
    #[serde(default = "Hex::empty")]
    pub root: Hex,
}

/// One certificate that was signed. `name`: its serial.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IssuedRecord {
    pub spiffe_id: String,
    pub attestor: String,
    /// Empty for the CA's own.
    pub host: Hex,
    pub lineage: Hex,
    pub generation: u64,
    pub issued: UnixSeconds,
    pub not_before: UnixSeconds,
    pub not_after: UnixSeconds,
    pub leaf_sha256: Hex,
    /// Its place in an issuing log.
    #[serde(default)]
    pub logged: Option<LogPlace>,
}

/// A certificate of a host, in its record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub serial: Hex,
    pub lineage: Hex,
    pub generation: u64,
    pub not_after: UnixSeconds,
}

/// Name of the only record of its kind.
pub const CURRENT: &str = "current";
pub const ROOT: &str = "root";
pub const ISSUING: &str = "issuing";

impl Record for IssuerRecord {
    const PREFIX: &'static str = "issuer/";
}
impl Record for RequestRecord {
    const PREFIX: &'static str = "issuer-request/";
}
impl Record for TokenRecord {
    const PREFIX: &'static str = "token/";
}
impl Record for HostRecord {
    const PREFIX: &'static str = "host/";
    /// The first did not say what is held: read as nothing, an alarm would overlook it.
    const VERSION: u32 = 2;
}
impl Record for LineageRecord {
    const PREFIX: &'static str = "lineage/";
    /// The first held the issuer's certificate itself.
    const VERSION: u32 = 2;
}
impl Record for AddressRecord {
    const PREFIX: &'static str = "address/";
}
impl Record for IssuedRecord {
    const PREFIX: &'static str = "issued/";
}

/// Under which name an imported intermediate (an [`IssuerRecord`]) of a replica waits for its turn:
/// those that begin earlier come first.
pub fn successor_name(replica: &ReplicaId, not_before: UnixSeconds, key_sha256: &Hex) -> String {
    format!("{}{not_before:020}-{key_sha256}", successors_of(replica))
}

/// Within which names a replica's are.
pub fn successors_of(replica: &ReplicaId) -> String {
    format!("next/{replica}/")
}

/// The name of a replica's request: the hash of its public key.
pub fn request_name(replica: &ReplicaId, key_sha256: &Hex) -> String {
    format!("{}{key_sha256}", requests_of(replica))
}

/// Within which names a replica's are.
pub fn requests_of(replica: &ReplicaId) -> String {
    format!("{replica}/")
}

impl Claim {
    /// Whether two claims on one address cannot both be live.
    pub fn overlaps(&self, port: Option<u16>) -> bool {
        match (self.port, port) {
            (Some(ours), Some(theirs)) => ours == theirs,
            (None, _) | (_, None) => true,
        }
    }
}

impl HostRecord {
    /// Its pod ended, as the cluster said.
    pub fn is_gone(&self) -> bool {
        self.pod.as_ref().is_some_and(|pod| pod.gone)
    }

    /// What it holds that has not expired.
    pub fn unexpired(&self, now: UnixSeconds) -> impl Iterator<Item = &Held> {
        self.held.iter().filter(move |held| held.not_after >= now)
    }

    /// What it holds under this serial.
    pub fn holds(&self, serial: &Hex) -> Option<&Held> {
        self.held.iter().find(|held| held.serial == *serial)
    }

    /// Barred by this denial as well.
    pub fn barred(&self, number: u64) -> Self {
        let mut barred = Self { denied: true, ..self.clone() };
        barred.barred_by.insert(number);
        barred
    }

    /// After this denial was undone: in again only if no other one bars it.
    pub fn unbarred(&self, number: u64) -> Self {
        let mut left = self.clone();
        left.barred_by.remove(&number);
        left.denied = !left.barred_by.is_empty();
        left
    }
}

impl Grant {
    /// The ports as claims: every port stands for itself, no port stands for all.
    pub fn claimed_ports(&self) -> Vec<Option<u16>> {
        if self.ports.is_empty() {
            vec![None]
        } else {
            self.ports.iter().copied().map(Some).collect()
        }
    }
}

impl Hex {
    /// What stands for no bytes at all.
    pub fn empty() -> Self {
        Self(Vec::new())
    }
}

/// Half a line of it at a time: an issue writes thirty of them, and a call for each byte would cost as
/// much as a signature.
impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 64];
        self.0.chunks(digits.len() / 2).try_for_each(|bytes| {
            for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
                pair[0] = DIGITS[usize::from(byte >> 4)];
                pair[1] = DIGITS[usize::from(byte & 15)];
            }
            let digits = &digits[..2 * bytes.len()];
            f.write_str(std::str::from_utf8(digits).expect("digits are ASCII"))
        })
    }
}

impl fmt::Debug for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|()| serde::de::Error::custom("expected hexadecimal"))
    }
}

impl FromStr for Hex {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let nibble = |digit: u8| char::from(digit).to_digit(16).map(|value| value as u8);
        let bytes: Option<Vec<u8>> = text
            .as_bytes()
            .chunks(2)
            .map(|pair| match pair {
                [high, low] => Some(nibble(*high)? << 4 | nibble(*low)?),
                _ => None,
            })
            .collect();
        bytes.map(Self).ok_or(())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine as _;
        let text = String::deserialize(deserializer)?;
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(port: Option<u16>) -> Claim {
        let hex = Hex(vec![1]);
        let (spiffe_id, protocol) = ("spiffe://t/ns/a/sa/b".into(), String::new());
        let (serial, root) = (hex.clone(), Hex::empty());
        Claim { port, spiffe_id, protocol, host: hex, serial, not_after: 1, root }
    }

    #[test]
    fn claims_overlap_on_the_same_port_or_when_one_is_for_all() {
        let table = [
            (None, None, true),
            (None, Some(80), true),
            (Some(80), None, true),
            (Some(80), Some(80), true),
            (Some(80), Some(81), false),
        ];
        for (ours, theirs, expected) in table {
            assert_eq!(claim(ours).overlaps(theirs), expected, "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn hexadecimal_reads_what_it_wrote_and_refuses_the_rest() {
        let text = serde_json::to_string(&Hex(vec![0, 0xab, 255])).unwrap();
        assert_eq!(text, "\"00abff\"");
        assert_eq!(serde_json::from_str::<Hex>(&text).unwrap(), Hex(vec![0, 0xab, 255]));
        for wrong in ["\"0\"", "\"0g\"", "\"é\"", "7"] {
            assert!(serde_json::from_str::<Hex>(wrong).is_err(), "{wrong}");
        }
    }
}
