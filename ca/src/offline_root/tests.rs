//! What a root shows before it signs, and which files it refuses to take for requests.
//!
//! Never: a CA that serves; the suite of the binary has one.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::log::{LOG_OID, LogKey, named_log_extension};
use myelin_identity::seal::SealKey;

use super::*;
use crate::signer::request_issuer;

const NOW: u64 = 1_800_000_000;
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

struct Scratch {
    directory: tempfile::TempDir,
    root: OfflineRoot,
}

fn vault() -> Vault {
    Vault::sealed(SealKey::from_bytes([7; 32]))
}

fn log(byte: u8) -> LogKey {
    LogKey::new("prod.example/log", [byte; 32]).unwrap()
}

/// A request in PEM that names this log.
fn request(log: &LogKey) -> String {
    let template = IssuerTemplate {
        common_name: "Myelin issuing CA of prod.example".to_owned(),
        trust_domain: "prod.example".to_owned(),
        serial: Serial::from_random([0; 16]),
        validity: Validity { not_before: NOW, not_after: NOW },
        path_length: Some(0),
        extensions: vec![Extension { oid: LOG_OID.to_vec(), der: named_log_extension(log) }],
    };
    let made = request_issuer(&template, &vault()).unwrap();
    pem::encode("CERTIFICATE REQUEST", &made.csr_der)
}

impl Scratch {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = OfflineRoot::open_or_make(&directory.path().join("root")).unwrap();
        let domain = TrustDomain::parse("prod.example").unwrap();
        root.init(&domain, 10 * YEAR, &vault(), NOW).unwrap();
        Self { directory, root }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn plan(&self, requests: &[PathBuf]) -> Result<Vec<Intermediate>, OfflineRootError> {
        self.root.plan(requests, self.directory.path(), YEAR, NOW)
    }
}

#[test]
fn names_that_differ_after_a_dot_become_two_certificates_and_equal_ones_are_refused() {
    let scratch = Scratch::new();
    let (eu, us) = (request(&log(7)), request(&log(8)));
    let two = [scratch.write("ca.eu.csr", &eu), scratch.write("ca.us.csr", &us)];
    let plan = scratch.plan(&two).unwrap();
    let names: Vec<_> = plan.iter().map(|one| one.certificate.file_name().unwrap()).collect();
    assert_eq!(names, ["ca.eu.crt", "ca.us.crt"]);
    scratch.root.sign(&plan, &vault(), NOW).unwrap();
    assert!(plan.iter().all(|one| one.certificate.exists()));

    for other in ["elsewhere/ca.eu.csr", "ca.eu.pem"] {
        let refused = scratch.plan(&[two[0].clone(), scratch.write(other, &us)]).unwrap_err();
        assert!(matches!(refused, OfflineRootError::SameOutput(..)), "{refused}");
    }
}

#[test]
fn file_with_another_number_of_requests_than_one_is_refused() {
    let scratch = Scratch::new();
    let one = request(&log(7));
    let refused =
        |text: &str| scratch.plan(&[scratch.write("a.csr", text)]).unwrap_err().to_string();
    let two = refused(&format!("{one}{}", request(&log(7))));
    assert!(two.contains("is not PEM with one CERTIFICATE REQUEST: it holds 2"), "{two}");
    assert!(refused("").contains("it holds 0"));
    // Its request is whole, and yet it is not read in part.
    let long = refused(&(one.clone() + &"\n".repeat(usize::try_from(MAX_FILE_BYTES).unwrap())));
    assert!(long.contains("it has more than"), "{long}");
    assert_eq!(scratch.plan(&[scratch.write("a.csr", &one)]).unwrap().len(), 1);
}

#[test]
fn plan_shows_which_log_is_named_and_what_each_extension_says() {
    let scratch = Scratch::new();
    let shown = |byte| {
        let path = scratch.write(&format!("{byte}.csr"), &request(&log(byte)));
        scratch.plan(&[path]).unwrap().remove(0)
    };
    let one = shown(7);
    assert_eq!(one.subject, "Myelin issuing CA of prod.example");
    let [extension] = one.extensions.as_slice() else { panic!("{:?}", one.extensions) };
    assert!(extension.contains("prod.example/log"), "{extension}");
    assert!(extension.contains(&log(7).to_string()), "{extension}");
    assert_ne!(one.extensions, shown(8).extensions);
}
