//! One value with its key and place, and the kinds of value that sections are made of: bounded
//! numbers, durations, dates, addresses, paths, identities. Called by the readers of each section.
//!
//! Never: a number or a list without bounds, a guess at what was meant.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use myelin_identity::id::{SpiffeId, TrustDomain};
use toml::de::DeValue;

use super::error::ConfigError;
use super::source::{Source, shortened};
use crate::addr::is_link_local;

/// The trust domains whose workloads may be named in the file.
#[derive(Clone, Copy)]
pub(super) struct Domains<'a> {
    pub(super) own: &'a TrustDomain,
    pub(super) federated: &'a BTreeSet<TrustDomain>,
}

impl Domains<'_> {
    fn hold(self, domain: &TrustDomain) -> bool {
        domain == self.own || self.federated.contains(domain)
    }
}

pub(super) struct Field<'t> {
    pub(super) source: &'t Source<'t>,
    pub(super) key: String,
    pub(super) span: Range<usize>,
    pub(super) value: &'t DeValue<'t>,
}

impl<'t> Field<'t> {
    /// The complaint about this value.
    pub(super) fn wrong(&self, expected: impl Into<String>, fix: impl Into<String>) -> ConfigError {
        let seen = match self.value {
            DeValue::Table(_) => "a table".to_owned(),
            DeValue::Array(array) if array.is_empty() => "an empty list".to_owned(),
            _ => shortened(self.source.text.get(self.span.clone()).unwrap_or_default()),
        };
        self.complaint(seen, expected, fix)
    }

    /// The complaint about this value in relation to others.
    pub(super) fn complaint(
        &self,
        seen: impl Into<String>,
        expected: impl Into<String>,
        fix: impl Into<String>,
    ) -> ConfigError {
        ConfigError::Value {
            at: self.source.at(self.span.start),
            key: self.key.as_str().into(),
            seen: seen.into().into(),
            expected: expected.into().into(),
            fix: fix.into().into(),
        }
    }

    /// `write for example key = "10s"`.
    fn example(&self, value: &str) -> String {
        let key = self.key.rsplit('.').next().unwrap_or_default();
        match key.split_once('[') {
            Some((list, _)) => format!("write for example `{list} = [{value}]`"),
            None => format!("write for example `{key} = {value}`"),
        }
    }

    /// A text that `read` understands.
    pub(super) fn text<T>(
        &self,
        expected: &str,
        example: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let quoted = format!("\"{example}\"");
        let value = self.value.as_str().and_then(read);
        value.ok_or_else(|| self.wrong(expected, self.example(&quoted)))
    }

    pub(super) fn boolean(&self) -> Result<bool, ConfigError> {
        let value = self.value.as_bool();
        value.ok_or_else(|| self.wrong("true or false", self.example("true")))
    }

    /// A whole number within `range`; `why` is the reason of the range.
    pub(super) fn integer(
        &self,
        range: RangeInclusive<u64>,
        why: &str,
        example: &str,
    ) -> Result<u64, ConfigError> {
        let number = self
            .value
            .as_integer()
            .and_then(|number| u64::from_str_radix(number.as_str(), number.radix()).ok())
            .filter(|number| range.contains(number));
        number.ok_or_else(|| {
            let expected = format!("a number from {} to {} ({why})", range.start(), range.end());
            self.wrong(expected, self.example(example))
        })
    }

    pub(super) fn port(&self) -> Result<u16, ConfigError> {
        let number = self.integer(1..=65_535, "a TCP port", "8080")?;
        Ok(u16::try_from(number).expect("the range ends at 65,535"))
    }

    pub(super) fn uid(&self) -> Result<u32, ConfigError> {
        let max = u64::from(u32::MAX - 1);
        let number = self.integer(0..=max, "a numeric user ID", "1337")?;
        Ok(u32::try_from(number).expect("the range ends below 2^32"))
    }

    /// A duration within `range`; `why` is the reason of the range.
    pub(super) fn duration(
        &self,
        range: RangeInclusive<Duration>,
        why: &str,
    ) -> Result<Duration, ConfigError> {
        let words = |duration: &Duration| match duration.as_secs() {
            // `24h` rather than `1day`, as the documentation says it.
            86_400 => "24h".to_owned(),
            _ => humantime::format_duration(*duration).to_string(),
        };
        let read = self.value.as_str().and_then(|text| humantime::parse_duration(text).ok());
        read.filter(|duration| range.contains(duration)).ok_or_else(|| {
            let (start, end) = (words(range.start()), words(range.end()));
            let expected = format!("a duration from {start} to {end} ({why})");
            self.wrong(expected, self.example(&format!("\"{end}\"")))
        })
    }

