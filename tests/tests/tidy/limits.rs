//! Every number that bounds something is in docs/LIMITS.md, with the value that the code has.
//!
//! A limit is any constant of an integer, a ratio or a `Duration` outside tests. What is such a
//! constant and bounds nothing (a number on a wire, a default that docs/CONFIG.md lists) is named
//! below with its reason, so that a new number is decided about and never overlooked.
//!
//! Never: judges whether a limit is a good one.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;

use crate::assert_none;
use crate::source::{read, rust_files};

const HOUSES: [&str; 5] =
    ["sidecar/src/", "ca/src/", "ca/identity/src/", "deploy/cni/src/", "deploy/controller/src/"];

/// Constants that bound nothing: where, which (`*` for all there), and what they are instead.
const NOT_LIMITS: &[(&str, &str, &str)] = &[
    ("ca/src/store/kubernetes/shape.rs", "FORMAT", "the number of a format"),
    ("ca/src/store/kubernetes/values.rs", "WHOLE", "a byte of our encoding"),
    ("ca/src/store/kubernetes/values.rs", "IN_PARTS", "a byte of our encoding"),
    ("sidecar/src/intercept/encode.rs", "*", "numbers of the netfilter wire"),
    ("sidecar/src/intercept/mod.rs", "PROXY_UID", "a default, in docs/CONFIG.md"),
    ("sidecar/src/intercept/mod.rs", "MARK", "a default, in docs/CONFIG.md"),
    ("sidecar/src/intercept/mod.rs", "OUTBOUND_PORT", "a default, in docs/CONFIG.md"),
    ("sidecar/src/intercept/mod.rs", "INBOUND_PORT", "a default, in docs/CONFIG.md"),
    ("sidecar/src/intercept/mod.rs", "OPS_PORT", "a default, in docs/CONFIG.md"),
    ("sidecar/src/intercept/mod.rs", "PROBE_PORT", "a default, in docs/CONFIG.md"),
    ("sidecar/src/probes/grpc.rs", "PREFIX_BYTES", "a number of the gRPC wire"),
    ("sidecar/src/probes/grpc.rs", "SERVING", "a number of the gRPC wire"),
    ("deploy/controller/src/config/load.rs", "WRITABLE_BY_ANYBODY", "bits of a file mode"),
    ("deploy/controller/src/policies/hub.rs", "*", "bits for what was listed"),
    ("sidecar/src/intercept/netlink.rs", "NLMSG_HEADER_LEN", "a number of the netlink wire"),
    ("sidecar/src/intercept/netlink.rs", "NETFILTER_HEADER_LEN", "a number of the netlink wire"),
    ("sidecar/src/intercept/netlink.rs", "ERROR_TEXT", "a number of the netlink wire"),
    ("sidecar/src/intercept/netlink.rs", "TABLE_NAME", "a number of the netlink wire"),
    ("sidecar/src/intercept/ruleset.rs", "DSTNAT", "a priority of nf_tables"),
    ("sidecar/src/intercept/ruleset.rs", "FILTER", "a priority of nf_tables"),
    ("sidecar/src/intercept/ruleset.rs", "RAW", "a priority of nf_tables"),
    ("sidecar/src/intercept/ruleset.rs", "DIRECT_ZONE", "the name of a zone"),
    ("sidecar/src/intercept/ruleset.rs", "TRACKED", "bits of a connection's state"),
    ("sidecar/src/intercept/ruleset.rs", "REDIRECTED", "a bit of a connection's status"),
    ("sidecar/src/config/base.rs", "DEFAULT_OUTBOUND", "a default, in docs/CONFIG.md"),
    ("sidecar/src/config/base.rs", "DEFAULT_INBOUND", "a default, in docs/CONFIG.md"),
    ("sidecar/src/config/base.rs", "DEFAULT_OPS", "a default, in docs/CONFIG.md"),
    ("sidecar/src/config/base.rs", "DEFAULT_PROBES", "a default, in docs/CONFIG.md"),
    ("sidecar/src/config/base.rs", "DEFAULT_PROXY_UID", "a default, in docs/CONFIG.md"),
    ("sidecar/src/config/base.rs", "DEFAULT_MARK", "a default, in docs/CONFIG.md"),
    ("ca/src/scheduling.rs", "EVEN", "niceness 0 in a library's scale"),
    ("sidecar/src/config/proofs.rs", "CA_OPS_PORT", "a default, in docs/CONFIG.md"),
    ("sidecar/src/auditor/compare.rs", "TILE_HEIGHT", "a number of the tile format"),
    ("sidecar/src/config/date.rs", "SECONDS_PER_DAY", "arithmetic"),
    ("sidecar/src/config/limits.rs", "*", "the ranges of [limits], in docs/CONFIG.md"),
    ("sidecar/src/config/load.rs", "WRITABLE_BY_ANYBODY", "bits of a file mode"),
    ("sidecar/src/unix_socket.rs", "WRITABLE_BY_OTHERS", "bits of a file mode"),
    ("sidecar/src/workload_api/authority.rs", "*", "numbers of the HTTP/2 wire"),
    ("sidecar/src/workload_api/mod.rs", "SOCKET_MODE", "bits of a file mode"),
    ("sidecar/src/credentials/state_dir.rs", "DIRECTORY_MODE", "bits of a file mode"),
    ("sidecar/src/credentials/start.rs", "UNKNOWN_GENERATION", "a value that stands for none"),
    ("sidecar/src/detect/client_hello.rs", "RANDOM", "a number of the TLS wire"),
    ("sidecar/src/detect/client_hello.rs", "EXTENSION_ALPN", "a number of the TLS wire"),
    (
        "sidecar/src/detect/client_hello.rs",
        "EXTENSION_SUPPORTED_VERSIONS",
        "a number of the TLS wire",
    ),
    ("sidecar/src/detect/records.rs", "HANDSHAKE", "a number of the TLS wire"),
    ("sidecar/src/detect/records.rs", "VERSION_MAJOR", "a number of the TLS wire"),
    ("sidecar/src/detect/records.rs", "RECORD_HEADER", "a number of the TLS wire"),
    ("sidecar/src/detect/records.rs", "CLIENT_HELLO", "a number of the TLS wire"),
    ("sidecar/src/detect/records.rs", "MESSAGE_HEADER", "a number of the TLS wire"),
    ("sidecar/src/relay/bare.rs", "HEAD", "nothing goes in front"),
    ("sidecar/src/relay/carrier.rs", "HEAD", "a number of the myelin/1 wire"),
    ("sidecar/src/relay/outbox.rs", "TRAIN", "what the kernel sends at once"),
    ("sidecar/src/relay/outbox.rs", "RECORDS_A_TRAIN", "a choice of speed"),
    ("sidecar/src/relay/seal.rs", "HEADER", "a number of the TLS wire"),
    ("sidecar/src/relay/seal.rs", "IV", "a number of the TLS wire"),
    ("sidecar/src/relay/seal.rs", "TAG", "a number of the TLS wire"),
    ("sidecar/src/relay/seal.rs", "TRAILER", "a number of the TLS wire"),
    ("sidecar/src/relay/seal.rs", "WORN_BEFORE", "a margin of MOST_UNDER_ONE_KEY"),
    ("sidecar/src/relay/shelf.rs", "RECORD", "a number of the TLS wire"),
    ("sidecar/src/tls/drive.rs", "HEADER", "a number of the TLS wire"),
    ("sidecar/src/tls/drive.rs", "READ", "a choice of speed"),
    ("sidecar/src/relay/after.rs", "MESSAGE_HEADER", "a number of the TLS wire"),
    ("sidecar/src/relay/after.rs", "NEW_SESSION_TICKET", "a number of the TLS wire"),
    ("sidecar/src/relay/after.rs", "KEY_UPDATE", "a number of the TLS wire"),
    ("sidecar/src/metrics/process.rs", "TICKS_PER_SECOND", "a unit of /proc"),
    ("sidecar/src/wire/frame.rs", "VERSION", "a number of the myelin/1 wire"),
    ("sidecar/src/wire/frame.rs", "HEADER_LEN", "a number of the myelin/1 wire"),
    ("sidecar/src/wire/frame.rs", "HELLO_FIXED", "a number of the myelin/1 wire"),
    ("sidecar/src/wire/frame.rs", "USE_LEN", "a number of the myelin/1 wire"),
    ("ca/src/journal/mod.rs", "VERSION", "the version of stored records"),
    ("ca/src/journal/federation.rs", "VERSION", "the version of stored records"),
    ("ca/src/journal/trust.rs", "VERSION", "the version of stored records"),
    ("ca/src/journal/records.rs", "VERSION", "the form of a record"),
    ("ca/src/journal/companion.rs", "VERSION", "the form of a record"),
    ("ca/src/journal/mod.rs", "USUAL_BYTES", "a first capacity, which grows"),
    ("deploy/cni/src/install/mod.rs", "PROGRAM_MODE", "bits of a file mode"),
    ("deploy/cni/src/install/mod.rs", "KUBECONFIG_MODE", "bits of a file mode"),
    ("ca/src/main.rs", "EXIT_CONFIG", "an exit code"),
    ("ca/src/app/shared.rs", "OTHERS", "bits of a file mode"),
    ("ca/src/store/etcd/endpoint.rs", "DEFAULT_PORT", "etcd's own port"),
    ("ca/src/lockdown.rs", "*", "numbers of the kernel's interface"),
    ("ca/src/app/keys.rs", "WRAPPED_BYTES", "the length of a wrapped key, exact"),
    ("ca/src/check/mod.rs", "P384_POINT_BYTES", "the length of a key, exact"),
    ("ca/src/check/intermediate.rs", "CA_USAGE", "bits of a key usage"),
    ("ca/src/check/intermediate.rs", "KEY_CERT_SIGN", "bits of a key usage"),
    ("ca/src/signer/draft.rs", "*", "numbers of DER"),
    ("ca/src/signer/key/mod.rs", "RAW_SIGNATURE_BYTES", "the length of a signature, exact"),
    ("ca/src/signer/key/mod.rs", "TOKEN_ID_BYTES", "the length of a name, exact"),
    ("ca/src/signer/token/pkcs11.rs", "POINT_BYTES", "the length of a key, exact"),
    ("ca/src/signer/token/pkcs11.rs", "AES_KEY_BYTES", "the length of a key, exact"),
    ("ca/src/signer/token/pkcs11.rs", "GCM_NONCE_BYTES", "a number of AES-GCM"),
    ("ca/src/signer/token/pkcs11.rs", "GCM_TAG_BITS", "a number of AES-GCM"),
    ("ca/src/log/key.rs", "SEED_BYTES", "the length of a key, exact"),
    ("ca/src/log/key.rs", "MARK_BYTES", "how a name is written"),
    ("ca/src/main.rs", "EXIT_DAMAGED", "an exit code"),
    ("ca/src/metrics/process.rs", "TICKS_PER_SECOND", "a unit of /proc"),
    ("ca/src/metrics/process.rs", "PAGE_BYTES", "a unit of /proc"),
    ("ca/src/https/mod.rs", "HTTPS_PORT", "a number of HTTP (RFC 9110)"),
    ("ca/src/https/mod.rs", "HTTP_PORT", "a number of HTTP (RFC 9110)"),
    ("ca/identity/src/bundle/forms.rs", "UNCOMPRESSED", "a number of SEC 1"),
    ("ca/identity/src/pem.rs", "LINE_CHARACTERS", "a number of PEM (RFC 7468)"),
    ("ca/identity/src/issuance/keys.rs", "BYTES", "the length of a key, exact"),
    ("ca/identity/src/issuance/proof.rs", "EXPORTER_BYTES", "the length of an exporter, exact"),
    ("ca/identity/src/issuance/token.rs", "TEXT_BYTES", "the length of a token, exact"),
    ("ca/identity/src/log/checkpoint.rs", "SIGNATURE_BYTES", "the length of a signature, exact"),
    ("ca/identity/src/log/entry.rs", "*", "numbers of the log's entry"),
    ("ca/identity/src/log/named.rs", "*", "numbers of DER"),
    ("ca/identity/src/log/note.rs", "KEY_BYTES", "the length of a key, exact"),
    ("ca/identity/src/log/note.rs", "TYPE_ED25519", "a number of the note format"),
    ("ca/identity/src/log/note.rs", "TYPE_COSIGNATURE", "a number of the note format"),
    ("ca/identity/src/log/proof.rs", "VERSION", "a number of the proof's form"),
    ("ca/identity/src/log/proof.rs", "HASH_BYTES", "the length of a hash, exact"),
    ("ca/identity/src/log/tiles.rs", "TILE_WIDTH", "a number of the tile format"),
    ("ca/identity/src/log/tiles.rs", "TILE_HEIGHT", "a number of the tile format"),
    ("ca/identity/src/log/tiles.rs", "HASH_BYTES", "the length of a hash, exact"),
    ("ca/identity/src/log/tree.rs", "LEAF_PREFIX", "a number of RFC 6962"),
    ("ca/identity/src/log/tree.rs", "NODE_PREFIX", "a number of RFC 6962"),
    ("ca/identity/src/wire.rs", "VERSION_BYTES", "the length of a version, exact"),
    ("ca/identity/src/issuance/host_key.rs", "HOST_SPKI_BYTES", "the length of a key, exact"),
    ("ca/identity/src/issuance/host_key.rs", "HOST_SIGNATURE_BYTES", "the length of a signature"),
    ("ca/identity/src/x509/key.rs", "P256_SPKI_BYTES", "the length of a key, exact"),
    ("ca/identity/src/x509/key.rs", "P256_SIGNATURE_MAX_BYTES", "the length of a signature"),
    ("ca/identity/src/seal.rs", "VERSION", "a number of the sealed form"),
    ("ca/identity/src/seal.rs", "HEADER_BYTES", "a number of the sealed form"),
    ("ca/identity/src/seal.rs", "BYTES", "the length of a key, exact"),
];

