//! A CA below a root that is not its own: one that `myelin-ca root` keeps offline, and one that
//! OpenSSL made, as a corporate CA would. Sidecars trust that root and talk.
//!
//! Never: the root's key where the CA can see it.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_tests::ca::Ca;
use myelin_tests::programs::{failure, output};
use myelin_tests::{Mesh, Options, Spec, Workload, binaries};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub(crate) const DOMAIN: &str = "corp.test";
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a program on the offline machine: here, outside of every pod.
fn run(program: &Path, args: &[&str]) -> Result<String> {
    let ended = Command::new(program).args(args).output()?;
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    ensure!(ended.status.success(), "{} {args:?}: {said}", program.display());
    Ok(String::from_utf8(ended.stdout)?)
}

fn openssl(args: &[&str]) -> Result<String> {
    run(&binaries::installed("openssl", "openssl")?, args)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are ASCII")
}

/// A root as a corporate CA has it.
fn corporate_root(dir: &Path, name: &str, curve: &str, digest: &str) -> Result<(PathBuf, PathBuf)> {
    let (key, certificate) = (dir.join(format!("{name}.key")), dir.join(format!("{name}.crt")));
    openssl(&[
        "req",
        "-x509",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        curve,
        "-nodes",
        digest,
        "-keyout",
        text(&key),
        "-out",
        text(&certificate),
        "-days",
        "3650",
        "-subj",
        "/O=Example Corp/CN=Example Corp Root",
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
    ])?;
    Ok((key, certificate))
}

/// The request of a CA that waits.
async fn request(ca: &Ca, dir: &Path) -> Result<PathBuf> {
    let asked = output(ca.issuer(&["request", "--json", "--out", text(dir)])?, LIMIT).await?;
    let asked: serde_json::Value = serde_json::from_str(&asked)?;
    Ok(asked[0]["request"].as_str().context("no request")?.into())
}

/// A CA that issues below a root of OpenSSL's, and that root's certificate, with its key beside it.
pub(crate) async fn below_corporate_root(mesh: &Mesh) -> Result<(Ca, PathBuf)> {
    let dir = mesh.subdir("corporation")?;
    let (key, root) = corporate_root(&dir, "corp", "ec_paramgen_curve:P-384", "-sha384")?;
    let ca = mesh.ca_below(DOMAIN, &root).await?;
    let csr = request(&ca, &dir).await?;
    let issuer = csr.with_extension("crt");
    sign(&csr, &key, &root, "365", &issuer)?;
    output(ca.issuer(&["import", text(&issuer)])?, LIMIT).await?;
    ca.ready().await?;
    Ok((ca, root))
}

/// What a corporate CA does with a request.
fn sign(csr: &Path, key: &Path, root: &Path, days: &str, issuer: &Path) -> Result<String> {
    let _ = fs::remove_file(issuer);
    openssl(&[
        "x509",
        "-req",
        "-in",
        text(csr),
        "-CA",
        text(root),
        "-CAkey",
        text(key),
        "-days",
        days,
        "-sha384",
        "-copy_extensions",
        "copyall",
        "-out",
        text(issuer),
    ])
}

/// A workload below this CA, with its sidecar.
pub(crate) async fn workload(mesh: &Mesh, ca: &Ca, name: &str) -> Result<Workload> {
    let spec = Spec { trust_domain: DOMAIN.to_owned(), ..Spec::new(name) };
    let workload = mesh.prepare_in(mesh.pod(name)?, ca, spec).await?;
    workload.run().await?;
    Ok(workload)
}

/// Two sidecars below this CA: one line there, one back, and each has seen that the other is logged.
async fn talk(mesh: &Mesh, ca: &Ca) -> Result<()> {
    let client = workload(mesh, ca, "client").await?;
    let server = workload(mesh, ca, "server").await?;
    let listener = server.pod.tcp_listen(server.v4(7000)).await?;
    let echo = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut line = [0; 5];
        stream.read_exact(&mut line).await?;
        stream.write_all(&line).await
    });
    let mut stream = client.pod.tcp_connect(server.v4(7000)).await?;
    stream.write_all(b"hello").await?;
    let mut line = [0; 5];
    tokio::time::timeout(LIMIT, stream.read_exact(&mut line)).await??;
    ensure!(&line == b"hello");
    echo.await??;
    drop(stream);
    server.outcome("inbound", "completed", 1.0).await?;
    for (workload, direction) in [(&client, "outbound"), (&server, "inbound")] {
        let judged = [("direction", direction), ("outcome", "verified")];
        let seen = workload.metrics().await?.sum("myelin_log_proofs_total", &judged);
        ensure!(seen >= 1.0, "{direction}: {seen} proofs were verified");
    }
    Ok(())
}

