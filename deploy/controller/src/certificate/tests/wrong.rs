//! What can be wrong with the Secret, the registration and the API, and that no key gets out.
//!
//! Never: a wait for time.

// SPDX-License-Identifier: Apache-2.0

use std::io::{self, Write};
use std::sync::Mutex;

use myelin_fake_api::{Fault, Trouble};
use rcgen::{CertificateParams, KeyPair};
use tracing_subscriber::fmt::MakeWriter;

use super::*;

/// Everything that is logged, by whomever.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Logged {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Logged {
    fn here() -> (Self, tracing::subscriber::DefaultGuard) {
        let logged = Self::default();
        let lines = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
        let lines = lines.with_writer(logged.clone()).finish();
        (logged, tracing::subscriber::set_default(lines))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// Neither as it is nor as the Secret has it.
    fn has_no_key(&self, pem: &str) {
        has_no_key(&self.text(), pem);
    }
}

fn has_no_key(said: &str, pem: &str) {
    let inside: String = pem.lines().filter(|line| !line.starts_with("--")).collect();
    for part in [BASE64_STANDARD.encode(pem), inside] {
        // What stands before differs little from key to key.
        assert!(!said.contains(&part[part.len() / 2..]), "a key was logged");
    }
    assert!(!said.contains("PRIVATE KEY"), "a key was logged");
}

