//! What is asked, of which container: the environment of a call.
//!
//! Never: standard input; a name that was not looked at before it becomes part of a path or a URL.

// SPDX-License-Identifier: Apache-2.0

use std::ffi::OsString;
use std::path::PathBuf;

use super::{Code, Refusal};

/// Longest CNI_ARGS: a kubelet's five pairs, four times over.
const MAX_ARGS_BYTES: usize = 4096;
/// Longest name of an interface in Linux (IFNAMSIZ without its NUL).
const MAX_IFNAME_BYTES: usize = 15;
/// Longest container ID: those of container runtimes have 64 characters.
const MAX_CONTAINER_ID_BYTES: usize = 256;
/// Longest name of a pod (RFC 1123 subdomain).
const MAX_POD_NAME_BYTES: usize = 253;
/// Longest name of a namespace (RFC 1123 label).
const MAX_NAMESPACE_BYTES: usize = 63;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

/// One call of the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) command: Command,
    /// There for ADD and CHECK; DEL may come without.
    pub(crate) netns: Option<PathBuf>,
    /// Absent: the container is no pod of Kubernetes.
    pub(crate) pod: Option<Pod>,
}

/// A pod as the kubelet names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: Option<String>,
}

impl Call {
    /// Reads the environment through `variable`.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, Refusal> {
        let text = |name: &str| match variable(name).map(OsString::into_string) {
            None => Ok(String::new()),
            Some(Ok(text)) => Ok(text),
            Some(Err(_)) => Err(invalid(name, "is no text")),
        };
        let command = command(&text("CNI_COMMAND")?)?;
        let of_container = matches!(command, Command::Add | Command::Del | Command::Check);
        if !of_container {
            return Ok(Self { command, netns: None, pod: None });
        }
        check_container_id(&text("CNI_CONTAINERID")?)?;
        check_ifname(&text("CNI_IFNAME")?)?;
        let netns = variable("CNI_NETNS").filter(|path| !path.is_empty()).map(PathBuf::from);
        if netns.is_none() && command != Command::Del {
            return Err(invalid("CNI_NETNS", "is missing, expected a path"));
        }
        if netns.as_ref().is_some_and(|path| !path.is_absolute()) {
            return Err(invalid("CNI_NETNS", "is no absolute path"));
        }
        Ok(Self { command, netns, pod: pod(&text("CNI_ARGS")?)? })
    }
}

fn command(word: &str) -> Result<Command, Refusal> {
    Ok(match word {
        "ADD" => Command::Add,
        "DEL" => Command::Del,
        "CHECK" => Command::Check,
        "GC" => Command::Gc,
        "STATUS" => Command::Status,
        "VERSION" => Command::Version,
        _ => {
            let expected = "expected ADD, DEL, CHECK, GC, STATUS or VERSION";
            return Err(invalid("CNI_COMMAND", &format!("is {word:?}, {expected}")));
        }
    })
}

/// A letter or digit, then these and `_`, `.`, `-`, as the specification says.
fn check_container_id(id: &str) -> Result<(), Refusal> {
    let begins_well = id.starts_with(|c: char| c.is_ascii_alphanumeric());
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if begins_well && id.len() <= MAX_CONTAINER_ID_BYTES && id.chars().all(is_plain) {
        return Ok(());
    }
    Err(invalid("CNI_CONTAINERID", "must be a letter or digit, then letters, digits, _ . or -"))
}

fn check_ifname(name: &str) -> Result<(), Refusal> {
    let is_odd = |c: char| c == '/' || c == ':' || c.is_whitespace();
    if (1..=MAX_IFNAME_BYTES).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.contains(is_odd)
    {
        return Ok(());
    }
    Err(invalid("CNI_IFNAME", "must be an interface's name of 1 to 15 bytes"))
}

