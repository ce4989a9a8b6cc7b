//! Requests and imports below a root that somebody else made: what is taken, and what is refused
//! in which words.
//!
//! Never: a root of ours; that path is the end-to-end suite's.

// SPDX-License-Identifier: Apache-2.0

mod logged;

use std::sync::Arc;
use std::time::Duration;

use myelin_identity::id::TrustDomain;
use myelin_identity::log::{ISSUER_LOG_OID, LogKey, named_log_extension};
use myelin_identity::seal::SealKey;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};

use super::*;
use crate::check;
use crate::journal::IssuerRecord;
use crate::rotation::{Home, Pin, Renewal, Rotation, adopt, issuing_name, waits_for_issuer};
use crate::store::embedded::Embedded;

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 24 * 3600;

/// A root that is not ours, and a CA below it.
struct Below {
    _scratch: tempfile::TempDir,
    issuers: Issuers,
    root: Issuer<'static, KeyPair>,
}

fn replica() -> ReplicaId {
    ReplicaId::from_bytes([1; 8])
}

fn issuers(journal: Journal, bundle: TrustBundle) -> Issuers {
    let vault = Vault::sealed(SealKey::from_bytes([7; 32]));
    Issuers { journal, replica: replica(), vault: Some(vault), bundle: Arc::new(bundle) }
}

fn names(params: &mut CertificateParams, common_name: &str) {
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
}

fn valid(params: &mut CertificateParams, from: u64, until: u64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(from);
    params.not_after = epoch + Duration::from_secs(until);
}

fn root(
    edit: impl FnOnce(&mut CertificateParams),
) -> (CertificateDer<'static>, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::default();
    names(&mut params, "Corporate root");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, NOW - DAY, NOW + 3650 * DAY);
    edit(&mut params);
    let key = KeyPair::generate().unwrap();
    let der = params.self_signed(&key).unwrap().der().clone();
    (der, Issuer::new(params, key))
}

/// The root's log, which the CA keeps.
fn kept() -> LogKey {
    LogKey::new("prod.example/myelin/root-log/07070707", [7; 32]).unwrap()
}

impl Below {
    async fn start() -> Self {
        Self::under(|_| {}).await
    }

    async fn under(edit: impl FnOnce(&mut CertificateParams)) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let store = Embedded::open(&scratch.path().join("store.redb")).unwrap();
        let journal = Journal::new(Arc::new(store));
        let (der, root) = root(edit);
        let domain = TrustDomain::parse("prod.example").unwrap();
        let bundle = TrustBundle::new(domain, 1, vec![der]).unwrap().stating(&kept());
        adopt(&journal, &bundle).await.unwrap();
        Self { _scratch: scratch, issuers: issuers(journal, bundle), root }
    }

    async fn ask(&self, ask: IssuerAsk) -> Result<IssuerAnswer, IssuerError> {
        self.issuers.answer(NOW, ask).await
    }

    async fn request(&self) -> CertificateSigningRequestDer<'static> {
        match self.ask(IssuerAsk::Request { count: 1 }).await.unwrap() {
            IssuerAnswer::Requested(made) => {
                CertificateSigningRequestDer::from_pem_slice(made[0].csr_pem.as_bytes()).unwrap()
            }
            other => panic!("{other:?}"),
        }
    }

    async fn import(&self, pem: String) -> Result<Imported, IssuerError> {
        match self.ask(IssuerAsk::Import { pem }).await? {
            IssuerAnswer::Imported(imported) => Ok(imported),
            other => panic!("{other:?}"),
        }
    }

    async fn status(&self) -> IssuerStatus {
        match self.ask(IssuerAsk::Status).await.unwrap() {
            IssuerAnswer::Status(status) => status,
            other => panic!("{other:?}"),
        }
    }
}

