//! What a certificate will say, decided before any key is touched. `authority` fills a leaf from
//! what attestation granted, `rotation` an issuer; `signer` writes it as X.509, `check` reads it
//! back.
//!
//! Never: sees a CSR, a key that signs, or a clock.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use myelin_identity::log::{ISSUER_LOG_OID, LOG_OID, named_log_of_value};

use crate::clock::UnixSeconds;

/// Clocks of sidecars may be this much behind ours.
pub const BACKDATE_SECONDS: u64 = 60;
/// Longest life of an SVID: a day bounds what a stolen key is worth.
pub const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Shortest life without the test flag: below it, backdating and clock skew eat the certificate.
pub const MIN_LIFETIME: Duration = Duration::from_secs(5 * 60);
/// Shortest life with the test flag: renewal at half-life must still fit in whole seconds.
pub const MIN_TEST_LIFETIME: Duration = Duration::from_secs(4);
/// Life of the root. The issue of a root ladder replaces it long before.
pub const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Life of an issuing intermediate; renewed at half of it.
pub const ISSUING_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// Life of an intermediate whose root is offline or somebody else's: people carry it, so not every
/// month.
pub const OFFLINE_ISSUING_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// Of intermediates that are signed at once, each begins this long before the one before it ends: if
/// it turns out not to work, there is a month to get another.
pub const SUCCESSOR_OVERLAP: Duration = Duration::from_secs(30 * 24 * 3600);

/// From and until when, both inclusive, as X.509 means it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: UnixSeconds,
    pub not_after: UnixSeconds,
}

/// A serial: 128 bits, of which at least 96 are random; positive, and never shorter than 16 octets in
/// DER.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serial([u8; 16]);

/// All that an SVID says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub spiffe_id: String,
    pub addresses: Vec<IpAddr>,
    /// Only the CA's own SVID carries names.
    pub names: Vec<String>,
    pub serial: Serial,
    pub validity: Validity,
    /// SubjectPublicKeyInfo, DER: P-256.
    pub public_key: Vec<u8>,
}

/// All that a CA certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerTemplate {
    pub common_name: String,
    pub trust_domain: String,
    pub serial: Serial,
    pub validity: Validity,
    /// None for the root.
    pub path_length: Option<u8>,
    /// What else it says, such as the name of its log. Never critical.
    pub extensions: Vec<Extension>,
}

/// An X.509 extension that this CA itself defines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    pub oid: Vec<u64>,
    /// The value, DER.
    pub der: Vec<u8>,
}

/// What people compare on two machines: the value's SHA-256, and the log if it names one.
impl fmt::Display for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hash = digest(&SHA256, &self.der);
        let what = match self.oid.as_slice() {
            oid if oid == LOG_OID => Some("the log"),
            oid if oid == ISSUER_LOG_OID => Some("its root's log"),
            _ => None,
        };
        let named = what.map(|what| (what, named_log_of_value(&self.der)));
        if let Some((what, Ok(log))) = &named {
            write!(f, "names {what} {log} (")?;
        } else {
            for (n, arc) in self.oid.iter().enumerate() {
                write!(f, "{}{arc}", if n == 0 { "" } else { "." })?;
            }
            write!(f, " ({} bytes, ", self.der.len())?;
        }
        f.write_str("sha256 ")?;
        hash.as_ref().iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")?;
        match named {
            Some((what, Err(error))) => write!(f, " is to name {what}, and does not: {error}"),
            _ => Ok(()),
        }
    }
}

/// What lifetimes this CA grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    pub default: Duration,
    pub shortest: Duration,
    /// What nobody gets more than. Root rotation waits no longer than this for a silent sidecar.
    pub longest: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LifetimeRefusal {
    #[error(
        "a lifetime of {asked} s was asked for but the shortest that this CA issues is {shortest} s"
    )]
    TooShort { asked: u64, shortest: u64 },
    #[error(
        "the issuing certificate ends in {left} s, less than the shortest lifetime of {shortest} s; the CA must renew it first"
    )]
    IssuerExpiring { left: u64, shortest: u64 },
}

