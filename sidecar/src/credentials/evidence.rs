//! Evidence from outside the mesh, read anew for each request: a pod's service-account token, or a
//! machine's certificate with a signature by its key. Called by `issue` through [`Right::attest`].
//!
//! Never: keeps a token or a key between requests, logs either, or shows them to anybody but the
//! CA.

// SPDX-License-Identifier: Apache-2.0

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use myelin_identity::issuance::{
    Attestation, EXPORTER_BYTES, HostProof, HostSpki, IssuanceError, Lineage, MachineProof,
    RequestKey, ServiceToken, TokenSecret,
};
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A token is 2 KiB, a chain with its key 16 KiB.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// What a machine's key signs with, the best first; the CA takes these and no others.
const SCHEMES: [SignatureScheme; 4] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
];

/// What this sidecar shows of itself beside its host key, at every issue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Evidence {
    /// Nothing: a join token once, then the host key.
    #[default]
    None,
    /// The projected service-account token in this file.
    KubernetesToken(PathBuf),
    /// The machine's certificate chain and key, in PEM.
    Machine { certificate: PathBuf, key: PathBuf },
}

/// Why there is no evidence to show. The operator's to repair; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    #[error("{} cannot be read: {source}; is the volume mounted, and may uid {} read it?", path.display(), nix::unistd::geteuid())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} has more than {MAX_FILE_BYTES} bytes; is it the right file?", path.display())]
    TooLarge { path: PathBuf },
    #[error("{} is not what it should be: {why}", path.display())]
    Malformed { path: PathBuf, why: String },
}

/// By what right an SVID is asked for; the evidence beside it may be another at each attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Right {
    Token(TokenSecret),
    /// With a lineage it is a renewal.
    Host(Option<Lineage>),
    /// For the workload's own; the SVID that stands here vouches, and no evidence beside it.
    Companion(Lineage),
}

/// What this very request consists of.
pub(super) struct Request<'a> {
    pub(super) host_spki: HostSpki,
    pub(super) exporter: &'a [u8; EXPORTER_BYTES],
    pub(super) csr_der: &'a [u8],
    pub(super) request_key: &'a RequestKey,
}

impl Right {
    /// The attestation for one request, with evidence of this moment.
    pub(super) fn attest(
        &self,
        evidence: &Evidence,
        request: &Request<'_>,
    ) -> Result<Attestation, EvidenceError> {
        let host_spki = request.host_spki;
        let lineage = match self {
            Self::Token(secret) => {
                return Ok(Attestation::Join { secret: secret.clone(), host_spki });
            }
            Self::Companion(vouched_by) => {
                return Ok(Attestation::Companion { host_spki, vouched_by: *vouched_by });
            }
            Self::Host(lineage) => *lineage,
        };
        Ok(match evidence {
            Evidence::None => Attestation::Host { host_spki, lineage },
            Evidence::KubernetesToken(path) => {
                Attestation::Kubernetes { token: token(path)?, host_spki, lineage }
            }
            Evidence::Machine { certificate, key } => {
                let proof = machine_proof(certificate, key, request)?;
                Attestation::Machine { proof, host_spki, lineage }
            }
        })
    }
}

fn token(path: &Path) -> Result<ServiceToken, EvidenceError> {
    let text = String::from_utf8(read(path)?);
    let wrong = |why: String| EvidenceError::Malformed { path: path.to_owned(), why };
    let text = text.map_err(|_| wrong("it is no text".to_owned()))?;
    ServiceToken::new(&text).map_err(|error: IssuanceError| wrong(error.to_string()))
}