/// A constant as the code has it, and as the table shall have it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Limit {
    path: String,
    name: String,
    value: String,
}

#[test]
fn the_table_of_limits_says_what_the_code_says() {
    let coded: BTreeSet<Limit> = coded().into_iter().filter(is_limit).collect();
    let documented = documented(&read("docs/LIMITS.md"));
    let missing = coded.difference(&documented).map(|limit| format!("missing: {}", row(limit)));
    let stale = documented.difference(&coded).map(|limit| format!("stale: {}", row(limit)));
    assert_none(&missing.chain(stale).collect::<Vec<_>>());
}

#[test]
fn every_limit_in_the_table_has_its_reason() {
    let text = read("docs/LIMITS.md");
    let unexplained = text.lines().filter(|line| {
        cells(line).is_some_and(|cells| cells.get(3).is_none_or(|why| why.len() < 12))
    });
    assert_none(&unexplained.map(str::to_owned).collect::<Vec<_>>());
}

#[test]
fn what_is_said_to_be_no_limit_exists() {
    let coded = coded();
    let stale = NOT_LIMITS.iter().filter(|(path, name, _)| {
        !coded.iter().any(|limit| limit.path == *path && (*name == "*" || limit.name == *name))
    });
    assert_none(&stale.map(|(path, name, _)| format!("{path}: no {name}")).collect::<Vec<_>>());
}