/// What a root that signs the request as it is would write.
fn faithful() -> CertificateParams {
    let mut params = CertificateParams::default();
    names(&mut params, "Myelin issuing CA of prod.example");
    params.subject_alt_names = vec![SanType::URI("spiffe://prod.example".try_into().unwrap())];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    let named = named_log_extension(&kept());
    params.custom_extensions = vec![CustomExtension::from_oid_content(&ISSUER_LOG_OID, named)];
    valid(&mut params, NOW - 60, NOW + 365 * DAY);
    params
}

fn signed(
    csr: &CertificateSigningRequestDer<'_>,
    root: &Issuer<'static, KeyPair>,
    edit: impl FnOnce(&mut CertificateParams),
) -> String {
    let key = check::request(csr, "prod.example").unwrap().public_key;
    let mut params = faithful();
    edit(&mut params);
    let key = SubjectPublicKeyInfo::from_der(key.as_bytes()).unwrap();
    params.signed_by(&key, root).unwrap().pem()
}

fn uri(params: &mut CertificateParams, text: &str) {
    params.subject_alt_names = vec![SanType::URI(text.try_into().unwrap())];
}

#[tokio::test]
async fn first_intermediate_ends_the_wait_and_later_ones_take_their_turn() {
    let below = Below::start().await;
    assert!(waits_for_issuer(&below.issuers.journal, &replica()).await.unwrap().is_some());
    let first = signed(&below.request().await, &below.root, |_| {});
    assert!(!below.import(first.clone()).await.unwrap().waits);
    assert!(waits_for_issuer(&below.issuers.journal, &replica()).await.unwrap().is_none());
    let again = below.import(first).await.unwrap_err();
    assert!(matches!(again, IssuerError::Again { .. }), "{again}");

    let second = signed(&below.request().await, &below.root, |params| {
        valid(params, NOW + 335 * DAY, NOW + 700 * DAY);
    });
    assert!(below.import(second).await.unwrap().waits);
    let status = below.status().await;
    assert_eq!((status.root_key, status.successors.len()), (RootKey::Elsewhere, 1));
    assert_eq!((status.covered_until, status.alarm), (Some(NOW + 700 * DAY), None));

    let Issuers { journal, vault, bundle, .. } = &below.issuers;
    let domain = bundle.trust_domain();
    let own = tempfile::tempdir().unwrap();
    let start = |now| {
        let home = Home { replica: replica(), pin: Pin::at(own.path().join("trust.pin")) };
        Rotation::start(journal.clone(), domain, vault.clone().unwrap(), home, now)
    };
    let rotation = start(NOW + DAY).await.unwrap();
    let end = |rotation: &Rotation| (rotation.signer().validity().not_after - NOW) / DAY;
    assert_eq!(end(&rotation), 365);
    assert_eq!(
        rotation.tick(NOW + 334 * DAY).await.unwrap(),
        Renewal::NoRootKey,
        "due, and the next has not begun"
    );
    assert_eq!(rotation.tick(NOW + 336 * DAY).await.unwrap(), Renewal::Renewed);
    assert_eq!(end(&rotation), 700);
    assert_eq!(rotation.tick(NOW + 650 * DAY).await.unwrap(), Renewal::NoRootKey, "none is left");
    assert_eq!(end(&start(NOW + 650 * DAY).await.unwrap()), 700);
    assert!(below.status().await.successors.is_empty());
}