    /// A date, or a date and time with an offset, in seconds since the Unix epoch. A bare date is
    /// its first second in UTC.
    pub(super) fn date(&self) -> Result<u64, ConfigError> {
        let value = self.value.as_datetime().and_then(super::date::unix_seconds);
        value.ok_or_else(|| {
            let expected = "a date, or a date and time with an offset, from 1970 on";
            self.wrong(expected, self.example("2026-03-31T18:00:00Z"))
        })
    }

    /// The entries of a list, at most `max`.
    pub(super) fn list(&self, max: usize) -> Result<Vec<Self>, ConfigError> {
        let Some(array) = self.value.as_array() else {
            let text = self.source.text.get(self.span.clone()).unwrap_or_default();
            let fix = self.example(&format!("[{}]", shortened(text)));
            return Err(self.wrong("a list", fix));
        };
        if array.len() > max {
            let seen = format!("a list of {}", array.len());
            return Err(self.complaint(seen, format!("at most {max}"), "shorten it"));
        }
        let entry = |(index, value): (usize, &'t toml::Spanned<DeValue<'t>>)| Self {
            source: self.source,
            key: format!("{}[{index}]", self.key),
            span: value.span(),
            value: value.get_ref(),
        };
        Ok(array.iter().enumerate().map(entry).collect())
    }

    /// As `list`, but never empty; `expected` says what its entries are.
    pub(super) fn some(
        &self,
        max: usize,
        expected: &str,
        example: &str,
    ) -> Result<Vec<Self>, ConfigError> {
        let entries = self.list(max)?;
        if entries.is_empty() {
            return Err(self.wrong(expected, self.example(&format!("[{example}]"))));
        }
        Ok(entries)
    }

    /// A unicast address that may take part in the mesh.
    pub(super) fn ip(&self) -> Result<IpAddr, ConfigError> {
        let expected = "an IP address that is neither loopback, link-local, multicast nor 0";
        self.text(expected, "10.1.2.3", |text| {
            let address: IpAddr = text.parse::<IpAddr>().ok()?.to_canonical();
            may_be_meshed(address).then_some(address)
        })
    }

    pub(super) fn endpoint(&self) -> Result<SocketAddr, ConfigError> {
        self.text("an IP address and a port from 1 to 65535", "10.1.2.3:8080", |text| {
            let address: SocketAddr = text.parse().ok()?;
            let usable = address.port() != 0 && !address.ip().is_unspecified();
            usable.then(|| SocketAddr::new(address.ip().to_canonical(), address.port()))
        })
    }

    /// An absolute path: the working directory of a service is nobody's choice.
    pub(super) fn path(&self, example: &str) -> Result<PathBuf, ConfigError> {
        self.text("an absolute path", example, |text| {
            (text.starts_with('/') && !text.contains('\0')).then(|| PathBuf::from(text))
        })
    }

    /// A workload's identity in the own trust domain.
    pub(super) fn spiffe_id(&self, own: &TrustDomain) -> Result<SpiffeId, ConfigError> {
        let expected = format!("the SPIFFE ID of a workload in trust domain {own}");
        let example = format!("spiffe://{own}/ns/default/sa/web");
        self.text(&expected, &example, |text| {
            let id = SpiffeId::parse(text).ok()?;
            (id.trust_domain() == own && !id.is_reserved()).then_some(id)
        })
    }

    /// A peer's identity, in the own trust domain or in one that `federates_with` names.
    pub(super) fn peer_id(&self, domains: Domains<'_>) -> Result<SpiffeId, ConfigError> {
        let own = domains.own;
        let expected = format!(
            "the SPIFFE ID of a workload in trust domain {own}, or in one that federates_with names"
        );
        let example = format!("spiffe://{own}/ns/default/sa/web");
        self.text(&expected, &example, |text| {
            let id = SpiffeId::parse(text).ok()?;
            (domains.hold(id.trust_domain()) && !id.is_reserved()).then_some(id)
        })
    }

    /// The name of a rule, a service or an exception, as logs and metrics will show it.
    pub(super) fn name(&self) -> Result<String, ConfigError> {
        const MAX_NAME_BYTES: usize = 63;
        let expected = "1 to 63 of a-z, 0-9 and -";
        self.text(expected, "allow-web", |text| {
            let fits = (1..=MAX_NAME_BYTES).contains(&text.len());
            let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
            (fits && text.bytes().all(plain)).then(|| text.to_owned())
        })
    }
}

pub(super) fn may_be_meshed(address: IpAddr) -> bool {
    !(address.is_loopback()
        || address.is_multicast()
        || address.is_unspecified()
        || is_link_local(address))
}