fn is_limit(limit: &Limit) -> bool {
    !NOT_LIMITS
        .iter()
        .any(|(path, name, _)| limit.path == *path && (*name == "*" || limit.name == *name))
}

fn coded() -> Vec<Limit> {
    let mut found = Vec::new();
    for file in rust_files() {
        if !HOUSES.iter().any(|house| file.path.starts_with(house)) {
            continue;
        }
        let shipped = file.shipped();
        for (at, _) in shipped.match_indices("const ") {
            let declaration = &shipped[at + 6..];
            let Some((name, kind, value)) = constant(declaration) else { continue };
            if is_number(kind) {
                let (path, name) = (file.path.clone(), name.to_owned());
                found.push(Limit { path, name, value: plain(value) });
            }
        }
    }
    found
}

/// Name, type and value of `NAME: type = value;`.
fn constant(declaration: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = declaration.split_once(':')?;
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    if name.is_empty() || !name.chars().all(is_name) {
        return None;
    }
    let (kind, rest) = rest.split_once('=')?;
    let (value, _) = rest.split_once(';')?;
    Some((name, kind.trim(), value))
}

fn is_number(kind: &str) -> bool {
    let units = ["u8", "u16", "u32", "u64", "u128", "usize", "i32", "i64", "f64", "Duration"];
    units.contains(&kind) || kind.starts_with("NonZero") || kind.contains("(Duration")
}

