//! A root on a machine of its own: a directory with its certificate, its sealed key and the list of
//! what it has signed. Called by the `root` commands through `app`.
//!
//! Never: in the directory of a CA that serves, or signs what its plan does not show: key, names,
//! life, path length, and each extension with the SHA-256 of its value.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use myelin_identity::id::TrustDomain;
use myelin_identity::pem;
use myelin_identity::svid::P256Spki;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use serde::Serialize;

use crate::check::{self, Mismatch, Requested, Unfit};
use crate::clock::UnixSeconds;
use crate::datadir::{DataDir, DataDirError, read_bounded, write_secret};
use crate::journal::Hex;
use crate::random;
use crate::signer::{SealedIssuer, Signer, SignerError, Vault};
use crate::template::{
    Extension, IssuerTemplate, Serial, Validity, issuer_validity, successor_validity,
};

/// A request is under 1 KiB in PEM; a sealed key or a certificate too. More is a mistaken file.
const MAX_FILE_BYTES: u64 = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum OfflineRootError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error("{} holds a root already; name an empty directory with --dir", .0.display())]
    Taken(PathBuf),
    #[error("{} holds no root; make one with: myelin-ca root init --dir {}", .0.display(), .0.display())]
    NoRoot(PathBuf),
    #[error("{} is the data directory of a CA that serves; a root belongs in a directory of its own, on a machine that is off", .0.display())]
    Serves(PathBuf),
    #[error("cannot use {}: {cause}", path.display())]
    File { path: PathBuf, cause: io::Error },
    #[error("{} is not PEM with one {expected}: {why}", path.display())]
    Pem { path: PathBuf, expected: &'static str, why: String },
    #[error("{} is refused: {why}", path.display())]
    Request { path: PathBuf, why: Unfit },
    #[error("{} and {} are for the same key; name each request once", .0.display(), .1.display())]
    Twice(PathBuf, PathBuf),
    #[error("{} and {} would both become {}; call them differently", .0.display(), .1.display(), .2.display())]
    SameOutput(PathBuf, PathBuf, PathBuf),
    #[error("the root ends at {root_not_after} (Unix seconds): {} would begin after it; sign fewer, or rotate the root", path.display())]
    BeyondRoot { path: PathBuf, root_not_after: UnixSeconds },
    #[error("the root's certificate names no trust domain; was it made by myelin-ca root init?")]
    NoTrustDomain,
    #[error(transparent)]
    Signer(#[from] SignerError),
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    #[error("cannot draw random bytes from the operating system")]
    NoRandomness,
}

/// The root's directory.
pub struct OfflineRoot {
    directory: DataDir,
}

/// What a root says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RootShown {
    pub trust_domain: String,
    pub certificate: PathBuf,
    /// SHA-256 of the certificate.
    pub sha256: String,
    pub not_after: UnixSeconds,
}

/// One intermediate that is to be signed, or was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Intermediate {
    pub request: PathBuf,
    /// Where its certificate goes.
    pub certificate: PathBuf,
    /// SHA-256 of its public key: the machine that asked shows the same.
    pub key: String,
    /// Its common name.
    pub subject: String,
    pub trust_domain: String,
    pub path_length: u8,
    /// What it says beyond that, as the machine that asked shows it too.
    pub extensions: Vec<String>,
    pub serial: String,
    pub not_before: UnixSeconds,
    pub not_after: UnixSeconds,
    #[serde(skip)]
    template: IssuerTemplate,
    #[serde(skip)]
    public_key: P256Spki,
}

impl OfflineRoot {
    /// Opens a directory, or makes it (0700).
    pub fn open_or_make(path: &Path) -> Result<Self, OfflineRootError> {
        let directory = DataDir::open_or_make(path)?;
        if directory.store().exists() {
            return Err(OfflineRootError::Serves(path.to_owned()));
        }
        Ok(Self { directory })
    }

    /// Opens the directory of a root that is there.
    pub fn open(path: &Path) -> Result<Self, OfflineRootError> {
        let root = Self { directory: DataDir::open(path)? };
        if root.exists() { Ok(root) } else { Err(OfflineRootError::NoRoot(path.to_owned())) }
    }

