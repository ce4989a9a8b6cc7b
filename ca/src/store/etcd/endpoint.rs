//! Where a member of an etcd cluster is, as an operator writes it.
//!
//! Never: resolves a name.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// etcd's port for clients, as IANA has it.
const DEFAULT_PORT: u16 = 2379;

/// `https://host:port`, or `http://` on loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdEndpoint {
    pub tls: bool,
    pub host: String,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EtcdEndpointError {
    #[error("{0:?} is no etcd endpoint; expected one such as https://10.0.0.1:2379")]
    Malformed(String),
    #[error(
        "{0:?} is plaintext, which is for etcd on this machine's loopback only; give etcd a certificate and use https://"
    )]
    Plaintext(String),
}

impl FromStr for EtcdEndpoint {
    type Err = EtcdEndpointError;

    fn from_str(text: &str) -> Result<Self, EtcdEndpointError> {
        let malformed = || EtcdEndpointError::Malformed(text.to_owned());
        let (tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err(malformed()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(bracketed) => {
                let (host, port) = bracketed.split_once(']').ok_or_else(malformed)?;
                host.parse::<std::net::Ipv6Addr>().map_err(|_| malformed())?;
                (host, port.strip_prefix(':').or_else(|| port.is_empty().then_some("")))
            }
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, Some("")),
            },
        };
        let port = match port.ok_or_else(malformed)? {
            "" => DEFAULT_PORT,
            digits => digits.parse().map_err(|_| malformed())?,
        };
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-:".contains(&byte);
        if host.is_empty() || port == 0 || !host.bytes().all(fits) {
            return Err(malformed());
        }
        let loopback = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        if !tls && !loopback {
            return Err(EtcdEndpointError::Plaintext(text.to_owned()));
        }
        Ok(Self { tls, host: host.to_owned(), port })
    }
}

impl fmt::Display for EtcdEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_whole_and_written_alike() {
        for (text, shown) in [
            ("https://10.0.0.1:2379", "https://10.0.0.1:2379"),
            ("https://etcd-1.prod.example/", "https://etcd-1.prod.example:2379"),
            ("https://[fd00::1]:2000", "https://[fd00::1]:2000"),
            ("https://[fd00::1]", "https://[fd00::1]:2379"),
            ("http://127.0.0.1:2379", "http://127.0.0.1:2379"),
            ("http://[::1]:2379", "http://[::1]:2379"),
            ("http://localhost", "http://localhost:2379"),
        ] {
            assert_eq!(text.parse::<EtcdEndpoint>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for text in [
            "",
            "10.0.0.1:2379",
            "ftp://a",
            "https://",
            "https://a:0",
            "https://a:70000",
            "https://a/b",
            "https://a b",
            "https://[fd00::1",
            "https://[a]",
            "https://[::1]x",
            "https://fd00::1",
            "https://user@a",
        ] {
            let refused = text.parse::<EtcdEndpoint>().unwrap_err();
            assert!(matches!(refused, EtcdEndpointError::Malformed(_)), "{text}: {refused}");
        }
    }

    #[test]
    fn plaintext_is_for_loopback_only() {
        for text in ["http://10.0.0.1:2379", "http://etcd", "http://localhost.example"] {
            let refused = text.parse::<EtcdEndpoint>().unwrap_err();
            assert!(matches!(refused, EtcdEndpointError::Plaintext(_)), "{text}: {refused}");
        }
    }
}