fn machine_proof(
    certificate: &Path,
    key: &Path,
    request: &Request<'_>,
) -> Result<MachineProof, EvidenceError> {
    let in_chain = |why: String| EvidenceError::Malformed { path: certificate.to_owned(), why };
    let in_key = |why: &str| EvidenceError::Malformed { path: key.to_owned(), why: why.to_owned() };
    let pem = read(certificate)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|error| in_chain(error.to_string()))?;
    if chain.is_empty() {
        return Err(in_chain("it holds no certificate in PEM".to_owned()));
    }
    let pem = read(key)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| in_key("it holds no key in PEM"))?;
    let key = any_supported_type(&key).map_err(|_| in_key("its key is of no kind we can use"))?;
    let signer = key.choose_scheme(&SCHEMES);
    let signer = signer.ok_or_else(|| in_key("its key is of no kind that the CA takes"))?;
    let bytes = HostProof::machine_bytes(request.exporter, request.csr_der, request.request_key);
    let signature = signer.sign(&bytes).map_err(|_| in_key("its key does not sign"))?;
    Ok(MachineProof { chain, scheme: signer.scheme().into(), signature })
}

/// Follows symbolic links: the kubelet's volumes consist of them.
fn read(path: &Path) -> Result<Vec<u8>, EvidenceError> {
    let unreadable = |source| EvidenceError::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(EvidenceError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::Ed25519KeyPair;
    use myelin_identity::svid::P256Spki;
    use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};

    const EXPORTER: [u8; EXPORTER_BYTES] = [7; EXPORTER_BYTES];

    fn attested(evidence: &Evidence) -> Result<Attestation, EvidenceError> {
        let host_spki = HostSpki::of(&Ed25519KeyPair::generate().unwrap());
        let request_key = RequestKey::from_bytes([2; RequestKey::BYTES]);
        let (exporter, csr_der) = (&EXPORTER, b"csr".as_slice());
        let request = Request { host_spki, exporter, csr_der, request_key: &request_key };
        Right::Host(None).attest(evidence, &request)
    }

    #[test]
    fn a_token_is_read_anew_for_each_request() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let evidence = Evidence::KubernetesToken(path.clone());
        assert!(matches!(attested(&evidence), Err(EvidenceError::Unreadable { .. })));
        for text in ["one.two.three\n", "four.five.six\n"] {
            std::fs::write(&path, text).unwrap();
            let Ok(Attestation::Kubernetes { token, .. }) = attested(&evidence) else { panic!() };
            assert_eq!(token.reveal(), text.trim());
        }
        std::fs::write(&path, "").unwrap();
        assert!(matches!(attested(&evidence), Err(EvidenceError::Malformed { .. })));
        std::fs::write(&path, vec![b'x'; 65 * 1024]).unwrap();
        assert!(matches!(attested(&evidence), Err(EvidenceError::TooLarge { .. })));
    }

    #[test]
    fn a_machine_signs_this_very_request() {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
        let pair = KeyPair::generate().unwrap();
        let own = CertificateParams::default().self_signed(&pair).unwrap();
        std::fs::write(&certificate, own.pem()).unwrap();
        std::fs::write(&key, pair.serialize_pem()).unwrap();
        let evidence = Evidence::Machine { certificate: certificate.clone(), key: key.clone() };
        let Ok(Attestation::Machine { proof, .. }) = attested(&evidence) else { panic!() };
        assert_eq!((proof.scheme, &proof.chain[0]), (0x0403, own.der()));
        let spki = P256Spki::try_from(&pair.subject_public_key_info()[..]).unwrap();
        let request_key = RequestKey::from_bytes([2; RequestKey::BYTES]);
        let signed = |csr: &[u8]| HostProof::machine_bytes(&EXPORTER, csr, &request_key);
        assert!(spki.verify(&signed(b"csr"), &proof.signature).is_ok());
        assert!(spki.verify(&signed(b"another"), &proof.signature).is_err());
        std::fs::write(&key, own.pem()).unwrap();
        assert!(matches!(attested(&evidence), Err(EvidenceError::Malformed { .. })));
        std::fs::write(&certificate, "").unwrap();
        assert!(matches!(attested(&evidence), Err(EvidenceError::Malformed { .. })));
    }
}