    pub fn directory(&self) -> &DataDir {
        &self.directory
    }

    /// Whether a root was made here.
    pub fn exists(&self) -> bool {
        self.key_path().exists()
    }

    /// Makes the root.
    pub fn init(
        &self,
        trust_domain: &TrustDomain,
        life: Duration,
        vault: &Vault,
        now: UnixSeconds,
    ) -> Result<RootShown, OfflineRootError> {
        if self.exists() || self.certificate_path().exists() {
            return Err(OfflineRootError::Taken(self.directory.path().to_owned()));
        }
        let template = IssuerTemplate {
            common_name: format!("Myelin root of {trust_domain}"),
            trust_domain: trust_domain.to_string(),
            serial: fresh_serial()?,
            validity: issuer_validity(life, now, None),
            path_length: None,
            extensions: Vec::new(),
        };
        let (root, sealed) = Signer::make_root(&template, vault)?;
        check::issuer(root.certificate(), &template, root.certificate())?;
        write_secret(&self.key_path(), &sealed.sealed_key)?;
        write_new(&self.certificate_path(), &pem::encode("CERTIFICATE", root.certificate()))?;
        Ok(self.shown(trust_domain.as_str(), &root))
    }

    /// Reads the requests and says what would be signed, in this order: several follow each other
    /// in time.
    pub fn plan(
        &self,
        requests: &[PathBuf],
        out: &Path,
        life: Duration,
        now: UnixSeconds,
    ) -> Result<Vec<Intermediate>, OfflineRootError> {
        let certificate = self.certificate()?;
        let trust_domain = trust_domain_of(&certificate)?;
        let root = crate::signer::validity_of(&certificate)?;
        let mut plan: Vec<Intermediate> = Vec::new();
        for (n, path) in (0..).zip(requests) {
            let requested = read_request(path, &trust_domain)?;
            let same = plan.iter().find(|other| other.public_key == requested.public_key);
            if let Some(other) = same {
                return Err(OfflineRootError::Twice(other.request.clone(), path.clone()));
            }
            let validity = successor_validity(n, life, now, root).ok_or_else(|| {
                OfflineRootError::BeyondRoot { path: path.clone(), root_not_after: root.not_after }
            })?;
            let one = planned(path, out, &trust_domain, requested, validity)?;
            if let Some(other) = plan.iter().find(|other| other.certificate == one.certificate) {
                let (other, to) = (other.request.clone(), one.certificate);
                return Err(OfflineRootError::SameOutput(other, path.clone(), to));
            }
            plan.push(one);
        }
        Ok(plan)
    }

    /// Signs a plan, and writes each certificate and a line in the list of what was signed.
    pub fn sign(
        &self,
        plan: &[Intermediate],
        vault: &Vault,
        now: UnixSeconds,
    ) -> Result<(), OfflineRootError> {
        let certificate = self.certificate()?;
        let path = self.key_path();
        let sealed_key = fs::read(&path).map_err(|cause| OfflineRootError::File { path, cause })?;
        let sealed = SealedIssuer { certificate_der: certificate.to_vec(), sealed_key };
        let root = Signer::open(&sealed, vault)?;
        let mut signed = Vec::new();
        for Intermediate { template, public_key, certificate: to, .. } in plan {
            if to.exists() {
                let cause = io::ErrorKind::AlreadyExists.into();
                return Err(OfflineRootError::File { path: to.clone(), cause });
            }
            let certificate = root.sign_issuer(template, public_key.as_bytes())?;
            check::issuer(&certificate, template, root.certificate())?;
            signed.push(certificate);
        }
        for (intermediate, certificate) in plan.iter().zip(&signed) {
            self.note(intermediate, now)?;
            write_new(&intermediate.certificate, &pem::encode("CERTIFICATE", certificate))?;
        }
        Ok(())
    }

