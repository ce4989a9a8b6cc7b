//! `myelin install` and `myelin uninstall`: the chart, by the `helm` that is installed. Called by `main`.
//!
//! Never: pretends: what helm did not do is not said to be done; where there is no helm, the command that
//! would have been run is what is told.

// SPDX-License-Identifier: Apache-2.0

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::args::{InstallArgs, ReleaseArgs, UninstallArgs};

/// The DaemonSet of the CNI plugin.
const PLUGIN: &str = "daemonset/myelin-cni";

pub(crate) fn install(args: &InstallArgs) -> ExitCode {
    if !args.chart.join("Chart.yaml").is_file() {
        let chart = args.chart.display();
        return complain(&format!(
            "{chart} holds no Chart.yaml: name the chart's folder with --chart"
        ));
    }
    let call = install_call(args);
    match helm(&args.release) {
        // Its output, its exit code. Returns only if it could not be started.
        Some(helm) => {
            let why = Command::new(&helm).args(&call).exec();
            complain(&format!("{} cannot be started: {why}", helm.display()))
        }
        None => complain(&unavailable(&call)),
    }
}

pub(crate) fn uninstall(args: &UninstallArgs) -> ExitCode {
    let ReleaseArgs { name, namespace, .. } = &args.release;
    let call = words(&["uninstall", name, "--namespace", namespace]);
    let Some(helm) = helm(&args.release) else { return complain(&unavailable(&call)) };
    let asked =
        words(&["get", "values", name, "--namespace", namespace, "--all", "--output", "json"]);
    let values = match Command::new(&helm).args(asked).output() {
        Ok(answer) if answer.status.success() => answer.stdout,
        Ok(answer) => {
            let said = String::from_utf8_lossy(&answer.stderr);
            return complain(&format!("nothing was uninstalled: helm says: {}", said.trim()));
        }
        Err(why) => return complain(&format!("{} cannot be started: {why}", helm.display())),
    };
    if let Err(why) = may_go(&values, &args.release) {
        return complain(&why);
    }
    match Command::new(&helm).args(&call).status() {
        Ok(ended) if ended.success() => {
            say(&left(namespace));
            ExitCode::SUCCESS
        }
        Ok(ended) => complain(&format!("helm did not uninstall it ({ended})")),
        Err(why) => complain(&format!("{} cannot be started: {why}", helm.display())),
    }
}

fn install_call(args: &InstallArgs) -> Vec<OsString> {
    let ReleaseArgs { name, namespace, .. } = &args.release;
    let verb = if args.dry_run { "template" } else { "install" };
    let mut call = words(&[verb, name]);
    call.push(args.chart.clone().into());
    call.extend(words(&["--namespace", namespace]));
    if !args.dry_run {
        call.push("--create-namespace".into());
    }
    for file in &args.values {
        call.extend(["--values".into(), file.clone().into()]);
    }
    for set in &args.set {
        call.extend(words(&["--set", set]));
    }
    call
}

/// Whether nothing would be left behind that keeps pods from starting.
fn may_go(values: &[u8], release: &ReleaseArgs) -> Result<(), String> {
    let ReleaseArgs { name, namespace, .. } = release;
    let values: serde_json::Value = serde_json::from_slice(values)
        .map_err(|why| format!("nothing was uninstalled: helm's values cannot be read: {why}"))?;
    let cni = &values["cni"];
    if cni["enabled"] != true || cni["removeAtEnd"] == true {
        return Ok(());
    }
    Err(format!(
        "nothing was uninstalled: the CNI plugin would stay in each node's chain, and no pod would start there. First\n  \
         helm upgrade {name} CHART --namespace {namespace} --reuse-values --set cni.removeAtEnd=true\n  \
         kubectl --namespace {namespace} rollout status {PLUGIN}\n\
         then again"
    ))
}

fn left(namespace: &str) -> String {
    format!(
        "Left in {namespace}, since they belong together and are yours to delete: the seal key, the CA's volumes and \
         its state, the trust bundle; and the ConfigMap myelin-trust-bundle of each meshed namespace, which nobody keeps right any more \
         (docs/operate/kubernetes.md). Pods keep their sidecars until they are made anew.\n"
    )
}

fn unavailable(call: &[OsString]) -> String {
    let call: Vec<String> = call.iter().map(|word| quoted(&word.to_string_lossy())).collect();
    format!("helm is not installed, so nothing was done; it would be\n  helm {}", call.join(" "))
}

/// As a shell reads it again.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=:,@+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The one that was named, or the first in the PATH.
fn helm(release: &ReleaseArgs) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    release.helm_bin.clone().or_else(|| in_path(&paths))
}

fn in_path(paths: &OsStr) -> Option<PathBuf> {
    let found = |path: &PathBuf| Path::is_file(path);
    std::env::split_paths(paths).map(|folder| folder.join("helm")).find(found)
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

#[expect(clippy::print_stderr, reason = "what failed, and what to do")]
fn complain(text: &str) -> ExitCode {
    eprintln!("myelin: {text}");
    ExitCode::FAILURE
}

/// A reader that has enough reads no more, which is its own business.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Args, Command as Asked};

    fn install_of(line: &str) -> InstallArgs {
        match Args::parse_from(line.split(' ')).command {
            Asked::Install(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn helm_is_called_with_what_was_asked_for_and_a_dry_run_only_renders() {
        for (line, expected) in [
            (
                "myelin install",
                "helm install myelin deploy/chart --namespace myelin-system --create-namespace",
            ),
            (
                "myelin install --chart c -n mesh --name m -f a.yaml -f b.yaml --set x=1 --set y={a,b}",
                "helm install m c --namespace mesh --create-namespace --values a.yaml --values b.yaml --set x=1 --set 'y={a,b}'",
            ),
            (
                "myelin install --dry-run --set it=o'clock",
                r"helm template myelin deploy/chart --namespace myelin-system --set 'it=o'\''clock'",
            ),
        ] {
            let told = unavailable(&install_call(&install_of(line)));
            assert_eq!(told.lines().last().unwrap().trim(), expected, "{line}");
            assert!(told.starts_with("helm is not installed, so nothing was done"), "{told}");
        }
    }

    #[test]
    fn what_would_keep_pods_from_starting_is_not_uninstalled() {
        let release = install_of("myelin install -n mesh").release;
        let judged = |values: &str| may_go(values.as_bytes(), &release);
        for fine in [
            "{}",
            r#"{"cni":{"enabled":false,"removeAtEnd":false}}"#,
            r#"{"cni":{"enabled":true,"removeAtEnd":true}}"#,
        ] {
            assert_eq!(judged(fine), Ok(()), "{fine}");
        }
        for left in
            [r#"{"cni":{"enabled":true,"removeAtEnd":false}}"#, r#"{"cni":{"enabled":true}}"#]
        {
            let why = judged(left).unwrap_err();
            assert!(
                why.starts_with("nothing was uninstalled") && why.contains("cni.removeAtEnd=true"),
                "{why}"
            );
        }
        assert!(judged("Error").unwrap_err().starts_with("nothing was uninstalled"));
    }

    #[test]
    fn helm_is_the_one_that_was_named_or_in_the_path_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().as_os_str();
        assert_eq!(in_path(path), None);
        std::fs::write(folder.path().join("helm"), "").unwrap();
        assert_eq!(in_path(path), Some(folder.path().join("helm")));
        let named = install_of("myelin install --helm-bin /x/helm").release;
        assert_eq!(helm(&named), Some("/x/helm".into()));
    }
}
