//! Reads ClientHello and ServerHello (RFC 8446 section 4.1) and names what they say. Called by `tls`.
//! Never: trusts a length; anything that does not fit is no hello.

// SPDX-License-Identifier: Apache-2.0

const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;

/// RFC 8446 section 4.2 and RFC 6066.
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_PRE_SHARED_KEY: u16 = 41;
const EXTENSION_SUPPORTED_VERSIONS: u16 = 43;
const EXTENSION_KEY_SHARE: u16 = 51;

/// RFC 8446 section 4.1.3: the random that makes a ServerHello a HelloRetryRequest.
const RETRY_RANDOM: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// What a hello says in clear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hello {
    Client { server_name: Option<String> },
    Server(ServerHello),
    Retry,
}

/// The server's choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerHello {
    pub(crate) version: u16,
    pub(crate) cipher: u16,
    pub(crate) group: Option<u16>,
    pub(crate) resumed: bool,
}

/// The whole length of the handshake message that `bytes` begins with, header included.
pub(crate) fn message_length(bytes: &[u8]) -> Option<usize> {
    let &[_, high, middle, low, ..] = bytes else {
        return None;
    };
    Some(4 + (usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)))
}

/// Reads one whole handshake message; `None` if it is no hello.
pub(crate) fn read(message: &[u8]) -> Option<Hello> {
    let mut body = Cursor(message.get(4..)?);
    match *message.first()? {
        CLIENT_HELLO => client_hello(&mut body),
        SERVER_HELLO => server_hello(&mut body),
        _ => None,
    }
}

/// The IANA name of a TLS version, or its number.
pub fn version_name(version: u16) -> String {
    match version {
        0x0304 => "TLS 1.3".to_owned(),
        0x0303 => "TLS 1.2".to_owned(),
        0x0302 => "TLS 1.1".to_owned(),
        0x0301 => "TLS 1.0".to_owned(),
        other => format!("{other:#06x}"),
    }
}

/// The IANA name of a cipher suite that TLS 1.3 has, or its number.
pub fn cipher_name(cipher: u16) -> String {
    match cipher {
        0x1301 => "TLS_AES_128_GCM_SHA256".to_owned(),
        0x1302 => "TLS_AES_256_GCM_SHA384".to_owned(),
        0x1303 => "TLS_CHACHA20_POLY1305_SHA256".to_owned(),
        other => format!("{other:#06x}"),
    }
}

/// The IANA name of a key exchange group, or its number.
pub fn group_name(group: u16) -> String {
    match group {
        0x0017 => "secp256r1".to_owned(),
        0x0018 => "secp384r1".to_owned(),
        0x0019 => "secp521r1".to_owned(),
        0x001d => "X25519".to_owned(),
        0x11eb => "SecP256r1MLKEM768".to_owned(),
        0x11ec => "X25519MLKEM768".to_owned(),
        0x11ed => "SecP384r1MLKEM1024".to_owned(),
        0x0201 => "MLKEM768".to_owned(),
        other => format!("{other:#06x}"),
    }
}

fn client_hello(body: &mut Cursor<'_>) -> Option<Hello> {
    body.take(2 + 32)?;
    body.vector8()?;
    body.vector16()?;
    body.vector8()?;
    let mut server_name = None;
    body.extensions(|kind, content| {
        if kind == EXTENSION_SERVER_NAME {
            // RFC 6066 section 3: a list with one entry of type 0, a host name.
            server_name = content.vector16().and_then(|list| {
                let mut list = Cursor(list);
                list.take(1)?;
                list.vector16().map(|name| String::from_utf8_lossy(name).into_owned())
            });
        }
    });
    Some(Hello::Client { server_name })
}

fn server_hello(body: &mut Cursor<'_>) -> Option<Hello> {
    let legacy_version = body.u16()?;
    if body.take(32)? == RETRY_RANDOM {
        return Some(Hello::Retry);
    }
    body.vector8()?;
    let cipher = body.u16()?;
    body.take(1)?;
    let mut hello = ServerHello { version: legacy_version, cipher, group: None, resumed: false };
    body.extensions(|kind, content| match kind {
        EXTENSION_SUPPORTED_VERSIONS => hello.version = content.u16().unwrap_or(legacy_version),
        EXTENSION_KEY_SHARE => hello.group = content.u16(),
        EXTENSION_PRE_SHARED_KEY => hello.resumed = true,
        _ => {}
    });
    Some(Hello::Server(hello))
}

/// What is left to read.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = *self.take(1)?.first()?;
        self.take(usize::from(length))
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// Calls `visit` for each whole extension.
    fn extensions(&mut self, mut visit: impl FnMut(u16, &mut Self)) {
        let mut list = Cursor(self.vector16().unwrap_or_default());
        while let (Some(kind), Some(content)) = (list.u16(), list.vector16()) {
            visit(kind, &mut Cursor(content));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_hello_message(random: [u8; 32], extensions: &[u8]) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend(random);
        body.extend([0, 0x13, 0x02, 0]);
        body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
        body.extend(extensions);
        let mut message = vec![SERVER_HELLO, 0, 0, u8::try_from(body.len()).unwrap()];
        message.extend(body);
        message
    }

    #[test]
    fn server_hello_says_version_cipher_and_group() {
        let extensions = [0, 43, 0, 2, 3, 4, 0, 51, 0, 5, 0x11, 0xec, 0, 1, 7, 0, 41, 0, 2, 0, 0];
        let message = server_hello_message([7; 32], &extensions);
        let Some(Hello::Server(hello)) = read(&message) else { panic!("no ServerHello") };
        assert_eq!(version_name(hello.version), "TLS 1.3");
        assert_eq!(cipher_name(hello.cipher), "TLS_AES_256_GCM_SHA384");
        assert_eq!(hello.group.map(group_name).as_deref(), Some("X25519MLKEM768"));
        assert!(hello.resumed);
        assert_eq!(message_length(&message), Some(message.len()));
    }

    #[test]
    fn server_hello_without_supported_versions_is_older_tls() {
        let Some(Hello::Server(hello)) = read(&server_hello_message([7; 32], &[])) else {
            panic!("no ServerHello")
        };
        assert_eq!((version_name(hello.version).as_str(), hello.group), ("TLS 1.2", None));
        assert!(!hello.resumed);
    }

    #[test]
    fn retry_request_is_no_choice() {
        assert_eq!(read(&server_hello_message(RETRY_RANDOM, &[])), Some(Hello::Retry));
    }

    #[test]
    fn cut_hello_is_none_and_never_panics() {
        let message = server_hello_message([7; 32], &[]);
        for length in 0..message.len() - 2 {
            assert_eq!(read(&message[..length]), None, "cut to {length}");
        }
    }
}
