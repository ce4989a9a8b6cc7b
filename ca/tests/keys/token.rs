//! A SoftHSM token: its keys issue, a wrong PIN does not, and a token that is gone is an error that
//! heals without a restart.
//!
//! Never: a PIN on a command line of ours.

// SPDX-License-Identifier: Apache-2.0

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tonic::Code;

use crate::harness::*;
use crate::server::{Server, cli, create_token, mistake, scratch, serve, stdout};

const MODULES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
];
const PIN: &str = "4711-0815";

/// One token of SoftHSM, in a directory of the test.
pub(crate) struct SoftHsm {
    dir: PathBuf,
    module: &'static str,
}

impl SoftHsm {
    pub(crate) fn make(dir: &Path) -> Self {
        let module = MODULES.into_iter().find(|path| Path::new(path).exists());
        let module = module.expect(
            "SoftHSM is not installed: run tests/run, or install the Debian package softhsm2",
        );
        let hsm = Self { dir: dir.to_owned(), module };
        fs::create_dir(hsm.tokens()).unwrap();
        let config = format!("directories.tokendir = {}\n", hsm.tokens().display());
        fs::write(hsm.config(), config).unwrap();
        hsm.write_pin(PIN);
        let made = Command::new("softhsm2-util")
            .env("SOFTHSM2_CONF", hsm.config())
            .args(["--init-token", "--free", "--label", "myelin", "--so-pin", "so-0815"])
            .args(["--pin", PIN])
            .output()
            .expect("softhsm2-util is not installed: run tests/run");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        hsm
    }

    pub(crate) fn flags(&self) -> Vec<String> {
        let pin_file = self.pin_file().display().to_string();
        let flags = ["--pkcs11-module", self.module, "--pkcs11-token", "myelin"];
        let flags = flags.into_iter().chain(["--pkcs11-pin-file", &pin_file]);
        flags.map(str::to_owned).collect()
    }

    pub(crate) fn serve(&self, data: &Path, more: &[&str]) -> Command {
        let more = more.iter().map(|flag| (*flag).to_owned());
        let mut command = serve(data, &self.flags().into_iter().chain(more).collect::<Vec<_>>());
        command.env("SOFTHSM2_CONF", self.config());
        command
    }

    fn write_pin(&self, pin: &str) {
        fs::write(self.pin_file(), format!("{pin}\n")).unwrap();
        fs::set_permissions(self.pin_file(), Permissions::from_mode(0o600)).unwrap();
    }

    /// As if somebody pulled it out.
    fn pull_out(&self) {
        fs::rename(self.tokens(), self.dir.join("elsewhere")).unwrap();
        fs::create_dir(self.tokens()).unwrap();
    }

    fn plug_in(&self) {
        fs::remove_dir(self.tokens()).unwrap();
        fs::rename(self.dir.join("elsewhere"), self.tokens()).unwrap();
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("softhsm2.conf")
    }

    fn tokens(&self) -> PathBuf {
        self.dir.join("tokens")
    }

    fn pin_file(&self) -> PathBuf {
        self.dir.join("pin")
    }
}

/// Waits for what happens by itself within a few seconds.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..200 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("not within 20 s: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_a_token_issue_and_never_rest_in_the_store() {
    let (directory, data) = scratch();
    let hsm = SoftHsm::make(directory.path());
    let server = Server::start(hsm.serve(&data, &[]));
    let token = create_token(&data, "10.0.0.1");
    let target = server.target(&data);
    let host = Host::new();
    let held = issue(&target, &host, By::Token(&token), &Intent::new()).await.unwrap();
    assert_eq!(held.svid().id().as_str(), WEB);
    let renewed = issue(&target, &host, By::Renewal(&held), &Intent::new()).await.unwrap();
    assert_ne!(renewed.serial(), held.serial());
    assert!(!server.log().contains(PIN), "the PIN is in the log");
    server.stop();

    // The store holds names of keys, so nothing starts without the token.
    let refused = mistake(&serve(&data, &[]).output().unwrap());
    assert!(refused.contains("PKCS#11 token; start with --pkcs11-module"), "{refused}");
    // The twin: with it, the same CA.
    let server = Server::start(hsm.serve(&data, &[]));
    assert_eq!(server.target(&data).bundle.hash(), target.bundle.hash());
}

#[tokio::test(flavor = "multi_thread")]
async fn token_that_is_pulled_out_is_a_refusal_with_its_word_and_heals_without_a_restart() {
    let (directory, data) = scratch();
    let hsm = SoftHsm::make(directory.path());
    let server = Server::start(hsm.serve(&data, &[]));
    let target = server.target(&data);
    let (first, second) = (create_token(&data, "10.0.0.1"), create_token(&data, "10.0.0.2"));
    issue(&target, &Host::new(), By::Token(&first), &Intent::new()).await.unwrap();

    hsm.pull_out();
    let (host, intent) = (Host::new(), Intent::new());
    let refused = issue(&target, &host, By::Token(&second), &intent).await;
    assert_refused(refused, Code::Unavailable, "hsm_unavailable");
    eventually("/readyz says why", || server.get("/readyz").contains("PKCS#11 token"));

    hsm.plug_in();
    issue(&target, &host, By::Token(&second), &intent).await.unwrap();
    eventually("/readyz is well again", || server.get("/readyz").starts_with("HTTP/1.1 200"));
    let metrics = server.get("/metrics");
    assert!(metrics.contains("outcome=\"hsm_unavailable\""), "{metrics}");
}

