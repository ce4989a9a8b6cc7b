//! Manifests of every kind, as people keep them: what changes, what does not, and that what is written
//! is read again as what was meant.
//!
//! Never: a cluster.

// SPDX-License-Identifier: Apache-2.0

use serde_json::json;

use super::*;
use crate::inject::tests::settings;

const DEPLOYMENT: &str = r#"# Source: shop/templates/web.yaml
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: shop
spec:
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: web
        image: nginx:1.27   # as it comes
        env:
        - {name: SWITCH, value: "on"}
        - {name: NUMBER, value: "012"}
        volumeMounts: [{name: data, mountPath: /data}]
      volumes:
      - name: data
        secret: {secretName: data, defaultMode: 0440}
"#;
const SERVICE: &str =
    "---\n# theirs:  odd   spacing stays\napiVersion: v1\nkind: Service\nmetadata: {name: web}\n";

fn injected(text: &str) -> Answer {
    inject_all(text, "default", &settings()).unwrap()
}

fn read(text: &str) -> Vec<Value> {
    documents::split(text).unwrap().into_iter().map(|document| document.value).collect()
}

/// What the webhook would make of a pod, by the same function, from a document of its own.
fn patched(pod: &Value, namespace: &str) -> Value {
    let labels = [(INJECT.to_owned(), "enabled".to_owned())].into();
    let namespace = Namespace { name: namespace.to_owned(), labels };
    match inject(pod, &namespace, &settings()) {
        Decision::Injected { patch, .. } => {
            let mut pod = pod.clone();
            let patch: json_patch::Patch =
                serde_json::from_value(json!(patch.operations())).unwrap();
            json_patch::patch(&mut pod, &patch).unwrap();
            pod
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn template_gets_the_webhooks_patch_and_everything_else_stays_to_the_byte() {
    let text = format!("{DEPLOYMENT}{SERVICE}");
    let answer = injected(&text);
    assert_eq!(answer.injected, 1);
    assert!(answer.text.ends_with(SERVICE), "{}", answer.text);
    assert!(answer.text.starts_with("# Source: shop/templates/web.yaml\n"), "{}", answer.text);
    let (before, after) = (read(&text), read(&answer.text));
    assert_eq!(after.len(), 2);
    let template = |document: &Value| document["spec"]["template"].clone();
    assert_eq!(template(&after[0]), patched(&template(&before[0]), "shop"));
    let mut expected = before[0].clone();
    expected["spec"]["template"] = template(&after[0]);
    assert_eq!(after[0], expected, "nothing beside the template");
    let volume = &after[0]["spec"]["template"]["spec"]["volumes"][0];
    assert_eq!(volume["secret"]["defaultMode"], 0o440, "an octal number, as Kubernetes reads it");
    let env = &after[0]["spec"]["template"]["spec"]["containers"][0]["env"];
    assert_eq!((&env[0]["value"], &env[1]["value"]), (&json!("on"), &json!("012")));
    // And again: it has all of it.
    let again = injected(&answer.text);
    assert_eq!((again.injected, &again.text), (0, &answer.text));
}

#[test]
fn every_kind_with_pods_is_known_in_yaml_in_json_and_in_lists() {
    let pod = json!({
        "metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "a", "image": "a"}]},
    });
    let with = |mut object: Value, template: &str| {
        let mut at = &mut object;
        for key in template.split('/').skip(1) {
            at = &mut at[key];
        }
        *at = pod.clone();
        object
    };
    let of =
        |version, kind| json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a"}});
    let mut all: Vec<(Value, &str)> = ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"]
        .map(|kind| (with(of("apps/v1", kind), "/spec/template"), "/spec/template"))
        .to_vec();
    let cron = "/spec/jobTemplate/spec/template";
    all.push((with(of("batch/v1", "Job"), "/spec/template"), "/spec/template"));
    all.push((with(of("batch/v1", "CronJob"), cron), cron));
    all.push((with(of("v1", "ReplicationController"), "/spec/template"), "/spec/template"));
    all.push((with(of("v1", "PodTemplate"), "/template"), "/template"));
    let mut alone = of("v1", "Pod");
    alone["spec"] = pod["spec"].clone();
    all.push((alone, ""));
    for (object, template) in &all {
        let expected = patched(object.pointer(template).unwrap(), "default");
        for text in [object.to_string(), yaml::write(object)] {
            let answer = injected(&text);
            assert_eq!(answer.injected, 1, "{text}");
            let after = &read(&answer.text)[0];
            assert_eq!(after.pointer(template).unwrap(), &expected, "{text}");
        }
    }
    let items: Vec<&Value> = all.iter().map(|(object, _)| object).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    assert_eq!(injected(&list.to_string()).injected, all.len());
    let many = items.iter().map(|item| format!("{item}\n")).collect::<String>();
    let answer = injected(&many);
    assert_eq!((answer.injected, read(&answer.text).len()), (all.len(), all.len()));
    // What only looks like one is none.
    let custom = with(of("example.org/v1", "Deployment"), "/spec/template").to_string();
    assert_eq!(injected(&custom).text, custom);
}

#[test]
fn refusal_is_told_with_its_reason_and_nothing_is_answered() {
    let wrong = DEPLOYMENT.replace(
        "      labels: {app: web}\n",
        "      labels: {app: web}\n      annotations: {myelin.dev/exclude-outbound-ports: x}\n",
    );
    let two = format!("{SERVICE}---\n{wrong}---\n{}", wrong.replace("name: web\n", "name: db\n"));
    let refused = inject_all(&two, "default", &settings()).unwrap_err().to_string();
    let lines: Vec<&str> = refused.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("Deployment shop/web: "), "{refused}");
    assert!(refused.contains("myelin.dev/exclude-outbound-ports"), "{refused}");
    for (text, number) in [("a: [", 1), (&format!("{SERVICE}---\na: b: c\n"), 2)] {
        let error = inject_all(text, "default", &settings()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("document {number} cannot be read: ")), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let long = " ".repeat(MAX_INPUT_BYTES + 1);
    let error = inject_all(&long, "default", &settings()).unwrap_err();
    assert!(matches!(error, ManifestError::TooLarge));
}

#[test]
fn pods_that_stay_as_they_are_are_named_with_the_reason() {
    let disabled =
        DEPLOYMENT.replace("labels: {app: web}", "labels: {app: web, myelin.dev/inject: disabled}");
    let answer = injected(&disabled);
    assert_eq!((answer.text, answer.injected), (disabled, 0));
    assert_eq!(answer.notes, ["Deployment shop/web: left as it is (disabled)"]);
    let own = DEPLOYMENT.replace("namespace: shop", "namespace: myelin-system");
    assert_eq!(injected(&own).notes, ["Deployment myelin-system/web: left as it is (foundation)"]);
    for nothing in ["", "\n", "# only a comment\n", "---\n---\n# two\n"] {
        assert_eq!(injected(nothing).text, nothing);
    }
}

/// Texts that some version of YAML takes for something else, or writes in a way of its own.
const TEXTS: [&str; 63] = [
    "",
    " ",
    "a",
    "yes",
    "No",
    "null",
    "~",
    "1",
    "1.5",
    "1e3",
    "0x1f",
    "012",
    "1_000",
    "1:30",
    "=",
    "<<",
    "-",
    "- a",
    "a: b",
    "a #b",
    "#a",
    "&a",
    "*a",
    "!a",
    "%a",
    "@a",
    "`a",
    "\"",
    "'",
    "\\",
    "{",
    "[a]",
    "a,b",
    "a\tb",
    "\ta",
    "a\nb",
    "a\nb\n",
    "a\n\nb\n",
    "a\n\n",
    "\na\nb",
    " a\nb",
    "a\n b\n",
    "a\n  \nb",
    "a \nb",
    "a\n\tb",
    "---\na",
    "a\n---\nb\n",
    "a\n...\n",
    "\u{7f}",
    "\u{85}x\ny",
    "\u{feff}a\nb",
    "\u{2028}",
    "\u{1f512} \u{e9}\n\u{1f512}\n",
    "2026-01-01",
    ".nan",
    "[outbound]\nmode = \"strict\"\n",
    "nginx:1.27",
    "a\r\nb\r\n",
    "on\noff",
    "\u{0}",
    "? a",
    "| a",
    "> a",
];

#[test]
fn what_is_written_is_read_as_what_was_meant() {
    for text in TEXTS {
        let value = json!({
            "a": text, "b": [text, {"c": text, "d": [[text], [], {}]}], text: {"e": 1, "f": null},
            "g": [1, -2.5, true, null, {}, []], "h": {"i": text},
        });
        let written = yaml::write(&value);
        assert_eq!(yaml::read(&written).as_ref(), Ok(&value), "{text:?}:\n{written}");
        let whole = format!("---\n{written}---\n{written}");
        assert_eq!(read(&whole), [value.clone(), value], "{text:?} among others:\n{whole}");
    }
    assert_eq!(
        yaml::write(&json!({"run": "a\n\n  b\n", "of": [{"x": "1"}]})),
        "of:\n- x: \"1\"\nrun: |\n  a\n\n    b\n"
    );
}