impl Serial {
    /// Makes a serial of random bytes.
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        // The top bit clear keeps the DER integer positive, the next one set keeps its length.
        bytes[0] = bytes[0] & 0x7f | 0x40;
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl Lifetimes {
    /// The validity of a leaf: shortened to our longest and to the issuer's end, never lengthened.
    pub fn validity(
        &self,
        asked: Duration,
        now: UnixSeconds,
        issuer: Validity,
    ) -> Result<Validity, LifetimeRefusal> {
        let shortest = self.shortest.as_secs();
        let life = if asked.is_zero() { self.default } else { asked };
        if life < self.shortest {
            return Err(LifetimeRefusal::TooShort { asked: life.as_secs(), shortest });
        }
        let not_after = (now + life.min(self.longest).as_secs()).min(issuer.not_after);
        let left = not_after.saturating_sub(now);
        if left < shortest {
            return Err(LifetimeRefusal::IssuerExpiring { left, shortest });
        }
        Ok(Validity { not_before: backdated(now).max(issuer.not_before), not_after })
    }
}

/// The validity of an issuer: never beyond the certificate above it.
pub fn issuer_validity(life: Duration, now: UnixSeconds, above: Option<Validity>) -> Validity {
    let not_after = now + life.as_secs();
    match above {
        Some(above) => Validity {
            not_before: backdated(now).max(above.not_before),
            not_after: not_after.min(above.not_after),
        },
        None => Validity { not_before: backdated(now), not_after },
    }
}

/// The validity of the n-th (from 0) of several intermediates that an offline root signs at once:
/// one after the other. `None`: the root ends before it would begin.
pub fn successor_validity(
    n: u64,
    life: Duration,
    now: UnixSeconds,
    root: Validity,
) -> Option<Validity> {
    let step = life.saturating_sub(SUCCESSOR_OVERLAP.min(life / 2)).as_secs();
    let begin = now + n * step;
    let validity = issuer_validity(life, begin, Some(root));
    (validity.not_before < validity.not_after && begin < root.not_after).then_some(validity)
}

fn backdated(now: UnixSeconds) -> UnixSeconds {
    now.saturating_sub(BACKDATE_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;
    const DAY: u64 = 24 * 3600;

    fn granted(asked: u64, issuer_left: u64) -> Result<(u64, u64), LifetimeRefusal> {
        let lifetimes =
            Lifetimes { default: MAX_LIFETIME, shortest: MIN_LIFETIME, longest: MAX_LIFETIME };
        let issuer = Validity { not_before: NOW - 30, not_after: NOW + issuer_left };
        let validity = lifetimes.validity(Duration::from_secs(asked), NOW, issuer)?;
        Ok((NOW - validity.not_before, validity.not_after - NOW))
    }

    #[test]
    fn extension_is_shown_by_what_it_says_and_not_by_its_length() {
        use myelin_identity::log::{LogKey, named_log_extension};
        let shown = |oid: &[u64], der: Vec<u8>| Extension { oid: oid.to_vec(), der }.to_string();
        let log = |byte| LogKey::new("prod.example/log", [byte; 32]).unwrap();
        let named = |byte| shown(&LOG_OID, named_log_extension(&log(byte)));
        assert!(
            named(7).starts_with(&format!("names the log {} (sha256 ", log(7))),
            "{}",
            named(7)
        );
        assert_ne!(named(7), named(8));
        let broken = shown(&LOG_OID, vec![0x30, 0]);
        assert!(broken.contains("does not"), "{broken}");
        let other = shown(&[1, 3, 6, 1, 4, 1, 9], vec![4, 1, 7]);
        assert_eq!(
            other,
            "1.3.6.1.4.1.9 (3 bytes, sha256 \
             89d2c30831a929830c46511beab6f4d55c5cc43b8565a3a17fc3b3beea2cb5a3)"
        );
    }

    #[test]
    fn lifetime_is_shortened_or_refused_and_never_lengthened() {
        let too_short = |asked| Err(LifetimeRefusal::TooShort { asked, shortest: 300 });
        let expiring = |left| Err(LifetimeRefusal::IssuerExpiring { left, shortest: 300 });
        let table = [
            (0, 30 * DAY, Ok((30, DAY))),
            (3600, 30 * DAY, Ok((30, 3600))),
            (300, 30 * DAY, Ok((30, 300))),
            (30 * DAY, 30 * DAY, Ok((30, DAY))),
            (299, 30 * DAY, too_short(299)),
            (3600, 1800, Ok((30, 1800))),
            (3600, 300, Ok((30, 300))),
            (3600, 299, expiring(299)),
            (0, 0, expiring(0)),
        ];
        for (asked, issuer_left, expected) in table {
            assert_eq!(granted(asked, issuer_left), expected, "{asked} {issuer_left}");
        }
    }

    #[test]
    fn leaf_is_backdated_but_never_before_its_issuer() {
        let lifetimes =
            Lifetimes { default: MAX_LIFETIME, shortest: MIN_LIFETIME, longest: MAX_LIFETIME };
        for (issuer_age, expected) in [(DAY, 60), (10, 10)] {
            let issuer = Validity { not_before: NOW - issuer_age, not_after: NOW + DAY };
            let validity = lifetimes.validity(Duration::ZERO, NOW, issuer).unwrap();
            assert_eq!(NOW - validity.not_before, expected);
        }
    }

    #[test]
    fn issuer_ends_no_later_than_the_root() {
        let root = Validity { not_before: NOW - DAY, not_after: NOW + DAY };
        assert_eq!(issuer_validity(ISSUING_LIFETIME, NOW, Some(root)).not_after, NOW + DAY);
        assert_eq!(issuer_validity(ROOT_LIFETIME, NOW, None).not_before, NOW - 60);
    }

    #[test]
    fn intermediates_signed_at_once_follow_each_other_with_an_overlap() {
        let root = Validity { not_before: NOW - DAY, not_after: NOW + 800 * DAY };
        let of = |n| successor_validity(n, OFFLINE_ISSUING_LIFETIME, NOW, root);
        let days = |n| of(n).map(|v| ((v.not_before + 60 - NOW) / DAY, (v.not_after - NOW) / DAY));
        let seen: Vec<_> = (0..4).map(days).collect();
        assert_eq!(seen, [Some((0, 365)), Some((335, 700)), Some((670, 800)), None]);
    }

    #[test]
    fn serial_is_positive_and_sixteen_octets() {
        for byte in [0, 0x3f, 0x80, 0xff] {
            let serial = Serial::from_random([byte; 16]);
            assert!((0x40..0x80).contains(&serial.as_bytes()[0]));
        }
    }
}
