//! Forward secrecy, demonstrated: a recorded session, every long-term key of both sides and of the
//! CA in the hands of a decoder, and nothing recovered; with that one session's secrets, everything.
//!
//! The session's secrets come from a key log that this test puts into its own end. The product has
//! none.
//!
//! Never: a decoder that could not decode (the second half proves that it can).

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::fs;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_identity::verify::PeerVerifier;
use myelin_sidecar::addr::Endpoint;
use myelin_sidecar::relay::{Carrier, Link, Step};
use myelin_sidecar::tls::{self, Deadline};
use myelin_sidecar::wire::{self, Acceptor, Budget, Dialer, Event};
use myelin_tests::binaries::installed;
use myelin_tests::forge::{Credential, Forge};
use myelin_tests::{Mesh, Options};
use rustls::{ClientConfig, KeyLog};

const PORT: u16 = 7_000;
const SOON: Duration = Duration::from_secs(10);
const BUDGET: Budget = Budget { max_uses: NonZeroU64::MAX, max_bytes: NonZeroU64::MAX };

/// The lines of an SSLKEYLOGFILE, in memory.
#[derive(Debug, Default)]
struct Secrets(Mutex<String>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let mut lines = self.0.lock().unwrap();
        writeln!(lines, "{label} {} {}", hex(client_random), hex(secret)).unwrap();
    }
}

#[tokio::test]
async fn every_long_term_key_recovers_nothing_and_the_session_secrets_recover_all() -> Result<()> {
    let options = Options { keep_bytes: 16 << 20, ..Options::default() };
    let Some(mesh) = Mesh::start(options).await? else { return Ok(()) };
    let forge = Forge::of(&mesh.ca).await?;
    let (here, there) = (mesh.pod("here")?, mesh.pod("there")?);
    let dialer = forge.svid("spiffe://mesh.test/ns/test/sa/here", here.addresses())?;
    let acceptor = forge.svid("spiffe://mesh.test/ns/test/sa/there", there.addresses())?;

    let to = SocketAddr::new(there.v4(), PORT);
    let listener = there.tcp_listen(to).await?;
    let configs = forge.configs(&acceptor)?;
    let serving = tokio::spawn(async move {
        let session =
            tls::accept(listener.accept().await?.0, &configs, None, Deadline(SOON)).await?;
        serve(Link::new(session.records, Acceptor::new(BUDGET))).await
    });
    let secrets = Arc::new(Secrets::default());
    let client = client(&forge, &dialer, &secrets)?;
    let records = tls::dial_with(here.tcp_connect(to).await?, Endpoint(to), Arc::new(client));
    say(Link::new(records.await?, Dialer::new(BUDGET)), mesh.canary()).await?;
    ensure!(serving.await?? == mesh.canary().as_bytes(), "the words did not arrive");

    mesh.demand_clean_wire().await?;
    let recording = mesh.dir().join("recording.pcap");
    mesh.watch.capture().to_pcap(&recording).await?;

    let keys = long_term_keys(mesh.dir(), &forge, [&dialer, &acceptor])?;
    ensure!(keys.len() == 4, "root, intermediate and both leaves");
    let with_keys: Vec<String> =
        keys.iter().map(|key| format!("uat:rsa_keys:\"{}\",\"\"", key.display())).collect();
    let seen = decode(&recording, &with_keys)?;
    ensure!(!seen.contains(mesh.canary()), "long-term keys decrypt the recording");

    let log = mesh.dir().join("session.keys");
    fs::write(&log, &*secrets.0.lock().unwrap())?;
    let seen = decode(&recording, &[format!("tls.keylog_file:{}", log.display())])?;
    ensure!(seen.contains(mesh.canary()), "the decoder cannot decode at all: {seen}");
    Ok(())
}

/// Answers nothing; returns what the use said.
async fn serve(mut link: Link<Acceptor>) -> Result<Vec<u8>> {
    link.greet(&[], SOON, |_| ()).await?;
    let opened = link.event(SOON, |event| matches!(event, Event::Opened(_))).await?;
    ensure!(opened == Some(true), "no open");
    link.control(Acceptor::accept)?;
    let mut heard = Vec::new();
    loop {
        link.flush().await?;
        while !Carrier::records(&mut link).chunk().is_empty() {
            match link.step()? {
                Step::Deliver(bytes) => {
                    heard.extend_from_slice(&Carrier::records(&mut link).chunk()[..bytes]);
                    Carrier::records(&mut link).consume(bytes);
                }
                Step::PeerFin => return Ok(heard),
                _ => {}
            }
        }
        poll_fn(|cx| Carrier::records(&mut link).poll_read(cx)).await?;
    }
}

async fn say(mut link: Link<Dialer>, words: &str) -> Result<()> {
    link.greet(&[], SOON, |_| ()).await?;
    link.control(Dialer::open)?;
    link.send(words.as_bytes())?;
    link.send_fin()?;
    link.flush().await?;
    link.close(Duration::from_secs(2)).await;
    Ok(())
}

/// The dialer's configuration as the product makes it, and a key log on top.
fn client(forge: &Forge, own: &Credential, secrets: &Arc<Secrets>) -> Result<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PeerVerifier::new(forge.bundle()?)))
        .with_client_auth_cert(own.chain.clone(), own.key.clone_key())?;
    config.alpn_protocols = vec![wire::ALPN.to_vec()];
    config.enable_secret_extraction = true;
    config.key_log = Arc::<Secrets>::clone(secrets);
    Ok(config)
}

fn long_term_keys(dir: &Path, forge: &Forge, leaves: [&Credential; 2]) -> Result<Vec<PathBuf>> {
    let leaves = leaves.iter().map(|leaf| leaf.key.secret_der().to_vec());
    let all: Vec<Vec<u8>> = forge.keys.iter().cloned().chain(leaves).collect();
    all.iter()
        .enumerate()
        .map(|(index, key)| {
            let path = dir.join(format!("long-term-{index}.pem"));
            fs::write(&path, pem(key)?)?;
            Ok(path)
        })
        .collect()
}

/// PKCS#8 as openssl writes it, so that the decoder can read it.
fn pem(pkcs8: &[u8]) -> Result<String> {
    let key = rcgen::KeyPair::try_from(pkcs8)?;
    Ok(key.serialize_pem())
}

/// Everything that tshark makes of the recording, payloads and decrypted streams included.
fn decode(recording: &Path, options: &[String]) -> Result<String> {
    let mut tshark = Command::new(installed("tshark", "tshark")?);
    tshark.arg("-r").arg(recording).args(["-d", &format!("tcp.port=={PORT},tls"), "-V", "-x"]);
    for option in options {
        tshark.args(["-o", option]);
    }
    for stream in 0..8 {
        tshark.args(["-z", &format!("follow,tls,ascii,{stream}")]);
    }
    let output = tshark.output().context("tshark cannot be started")?;
    ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
