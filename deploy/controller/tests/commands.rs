//! The real binary, called as `myelin inject` and `myelin check --pre` call it: what it prints where, and
//! its exit codes.
//!
//! Never: a real cluster.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use myelin_fake_api::FakeApi;

const POD: &str =
    "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: a}]}\n";

fn called(line: &str, input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_myelin-controller"));
    command.args(line.split(' ')).env_remove("KUBECONFIG");
    command.env_remove("KUBERNETES_SERVICE_HOST");
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    // One that has ended for another reason reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn said(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn configured(dir: &Path) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut root = rcgen::CertificateParams::new(vec![]).unwrap();
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    root.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let bundle = dir.join("bundle.pem");
    std::fs::write(&bundle, root.self_signed(&key).unwrap().pem()).unwrap();
    let config = format!(
        "trust_domain = \"cluster.local\"\nmesh_cidrs = [\"10.0.0.0/8\"]\nnamespace = \"myelin-system\"\n\
         [ca]\nservice = \"myelin-ca\"\nbundle_file = \"{}\"\n\
         [sidecar]\nimage = \"registry.example/myelin-sidecar:0.1.0\"\n\
         [webhook]\ncertificate_file = \"/c\"\nkey_file = \"/k\"\n",
        bundle.display()
    );
    let path = dir.join("controller.toml");
    std::fs::write(&path, config).unwrap();
    path.display().to_string()
}

#[test]
fn manifests_from_standard_input_are_answered_whole_or_refused_with_nothing_answered() {
    let dir = tempfile::tempdir().unwrap();
    let config = configured(dir.path());
    let line =
        format!("inject --file - --config {config} --namespace shop --ca-address 10.0.0.1:15010");
    let good = called(&line, POD);
    assert_eq!((good.status.code(), said(&good.stderr)), (Some(0), ""));
    assert!(said(&good.stdout).contains("name: myelin-sidecar"), "{}", said(&good.stdout));
    let own = format!(
        "{POD}---\n{}",
        POD.replace("{name: a}", "{name: b, labels: {myelin.dev/inject: disabled}}")
    );
    let noted = called(&line, &own);
    assert_eq!(noted.status.code(), Some(0));
    assert!(said(&noted.stderr).contains("Pod shop/b: left as it is (disabled)"));
    let wrong = format!(
        "{POD}---\n{}",
        POD.replace("{name: a}", "{name: b, labels: {myelin.dev/inject: maybe}}")
    );
    let refused = called(&line, &wrong);
    assert_eq!((refused.status.code(), said(&refused.stdout)), (Some(1), ""));
    assert!(said(&refused.stderr).contains("Pod shop/b: "), "{}", said(&refused.stderr));
    let unasked = called(&format!("inject --file - --config {config} --namespace shop"), POD);
    assert_eq!((unasked.status.code(), said(&unasked.stdout)), (Some(1), ""));
    assert!(said(&unasked.stderr).contains("--ca-address"), "{}", said(&unasked.stderr));
}

#[tokio::test]
async fn cluster_is_ready_or_not_or_not_known_and_the_exit_code_says_which() {
    let (api, dir) = (FakeApi::start().await.unwrap(), tempfile::tempdir().unwrap());
    let kubeconfig = dir.path().join("kubeconfig");
    std::fs::write(&kubeconfig, api.kubeconfig()).unwrap();
    let line = format!("preflight --namespace mesh --kubeconfig {}", kubeconfig.display());
    let ask =
        async |line: String| tokio::task::spawn_blocking(move || called(&line, "")).await.unwrap();
    let ready = ask(line.clone()).await;
    assert_eq!(ready.status.code(), Some(0), "{}", said(&ready.stderr));
    assert!(said(&ready.stdout).lines().all(|line| line.starts_with("ok ")));
    api.is_of_version("v1.27.1");
    let old = ask(format!("{line} --json")).await;
    assert_eq!(old.status.code(), Some(1));
    let told: serde_json::Value = serde_json::from_slice(&old.stdout).unwrap();
    assert_eq!((&told["ready"], &told["checks"][0]["verdict"]), (&false.into(), &"missing".into()));
    let nowhere = ask("preflight --namespace mesh".to_owned()).await;
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(said(&nowhere.stdout).lines().all(|line| line.starts_with("unknown ")));
    assert!(said(&nowhere.stdout).contains("--kubeconfig"), "{}", said(&nowhere.stdout));
}