#[tokio::test]
async fn intermediate_that_differs_in_one_thing_is_refused_in_its_words() {
    type Case = (fn(&mut CertificateParams), &'static str);
    let below = Below::start().await;
    let csr = below.request().await;
    let table: [Case; 14] = [
        (|p| p.is_ca = IsCa::ExplicitNoCa, "for a leaf"),
        (|p| p.is_ca = IsCa::NoCa, "for a leaf"),
        (|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained), "path length is not limited"),
        (|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(1)), "path length is 1"),
        (|p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature], "key usage"),
        (|p| p.key_usages.push(KeyUsagePurpose::DigitalSignature), "key usage"),
        (|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth], "2.5.29.37"),
        (|p| uri(p, "spiffe://other.example"), "spiffe://other.example, expected"),
        (|p| p.subject_alt_names.clear(), "name is missing"),
        (
            |p| p.subject_alt_names.push(SanType::DnsName("a.example".try_into().unwrap())),
            "only subject alternative name",
        ),
        (|p| valid(p, NOW - 10 * DAY, NOW - DAY), "it ended"),
        (|p| valid(p, NOW - DAY, NOW + 3600), "it ends in 3600 s"),
        (|p| valid(p, NOW - DAY, NOW + 3651 * DAY), "after its root"),
        (
            |p| {
                let content = vec![4, 1, 7];
                let extra = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 9], content);
                p.custom_extensions.push(extra);
            },
            "not those that were asked for",
        ),
    ];
    for (edit, expected) in table {
        let refused = below.import(signed(&csr, &below.root, edit)).await.unwrap_err().to_string();
        assert!(refused.contains("is refused: ") && refused.contains(expected), "{refused}");
        assert!(!refused.contains('\n'), "{refused}");
    }
    // The twin of them all.
    below.import(signed(&csr, &below.root, |_| {})).await.unwrap();
}

#[tokio::test]
async fn intermediate_of_a_foreign_root_or_for_a_foreign_key_is_refused() {
    let below = Below::start().await;
    let csr = below.request().await;
    // Another key behind the same name.
    let (foreign_der, foreign) = root(|_| {});
    let refused = below.import(signed(&csr, &foreign, |_| {})).await.unwrap_err();
    assert!(matches!(refused, IssuerError::Unfit(Unfit::ForeignRoot { .. })), "{refused}");

    let stranger = KeyPair::generate().unwrap();
    let pem = faithful().signed_by(&stranger, &below.root).unwrap().pem();
    let refused = below.import(pem).await.unwrap_err();
    assert!(matches!(refused, IssuerError::OtherKey { .. }), "{refused}");

    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let pem = faithful().signed_by(&p384, &below.root).unwrap().pem();
    let refused = below.import(pem).await.unwrap_err().to_string();
    assert!(refused.contains("384 bits, expected ECDSA P-256"), "{refused}");

    let good = signed(&csr, &below.root, |_| {});
    let with =
        |der: &CertificateDer<'_>| good.clone() + &myelin_identity::pem::encode("CERTIFICATE", der);
    let refused = below.import(with(&foreign_der)).await.unwrap_err();
    assert!(matches!(refused, IssuerError::Between { position: 2 }), "{refused}");
    for text in ["", "not PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        below.import(text.to_owned()).await.unwrap_err();
    }
    // The twin: with its own root behind it.
    let own = below.issuers.bundle.roots().next().unwrap().clone();
    below.import(with(&own)).await.unwrap();
}

#[tokio::test]
async fn root_that_allows_no_ca_below_it_vouches_for_no_intermediate() {
    let below =
        Below::under(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))).await;
    let pem = signed(&below.request().await, &below.root, |_| {});
    let refused = below.import(pem).await.unwrap_err();
    assert!(matches!(refused, IssuerError::Unfit(Unfit::RootPathLength)), "{refused}");
}

