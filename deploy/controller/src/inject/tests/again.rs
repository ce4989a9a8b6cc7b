//! Pods that were here before: nothing is to do, or just what is new.
//!
//! Never: a second sidecar.

// SPDX-License-Identifier: Apache-2.0

use super::*;

/// What the API server and its admission plugins make of a pod between two webhooks.
fn as_the_api_server_stores_it(mut pod: Value) -> Value {
    let token = json!({
        "name": "kube-api-access-x7k2p", "readOnly": true,
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
    });
    for list in ["containers", "initContainers"] {
        let Some(containers) = pod["spec"][list].as_array_mut() else { continue };
        for container in containers {
            container["terminationMessagePath"] = json!("/dev/termination-log");
            container["terminationMessagePolicy"] = json!("File");
            container["imagePullPolicy"] = json!("IfNotPresent");
            let path = "mountPath";
            let mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
            if mounts.iter().all(|mount| mount[path] != token[path]) {
                container["volumeMounts"] = mounts.into_iter().chain([token.clone()]).collect();
            }
        }
    }
    pod
}

fn operations(pod: &Value) -> Vec<Value> {
    match inject(pod, &shop(), &settings()) {
        Decision::Injected { patch, .. } => patch.operations().to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_injected_pod_yields_an_empty_patch() {
    for name in [
        "deployment",
        "statefulset",
        "job",
        "cronjob",
        "daemonset",
        "init-containers",
        "every-probe",
        "newer-fields",
        "no-token-mounted",
    ] {
        let pod = injected(&fixture(name));
        assert_eq!(operations(&pod), Vec::<Value>::new(), "{name}");
        let stored = as_the_api_server_stores_it(pod);
        assert_eq!(operations(&stored), Vec::<Value>::new(), "{name}, stored");
    }
}

#[test]
fn a_container_that_another_webhook_adds_gets_its_probes_too() {
    let mut pod = injected(&fixture("deployment"));
    let added = json!({
        "name": "agent", "image": "agent:1",
        "livenessProbe": { "httpGet": { "path": "/alive", "port": 9000 } },
    });
    pod["spec"]["containers"].as_array_mut().unwrap().push(added);
    let after = injected(&pod);
    let probe = &after["spec"]["containers"][1]["livenessProbe"]["httpGet"];
    assert_eq!(probe["path"], "/probe/agent/liveness");
    assert_eq!(told(&after).probes.len(), 3);
    let kept = after["metadata"]["annotations"]["myelin.dev/original-probes"].as_str().unwrap();
    let kept: Value = serde_json::from_str(kept).unwrap();
    assert_eq!(kept["agent"]["livenessProbe"]["httpGet"]["path"], "/alive");
    assert_eq!(kept["web"]["livenessProbe"]["httpGet"]["port"], "http", "those of before stay");
    assert!(operations(&after).is_empty());
}

#[test]
fn a_sidecar_that_was_pushed_back_comes_first_again() {
    let mut pod = injected(&fixture("deployment"));
    let first = json!({ "name": "first", "image": "first:1" });
    pod["spec"]["initContainers"].as_array_mut().unwrap().insert(0, first);
    let after = injected(&pod);
    let names = after["spec"]["initContainers"].as_array().unwrap().iter();
    let names: Vec<&str> = names.map(|container| container["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["myelin-init", "myelin-sidecar", "first"]);
}

#[test]
fn a_copy_of_an_injected_pod_gets_what_is_right_today() {
    let pod = injected(&fixture("deployment"));
    let forged = annotated(pod.clone(), "myelin.dev/sidecar-config", "trust_domain = \"evil\"");
    assert_eq!(injected(&forged), pod);
    let renewed = Settings { bundle_pem: "new".into(), image: "new:2".to_owned(), ..settings() };
    let (after, _) = injected_with(&pod, &renewed);
    assert_eq!(after["metadata"]["annotations"]["myelin.dev/trust-bundle"], "new");
    assert_eq!(after["spec"]["initContainers"][1]["image"], "new:2");
    assert_eq!(after["spec"]["initContainers"].as_array().unwrap().len(), 2);
}

#[test]
fn what_a_pod_adds_to_our_containers_and_volumes_goes() {
    let pod = injected(&fixture("deployment"));
    let mount = json!({ "name": "theirs", "mountPath": "/theirs" });
    let mut additions: Vec<(String, Value)> = Vec::new();
    for ours in 0..2 {
        let at = |field: &str| format!("/spec/initContainers/{ours}/{field}");
        additions.extend([
            (at("command"), json!(["/theirs/run"])),
            (at("env"), json!([{ "name": "LD_PRELOAD", "value": "/theirs/lib.so" }])),
            (at("lifecycle"), json!({ "postStart": { "exec": { "command": ["/theirs/run"] } } })),
            (at("terminationMessagePath"), json!("/etc/myelin/sidecar.toml")),
            (at("volumeMounts/-"), mount.clone()),
            (at("securityContext/capabilities/add"), json!(["SYS_ADMIN"])),
            (at("securityContext/seLinuxOptions"), json!({ "type": "spc_t" })),
        ]);
    }
    let ours = pod["spec"]["volumes"].as_array().unwrap();
    let identity = ours.iter().position(|volume| volume["name"] == "myelin-identity").unwrap();
    let theirs = json!({ "secret": { "name": "theirs" } });
    additions.push((format!("/spec/volumes/{identity}/projected/sources/-"), theirs));
    for (path, value) in additions {
        let addition = json!([{ "op": "add", "path": path, "value": value }]);
        let mut forged = pod.clone();
        let addition: json_patch::Patch = serde_json::from_value(addition).unwrap();
        json_patch::patch(&mut forged, &addition).unwrap();
        assert_ne!(forged, pod, "{path}");
        assert_eq!(injected(&forged), pod, "{path}");
    }
}

#[test]
fn a_probe_that_asks_the_sidecar_without_an_original_is_refused() {
    let mut pod = injected(&fixture("deployment"));
    pod = annotated(pod, "myelin.dev/original-probes", "{}");
    assert!(refusal(&pod).contains("does not say what for"), "{}", refusal(&pod));
    pod = annotated(pod, "myelin.dev/original-probes", "{");
    assert!(refusal(&pod).contains("original-probes"), "{}", refusal(&pod));
}
