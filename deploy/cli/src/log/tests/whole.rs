//! The whole course of the monitor: a root with its log, two issuers with theirs on two servers, an ID of
//! which each has issued a certificate.
//! Never: the text that people read.

// SPDX-License-Identifier: Apache-2.0

use std::path::PathBuf;
use std::time::Duration;

use myelin_identity::log::{LOG_OID, LogKey, entry_of, named_log_extension};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CustomExtension, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use tempfile::TempDir;

use super::{ID, Log, Replica};
use crate::args::MonitorArgs;
use crate::log::monitor::{Verdict, pause, run};

const FINE: Verdict = Verdict { contradiction: false, unexpected: false, unread: false };
const UNREAD: Verdict = Verdict { unread: true, ..FINE };

struct Stage {
    dir: TempDir,
    root_log: Log,
    logs: [Log; 2],
    replicas: [Replica; 2],
}

type Authority = Issuer<'static, KeyPair>;

fn authority(name: &str, log: Option<&LogKey>, by: Option<&Authority>) -> (Authority, Certificate) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.custom_extensions.extend(
        log.map(|log| CustomExtension::from_oid_content(&LOG_OID, named_log_extension(log))),
    );
    let key = KeyPair::generate().unwrap();
    let certificate = match by {
        Some(issuer) => params.signed_by(&key, issuer),
        None => params.self_signed(&key),
    };
    (Issuer::new(params, key), certificate.unwrap())
}

fn leaf(by: &Authority) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(ID.try_into().unwrap())];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.signed_by(&KeyPair::generate().unwrap(), by).unwrap().der().to_vec()
}

impl Stage {
    async fn set() -> Self {
        let root_log = Log::new("example.org/root-log", 1, vec![]);
        let logs =
            [Log::new("example.org/log/1", 2, vec![]), Log::new("example.org/log/2", 3, vec![])];
        let (root, root_certificate) = authority("root", Some(&root_log.name()), None);
        for log in &logs {
            let (issuer, certificate) = authority("issuer", Some(&log.name()), Some(&root));
            root_log.change(|entries| {
                entries.push(entry_of(certificate.der(), root_certificate.der()))
            });
            log.change(|entries| entries.push(entry_of(&leaf(&issuer), certificate.der())));
            log.sign();
        }
        root_log.sign();
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("bundle.pem"), root_certificate.pem()).unwrap();
        let places =
            |log: &Log| [("/log/", log.shown.clone()), ("/root-log/", root_log.shown.clone())];
        let replicas =
            [Replica::serve(places(&logs[0])).await, Replica::serve(places(&logs[1])).await];
        Self { dir, root_log, logs, replicas }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn args(&self, replicas: &[usize]) -> MonitorArgs {
        MonitorArgs {
            id: ID.to_owned(),
            url: replicas.iter().map(|nth| self.replicas[*nth].url.clone()).collect(),
            bundle: Some(self.file("bundle.pem")),
            known: None,
            state: Some(self.file("state")),
            follow: false,
            every: Duration::from_secs(1),
            json: true,
        }
    }
}

#[tokio::test]
async fn the_logs_of_two_replicas_are_read_and_one_alone_is_not_everything() {
    let stage = Stage::set().await;
    assert_eq!(run(&stage.args(&[0, 1])).await.unwrap(), FINE);
    assert_eq!(run(&stage.args(&[1, 0])).await.unwrap(), FINE, "whatever the order");
    assert_eq!(run(&stage.args(&[0])).await.unwrap(), UNREAD, "the other's log is nowhere");
}

#[tokio::test]
async fn what_one_replica_has_is_told_though_the_other_is_gone() {
    let stage = Stage::set().await;
    let nobody = stage.file("known");
    std::fs::write(&nobody, "# none\n").unwrap();
    stage.replicas[0].places.lock().unwrap().clear();
    let args = MonitorArgs { known: Some(nobody), ..stage.args(&[0, 1]) };
    let verdict = run(&args).await.unwrap();
    assert_eq!(verdict, Verdict { unexpected: true, unread: true, contradiction: false });
}