#[tokio::test]
async fn a_corporate_root_made_by_openssl_carries_two_sidecars() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let dir = mesh.subdir("root")?;
    let (key, root) = corporate_root(&dir, "corp", "ec_paramgen_curve:P-384", "-sha384")?;
    let ca = mesh.ca_below(DOMAIN, &root).await?;
    let csr = request(&ca, &dir).await?;
    let issuer = csr.with_extension("crt");
    let sign = |key: &Path, root: &Path, days| sign(&csr, key, root, days, &issuer);
    let import = async || failure(ca.issuer(&["import", text(&issuer)])?, LIMIT).await;

    // Another root of the same name does not count.
    let other = mesh.subdir("other")?;
    let (other_key, other_root) =
        corporate_root(&other, "corp", "ec_paramgen_curve:P-384", "-sha384")?;
    sign(&other_key, &other_root, "365")?;
    let refused = import().await?;
    ensure!(refused.contains("not signed by a root that this CA knows"), "{refused}");
    // Nor does one that outlives its root.
    sign(&key, &root, "4000")?;
    let refused = import().await?;
    ensure!(refused.contains("after its root"), "{refused}");

    sign(&key, &root, "365")?;
    output(ca.issuer(&["import", text(&issuer)])?, LIMIT).await?;
    ca.ready().await?;
    let status = output(ca.issuer(&["status"])?, LIMIT).await?;
    ensure!(status.contains("its key is not here"), "{status}");
    let metrics = ca.metrics().await?;
    let held: Vec<_> = metrics.named("myelin_ca_root_key_held").collect();
    ensure!(held.len() == 1 && metrics.sum("myelin_ca_root_key_held", &[]) == 0.0);
    talk(&mesh, &ca).await?;
    // What OpenSSL makes of the chain that sidecars see.
    let bundle = dir.join("bundle.pem");
    fs::write(&bundle, ca.bundle_pem().await?)?;
    let verdict = openssl(&["verify", "-CAfile", text(&bundle), text(&issuer)])?;
    ensure!(verdict.contains("OK"), "{verdict}");
    Ok(())
}

#[tokio::test]
async fn an_offline_root_signs_what_it_has_shown_and_nothing_that_openssl_forges() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let (dir, out) = (mesh.dir().join("offline"), mesh.subdir("out")?);
    let myelin_ca = binaries::ca()?;
    let seal = out.join("seal.key");
    let init = ["root", "init", "--trust-domain", DOMAIN, "--seal-key-file", text(&seal), "--dir"];
    run(&myelin_ca, &[&init[..], &[text(&dir)]].concat())?;
    let root = dir.join("root.crt");
    let ca = mesh.ca_below(DOMAIN, &root).await?;
    ensure!(!ca.is_ready().await?, "it has no issuer yet");
    let csr = request(&ca, &out).await?;
    let sign = |csr: &Path| {
        let keys = ["--seal-key-file", text(&seal)];
        let what = ["root", "sign", "--yes", "--dir", text(&dir), "--out", text(&out), text(csr)];
        let ended = Command::new(&myelin_ca).args(what).args(keys).output()?;
        Ok::<_, anyhow::Error>((ended.status.success(), String::from_utf8(ended.stderr)?))
    };

    // Requests that somebody else made.
    for (name, key, extensions, expected) in [
        ("rsa", "rsa:1024", "", "RSA of 1024 bits"),
        ("leaf", "ec", "basicConstraints=critical,CA:FALSE", "for a leaf"),
        ("domain", "ec", "subjectAltName=URI:spiffe://evil.test", "expected spiffe://corp.test"),
    ] {
        let (forged, forged_key) = (out.join(format!("{name}.csr")), out.join("forged.key"));
        let mut args = vec![
            "req",
            "-new",
            "-nodes",
            "-subj",
            "/CN=x",
            "-newkey",
            key,
            "-keyout",
            text(&forged_key),
            "-out",
            text(&forged),
        ];
        if key == "ec" {
            args.extend(["-pkeyopt", "ec_paramgen_curve:P-256", "-addext", extensions]);
            if !extensions.starts_with("basic") {
                args.extend(["-addext", "basicConstraints=critical,CA:TRUE,pathlen:0"]);
                args.extend(["-addext", "keyUsage=critical,keyCertSign"]);
            }
        }
        openssl(&args)?;
        let (signed, said) = sign(&forged)?;
        ensure!(!signed && said.contains(expected), "{name}: {said}");
    }

    let (signed, said) = sign(&csr)?;
    ensure!(signed, "{said}");
    output(ca.issuer(&["import", text(&csr.with_extension("crt"))])?, LIMIT).await?;
    ca.ready().await?;
    talk(&mesh, &ca).await?;
    // A restart needs nothing of the root.
    ca.kill9();
    ca.up().await?;
    mesh.demand_clean_wire().await.map(drop)
}
