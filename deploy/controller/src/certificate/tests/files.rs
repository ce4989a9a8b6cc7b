//! A certificate in files.
//!
//! Never: a file outside a temporary directory.

// SPDX-License-Identifier: Apache-2.0

use rcgen::generate_simple_self_signed;

use super::super::*;

const NAME: &str = "myelin-controller.myelin-system.svc";

#[tokio::test]
async fn certificate_files_are_read_and_unfit_ones_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let [certificate, key] = ["tls.crt", "tls.key"].map(|name| directory.path().join(name));
    let one = generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let other = generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let files = Files { certificate, key, identity: Identity::default() };
    let mut held = None;
    assert!(files.read(&mut held).unwrap_err().to_string().contains("tls.crt"));
    std::fs::write(&files.certificate, one.cert.pem()).unwrap();
    std::fs::write(&files.key, other.signing_key.serialize_pem()).unwrap();
    assert!(files.read(&mut held).unwrap_err().to_string().contains("do not fit"));
    assert!(files.identity.load().is_none() && held.is_none());
    std::fs::write(&files.key, one.signing_key.serialize_pem()).unwrap();
    files.read(&mut held).unwrap();
    let first = files.identity.load_full().unwrap();
    files.read(&mut held).unwrap();
    assert!(Arc::ptr_eq(&first, &files.identity.load_full().unwrap()), "nothing has changed");
    std::fs::write(&files.certificate, "").unwrap();
    files.read(&mut held).unwrap_err();
    assert!(Arc::ptr_eq(&first, &files.identity.load_full().unwrap()), "the good one stays");
}
