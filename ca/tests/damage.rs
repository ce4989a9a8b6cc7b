//! The disk that holds the embedded store: full (T46), and damaged. With the real binary.
//!
//! Never: serves from a store that is not whole; that is what is tested.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod harness;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use harness::*;
use myelin_identity::bundle::TrustBundle;
use myelin_identity::id::TrustDomain;
use myelin_identity::issuance::JoinToken;
use tonic::Code;

const BINARY: &str = env!("CARGO_BIN_EXE_myelin-ca");
/// Room for the store, a ballast, and a few hundred certificates.
const SMALL_DISK: &str = "size=12m,mode=700";

/// A CA process and where its ports are.
struct Process {
    child: Child,
    grpc: SocketAddr,
    ops: SocketAddr,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(command: &mut Command, data: &Path) -> Child {
    command
        .args(["serve", "--trust-domain", TRUST_DOMAIN, "--listen", "127.0.0.1:0"])
        .args(["--ops-listen", "127.0.0.1:0", "--log-format", "json", "--data"])
        .arg(data)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

impl Process {
    fn start(mut child: Child) -> Self {
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (grpc, ops) = loop {
            let line = lines.next().expect("it serves before it ends").unwrap();
            let json: serde_json::Value = serde_json::from_str(&line).expect(&line);
            if json["message"] == "serving" {
                let address = |field: &str| json[field].as_str().unwrap().parse().unwrap();
                break (address("grpc"), address("ops"));
            }
        };
        // Somebody must go on reading, or the child blocks on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, grpc, ops }
    }

    fn page(&self, path: &str) -> String {
        let mut tcp = TcpStream::connect(self.ops).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(tcp, "GET {path} HTTP/1.1\r\nHost: ca\r\nConnection: close\r\n\r\n").unwrap();
        let mut response = String::new();
        tcp.read_to_string(&mut response).unwrap();
        response
    }

    fn target(&self) -> Target {
        let page = self.page("/bundle.pem");
        let pem = page.split_once("\r\n\r\n").unwrap().1;
        let domain = TrustDomain::parse(TRUST_DOMAIN).unwrap();
        let bundle = Arc::new(TrustBundle::from_pem(domain, 1, pem).unwrap());
        let clock = clock(&Arc::new(AtomicU64::new(0)));
        Target { grpc: self.grpc, bundle, clock }
    }
}

fn cli(data: &Path, args: &[&str]) -> Output {
    Command::new(BINARY).args(args).arg("--data").arg(data).output().unwrap()
}

fn try_token(data: &Path, n: usize) -> Result<JoinToken, String> {
    let (id, address) = (format!("{WEB}-{n}"), format!("10.1.{}.{}", n / 250, n % 250 + 1));
    let output = cli(data, &["token", "create", "--id", &id, "--address", &address]);
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    Ok(String::from_utf8(output.stdout).unwrap().trim().parse().unwrap())
}

/// What a start says that ends by itself, as it must.
fn refused_start(data: &Path) -> String {
    let mut child = serve(&mut Command::new(BINARY), data);
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        if line.contains("\"serving\"") {
            let _ = child.kill();
            panic!("it serves: {line}");
        }
        said = format!("{said}{line}\n");
    }
    assert!(!child.wait().unwrap().success(), "{said}");
    said
}

#[tokio::test]
async fn full_disk_is_said_clearly_loses_nothing_and_is_left_behind_when_there_is_room() {
    let scratch = tempfile::tempdir().unwrap();
    let disk = scratch.path().join("disk");
    fs::create_dir(&disk).unwrap();
    // A small disk of its own, which only this process and its children see.
    let mount = format!("mount -t tmpfs -o {SMALL_DISK} tmpfs {0} && exec \"$@\"", disk.display());
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &mount, "sh", BINARY]);
    let process = Process::start(serve(&mut command, &disk.join("data")));
    let seen = PathBuf::from(format!("/proc/{}/root{}", process.child.id(), disk.display()));
    let (data, ballast) = (seen.join("data"), seen.join("ballast"));
    let target = process.target();

    let mut held = Vec::new();
    let mut tokens = Vec::new();
    for n in 0..40 {
        tokens.push(try_token(&data, n).unwrap());
    }
    let _ = fs::write(&ballast, vec![7; 16 * 1024 * 1024]);
    let refused = loop {
        let token = tokens.pop().expect("the disk is full before all tokens are used");
        let (host, intent) = (Host::new(), Intent::new());
        match issue(&target, &host, By::Token(&token), &intent).await {
            Ok(issued) => held.push((host, issued)),
            Err(status) => break (status, host, intent, token),
        }
    };
    let (status, host, intent, token) = refused;
    // Whichever of the two comes first to the end of the disk.
    assert!(matches!(reason(&status), "store_failed" | "log_failed"), "{status}");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("free or repair the disk"), "{status}");

    fs::remove_file(&ballast).unwrap();
    // The very same request goes through now, and what was issued before is known.
    held.push((Host::new(), issue(&target, &host, By::Token(&token), &intent).await.unwrap()));
    let listed = cli(&data, &["svid", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let serials: Vec<&str> =
        listed.as_array().unwrap().iter().map(|it| it["serial"].as_str().unwrap()).collect();
    for (_, held) in &held {
        assert!(serials.contains(&held.serial().as_str()), "{} is lost", held.serial());
    }
    assert!(process.page("/readyz").starts_with("HTTP/1.1 200"), "ready again");
}

#[tokio::test]
async fn damaged_store_is_named_and_nothing_is_served_from_it() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    {
        let process = Process::start(serve(&mut Command::new(BINARY), &data));
        let target = process.target();
        for n in 0..20 {
            let token = try_token(&data, n).unwrap();
            issue(&target, &Host::new(), By::Token(&token), &Intent::new()).await.unwrap();
        }
    }
    let whole = fs::read(data.join("store.redb")).unwrap();
    // Where the records are: who may become whom. All of them, since some lie in pages that are
    // free by now, where damage is none.
    let mut rotten = whole.clone();
    let records = whole.windows(9).enumerate().filter(|(_, bytes)| bytes == b"spiffe://");
    records.for_each(|(at, _)| rotten[at] ^= 1);
    fs::write(data.join("store.redb"), &rotten).unwrap();
    for _ in 0..2 {
        let said = refused_start(&data);
        let last = said.trim_end().lines().last().unwrap();
        assert!(last.contains("is damaged") && last.contains("restore a backup"), "{said}");
        assert!(last.contains("store.redb"), "{said}");
    }
    let offline = cli(&data, &["token", "list"]);
    assert!(String::from_utf8(offline.stderr).unwrap().contains("is damaged"));
    // The backup is taken when its operator says so.
    fs::write(data.join("store.redb"), &whole).unwrap();
    fs::remove_file(data.join("store.redb.damaged")).unwrap();
    let process = Process::start(serve(&mut Command::new(BINARY), &data));
    assert!(process.page("/readyz").starts_with("HTTP/1.1 200"));
}

#[test]
fn truncated_store_is_named_and_nothing_is_served_from_it() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    drop(Process::start(serve(&mut Command::new(BINARY), &data)));
    let whole = fs::read(data.join("store.redb")).unwrap();
    // Wherever the cut falls: into the tables, or into what a start makes of them.
    for part in [1, 3, 5, 7] {
        let _ = fs::remove_file(data.join("store.redb.damaged"));
        fs::write(data.join("store.redb"), &whole[..whole.len() * part / 8]).unwrap();
        let said = refused_start(&data);
        assert!(said.contains("store.redb") && said.contains("is damaged"), "{part}: {said}");
    }
}
