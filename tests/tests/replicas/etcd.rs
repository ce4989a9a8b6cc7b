//! A real etcd in a pod, with certificates on both sides.
//!
//! Never: skips when etcd is not there.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use myelin_lab::{Pod, Proc};
use myelin_tests::{binaries, programs};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

/// One member.
pub(crate) struct Etcd {
    pod: Pod,
    dir: PathBuf,
    _process: Proc,
}

impl Etcd {
    pub(crate) async fn start(pod: Pod, dir: &Path) -> Result<Self> {
        certificates(&pod, dir)?;
        let file = |name: &str| dir.join(name).display().to_string();
        let url = format!("https://{}:2379", pod.v4());
        let peer = "http://127.0.0.1:2380";
        let process = pod
            .command(binaries::installed("etcd", "etcd-server")?)
            .args(["--name", "one", "--data-dir", &file("data")])
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
            .args(["--initial-cluster", &format!("one={peer}")])
            .args(["--cert-file", &file("server.pem"), "--key-file", &file("server.key")])
            .args(["--client-cert-auth", "--trusted-ca-file", &file("ca.pem")])
            .label("etcd")
            .spawn()?;
        programs::listens(&pod, pod.v4(), 2379).await?;
        Ok(Self { pod, dir: dir.to_owned(), _process: process })
    }

    /// What a replica is told about it.
    pub(crate) fn flags(&self) -> Vec<String> {
        let file = |name: &str| self.dir.join(name).display().to_string();
        vec![
            "--store=etcd".to_owned(),
            format!("--etcd-endpoint=https://{}:2379", self.pod.v4()),
            format!("--etcd-ca={}", file("ca.pem")),
            format!("--etcd-cert={}", file("client.pem")),
            format!("--etcd-key={}", file("client.key")),
        ]
    }
}

/// A CA for etcd, a certificate for the member and one for its clients.
fn certificates(pod: &Pod, dir: &Path) -> Result<()> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.distinguished_name.push(rcgen::DnType::CommonName, "etcd CA");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    fs::write(dir.join("ca.pem"), ca.pem())?;
    for (name, usage) in [
        ("server", vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]),
        ("client", vec![ExtendedKeyUsagePurpose::ClientAuth]),
    ] {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("etcd {name}"));
        params.subject_alt_names = vec![SanType::IpAddress(pod.v4())];
        params.extended_key_usages = usage;
        fs::write(dir.join(format!("{name}.pem")), params.signed_by(&key, &ca)?.pem())?;
        let path = dir.join(format!("{name}.key"));
        fs::write(&path, key.serialize_pem())?;
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
    }
    Ok(())
}