    /// Remembers a signature before it leaves.
    fn note(&self, signed: &Intermediate, now: UnixSeconds) -> Result<(), OfflineRootError> {
        let path = self.directory.path().join("signed.jsonl");
        let line = serde_json::json!({ "at": now, "signed": signed });
        fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| {
                file.write_all(format!("{line}\n").as_bytes())?;
                file.sync_all()
            })
            .map_err(|cause| OfflineRootError::File { path, cause })
    }

    fn shown(&self, trust_domain: &str, root: &Signer) -> RootShown {
        use aws_lc_rs::digest::{SHA256, digest};
        let sha256 = Hex(digest(&SHA256, root.certificate()).as_ref().to_vec()).to_string();
        RootShown {
            trust_domain: trust_domain.to_owned(),
            certificate: self.certificate_path(),
            sha256,
            not_after: root.validity().not_after,
        }
    }

    fn certificate(&self) -> Result<CertificateDer<'static>, OfflineRootError> {
        let path = self.certificate_path();
        let text = read(&path)?;
        CertificateDer::from_pem_slice(&text).map_err(|error| OfflineRootError::Pem {
            path,
            expected: "CERTIFICATE",
            why: error.to_string(),
        })
    }

    fn certificate_path(&self) -> PathBuf {
        self.directory.path().join("root.crt")
    }

    fn key_path(&self) -> PathBuf {
        self.directory.path().join("root.key")
    }
}

fn planned(
    path: &Path,
    out: &Path,
    trust_domain: &str,
    requested: Requested,
    validity: Validity,
) -> Result<Intermediate, OfflineRootError> {
    let serial = fresh_serial()?;
    let subject = format!("Myelin issuing CA of {trust_domain}");
    // The whole stem: what follows a dot in a name belongs to the name.
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(".crt");
    Ok(Intermediate {
        request: path.to_owned(),
        certificate: out.join(name),
        key: Hex(requested.public_key.fingerprint().to_vec()).to_string(),
        subject: subject.clone(),
        trust_domain: trust_domain.to_owned(),
        path_length: 0,
        extensions: requested.extensions.iter().map(Extension::to_string).collect(),
        serial: Hex(serial.as_bytes().to_vec()).to_string(),
        not_before: validity.not_before,
        not_after: validity.not_after,
        template: IssuerTemplate {
            common_name: subject,
            trust_domain: trust_domain.to_owned(),
            serial,
            validity,
            path_length: Some(0),
            extensions: requested.extensions,
        },
        public_key: requested.public_key,
    })
}

fn read_request(path: &Path, trust_domain: &str) -> Result<Requested, OfflineRootError> {
    let text = read(path)?;
    let wrong = |why: String| OfflineRootError::Pem {
        path: path.to_owned(),
        expected: "CERTIFICATE REQUEST",
        why,
    };
    let found: Result<Vec<_>, _> = CertificateSigningRequestDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| wrong(error.to_string()))?;
    // With two, one of them would be signed unseen, or be missed without a word.
    let [csr] = found.as_slice() else {
        return Err(wrong(format!("it holds {}", found.len())));
    };
    check::request(csr, trust_domain)
        .map_err(|why| OfflineRootError::Request { path: path.to_owned(), why })
}

fn read(path: &Path) -> Result<Vec<u8>, OfflineRootError> {
    read_bounded(path, MAX_FILE_BYTES)
        .map_err(|cause| OfflineRootError::File { path: path.to_owned(), cause })
}

/// A certificate is public; it is never written over another.
fn write_new(path: &Path, text: &str) -> Result<(), OfflineRootError> {
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .map_err(|cause| OfflineRootError::File { path: path.to_owned(), cause })
}

/// The one name that `init` writes into a root.
fn trust_domain_of(certificate: &CertificateDer<'_>) -> Result<String, OfflineRootError> {
    use x509_parser::extensions::GeneralName;
    let unnamed = || OfflineRootError::NoTrustDomain;
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| unnamed())?;
    let names = parsed.subject_alternative_name().ok().flatten().ok_or_else(unnamed)?;
    match names.value.general_names.as_slice() {
        [GeneralName::URI(uri)] => {
            uri.strip_prefix("spiffe://").map(str::to_owned).ok_or_else(unnamed)
        }
        _ => Err(unnamed()),
    }
}

fn fresh_serial() -> Result<Serial, OfflineRootError> {
    random::bytes().map(Serial::from_random).map_err(|_| OfflineRootError::NoRandomness)
}

#[cfg(test)]
mod tests;
