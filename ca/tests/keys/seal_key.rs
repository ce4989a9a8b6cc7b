//! Seal keys that are not in a file of the CA's making.
//!
//! Never: a key on a command line.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::harness::TRUST_DOMAIN;
use crate::server::{BINARY, Server, mistake, scratch, serve};

/// The CA below a shell that leaves descriptor 3 open on this file.
fn with_descriptor(data: &Path, key: &Path, flags: &str) -> Command {
    let script = format!(
        "exec {BINARY} serve --trust-domain {TRUST_DOMAIN} --data {} --listen 127.0.0.1:0 \
         --ops-listen 127.0.0.1:0 --log-format json {flags} 3<{}",
        data.display(),
        key.display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]);
    command
}

fn refused(output: &Output, expected: &str) {
    let line = mistake(output);
    assert!(line.contains(expected), "{line}");
}

#[test]
fn seal_key_comes_from_a_descriptor_and_no_other_key_opens_the_store() {
    let (directory, data) = scratch();
    let (key, other) = (directory.path().join("key"), directory.path().join("other"));
    fs::write(&key, [7; 32]).unwrap();
    fs::write(&other, [8; 32]).unwrap();
    Server::start(with_descriptor(&data, &key, "--seal-key-fd 3")).stop();
    assert!(!data.join("seal.key").exists(), "nothing of it is written");
    let mut by_name = with_descriptor(&data, &key, "");
    Server::start({
        by_name.env("MYELIN_CA_SEAL_KEY_FD", "3");
        by_name
    })
    .stop();

    let start = |key: &Path, flags: &str| with_descriptor(&data, key, flags).output().unwrap();
    refused(&start(&other, "--seal-key-fd 3"), "another key");
    fs::write(&other, [8; 31]).unwrap();
    refused(&start(&other, "--seal-key-fd 3"), "exactly 32 bytes");
    refused(&start(&key, "--seal-key-fd 9"), "descriptor 9");
    // Without any, the data directory's own is missed, and none is made.
    refused(&serve(&data, &[]).output().unwrap(), "seal.key");
    let taken = start(&key, "--seal-key-fd 3 --seal-key-file x");
    assert_eq!(taken.status.code(), Some(2), "two sources are a mistake of the command line");
}