/// `K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;...`; other pairs are other plugins'. Whoever gives a name
/// alone (podman and buildah do) runs no pod of Kubernetes, whose names are of a namespace.
fn pod(args: &str) -> Result<Option<Pod>, Refusal> {
    if args.len() > MAX_ARGS_BYTES {
        return Err(invalid("CNI_ARGS", "has more than 4096 bytes"));
    }
    let (mut namespace, mut name, mut uid) = (None, None, None);
    for pair in args.split(';').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(invalid("CNI_ARGS", &format!("has {pair:?}, expected KEY=VALUE")));
        };
        match key {
            "K8S_POD_NAMESPACE" => namespace = Some(value),
            "K8S_POD_NAME" => name = Some(value),
            "K8S_POD_UID" => uid = Some(value).filter(|uid| !uid.is_empty()),
            _ => {}
        }
    }
    match (namespace, name) {
        (None, _) => Ok(None),
        (Some(namespace), Some(name)) => {
            check_name("K8S_POD_NAMESPACE", namespace, MAX_NAMESPACE_BYTES, false)?;
            check_name("K8S_POD_NAME", name, MAX_POD_NAME_BYTES, true)?;
            let uid = uid.map(str::to_owned);
            Ok(Some(Pod { namespace: namespace.to_owned(), name: name.to_owned(), uid }))
        }
        (Some(_), None) => Err(invalid("CNI_ARGS", "has K8S_POD_NAMESPACE and no K8S_POD_NAME")),
    }
}

/// They become part of a URL.
fn check_name(key: &str, name: &str, longest: usize, dots: bool) -> Result<(), Refusal> {
    let is_plain = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-') || dots && c == '.';
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins_well && name.len() <= longest && name.chars().all(is_plain) {
        return Ok(());
    }
    Err(invalid("CNI_ARGS", &format!("has {key}={name:?}, which is no Kubernetes name")))
}

/// The specification wants the variable named.
fn invalid(name: &str, why: &str) -> Refusal {
    Refusal::new(Code::InvalidEnvironment, format!("{name} {why}"), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    type Environment<'a> = &'a [(&'a str, &'a str)];

    const GOOD: Environment<'static> = &[
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "abc-1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/run/netns/x"),
        ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0.a;K8S_POD_UID=u"),
    ];

    fn read(changes: Environment<'_>) -> Result<Call, Refusal> {
        Call::read(|name| {
            let all = changes.iter().chain(GOOD);
            let value = all.into_iter().find(|(key, _)| *key == name)?.1;
            (value != "-").then(|| value.into())
        })
    }

    #[test]
    fn a_kubelets_call_is_read() {
        let call = read(&[]).unwrap();
        assert_eq!(call.command, Command::Add);
        let pod = call.pod.unwrap();
        assert_eq!((pod.namespace.as_str(), pod.name.as_str()), ("shop", "web-0.a"));
        assert_eq!(pod.uid.as_deref(), Some("u"));
        for args in ["-", "", "IgnoreUnknown=1;K8S_POD_NAME=buildah-Buildah123"] {
            assert_eq!(read(&[("CNI_ARGS", args)]).unwrap().pod, None, "{args}");
        }
        let gone = read(&[("CNI_COMMAND", "DEL"), ("CNI_NETNS", "-")]).unwrap();
        assert_eq!(gone.netns, None);
        for command in ["GC", "STATUS", "VERSION"] {
            let bare = [("CNI_COMMAND", command), ("CNI_CONTAINERID", "-"), ("CNI_IFNAME", "-")];
            assert!(read(&bare).is_ok(), "{command}");
        }
    }

    #[test]
    fn what_the_specification_does_not_allow_is_refused_and_named() {
        let long = "x".repeat(16);
        for (name, value) in [
            ("CNI_COMMAND", "add"),
            ("CNI_COMMAND", "-"),
            ("CNI_CONTAINERID", "-"),
            ("CNI_CONTAINERID", "../x"),
            ("CNI_IFNAME", "-"),
            ("CNI_IFNAME", ".."),
            ("CNI_IFNAME", "a/b"),
            ("CNI_IFNAME", long.as_str()),
            ("CNI_NETNS", "-"),
            ("CNI_NETNS", "relative"),
            ("CNI_ARGS", "K8S_POD_NAME"),
            ("CNI_ARGS", "K8S_POD_NAMESPACE=x"),
            ("CNI_ARGS", "K8S_POD_NAME=x/../y;K8S_POD_NAMESPACE=shop"),
            ("CNI_ARGS", "K8S_POD_NAME=x;K8S_POD_NAMESPACE=a.b"),
            ("CNI_ARGS", "K8S_POD_NAME=;K8S_POD_NAMESPACE=shop"),
        ] {
            let refused = read(&[(name, value)]).unwrap_err();
            assert_eq!(refused.code, Code::InvalidEnvironment, "{name}={value}");
            assert!(refused.msg.contains(name), "{name}={value}: {}", refused.msg);
        }
    }
}