fn made(names: &[&str], not_after: u64) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    let at = |seconds| std::time::UNIX_EPOCH + Duration::from_secs(seconds);
    params.not_before = at(START - 100 * DAY).into();
    params.not_after = at(not_after).into();
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[tokio::test]
async fn wrong_contents_are_not_served_but_made_anew_and_no_key_is_logged() {
    let names = place().names();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (certificate, key) = made(&names, START + 90 * DAY);
    let (_, foreign) = made(&names, START + 90 * DAY);
    let ended = made(&names, START);
    let elsewhere = made(&["somebody-else.myelin-system.svc"], START + 90 * DAY);
    let huge = format!("{}{}", certificate, "#".repeat(40_000));
    for (what, wrong, key) in [
        ("nothing in it", "", ""),
        ("no PEM", "certificate", &*key),
        ("another's key", &certificate, &foreign),
        ("a key that is cut", &certificate, &key[..key.len() / 2]),
        ("it has ended", &ended.0, &ended.1),
        ("another name", &elsewhere.0, &elsewhere.1),
        ("too large", &huge, &*key),
    ] {
        let stage = Stage::installed().await;
        let (logged, _guard) = Logged::here();
        let encoded = |text: &str| BASE64_STANDARD.encode(text);
        stage.put_secret(json!({ "tls.crt": encoded(wrong), "tls.key": encoded(key) }));
        let mut replica = stage.replica().await;
        replica.look(START).await.unwrap();
        assert_ne!(stage.field("tls.crt"), wrong, "{what}");
        assert_eq!(replica.serves(), stage.field("tls.crt"), "{what}");
        assert!(replica.is_believed() && admits(replica.address, &stage.ca_bundle(), START).await);
        assert!(logged.text().contains("a new one is made"), "{what}: {}", logged.text());
        for key in [key, &stage.field("tls.key")] {
            if key.len() > 10 {
                logged.has_no_key(key);
            }
        }
    }
    // A chain and its key in one field: what is published of it is the chain.
    let stage = Stage::installed().await;
    let encoded = |text: &str| BASE64_STANDARD.encode(text);
    let both = format!("{key}{}", certificate.trim_end());
    stage.put_secret(json!({
        "tls.crt": encoded(&both), "tls.key": encoded(&key),
        "before-0.crt": encoded(&both), "before.until": encoded(&u64::MAX.to_string()),
    }));
    let mut replica = stage.replica().await;
    replica.look(START).await.unwrap();
    let published = stage.ca_bundle_text();
    assert_eq!(published.matches("-----BEGIN CERTIFICATE-----\n").count(), 1, "{published}");
    assert!(
        !published.contains("PRIVATE") && admits(replica.address, &stage.ca_bundle(), START).await
    );
    // The twin: a good one is taken as it is.
    let stage = Stage::installed().await;
    let encoded = |text: &str| BASE64_STANDARD.encode(text);
    stage.put_secret(json!({ "tls.crt": encoded(&certificate), "tls.key": encoded(&key) }));
    let mut replica = stage.replica().await;
    replica.look(START - 99 * DAY).await.unwrap();
    assert_eq!((replica.serves(), stage.field("tls.key")), (certificate, key));
    assert!(admits(replica.address, &stage.ca_bundle(), START).await);
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_not_logged() {
    let stage = Stage::installed().await;
    let (logged, _guard) = Logged::here();
    let mut replica = stage.replica().await;
    replica.look(START).await.unwrap();
    stage.api.trouble(Trouble::next(1, Fault::Cut).at("/secrets/"));
    let said = replica.look(START).await.unwrap_err().to_string();
    assert!(said.contains("cannot be read: no JSON at line 1"), "{said}");
    has_no_key(&said, &stage.field("tls.key"));
    assert!(logged.text().contains("GET"), "what is logged is seen");
    logged.has_no_key(&stage.field("tls.key"));
    let debug = format!("{:?}", replica.keeper.kept);
    assert!(debug.contains("key not shown") && !debug.contains("PRIVATE"), "{debug}");
}

#[tokio::test]
async fn while_the_api_is_away_what_is_served_stays_and_nothing_begins() {
    let stage = Stage::installed().await;
    let mut replica = stage.replica().await;
    stage.api.vanish();
    let said = replica.look(START).await.unwrap_err().to_string();
    assert!(said.contains("cannot be asked") && !said.contains('\n'), "{said}");
    assert!(replica.identity.load().is_none() && !replica.is_believed());
    stage.api.heal();
    replica.look(START).await.unwrap();
    let (serves, heard) = (replica.serves(), stage.ca_bundle());
    for now in [START, START + 70 * DAY] {
        stage.api.vanish();
        replica.look(now).await.unwrap_err();
        assert!(replica.is_believed() && admits(replica.address, &heard, now).await);
        assert_eq!(replica.serves(), serves);
        stage.api.heal();
    }
    // It slept over its renewal: that begins now, with an overlap as ever.
    replica.look(START + 70 * DAY).await.unwrap();
    assert_eq!((replica.serves(), stage.ca_bundle().len()), (serves, 2));
}

#[tokio::test]
async fn without_its_registration_a_replica_is_not_ready() {
    let stage = Stage::bare().await;
    stage.put_secret(json!({}));
    let mut replica = stage.replica().await;
    let said = replica.look(START).await.unwrap_err().to_string();
    assert!(said.contains("no MutatingWebhookConfiguration myelin-injector"), "{said}");
    assert!(replica.identity.load().is_some() && !replica.is_believed());
    let mut others = registration();
    others["webhooks"].as_array_mut().unwrap().retain(|webhook| webhook["name"] == "other");
    stage.api.put(&registrations(), others);
    let said = replica.look(START).await.unwrap_err().to_string();
    assert!(said.contains("no webhook of Service myelin-controller"), "{said}");
    assert!(!replica.is_believed());
    stage.api.put(&registrations(), registration());
    replica.look(START).await.unwrap();
    assert!(replica.is_believed() && admits(replica.address, &stage.ca_bundle(), START).await);
    // Somebody overwrites it, and we may not mend it.
    stage.overwrite_ca_bundle(&json!("bm9uZQ=="));
    stage.api.trouble(Trouble::next(1, Fault::Answer(403)).on("PATCH"));
    replica.look(START).await.unwrap_err();
    assert!(!replica.is_believed());
    replica.look(START).await.unwrap();
    assert!(replica.is_believed());
}

#[tokio::test]
async fn a_next_one_that_the_registration_does_not_hold_is_not_served() {
    let stage = Stage::installed().await;
    let mut replica = stage.replica().await;
    replica.look(START).await.unwrap();
    let (serves, held) = (replica.serves(), stage.ca_bundle());
    // The rights to it are gone: the next one is made and cannot be published.
    stage.api.trouble(Trouble::next(usize::MAX, Fault::Answer(403)).on("PATCH"));
    for day in 61..89 {
        replica.look(START + day * DAY).await.unwrap_err();
        assert_eq!((replica.serves(), stage.ca_bundle()), (serves.clone(), held.clone()));
        assert!(replica.is_believed() && admits(replica.address, &held, START + day * DAY).await);
    }
    stage.api.heal();
    replica.look(START + 89 * DAY).await.unwrap();
    assert_eq!(replica.serves(), serves, "API servers have to hear of it first");
    replica.look(START + 89 * DAY + 5 * MINUTE).await.unwrap();
    assert_ne!(replica.serves(), serves);
    assert!(admits(replica.address, &stage.ca_bundle(), START + 91 * DAY).await);
}

#[tokio::test]
async fn a_registration_that_the_api_server_does_not_want_is_no_lost_race() {
    let stage = Stage::installed().await;
    stage.api.trouble(Trouble::next(1, Fault::Answer(422)).on("PATCH"));
    let mut replica = stage.replica().await;
    let said = replica.look(START).await.unwrap_err().to_string();
    assert!(said.contains("422"), "{said}");
    replica.look(START).await.unwrap();
    assert!(replica.is_believed());
}

#[tokio::test]
async fn a_secret_that_is_gone_is_made_again_where_we_may_and_served_on_where_not() {
    let stage = Stage::installed().await;
    let mut replica = stage.replica().await;
    replica.look(START).await.unwrap();
    let serves = replica.serves();
    stage.api.remove(&secrets(), NAMESPACE, SECRET).unwrap();
    stage.overwrite_ca_bundle(&Value::Null);
    let said = replica.look(START).await.unwrap_err().to_string();
    assert!(said.contains("create secret generic myelin-webhook"), "{said}");
    assert!(replica.is_believed() && admits(replica.address, &stage.ca_bundle(), START).await);
    let mut young = stage.replica().await;
    young.look(START).await.unwrap_err();
    assert!(young.identity.load().is_none(), "it has nothing to serve");
    let group = "admissionregistration.k8s.io";
    stage.api.allow_only(vec![
        Rule::new("", "secrets", &["get", "create", "update"], &[]),
        Rule::new(group, "mutatingwebhookconfigurations", &["get", "patch"], &[]),
    ]);
    replica.look(START).await.unwrap();
    assert_eq!(stage.field("tls.crt"), serves);
    assert_eq!(stage.secret().unwrap()["type"], "Opaque");
    young.look(START).await.unwrap();
    assert_eq!(young.serves(), serves);
}

#[tokio::test]
async fn a_write_that_always_comes_too_late_is_given_up_for_this_time() {
    let stage = Stage::installed().await;
    let mut replica = stage.replica().await;
    stage.api.trouble(Trouble::next(MAX_ATTEMPTS, Fault::Answer(409)).on("PUT"));
    let said = replica.look(START).await.unwrap_err().to_string();
    assert!(said.contains("something else writing"), "{said}");
    replica.look(START).await.unwrap();
    // Done, and the answer lost: the next look finds it.
    let stage = Stage::installed().await;
    let mut replica = stage.replica().await;
    stage.api.trouble(Trouble::next(1, Fault::LoseAnswer).on("PUT"));
    replica.look(START).await.unwrap_err();
    let written = stage.field("tls.crt");
    replica.look(START).await.unwrap();
    assert_eq!((replica.serves(), replica.is_believed()), (written, true));
}
