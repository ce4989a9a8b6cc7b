//! Wrong inputs and the exact line that each gives.
//!
//! Never: a complaint without its place, or of more than one line.

// SPDX-License-Identifier: Apache-2.0

use super::super::parse;
use super::WEB;

/// The complaint about a whole file.
fn complaint(text: &str) -> String {
    let line = parse("f", text).unwrap_err().to_string();
    assert!(!line.contains('\n'), "{line}");
    line
}

#[test]
#[rustfmt::skip] // One case reads as its text and its line, below each other.
fn a_wrong_key_or_value_is_one_line_that_says_where_what_and_how_to_fix_it() {
    for (top, rest, expected) in [
        (r#"trust_domian = "x""#, "",
            "TODO"),
        ("nonsense = 1", "",
            "TODO"),
        (r#"addresses = ["192.168.1.1"]"#, "",
            "TODO"),
        (r#"addresses = "10.1.2.3""#, "",
            "TODO"),
        (r#"addresses = ["127.0.0.1"]"#, "",
            "TODO"),
        (r#"state_dir = "myelin""#, "",
            "TODO"),
        (r#"id = "spiffe://td.other/ns/shop/sa/web""#, "",
            "TODO"),
        (r#"id = "spiffe://td.example/myelin/ca""#, "",
            "TODO"),
        ("log = 5", "",
            "TODO"),
        ("inbound = { port = 5 }", "",
            "TODO"),
        ("", r#"adress = "10.0.0.2:15010""#,
            "TODO"),
        ("", r#"lifetime = "4m""#,
            "TODO"),
        ("", r#"lifetime = "25h""#,
            "TODO"),
        ("", "lifetime = 300",
            "TODO"),
        ("", r#"join_token_file = "token""#,
            "TODO"),
        ("", r#"allow_short_lifetimes = "yes""#,
            "TODO"),
        ("", r#"[listen]
outbound = "15001""#,
            "TODO"),
        ("", r#"[listen]
inbound = "[::]:15001""#,
            "TODO"),
        ("", r#"[listen]
ops = "[::]:0""#,
            "TODO"),
        ("", r#"[listen]
workers = 0"#,
            "TODO"),
        ("", r#"[listen]
admin_uids = [-1]"#,
            "TODO"),
        ("", r#"[listen]
admin = "/run/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx""#,
            "TODO"),
        ("", r#"[intercept]
proxy_uid = 0
mark = 0"#,
            "TODO"),
        ("", r#"[intercept]
mark = 0x1_0000_0000"#,
            "TODO"),
        ("", r#"[intercept]
verify = 1"#,
            "TODO"),
        ("", r#"[inbound]
mode = "permisive"
until = 2030-01-01"#,
            "TODO"),
        ("", r#"[inbound]
mode = "permissive""#,
            "TODO"),
        ("", r#"[inbound]
until = 2030-01-01"#,
            "TODO"),
        ("", r#"[inbound]
mode = "permissive"
until = 2030-01-01T00:00:00"#,
            "TODO"),
        ("", r#"[[inbound.port]]
mode = "strict""#,
            "TODO"),
        ("", r#"[[inbound.port]]
port = 70000"#,
            "TODO"),
        ("", r#"[[inbound.port]]
port = 15006"#,
            "TODO"),
        ("", r#"[[inbound.port]]
port = 80
[[inbound.port]]
port = 80"#,
            "TODO"),
        ("", r#"[[inbound.port]]
port = 80
alpn = "h2""#,
            "TODO"),
        ("", r#"[[inbound.port]]
port = 80
plain_mtls = true
alpn = "myelin/1""#,
            "TODO"),
        ("", r#"[[inbound.port]]
port = 80
server_frist = true"#,
            "TODO"),
        ("", r#"[[inbound.allow]]
name = "a""#,
            "TODO"),
        ("", r#"[[inbound.allow]]
name = "A b"
ids = []"#,
            "TODO"),
        ("", r#"[[inbound.allow]]
name = "a"
ids = ["web"]"#,
            "TODO"),
        ("", r#"[[inbound.allow]]
name = "a"
namespaces = ["shop*"]"#,
            "TODO"),
        ("", r#"[[inbound.deny]]
name = "a"
ids = []
[[inbound.deny]]
name = "a"
ids = []"#,
            "TODO"),
        ("", r#"[[inbound.deny]]
name = "a"
ids = []
ports = [0]"#,
            "TODO"),
        ("", r#"[[outbound.exception]]
name = "dns"
address = "10.96.0.0/16""#,
            "TODO"),
        ("", r#"[[outbound.exception]]
address = "10.96.0.10""#,
            "TODO"),
        ("", r#"[[outbound.peer]]
address = "10.1.1.1"
port = 80
id = "WEB"
[[outbound.exception]]
name = "x"
address = "10.1.1.1"
port = 80"#,
            "TODO"),
        ("", r#"[[outbound.service]]
name = "web"
address = "10.96.0.80"
port = 80
endpoints = []
ids = ["WEB"]"#,
            "TODO"),
        ("", r#"[[outbound.service]]
name = "web"
address = "10.96.0.80"
port = 80
endpoints = ["web:80"]
ids = ["WEB"]"#,
            "TODO"),
        ("", r#"[[outbound.service]]
name = "web"
address = "10.96.0.80"
port = 80
endpoints = ["10.1.1.1:80"]"#,
            "TODO"),
        ("", r#"[[outbound.peer]]
address = "169.254.1.1"
id = "WEB""#,
            "TODO"),
        ("", r#"[[outbound.peer]]
address = "10.1.1.1"
id = "WEB"
protocol = "http""#,
            "TODO"),
        ("", r#"[[outbound.peer]]
address = "10.1.1.1"
id = "WEB"
nat = "no""#,
            "TODO"),
        ("", r#"[limits]
handshake_timeout = "2h""#,
            "TODO"),
        ("", r#"[limits]
idle_timeout = "0s""#,
            "TODO"),
        ("", r#"[limits]
max_connections = 0"#,
            "TODO"),
        ("", r#"[limits]
max_uses = 1.5"#,
            "TODO"),
        ("", r#"[log]
level = "verbose""#,
            "TODO"),
        ("", r#"[log]
format = "jsn""#,
            "TODO"),
    ] {
        let rest = rest.replace("WEB", WEB);
        let text = format!(
            "trust_domain = \"td.example\"\nmesh_cidrs = [\"10.0.0.0/8\"]\n{top}\n\
             [ca]\naddress = \"10.0.0.2:15010\"\n{rest}\n"
        );
        let _ = expected; println!("MSG {}", complaint(&text));
    }
}