#[tokio::test]
async fn first_intermediate_must_be_valid_now() {
    let below = Below::start().await;
    let csr = below.request().await;
    let later = |p: &mut CertificateParams| valid(p, NOW + DAY, NOW + 300 * DAY);
    let refused = below.import(signed(&csr, &below.root, later)).await.unwrap_err();
    assert!(matches!(refused, IssuerError::NotYet { .. }), "{refused}");
    assert!(
        below
            .issuers
            .journal
            .read::<IssuerRecord>(&issuing_name(&replica()))
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn requests_are_bounded_and_a_ca_with_its_own_root_makes_none() {
    let below = Below::start().await;
    for count in [0, MAX_REQUESTS + 1] {
        let refused = below.ask(IssuerAsk::Request { count }).await.unwrap_err();
        assert!(matches!(refused, IssuerError::Count { .. }), "{refused}");
    }
    below.ask(IssuerAsk::Request { count: MAX_REQUESTS }).await.unwrap();
    let refused = below.ask(IssuerAsk::Request { count: 1 }).await.unwrap_err();
    assert!(matches!(refused, IssuerError::TooMany { .. }), "{refused}");

    let scratch = tempfile::tempdir().unwrap();
    let store = Embedded::open(&scratch.path().join("store.redb")).unwrap();
    let journal = Journal::new(Arc::new(store));
    let domain = TrustDomain::parse("prod.example").unwrap();
    let vault = Vault::sealed(SealKey::from_bytes([7; 32]));
    let home = Home { replica: replica(), pin: Pin::at(scratch.path().join("trust.pin")) };
    let own = Rotation::start(journal.clone(), &domain, vault, home, NOW).await.unwrap();
    let own = issuers(journal, (*own.bundle()).clone());
    for ask in [IssuerAsk::Request { count: 1 }, IssuerAsk::Import { pem: String::new() }] {
        let refused = own.answer(NOW, ask).await.unwrap_err();
        assert!(matches!(refused, IssuerError::OwnRoot), "{refused}");
    }
    // And no other root is put over it.
    let refused = adopt(&own.journal, &below.issuers.bundle).await.unwrap_err();
    assert!(refused.to_string().contains("--root-cert"), "{refused}");
}

#[tokio::test]
async fn requests_that_wait_are_shown_again_until_they_are_answered() {
    let below = Below::start().await;
    let shown = async |ask| match below.ask(ask).await.unwrap() {
        IssuerAnswer::Requested(made) => {
            let mut made: Vec<_> = made.into_iter().map(|one| (one.key, one.csr_pem)).collect();
            made.sort();
            made
        }
        other => panic!("{other:?}"),
    };
    assert!(shown(IssuerAsk::Again).await.is_empty());
    let made = shown(IssuerAsk::Request { count: 2 }).await;
    assert_eq!(shown(IssuerAsk::Again).await, made);
    // It takes no key, so also while none can be opened.
    let closed = Issuers { vault: None, ..below.issuers.clone() };
    closed.answer(NOW, IssuerAsk::Again).await.unwrap();
    let first = CertificateSigningRequestDer::from_pem_slice(made[0].1.as_bytes()).unwrap();
    below.import(signed(&first, &below.root, |_| {})).await.unwrap();
    assert_eq!(shown(IssuerAsk::Again).await, made[1..]);
}

#[test]
fn request_that_is_none_for_an_intermediate_of_this_domain_is_refused() {
    let key = KeyPair::generate().unwrap();
    let csr = |key: &KeyPair, edit: fn(&mut CertificateParams)| {
        let mut params = faithful();
        params.use_authority_key_identifier_extension = false;
        edit(&mut params);
        check::request(params.serialize_request(key).unwrap().der(), "prod.example")
    };
    assert_eq!(
        csr(&key, |_| {}).unwrap().public_key.as_bytes().as_slice(),
        key.subject_public_key_info()
    );
    type Case = (fn(&mut CertificateParams), &'static str);
    let table: [Case; 5] = [
        (|p| p.is_ca = IsCa::ExplicitNoCa, "for a leaf"),
        (|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(2)), "path length is 2"),
        (|p| uri(p, "spiffe://prod.example.evil"), "expected spiffe://prod.example "),
        (|p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature], "key usage"),
        (|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth], "2.5.29.37"),
    ];
    for (edit, expected) in table {
        let refused = csr(&key, edit).unwrap_err().to_string();
        assert!(refused.contains(expected), "{refused}");
    }
    let rsa = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let refused = csr(&rsa, |_| {}).unwrap_err().to_string();
    assert!(refused.contains("RSA of 2048 bits"), "{refused}");
    // What means nothing to strangers is kept, to be shown.
    let kept = csr(&key, |p| {
        let extra = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 9], vec![4, 1, 7]);
        p.custom_extensions = vec![extra];
    });
    assert_eq!(kept.unwrap().extensions[0].der, [4, 1, 7]);
}
