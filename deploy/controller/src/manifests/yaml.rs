//! YAML as Kubernetes' tools read it (1.1, in part): read with their octal numbers and booleans, and
//! written so that every version reads the same.
//!
//! Never: a plain scalar that anybody could read as something else than the text that it is.

// SPDX-License-Identifier: Apache-2.0

use serde_json::Value;

/// What YAML 1.1 or 1.2 reads as no text.
const RESERVED: [&str; 10] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan"];

/// One document.
pub(super) fn read(text: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
    let read = serde_saphyr::from_str_with_options(text, options);
    read.map_err(|why| why.to_string().lines().collect::<Vec<_>>().join(" "))
}

/// In blocks, as people write it.
pub(super) fn write(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => members(&mut text, value, 0, false),
        Value::Array(list) if !list.is_empty() => members(&mut text, value, 0, false),
        flat => {
            text.push_str(&scalar(flat, 0));
            text.push('\n');
        }
    }
    text
}

/// The members of an object or a list that has some. `opened`: the first line's indent is written.
fn members(text: &mut String, value: &Value, indent: usize, opened: bool) {
    let mut is_open = opened;
    let mut begin = |text: &mut String| {
        if !std::mem::replace(&mut is_open, false) {
            text.push_str(&" ".repeat(indent));
        }
    };
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                begin(text);
                text.push_str(&word(key));
                text.push(':');
                match value {
                    Value::Object(map) if !map.is_empty() => {
                        text.push('\n');
                        members(text, value, indent + 2, false);
                    }
                    // Beside its key, as is the custom for manifests.
                    Value::Array(list) if !list.is_empty() => {
                        text.push('\n');
                        members(text, value, indent, false);
                    }
                    flat => {
                        text.push(' ');
                        text.push_str(&scalar(flat, indent + 2));
                        text.push('\n');
                    }
                }
            }
        }
        Value::Array(list) => {
            for value in list {
                begin(text);
                text.push_str("- ");
                match value {
                    Value::Object(map) if !map.is_empty() => members(text, value, indent + 2, true),
                    Value::Array(list) if !list.is_empty() => {
                        members(text, value, indent + 2, true)
                    }
                    flat => {
                        text.push_str(&scalar(flat, indent + 2));
                        text.push('\n');
                    }
                }
            }
        }
        _ => {}
    }
}

/// What fits behind a key; `indent`: of further lines.
fn scalar(value: &Value, indent: usize) -> String {
    match value {
        Value::String(text) if is_block(text) => {
            let margin = " ".repeat(indent);
            let (sign, body) = match text.strip_suffix('\n') {
                Some(body) => ("|", body),
                None => ("|-", text.as_str()),
            };
            let lines = body.split('\n').map(|line| match line {
                "" => "\n".to_owned(),
                line => format!("\n{margin}{line}"),
            });
            format!("{sign}{}", lines.collect::<String>())
        }
        Value::String(text) => word(text),
        // Numbers, booleans, null, and what is empty: as in JSON, which is YAML.
        other => other.to_string(),
    }
}

/// Whether it reads better in lines, and is the same in lines.
fn is_block(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    body.contains('\n')
        && !body.ends_with('\n')
        && !body.starts_with([' ', '\n'])
        && body.lines().all(|line| line.is_empty() || !line.trim().is_empty())
        && body.chars().all(|c| c == '\n' || is_printed(c))
}

fn is_printed(c: char) -> bool {
    matches!(
        c,
        ' '..='~'
            | '\u{a0}'..='\u{2027}'
            | '\u{202a}'..='\u{d7ff}'
            | '\u{e000}'..='\u{fefe}'
            | '\u{ff00}'..='\u{fffd}'
            | '\u{10000}'..='\u{10ffff}'
    )
}

/// A text on one line: as it is where nobody can take it for anything else, else in quotes.
fn word(text: &str) -> String {
    let bytes = text.as_bytes();
    let first = bytes.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'/');
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_./-@".contains(byte);
    let reserved = RESERVED.iter().any(|word| text.eq_ignore_ascii_case(word));
    if first && bytes.iter().all(plain) && !reserved {
        return text.to_owned();
    }
    // JSON's escapes are YAML's; what YAML would fold or refuse is escaped too.
    let mut quoted = String::new();
    for c in Value::from(text).to_string().chars() {
        if is_printed(c) {
            quoted.push(c);
        } else {
            quoted.push_str(&format!("\\u{:04x}", u32::from(c)));
        }
    }
    quoted
}
