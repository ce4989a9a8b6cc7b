//! Pods as the controllers of Kubernetes make them: each is meshed, whole and in the right order.
//!
//! Never: a pod that no controller would make.

// SPDX-License-Identifier: Apache-2.0

use super::*;

/// Everything that a meshed pod must have, whatever it was made by.
fn demand_meshed(pod: &Value) {
    let spec = &pod["spec"];
    let rules = &spec["initContainers"][0];
    let sidecar = &spec["initContainers"][1];
    assert_eq!(
        (&rules["name"], &sidecar["name"]),
        (&json!("myelin-init"), &json!("myelin-sidecar"))
    );
    assert!(rules["restartPolicy"].is_null(), "it ends before anything else begins");
    assert_eq!(rules["securityContext"]["capabilities"]["add"], json!(["NET_ADMIN"]));
    assert_eq!(rules["securityContext"]["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(sidecar["restartPolicy"], "Always", "a native sidecar");
    assert_eq!(sidecar["startupProbe"]["httpGet"]["path"], "/ready");
    assert_eq!(sidecar["startupProbe"]["httpGet"]["port"], 15020);
    assert_eq!(sidecar["livenessProbe"]["httpGet"]["path"], "/live");
    assert_eq!(
        sidecar["securityContext"],
        json!({
            "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] }, "privileged": false,
            "readOnlyRootFilesystem": true, "runAsGroup": 1337, "runAsNonRoot": true,
            "runAsUser": 1337, "seccompProfile": { "type": "RuntimeDefault" },
        }),
        "what the restricted level of pod security asks for"
    );
    for container in [rules, sidecar] {
        assert!(container["resources"]["requests"]["memory"].is_string());
        assert!(container["resources"]["limits"]["memory"].is_string());
        let mounts = container["volumeMounts"].as_array().unwrap();
        let hidden = mounts
            .iter()
            .find(|mount| mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount");
        assert_eq!(hidden.unwrap()["name"], "myelin-nothing", "no token of the API server's");
    }
    let volumes = spec["volumes"].as_array().unwrap();
    let identity = volumes.iter().find(|volume| volume["name"] == "myelin-identity").unwrap();
    let token = &identity["projected"]["sources"][1]["serviceAccountToken"];
    assert_eq!(token["audience"], "myelin-ca/cluster.local");
    assert_eq!(token["expirationSeconds"], 3600);
    let containers = spec["containers"].as_array().unwrap().iter();
    for container in containers.chain(spec["initContainers"].as_array().unwrap().iter().skip(2)) {
        let mounts = container["volumeMounts"].as_array().cloned().unwrap_or_default();
        let mounted = mounts.iter().any(|mount| mount["name"] == "myelin-identity");
        assert!(!mounted, "the identity is the sidecar's alone");
    }
    let config = told(pod);
    assert_eq!(config.state_dir.to_str(), Some("/var/lib/myelin/state"));
    assert_eq!(config.ca.addresses[0].to_string(), "10.96.0.5:15010");
    // Both need NET_ADMIN.
    assert_eq!((config.intercept.mark, config.intercept.verify), (0, false));
    let rules_said = rules["args"].as_array().unwrap().iter().map(|text| text.as_str().unwrap());
    let applied = rules_of(&rules_said.collect::<Vec<_>>());
    assert_eq!(applied, config.interception(), "the rules are those of the file");
}

/// What `intercept apply` would write, read by its own command line.
fn rules_of(args: &[&str]) -> myelin_sidecar::intercept::Config {
    #[derive(clap::Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }
    #[derive(clap::Subcommand)]
    enum Command {
        Intercept(myelin_sidecar::intercept::InterceptArgs),
    }
    use clap::Parser as _;
    use myelin_sidecar::intercept::InterceptCommand;
    let all = std::iter::once(&"myelin-sidecar").chain(args);
    let Command::Intercept(args) = Line::try_parse_from(all).unwrap().command;
    match args.command {
        InterceptCommand::Apply(args) => args.config(),
        other => panic!("no apply: {other:?}"),
    }
}

#[test]
fn pods_of_every_make_are_meshed() {
    for (name, account, probes) in [
        ("deployment", "web", 2),
        ("statefulset", "db", 1),
        ("job", "default", 0),
        ("cronjob", "default", 0),
        ("daemonset", "default", 0),
        ("init-containers", "web", 3),
        ("every-probe", "default", 4),
        ("newer-fields", "default", 2),
        ("no-token-mounted", "default", 0),
    ] {
        let pod = injected(&fixture(name));
        demand_meshed(&pod);
        let config = told(&pod);
        let id = format!("spiffe://cluster.local/ns/shop/sa/{account}");
        assert_eq!(config.id.as_ref().unwrap().as_str(), id, "{name}");
        assert_eq!(config.probes.len(), probes, "{name}");
        let port = (probes > 0).then_some(15021);
        assert_eq!(config.interception().probe_port, port, "{name}");
    }
}

#[test]
fn a_pods_own_init_containers_come_after_the_sidecar_in_their_order() {
    let pod = injected(&fixture("init-containers"));
    let names = pod["spec"]["initContainers"].as_array().unwrap().iter();
    let names: Vec<&str> = names.map(|container| container["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["myelin-init", "myelin-sidecar", "migrate", "cache"]);
}

#[test]
fn what_a_newer_kubernetes_has_put_into_a_pod_stays() {
    let before = fixture("newer-fields");
    let after = injected(&before);
    assert_eq!(after["spec"]["newPodField"], json!(["kept"]));
    let container = &after["spec"]["containers"][0];
    assert_eq!(container["someNewField"], json!({ "of": "tomorrow" }));
    assert_eq!(container["livenessProbe"]["newKnob"], 3);
    assert_eq!(after["spec"]["resources"], before["spec"]["resources"]);
    // All that differs of the container is whom its probes ask.
    let mut expected = before["spec"]["containers"][0].clone();
    for (field, kind) in [("livenessProbe", "liveness"), ("readinessProbe", "readiness")] {
        let path = format!("/probe/web/{kind}");
        expected[field]["httpGet"] = json!({ "path": path, "port": 15021, "scheme": "HTTP" });
    }
    assert_eq!(container, &expected);
}

#[test]
fn with_the_cni_plugin_no_container_has_a_privilege() {
    let settings = Settings { cni: true, ..settings() };
    for name in ["deployment", "init-containers", "job"] {
        let (pod, _) = injected_with(&fixture(name), &settings);
        assert_eq!(pod["spec"]["initContainers"][0]["name"], "myelin-sidecar", "{name}");
        let all = pod["spec"]["initContainers"].as_array().unwrap();
        assert!(all.iter().all(|container| container["name"] != "myelin-init"), "{name}");
        assert!(!pod.to_string().contains("NET_ADMIN"), "{name}");
        // What the plugin reads is there.
        told(&pod).interception();
    }
    // A pod that was injected before the plugin came loses its init container.
    let (pod, _) = injected_with(&injected(&fixture("deployment")), &settings);
    assert!(!pod.to_string().contains("NET_ADMIN"));
}

#[test]
fn labels_decide_who_is_meshed() {
    let namespace = |inject: Option<&str>, revision: Option<&str>| {
        let labels = [(INJECT, inject), (REVISION, revision)];
        let labels = labels.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Namespace { name: "shop".to_owned(), labels }
    };
    let enabled = Some("enabled");
    for (of_namespace, revision, of_pod, pods_revision, expected) in [
        (enabled, None, None, None, "injected"),
        (None, None, None, None, "not_asked"),
        (Some("disabled"), None, None, None, "not_asked"),
        (None, None, enabled, None, "injected"),
        (Some("disabled"), None, enabled, None, "injected"),
        (enabled, None, Some("disabled"), None, "disabled"),
        (enabled, None, Some("true"), None, "refused"),
        (enabled, None, Some(""), None, "refused"),
        (enabled, Some("default"), None, None, "injected"),
        (enabled, Some("canary"), None, None, "other_revision"),
        (enabled, Some("canary"), None, Some("default"), "injected"),
        (enabled, None, None, Some("canary"), "other_revision"),
        (None, None, enabled, Some("canary"), "other_revision"),
    ] {
        let mut pod = plain();
        for (name, value) in [(INJECT, of_pod), (REVISION, pods_revision)] {
            if let Some(value) = value {
                pod = labelled(pod, name, value);
            }
        }
        let seen = match inject(&pod, &namespace(of_namespace, revision), &settings()) {
            Decision::Injected { .. } => "injected",
            Decision::Left { why, .. } => why.word(),
            Decision::Refused(_) => "refused",
        };
        let case = (of_namespace, revision, of_pod, pods_revision);
        assert_eq!(seen, expected, "{case:?}");
    }
}

#[test]
fn what_the_mesh_stands_on_is_not_injected() {
    for (name, expected) in [("kube-system", true), ("myelin-system", true), ("shop", false)] {
        let namespace = Namespace { name: name.to_owned(), ..shop() };
        let decision = inject(&plain(), &namespace, &settings());
        let left = matches!(decision, Decision::Left { why: Left::Foundation, .. });
        assert_eq!(left, expected, "{name}");
    }
}

#[test]
fn a_pod_without_a_network_of_its_own_is_left_with_a_warning_or_refused_if_it_asked() {
    let windows = with(plain(), "/spec/os", json!({ "name": "windows" }));
    for (pod, expected) in [(fixture("host-network"), Left::HostNetwork), (windows, Left::Windows)]
    {
        match inject(&pod, &shop(), &settings()) {
            Decision::Left { why, warnings } => {
                assert_eq!(why, expected);
                assert!(warnings[0].contains("is not meshed"), "{warnings:?}");
            }
            other => panic!("{other:?}"),
        }
        let line = refusal(&labelled(pod, INJECT, "enabled"));
        assert!(line.contains("cannot be meshed"), "{line}");
    }
}