/// A value as people write it: `Duration::from_secs(5)` is `5 s`, `4_096` is `4096`.
fn plain(value: &str) -> String {
    let mut text = value.split_whitespace().collect::<Vec<_>>().join(" ");
    for (call, unit) in [("Duration::from_secs(", " s"), ("Duration::from_millis(", " ms")] {
        while let Some(start) = text.find(call) {
            let inside = start + call.len();
            let end = inside + text[inside..].find(')').expect("a call that opens also closes");
            text = format!("{}{}{unit}{}", &text[..start], &text[inside..end], &text[end + 1..]);
        }
    }
    if let Some((_, inside)) = text.split_once("::new(").filter(|_| text.starts_with("NonZero")) {
        text = inside.split(").expect(").next().unwrap_or(inside).to_owned();
    }
    without_grouping(&text)
}

/// `4_096` is `4096`; `MAX_FRAME` stays.
fn without_grouping(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let is_digit = |at: Option<&char>| at.is_some_and(char::is_ascii_digit);
    let groups =
        |at: usize| at > 0 && is_digit(characters.get(at - 1)) && is_digit(characters.get(at + 1));
    let kept = characters.iter().enumerate().filter(|(at, c)| **c != '_' || !groups(*at));
    kept.map(|(_, c)| *c).collect()
}

