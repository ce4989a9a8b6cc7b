//! The controller under measurement: the real program as a process of its own, told by files what a
//! cluster would tell it. Called by `mod`.
//!
//! Never: a cluster, or anything that a cluster would answer in time.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedKey, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use super::args::Args;
use super::reviews::Door;
use crate::process::{Process, free_port, program};

/// Whom the API server dials: the Service of the chart.
const NAME: &str = "myelin-controller.myelin-system.svc";

pub(super) struct Controller {
    process: Process,
    webhook: SocketAddr,
    certificate: CertificateDer<'static>,
    _dir: TempDir,
}

impl Controller {
    /// Starts it, and waits until it is ready.
    pub(super) async fn start(args: &Args) -> Result<Self> {
        let program = program(args.controller.as_ref(), "myelin-controller", "--controller")?;
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
        let mut command = Command::new(program);
        command.arg("run").arg("--config").arg(at("controller.toml"));
        let process = Process::start(command, None, &at("log"), (ops, "/ready")).await?;
        Ok(Self { process, webhook, certificate: cert.der().clone(), _dir: dir })
    }

    pub(super) fn door(&self) -> Result<Door> {
        Door::new(self.webhook, NAME, self.certificate.clone())
    }

    /// User and system time so far, all threads.
    pub(super) fn cpu(&self) -> f64 {
        self.process.cpu()
    }

    pub(super) fn peak_mib(&self) -> Result<f64> {
        Ok(self.process.memory()?.peak / 1024.0)
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
