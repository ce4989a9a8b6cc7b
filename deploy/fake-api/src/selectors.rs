//! Label and field selectors, as lists and watches take them. Pure.
//!
//! Never: an operator that only some servers know.

// SPDX-License-Identifier: Apache-2.0

use serde_json::Value;

use crate::status::Refused;

/// Everything that a list or watch may be narrowed by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selectors {
    labels: Vec<Term>,
    fields: Vec<Term>,
}

#[derive(Clone, Debug)]
enum Term {
    Is(String, Vec<String>),
    IsNot(String, Vec<String>),
    Exists(String),
    Absent(String),
}

impl Selectors {
    pub(crate) fn parse(labels: &str, fields: &str) -> Result<Self, Refused> {
        let terms = |text: &str| -> Result<Vec<Term>, Refused> {
            let wrong = || Refused::bad(format!("unable to parse selector {text:?}"));
            parts(text).iter().map(|part| term(part).ok_or_else(wrong)).collect()
        };
        Ok(Self { labels: terms(labels)?, fields: terms(fields)? })
    }

    pub(crate) fn hold(&self, object: &Value) -> bool {
        let label = |name: &str| {
            object["metadata"]["labels"].get(name).and_then(Value::as_str).map(str::to_owned)
        };
        let field = |path: &str| {
            let found = path.split('.').try_fold(object, |inner, name| inner.get(name));
            found.and_then(Value::as_str).map(str::to_owned).or(Some(String::new()))
        };
        self.labels.iter().all(|term| term.holds(label))
            && self.fields.iter().all(|term| term.holds(field))
    }

    /// The only object that can be meant, if there is such.
    pub(crate) fn name(&self) -> Option<&str> {
        self.fields.iter().find_map(|term| match term {
            Term::Is(path, values) if path == "metadata.name" => values.first().map(String::as_str),
            _ => None,
        })
    }
}

impl Term {
    fn holds(&self, value: impl Fn(&str) -> Option<String>) -> bool {
        match self {
            Self::Is(name, values) => value(name).is_some_and(|value| values.contains(&value)),
            Self::IsNot(name, values) => !value(name).is_some_and(|value| values.contains(&value)),
            Self::Exists(name) => value(name).is_some(),
            Self::Absent(name) => value(name).is_none(),
        }
    }
}

/// At the commas outside of parentheses.
fn parts(text: &str) -> Vec<String> {
    let (mut found, mut part, mut depth) = (Vec::new(), String::new(), 0);
    for letter in text.chars() {
        match letter {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                found.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(letter);
    }
    found.push(part);
    found.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn term(text: &str) -> Option<Term> {
    let owned = |text: &str| text.trim().to_owned();
    let set = |list: &str| -> Option<Vec<String>> {
        let inner = list.trim().strip_prefix('(')?.strip_suffix(')')?;
        Some(inner.split(',').map(owned).collect())
    };
    if let Some((name, list)) = text.split_once(" notin ") {
        return Some(Term::IsNot(owned(name), set(list)?));
    }
    if let Some((name, list)) = text.split_once(" in ") {
        return Some(Term::Is(owned(name), set(list)?));
    }
    if let Some((name, value)) = text.split_once("!=") {
        return Some(Term::IsNot(owned(name), vec![owned(value)]));
    }
    if let Some((name, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Some(Term::Is(owned(name), vec![owned(value)]));
    }
    match text.strip_prefix('!') {
        Some(name) => Some(Term::Absent(owned(name))),
        None if text.contains(' ') => None,
        None => Some(Term::Exists(owned(text))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_hold_for_what_they_name_only() {
        let object = json!({
            "metadata": {"name": "a", "namespace": "shop", "labels": {"app": "web", "tier": "1"}},
            "spec": {"nodeName": "n1"},
        });
        for (labels, fields, holds) in [
            ("", "", true),
            ("app=web", "", true),
            ("app==web,tier=1", "metadata.name=a", true),
            ("app=db", "", false),
            ("app!=db", "", true),
            ("other!=db", "", true),
            ("app in (web, db),tier", "", true),
            ("app notin (web,db)", "", false),
            ("!other", "", true),
            ("!app", "", false),
            ("", "spec.nodeName=n1", true),
            ("", "spec.nodeName=n2", false),
            ("", "metadata.namespace!=shop", false),
        ] {
            let selectors = Selectors::parse(labels, fields).unwrap();
            assert_eq!(selectors.hold(&object), holds, "{labels} {fields}");
        }
        assert!(Selectors::parse("a b c", "").is_err());
    }
}