fn documented(text: &str) -> BTreeSet<Limit> {
    let rows = text.lines().filter_map(cells);
    rows.filter_map(|cells| {
        let [name, value, path, ..] = cells.as_slice() else { return None };
        let name = name.strip_prefix('`')?.strip_suffix('`')?.to_owned();
        let path = path.trim_matches('`').to_owned();
        Some(Limit { path, name, value: plain(value.trim_matches('`')) })
    })
    .collect()
}

/// The cells of a row that begins with a constant's name.
fn cells(line: &str) -> Option<Vec<&str>> {
    let row = line.strip_prefix("| `")?.strip_suffix(" |")?;
    if !row.starts_with(|c: char| c.is_ascii_uppercase()) {
        return None;
    }
    Some(line[2..line.len() - 2].split(" | ").map(str::trim).collect())
}

fn row(limit: &Limit) -> String {
    format!("| `{}` | {} | `{}` | why |", limit.name, limit.value, limit.path)
}

#[test]
fn constants_are_read_with_their_type_and_value() {
    let read =
        |text| constant(text).map(|(name, kind, value)| (name, kind.to_owned(), plain(value)));
    let number = |name, kind: &str, value: &str| Some((name, kind.to_owned(), value.to_owned()));
    assert_eq!(read("A: usize = 4_096;"), number("A", "usize", "4096"));
    assert_eq!(
        read("B: Duration = Duration::from_secs(5 * 60);"),
        number("B", "Duration", "5 * 60 s")
    );
    assert_eq!(read("C: usize = MAX_FRAME - 1_0;"), number("C", "usize", "MAX_FRAME - 10"));
    let wrapped = "D: NonZeroU64 = NonZeroU64::new(64 << 30).expect(\"not zero\");";
    assert_eq!(read(wrapped), number("D", "NonZeroU64", "64 << 30"));
    assert_eq!(read("fn_like: usize = 1;"), None);
}