#[test]
fn wrong_pin_and_wrong_token_are_one_line_each() {
    let (directory, data) = scratch();
    let hsm = SoftHsm::make(directory.path());
    let refused = |command: &mut Command| mistake(&command.output().unwrap());
    hsm.write_pin("0000");
    let line = refused(&mut hsm.serve(&data, &[]));
    assert!(line.contains("refuses the PIN") && !line.contains("0000"), "{line}");
    hsm.write_pin("");
    assert!(refused(&mut hsm.serve(&data, &[])).contains("one line"));
    hsm.write_pin(PIN);
    fs::set_permissions(hsm.pin_file(), Permissions::from_mode(0o644)).unwrap();
    assert!(refused(&mut hsm.serve(&data, &[])).contains("chmod 0600"));
    hsm.write_pin(PIN);

    let mut other = hsm.flags();
    other[3] = "other".to_owned();
    let mut command = serve(&data, &other);
    let line = refused(command.env("SOFTHSM2_CONF", hsm.config()));
    assert!(line.contains("no token with the label \"other\""), "{line}");
    let mut other = hsm.flags();
    other[1] = "/nowhere.so".to_owned();
    let line = refused(&mut serve(&data, &other));
    assert!(line.contains("cannot load /nowhere.so"), "{line}");
    // The twin.
    Server::start(hsm.serve(&data, &[])).stop();
}

#[test]
fn seal_key_that_a_token_wraps_opens_with_that_token_only() {
    let (directory, data) = scratch();
    let hsm = SoftHsm::make(directory.path());
    let server = Server::start(hsm.serve(&data, &["--seal-key-pkcs11", "myelin-seal"]));
    server.stop();
    assert!(!data.join("seal.key").exists());
    let wrapped = fs::read(data.join("seal.key.wrapped")).unwrap();
    let line = mistake(&hsm.serve(&data, &["--seal-key-pkcs11", "another"]).output().unwrap());
    assert!(line.contains("no key \"another\""), "{line}");
    // A byte of it changed.
    let mut damaged = wrapped.clone();
    damaged[20] ^= 1;
    fs::write(data.join("seal.key.wrapped"), &damaged).unwrap();
    mistake(&hsm.serve(&data, &["--seal-key-pkcs11", "myelin-seal"]).output().unwrap());
    // The twin.
    fs::write(data.join("seal.key.wrapped"), &wrapped).unwrap();
    Server::start(hsm.serve(&data, &["--seal-key-pkcs11", "myelin-seal"])).stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_root_in_a_token_signs_for_a_ca_that_holds_no_root() {
    let (directory, _) = scratch();
    let hsm = SoftHsm::make(directory.path());
    let dir = directory.path().join("root");
    let root = |args: &[&str]| {
        let mut command = Command::new(crate::server::BINARY);
        command.env("SOFTHSM2_CONF", hsm.config()).arg("root").args(args).arg("--dir").arg(&dir);
        command.args(hsm.flags()).output().unwrap()
    };
    stdout(&root(&["init", "--trust-domain", TRUST_DOMAIN]));
    let key = fs::read(dir.join("root.key")).unwrap();
    assert!(key.starts_with(b"pkcs11:") && key.len() == 23, "{key:?}");

    let (_other, data) = scratch();
    let certificate = dir.join("root.crt").display().to_string();
    let command = serve(&data, &["--root-cert".to_owned(), certificate]);
    let starting = std::thread::spawn(move || Server::start(command));
    eventually("it waits for its issuer", || data.join("admin.sock").exists());
    let out = directory.path().display().to_string();
    let asked =
        stdout(&cli(&data, &["issuer", "request", "--out", &out, "--count", "2", "--json"]));
    let asked: serde_json::Value = serde_json::from_str(&asked).unwrap();
    let request = |n: usize| asked[n]["request"].as_str().unwrap().to_owned();
    let (first, second) = (request(0), request(1));
    let signed = |request: &str| request.replace(".csr", ".crt");

    let shown = stdout(&root(&["sign", "--out", &out, &first, &second]));
    assert!(shown.contains("NOTHING WAS SIGNED"), "{shown}");
    assert!(shown.contains(asked[0]["key"].as_str().unwrap()), "{shown}");
    assert!(!Path::new(&signed(&first)).exists());
    stdout(&root(&["sign", "--out", &out, "--yes", &first, &second]));
    assert_eq!(fs::read_to_string(dir.join("signed.jsonl")).unwrap().lines().count(), 2);
    let again = mistake(&root(&["sign", "--out", &out, "--yes", &first]));
    assert!(again.contains(".crt"), "{again}");

    stdout(&cli(&data, &["issuer", "import", &signed(&first), &signed(&second)]));
    let server = starting.join().unwrap();
    let token = create_token(&data, "10.0.0.1");
    let target = server.target(&data);
    issue(&target, &Host::new(), By::Token(&token), &Intent::new()).await.unwrap();
    let status = stdout(&cli(&data, &["issuer", "status"]));
    assert!(status.contains("its key is not here"), "{status}");
    assert_eq!(status.matches("successor ").count(), 1, "{status}");
    let metrics = server.get("/metrics");
    assert!(metrics.contains("myelin_ca_root_key_held 0"), "{metrics}");
}
