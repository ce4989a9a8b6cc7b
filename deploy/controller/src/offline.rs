//! `myelin-controller inject`: the webhook's work on manifests in a file, with the webhook's own
//! configuration. Called by `main`.
//!
//! Never: asks a cluster or a name; where the configuration leaves something to the cluster, it must be
//! said here.

// SPDX-License-Identifier: Apache-2.0

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::bundle::{self, FileError};
use crate::config::{self, CaAddress, ConfigError};
use crate::inject::Settings;
use crate::manifests::{self, Answer, MAX_INPUT_BYTES, ManifestError};

/// Stands for standard input.
pub const STDIN: &str = "-";

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub config: PathBuf,
    pub manifests: PathBuf,
    /// Of documents that name none.
    pub namespace: String,
    /// In place of the configuration's own.
    pub bundle: Option<PathBuf>,
    pub ca: Vec<SocketAddr>,
}

#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Bundle(#[from] FileError),
    #[error(
        "{path}: ca.service is {service:?}, whose address only the cluster knows: say it with --ca-address, such as 10.96.0.5:15010"
    )]
    CaService { path: PathBuf, service: String },
    #[error("{path} cannot be read: {source}: name a file with manifests, or - for standard input")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Manifests(#[from] ManifestError),
}

/// All of it, or the reasons why not.
pub fn inject(asked: &Asked) -> Result<Answer, OfflineError> {
    let config = config::load(&asked.config)?;
    let ca = match config.ca {
        _ if !asked.ca.is_empty() => asked.ca.clone(),
        CaAddress::Fixed(addresses) => addresses,
        CaAddress::Service(service) => {
            return Err(OfflineError::CaService { path: asked.config.clone(), service });
        }
    };
    let path = asked.bundle.as_ref().unwrap_or(&config.bundle_file);
    let bundle_pem = bundle::read(path, &config.settings.trust_domain)?.to_pem().into();
    let settings = Settings { ca, bundle_pem, ..config.settings };
    let unreadable = |source| OfflineError::Unreadable { path: asked.manifests.clone(), source };
    let text = read(&asked.manifests).map_err(unreadable)?;
    Ok(manifests::inject_all(&text, &asked.namespace, &settings)?)
}

/// One byte more than the bound, so that what is too large is seen.
fn read(path: &Path) -> io::Result<String> {
    let bound = MAX_INPUT_BYTES as u64 + 1;
    let mut text = String::new();
    if path.as_os_str() == STDIN {
        io::stdin().lock().take(bound).read_to_string(&mut text)?;
    } else {
        File::open(path)?.take(bound).read_to_string(&mut text)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "trust_domain = \"cluster.local\"\nmesh_cidrs = [\"10.0.0.0/8\"]\nnamespace = \"myelin-system\"\n\
        [sidecar]\nimage = \"registry.example/myelin-sidecar:0.1.0\"\n";
    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: a}]}\n";

    fn stage(ca: &str) -> (tempfile::TempDir, Asked) {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name)
        };
        let key = rcgen::KeyPair::generate().unwrap();
        let mut root = rcgen::CertificateParams::new(vec![]).unwrap();
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        root.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let bundle = file("bundle.pem", &root.self_signed(&key).unwrap().pem());
        let webhook = "[webhook]\ncertificate_file = \"/c\"\nkey_file = \"/k\"\n";
        let config =
            format!("{CONFIG}{webhook}[ca]\n{ca}\nbundle_file = \"{}\"\n", bundle.display());
        let asked = Asked {
            config: file("controller.toml", &config),
            manifests: file("pod.yaml", POD),
            namespace: "shop".to_owned(),
            bundle: None,
            ca: vec![],
        };
        (dir, asked)
    }

    #[test]
    fn file_is_injected_by_the_webhooks_own_configuration() {
        let (_dir, asked) = stage("address = [\"10.96.0.5:15010\"]");
        let answer = inject(&asked).unwrap();
        assert_eq!(answer.injected, 1);
        for part in
            ["10.96.0.5:15010", "BEGIN CERTIFICATE", "registry.example/myelin-sidecar:0.1.0"]
        {
            assert!(answer.text.contains(part), "{part}: {}", answer.text);
        }
        let elsewhere = Asked { ca: vec!["10.0.0.9:1".parse().unwrap()], ..asked };
        assert!(inject(&elsewhere).unwrap().text.contains("10.0.0.9:1"));
    }

    #[test]
    fn what_only_a_cluster_knows_and_what_is_not_there_is_said_with_what_to_do() {
        let (dir, asked) = stage("service = \"myelin-ca\"");
        let error = inject(&asked).unwrap_err().to_string();
        assert!(error.contains("say it with --ca-address"), "{error}");
        let told = Asked { ca: vec!["10.96.0.5:15010".parse().unwrap()], ..asked };
        assert_eq!(inject(&told).unwrap().injected, 1);
        let gone = dir.path().join("gone");
        for (asked, expected) in [
            (Asked { config: gone.clone(), ..told.clone() }, "gone"),
            (Asked { manifests: gone.clone(), ..told.clone() }, "standard input"),
            (Asked { bundle: Some(gone), ..told }, "trust bundle"),
        ] {
            let error = inject(&asked).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