#[tokio::test]
async fn an_issuer_that_is_in_no_roots_log_is_unexpected() {
    let stage = Stage::set().await;
    let (stranger, certificate) = authority("stranger", None, None);
    stage.logs[1].change(|entries| entries.push(entry_of(&leaf(&stranger), certificate.der())));
    stage.logs[1].sign();
    let verdict = run(&stage.args(&[0, 1])).await.unwrap();
    assert_eq!(verdict, Verdict { unexpected: true, ..FINE });
}

#[tokio::test]
async fn without_the_roots_log_no_certificate_is_called_a_strangers() {
    let stage = Stage::set().await;
    stage.root_log.shown.lock().unwrap().broken = Some(0);
    assert_eq!(run(&stage.args(&[0, 1])).await.unwrap(), UNREAD);
}

#[tokio::test]
async fn the_state_of_a_log_outlives_a_run_that_could_not_read_it() {
    let stage = Stage::set().await;
    assert_eq!(run(&stage.args(&[0, 1])).await.unwrap(), FINE);
    assert_eq!(run(&stage.args(&[0])).await.unwrap(), UNREAD);
    stage.root_log.shown.lock().unwrap().broken = Some(0);
    assert_eq!(run(&stage.args(&[0, 1])).await.unwrap(), UNREAD, "not even its name");
    stage.root_log.shown.lock().unwrap().broken = None;
    stage.logs[1].change(|entries| entries[0] = b"rewritten".to_vec());
    stage.logs[1].sign();
    let verdict = run(&stage.args(&[0, 1])).await.unwrap();
    assert!(verdict.contradiction, "{verdict:?}");
}

#[tokio::test]
async fn following_goes_on_through_an_outage_and_ends_at_a_contradiction() {
    let stage = Stage::set().await;
    let every = Duration::from_millis(5);
    let args = MonitorArgs { follow: true, every, ..stage.args(&[0, 1]) };
    let [well, ill] = &stage.replicas;
    let change = async {
        ill.is_asked(20).await;
        let gone = std::mem::take(&mut *ill.places.lock().unwrap());
        well.is_asked(6).await;
        *ill.places.lock().unwrap() = gone;
        ill.is_asked(20).await;
        stage.logs[1].change(|entries| entries[0] = b"rewritten".to_vec());
        stage.logs[1].sign();
    };
    let (verdict, ()) = tokio::join!(run(&args), change);
    assert_eq!(verdict.unwrap(), Verdict { contradiction: true, unexpected: false, unread: true });
}

#[tokio::test]
async fn a_bundle_without_any_log_is_an_error_and_one_that_states_it_is_watched() {
    let stage = Stage::set().await;
    let (_, certificate) = authority("corporate", None, None);
    std::fs::write(stage.file("bundle.pem"), certificate.pem()).unwrap();
    let refused = run(&stage.args(&[0, 1])).await.unwrap_err();
    assert!(refused.to_string().contains("no log is known"), "{refused}");
    let stated = format!("myelin-root-log: {}\n{}", stage.root_log.name(), certificate.pem());
    std::fs::write(stage.file("bundle.pem"), stated).unwrap();
    assert_eq!(run(&stage.args(&[0, 1])).await.unwrap(), FINE);
}

#[test]
fn the_pause_doubles_up_to_its_limit_and_never_below_what_was_asked() {
    let every = Duration::from_secs(10);
    for (failures, random, expected) in [
        (0, 128, 10.0),
        (0, 0, 7.5),
        (1, 128, 20.0),
        (3, 128, 80.0),
        (4, 128, 120.0),
        (99, 0, 90.0),
    ] {
        assert_eq!(pause(every, failures, random).as_secs_f64(), expected, "{failures} {random}");
    }
    let rare = Duration::from_secs(3600);
    assert_eq!(pause(rare, 5, 128), rare);
}
