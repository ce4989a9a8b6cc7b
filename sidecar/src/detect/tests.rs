//! Detection on real hellos (made by rustls), on every fragmentation of them, on mutations and
//! on junk; and the two permissive tables.
//!
//! Never: a socket, a clock, a measured time.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use proptest::prelude::*;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::records::HANDSHAKE;
use super::{
    Detected, Hello, MAX_PROTOCOLS, PREFIX_LIMIT, PortListing, Source, Verdict, client_hello,
    first_byte_is_tls, on_first_bytes, on_silence,
};

/// A post-quantum TLS 1.3 hello as a Myelin dialer sends it: longer than one TCP segment.
fn real_hello() -> Vec<u8> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1];
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider speaks TLS 1.3")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = vec![b"myelin/1".to_vec(), b"h2".to_vec()];
    let name = ServerName::try_from("10.0.0.1").expect("an address");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a valid config");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("writing to memory");
    assert!(bytes.len() > 1_300, "the hello is post-quantum: {}", bytes.len());
    bytes
}

fn expected() -> Detected {
    Detected::Tls(Hello { alpn: vec![b"myelin/1".to_vec(), b"h2".to_vec()], has_tls13: true })
}

/// The same handshake message, in records of at most `size` bytes.
fn in_records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |fragment: &[u8]| {
        let length = u16::try_from(fragment.len()).expect("a record").to_be_bytes();
        [&[HANDSHAKE, 3, 1], &length[..], fragment].concat()
    };
    message.chunks(size).flat_map(record).collect()
}

/// Type and payload.
type Extension = (u16, &'static [u8]);

/// A small hello with exactly these extensions.
fn hello_with(extensions: &[(u16, &[u8])]) -> Vec<u8> {
    let mut all = Vec::new();
    for (kind, payload) in extensions {
        all.extend(kind.to_be_bytes());
        all.extend(u16::try_from(payload.len()).expect("short").to_be_bytes());
        all.extend(*payload);
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    body.extend(u16::try_from(all.len()).expect("short").to_be_bytes());
    body.extend(all);
    message(&body)
}

fn message(body: &[u8]) -> Vec<u8> {
    let [.., high, middle, low] = body.len().to_be_bytes();
    in_records(&[&[1, high, middle, low], body].concat(), 1 << 14)
}

fn alpn(names: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = names
        .iter()
        .flat_map(|name| [&[u8::try_from(name.len()).expect("short")], *name].concat())
        .collect();
    [&u16::try_from(list.len()).expect("short").to_be_bytes()[..], &list].concat()
}

#[test]
fn a_real_hello_is_read_whole_and_never_before() {
    let bytes = real_hello();
    for cut in 0..bytes.len() {
        let Detected::NeedMore { need } = client_hello(&bytes[..cut]) else {
            panic!("decided after {cut} of {} bytes", bytes.len());
        };
        assert!(need > cut && need <= bytes.len(), "{cut}: {need}");
    }
    assert_eq!(client_hello(&bytes), expected());
    let with_more = [&bytes[..], b"anything"].concat();
    assert_eq!(client_hello(&with_more), expected());
}

#[test]
fn a_hello_in_records_of_any_size_is_put_together() {
    let bytes = real_hello();
    for size in [1, 2, 3, 4, 5, 7, 100, 536, 1_000, bytes.len()] {
        let split = in_records(&bytes[5..], size);
        assert_eq!(client_hello(&split), expected(), "records of {size}");
        let short = &split[..split.len() - 1];
        assert!(matches!(client_hello(short), Detected::NeedMore { .. }), "records of {size}");
    }
}

#[test]
fn a_caller_that_waits_for_need_calls_a_few_dozen_times() {
    let split = in_records(&real_hello()[5..], 1);
    let (mut have, mut calls) = (0, 0);
    while let Detected::NeedMore { need } = client_hello(&split[..have]) {
        assert!(need > have);
        (have, calls) = (need, calls + 1);
    }
    assert_eq!(client_hello(&split[..have]), expected());
    assert!(calls < 64, "{calls} calls");
}

#[test]
fn a_hello_without_tls13_is_recognised() {
    const VERSIONS: u16 = 43;
    let table: [(&[Extension], bool); 5] = [
        (&[], false),
        (&[(VERSIONS, &[2, 3, 3])], false),
        (&[(VERSIONS, &[4, 3, 3, 3, 2])], false),
        (&[(VERSIONS, &[2, 3, 4])], true),
        (&[(VERSIONS, &[6, 0x1a, 0x1a, 3, 4, 3, 3])], true),
    ];
    for (extensions, has_tls13) in table {
        let hello = Hello { alpn: vec![], has_tls13 };
        assert_eq!(client_hello(&hello_with(extensions)), Detected::Tls(hello), "{extensions:?}");
    }
    // An old hello may end before its extensions.
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0, 0x2f, 1, 0]].concat();
    let old = Detected::Tls(Hello { alpn: vec![], has_tls13: false });
    assert_eq!(client_hello(&message(&body)), old);
}

