//! The controller under measurement: the real program as a process of its own, told by files what a
//! cluster would tell it. Called by `mod`.
//!
//! Never: outlives its holder.

// SPDX-License-Identifier: Apache-2.0

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedKey, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::args::Args;
use super::reviews::Door;
use crate::compare::cpu;

/// It reads four small files.
const READY_WITHIN: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whom the API server dials: the Service of the chart.
const NAME: &str = "myelin-controller.myelin-system.svc";

pub(super) struct Controller {
    child: Child,
    webhook: SocketAddr,
    ops: SocketAddr,
    certificate: CertificateDer<'static>,
    _dir: TempDir,
}

impl Controller {
    /// Starts it, and waits until it is ready.
    pub(super) async fn start(args: &Args) -> Result<Self> {
        let beside = std::env::current_exe()?.with_file_name("myelin-controller");
        let program = args.controller.clone().unwrap_or(beside);
        let shown = program.display();
        ensure!(
            program.exists(),
            "{shown} is not there: cargo build --release -p myelin-controller, or name one with --controller"
        );
        let (dir, webhook, ops) = (TempDir::new()?, free_port()?, free_port()?);
        let at = |name: &str| dir.path().join(name);
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        fs::write(at("webhook.pem"), cert.pem())?;
        fs::write(at("webhook.key"), signing_key.serialize_pem())?;
        fs::write(at("bundle.pem"), root()?)?;
        let here = dir.path().display();
        let config = format!(
            "trust_domain = \"bench.test\"\nmesh_cidrs = [\"10.0.0.0/8\"]\n\
             [ca]\naddress = [\"10.96.0.5:15010\"]\nbundle_file = \"{here}/bundle.pem\"\n\
             [sidecar]\nimage = \"registry.example/myelin-sidecar:0.1.0\"\n\
             [webhook]\nlisten = \"{webhook}\"\n\
             certificate_file = \"{here}/webhook.pem\"\nkey_file = \"{here}/webhook.key\"\n\
             [ops]\nlisten = \"{ops}\"\n"
        );
        fs::write(at("controller.toml"), config)?;
        let log = File::create(at("log"))?;
        let mut command = Command::new(&program);
        command.arg("run").arg("--config").arg(at("controller.toml"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {shown}"))?;
        let certificate = cert.der().clone();
        let mut controller = Self { child, webhook, ops, certificate, _dir: dir };
        controller.is_ready_in_time().await?;
        Ok(controller)
    }

    async fn is_ready_in_time(&mut self) -> Result<()> {
        let begin = Instant::now();
        while !self.is_ready() {
            let said = || fs::read_to_string(self._dir.path().join("log")).unwrap_or_default();
            let ended = self.child.try_wait()?;
            ensure!(ended.is_none(), "the controller ended at its start: {}", said());
            ensure!(begin.elapsed() < READY_WITHIN, "the controller is not ready: {}", said());
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn is_ready(&self) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut tcp = TcpStream::connect(self.ops)?;
            tcp.write_all(b"GET /ready HTTP/1.1\r\nhost: ops\r\nconnection: close\r\n\r\n")?;
            let mut answer = Vec::new();
            tcp.read_to_end(&mut answer)?;
            Ok(answer.starts_with(b"HTTP/1.1 200"))
        };
        ask().unwrap_or(false)
    }

    pub(super) fn door(&self) -> Result<Door> {
        Door::new(self.webhook, NAME, self.certificate.clone())
    }

    /// User and system time so far, all threads.
    pub(super) fn cpu(&self) -> f64 {
        cpu::process_s(i32::try_from(self.child.id()).unwrap_or_default())
    }

    pub(super) fn peak_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.map(|kib| kib / 1024.0).context("no VmHWM in the controller's /proc status")
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // One that has ended already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A trust bundle of one root.
fn root() -> Result<String> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let domain = SanType::URI("spiffe://bench.test".try_into()?);
    params.subject_alt_names = vec![domain];
    Ok(params.self_signed(&KeyPair::generate()?)?.pem())
}

fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