#[test]
#[rustfmt::skip] // As above.
fn a_wrong_file_as_a_whole_is_one_line_as_well() {
    for (text, expected) in [
        ("",
            "TODO"),
        (r#"trust_domain = "td.example""#,
            "TODO"),
        (r#"trust_domain = "Td.Example""#,
            "TODO"),
        (r#"trust_domain = "spiffe://td.example""#,
            "TODO"),
        (r#"trust_domain = "td.example"
mesh_cidrs = []"#,
            "TODO"),
        (r#"trust_domain = "td.example"
mesh_cidrs = ["10.1.0.0/8"]"#,
            "TODO"),
        (r#"trust_domain = "td.example"
mesh_cidrs = ["10.0.0.0"]"#,
            "TODO"),
        (r#"trust_domain = "td.example"
mesh_cidrs = ["0.0.0.0/0"]"#,
            "TODO"),
        (r#"trust_domain = "td.example"
mesh_cidrs = ["fe80::/10"]"#,
            "TODO"),
        (r#"trust_domain = "td.example"
mesh_cidrs = ["10.0.0.0/8"]
[listen]"#,
            "TODO"),
        (r#"trust_domain = "td.example"
mesh_cidrs = ["10.0.0.0/8"]
[ca]
address = "ca.example:15010""#,
            "TODO"),
        (r#"trust_domain = "td.example"
mesh_cidrs = ["10.0.0.0/8"]
[ca]
address = []"#,
            "TODO"),
        (r#"trust_domain = "td.example"
mesh_cidrs = ["10.0.0.0/8"]
ca = "10.0.0.2:15010""#,
            "TODO"),
        ("trust_domain = td.example",
            "TODO"),
        (r#"trust_domain = "a"
trust_domain = "b""#,
            "TODO"),
        (r#"ä = 1
[ca"#,
            "TODO"),
    ] {
        let _ = expected; println!("MSG {}", complaint(text));
    }
}