#[test]
fn what_does_not_begin_like_tls_is_not_tls_at_the_first_byte_that_says_so() {
    for byte in 0..=u8::MAX {
        assert_eq!(first_byte_is_tls(byte), byte == 22);
        let expected = if byte == 22 { Detected::NeedMore { need: 2 } } else { Detected::NotTls };
        assert_eq!(client_hello(&[byte]), expected);
    }
    assert_eq!(client_hello(&[]), Detected::NeedMore { need: 1 });
    assert_eq!(client_hello(&[22, 2]), Detected::NotTls);
    assert_eq!(client_hello(b"GET / HTTP/1.1\r\n"), Detected::NotTls);
    assert_eq!(client_hello(&[0x80, 0x2e, 1, 3, 1]), Detected::NotTls);
    assert_eq!(client_hello(&[0; 1 << 14]), Detected::NotTls);
}

#[test]
fn what_begins_like_tls_and_goes_wrong_is_malformed_with_its_word() {
    let long_list = vec![&b"x"[..]; MAX_PROTOCOLS + 1];
    let two = alpn(&[b"h2"]);
    let body_of_nothing = message(&[]);
    let table: [(Vec<u8>, &str); 15] = [
        (vec![22, 3, 1, 0, 0], "empty_record"),
        (vec![22, 3, 1, 0x40, 1], "record_too_long"),
        (vec![22, 3, 1, 0, 1, 2], "not_a_client_hello"),
        (vec![22, 3, 1, 0, 4, 1, 0, 0x40, 0], "client_hello_too_long"),
        (vec![22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff], "client_hello_too_long"),
        (vec![22, 3, 1, 0, 1, 1, 23], "not_a_handshake_record"),
        (vec![22, 3, 1, 0, 1, 1, 22, 4], "not_a_handshake_record"),
        (body_of_nothing, "client_hello_truncated"),
        (message(&[3; 40]), "client_hello_truncated"),
        (hello_with(&[(16, &two), (16, &two)]), "extension_twice"),
        (hello_with(&[(16, &[0, 2, 2, b'h'])]), "alpn_malformed"),
        (hello_with(&[(16, &[0, 0])]), "alpn_malformed"),
        (hello_with(&[(16, &[0, 1, 0])]), "alpn_malformed"),
        (hello_with(&[(16, &alpn(&long_list))]), "alpn_too_many"),
        (hello_with(&[(43, &[3, 3, 4, 3])]), "supported_versions_malformed"),
    ];
    for (bytes, word) in table {
        assert_eq!(client_hello(&bytes), Detected::Malformed(word), "{bytes:?}");
    }
    let most = vec![&b"x"[..]; MAX_PROTOCOLS];
    let Detected::Tls(hello) = client_hello(&hello_with(&[(16, &alpn(&most))])) else {
        panic!("as many protocols as the limit are read");
    };
    assert_eq!(hello.alpn.len(), MAX_PROTOCOLS);
    assert!(hello.offers(b"x") && !hello.offers(b"xx") && !hello.offers(b""));
}

#[test]
fn a_hello_that_cannot_fit_the_limit_is_refused_before_the_limit() {
    let endless: Vec<u8> = in_records(&[&[1, 0, 0x3f, 0][..], &[0; 0x3f00]].concat(), 1);
    let decided = (0..=PREFIX_LIMIT)
        .find(|cut| !matches!(client_hello(&endless[..*cut]), Detected::NeedMore { .. }))
        .expect("decided within the limit");
    assert!(decided < 1_024, "{decided}");
    assert_eq!(client_hello(&endless), Detected::Malformed("client_hello_too_long"));
}

#[test]
fn a_meshed_source_is_never_spoken_to_in_plaintext() {
    use PortListing::{ServerFirst, Unlisted};
    use Source::{Meshed, Unknown};
    assert_eq!(on_silence(ServerFirst, Unknown), Verdict::Plaintext);
    assert_eq!(on_silence(ServerFirst, Meshed), Verdict::Hold);
    assert_eq!(on_silence(Unlisted, Unknown), Verdict::Hold);
    assert_eq!(on_silence(Unlisted, Meshed), Verdict::Hold);

    let tls = |has_tls13| Detected::Tls(Hello { alpn: vec![], has_tls13 });
    let table = [
        (Detected::NeedMore { need: 9 }, Verdict::Hold, Verdict::Hold),
        (tls(true), Verdict::Handshake, Verdict::Handshake),
        (tls(false), Verdict::Refuse("protocol_version"), Verdict::Refuse("protocol_version")),
        (Detected::Malformed("w"), Verdict::Refuse("w"), Verdict::Refuse("w")),
        (Detected::NotTls, Verdict::Refuse("plaintext_from_meshed_source"), Verdict::Plaintext),
    ];
    for (detected, meshed, unknown) in table {
        assert_eq!(on_first_bytes(&detected, Meshed), meshed);
        assert_eq!(on_first_bytes(&detected, Unknown), unknown);
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        client_hello(&bytes);
        client_hello(&[&[22, 3, 1][..], &bytes].concat());
        client_hello(&message(&bytes));
    }

    #[test]
    fn mutated_hellos_never_panic_and_never_ask_for_what_is_there(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        size in 1usize..2_000,
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = in_records(&real_hello()[5..], size);
        for (index, value) in changes {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        let bytes = &bytes[..cut.index(bytes.len() + 1)];
        if let Detected::NeedMore { need } = client_hello(bytes) {
            prop_assert!(need > bytes.len() && need <= PREFIX_LIMIT);
        }
    }
}
