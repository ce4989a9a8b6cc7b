//! The verifiers inside real rustls handshakes, in memory, at a fixed time.
//! Never: sockets; and no hand-made call where a handshake can make it.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use rcgen::{BasicConstraints, CustomExtension, IsCa};
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::super::{CaVerifier, CallerVerifier, FirstContact, PeerVerifier, Refusal};
use super::Mesh;
use crate::bundle::BundleHash;
use crate::id::TrustDomain;
use crate::log::{ISSUER_LOG_OID, LogKey, named_log_extension};
use crate::testing::{Minted, WEB, bundle, domain, now, root};

const CA: &str = "spiffe://td/myelin/ca";
const WRONG: &str = "wrong_bundle";

#[derive(Debug)]
struct FixedTime;

impl TimeProvider for FixedTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(now())
    }
}

/// A leaf with its key, and what is presented after it.
type Credential<'a> = (&'a Minted, Vec<CertificateDer<'static>>);

/// Both sides' errors, the client's first.
fn handshake(
    client: Option<Credential<'_>>,
    of_server: Arc<dyn ServerCertVerifier>,
    server: Credential<'_>,
    of_client: Arc<dyn ClientCertVerifier>,
) -> (Option<rustls::Error>, Option<rustls::Error>) {
    let provider = Arc::new(default_provider());
    // A resolver, because rustls' own builders refuse a key that does not fit its certificate.
    let present = |(leaf, rest): Credential<'_>| {
        let chain = std::iter::once(leaf.der.clone()).chain(rest).collect::<Vec<_>>();
        let key = provider.key_provider.load_private_key(leaf.private_key()).unwrap();
        Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, key)))
    };
    let builder = ClientConfig::builder_with_details(provider.clone(), Arc::new(FixedTime))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(of_server);
    let client_config = match client.map(present) {
        Some(credential) => builder.with_client_cert_resolver(credential),
        None => builder.with_no_client_auth(),
    };
    let server_config = ServerConfig::builder_with_details(provider.clone(), Arc::new(FixedTime))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_client_cert_verifier(of_client)
        .with_cert_resolver(present(server));
    let name = ServerName::try_from("10.9.9.9").unwrap();
    let mut client = ClientConnection::new(Arc::new(client_config), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server_config)).unwrap();
    let (mut client_error, mut server_error) = (None, None);
    // Flights enough for any handshake; an error ends it.
    for _ in 0..6 {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        if !wire.is_empty() {
            let error = deliver(&mut server, &wire);
            server_error = server_error.or(error);
        }
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        if !wire.is_empty() {
            let error = deliver(&mut client, &wire);
            client_error = client_error.or(error);
        }
    }
    if client_error.is_none() && server_error.is_none() {
        assert!(!client.is_handshaking() && !server.is_handshaking());
    }
    (client_error, server_error)
}

/// `read_tls` takes a part of what it is given.
fn deliver<D>(
    to: &mut impl std::ops::DerefMut<Target = rustls::ConnectionCommon<D>>,
    mut wire: &[u8],
) -> Option<rustls::Error>
where
    D: rustls::SideData,
{
    while !wire.is_empty() {
        to.read_tls(&mut wire).unwrap();
        if let Err(error) = to.process_new_packets() {
            return Some(error);
        }
    }
    None
}

fn words(
    errors: &(Option<rustls::Error>, Option<rustls::Error>),
) -> (Option<&'static str>, Option<&'static str>) {
    let word = |e: &Option<rustls::Error>| e.as_ref().and_then(Refusal::of).map(|r| r.word());
    (word(&errors.0), word(&errors.1))
}

fn peers(mesh: &Mesh) -> Arc<PeerVerifier> {
    Arc::new(PeerVerifier::new(Arc::new(mesh.bundle.clone())))
}

fn callers(mesh: &Mesh) -> Arc<CallerVerifier> {
    Arc::new(CallerVerifier::new(Arc::new(mesh.bundle.clone())))
}

#[test]
fn version_below_tls_1_3_has_its_word() {
    use rustls::PeerIncompatible::*;
    for seen in [
        Tls12NotOfferedOrEnabled,
        SupportedVersionsExtensionRequired,
        ServerTlsVersionIsDisabledByOurConfig,
    ] {
        let error = rustls::Error::PeerIncompatible(seen);
        assert_eq!(Refusal::of(&error), Some(Refusal::OldTls));
    }
    let alert = rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion);
    assert_eq!(Refusal::of(&alert), None);
}

#[test]
fn mesh_peers_meet() {
    let mesh = Mesh::new();
    let (web, api) = (mesh.intermediate.leaf(WEB), mesh.intermediate.leaf("spiffe://td/api"));
    let issuer = vec![mesh.intermediate.der.clone()];
    let errors =
        handshake(Some((&web, issuer.clone())), peers(&mesh), (&api, issuer), peers(&mesh));
    assert_eq!(errors, (None, None));
}

#[test]
fn refusal_travels_through_rustls_on_either_side() {
    let mesh = Mesh::new();
    let (web, foreign) = (mesh.intermediate.leaf(WEB), mesh.intermediate.leaf("spiffe://td2/x"));
    let issuer = || vec![mesh.intermediate.der.clone()];
    let errors =
        handshake(Some((&foreign, issuer())), peers(&mesh), (&web, issuer()), peers(&mesh));
    assert_eq!(words(&errors), (None, Some("wrong_trust_domain")));
    let errors =
        handshake(Some((&web, issuer())), peers(&mesh), (&foreign, issuer()), peers(&mesh));
    assert_eq!(words(&errors), (Some("wrong_trust_domain"), None));
    let wrapped = std::io::Error::new(std::io::ErrorKind::InvalidData, errors.0.unwrap());
    assert_eq!(Refusal::of_io(&wrapped).map(|r| r.word()), Some("wrong_trust_domain"));
}

#[test]
fn client_without_certificate_is_refused_except_by_the_ca() {
    let mesh = Mesh::new();
    let web = mesh.intermediate.leaf(WEB);
    let issuer = || vec![mesh.intermediate.der.clone()];
    let errors = handshake(None, peers(&mesh), (&web, issuer()), peers(&mesh));
    assert_eq!(words(&errors), (None, Some("no_certificate")));

    let errors = handshake(None, peers(&mesh), (&web, issuer()), callers(&mesh));
    assert_eq!(errors, (None, None));
    let foreign = mesh.intermediate.leaf("spiffe://td2/x");
    let errors =
        handshake(Some((&foreign, issuer())), peers(&mesh), (&web, issuer()), callers(&mesh));
    assert_eq!(words(&errors), (None, Some("wrong_trust_domain")));
}

#[test]
fn certificate_without_its_key_is_refused() {
    let mesh = Mesh::new();
    let (web, thief) = (mesh.intermediate.leaf(WEB), mesh.intermediate.leaf(WEB));
    let issuer = || vec![mesh.intermediate.der.clone()];
    let stolen = Minted { der: web.der.clone(), key: thief.key };
    let errors = handshake(Some((&stolen, issuer())), peers(&mesh), (&web, issuer()), peers(&mesh));
    assert_eq!(words(&errors), (None, Some("bad_signature")));
    let errors = handshake(Some((&web, issuer())), peers(&mesh), (&stolen, issuer()), peers(&mesh));
    assert_eq!(words(&errors), (Some("bad_signature"), None));
}

#[test]
fn only_the_ca_is_the_ca() {
    let mesh = Mesh::new();
    let issuer = || vec![mesh.intermediate.der.clone()];
    let ca_verifier = || Arc::new(CaVerifier::new(Arc::new(mesh.bundle.clone())));
    for (id, expected) in [
        (CA, None),
        ("spiffe://td/myelin/ca2", Some("wrong_peer")),
        (WEB, Some("wrong_peer")),
        ("spiffe://td2/myelin/ca", Some("wrong_trust_domain")),
    ] {
        let leaf = mesh.intermediate.leaf(id);
        let errors = handshake(None, ca_verifier(), (&leaf, issuer()), callers(&mesh));
        assert_eq!(words(&errors).0, expected, "{id}");
    }
    // With the roots behind, as the CA presents itself to whomever.
    let mut long = issuer();
    long.resize(1 + crate::bundle::MAX_ROOTS, mesh.root.der.clone());
    let leaf = mesh.intermediate.leaf(CA);
    assert_eq!(handshake(None, ca_verifier(), (&leaf, long), callers(&mesh)), (None, None));
}

#[test]
fn first_contact_believes_only_the_hash() {
    let mesh = Mesh::new();
    let (second, stranger) = (root("second root"), root("stranger"));
    let hash = bundle(&[&mesh.root, &second]).hash();
    let ours = || vec![mesh.intermediate.der.clone(), second.der.clone(), mesh.root.der.clone()];
    let with_stranger = [ours(), vec![stranger.der]].concat();
    let other = || TrustDomain::parse("td2").ok();
    let table = [
        ("the CA", CA, ours(), Some(domain()), None),
        ("the CA, domain unknown", CA, ours(), None, None),
        ("a workload", WEB, ours(), Some(domain()), Some("wrong_peer")),
        ("another domain", CA, ours(), other(), Some("wrong_trust_domain")),
        ("a root too few", CA, ours()[..2].to_vec(), None, Some(WRONG)),
        ("no roots", CA, ours()[..1].to_vec(), None, Some(WRONG)),
        ("a root too many", CA, with_stranger, None, Some(WRONG)),
        ("a root twice", CA, [ours(), ours()].concat(), None, Some(WRONG)),
    ];
    for (what, id, presented, expected_domain, expected) in table {
        let contact = Arc::new(FirstContact::new(hash, expected_domain));
        let leaf = mesh.intermediate.leaf(id);
        let errors = handshake(None, contact.clone(), (&leaf, presented), callers(&mesh));
        assert_eq!(words(&errors).0, expected, "{what}");
        let learned = contact.learned().map(|b| (b.hash(), b.trust_domain().clone()));
        assert_eq!(learned, expected.is_none().then(|| (hash, domain())), "{what}");
    }
}

/// Below a root that names no log the hash covers the one that the intermediate names.
#[test]
fn first_contact_learns_the_root_s_log_under_the_hash_and_no_other() {
    let mesh = Mesh::new();
    let [kept, other] = ["kept", "other"].map(|name| LogKey::new(name, [7; 32]).unwrap());
    let naming = |log: &LogKey| {
        let named = CustomExtension::from_oid_content(&ISSUER_LOG_OID, named_log_extension(log));
        mesh.root.intermediate_with("between", |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            params.custom_extensions = vec![named];
        })
    };
    let stating = mesh.bundle.clone().stating(&kept);
    for (what, between, hash, expected) in [
        ("as the token says", naming(&kept), stating.hash(), None),
        ("another log", naming(&other), stating.hash(), Some(WRONG)),
        ("no log", mesh.root.intermediate("between"), stating.hash(), Some(WRONG)),
        // Then the bundle states none, whatever an intermediate says.
        ("a token of roots only", naming(&kept), mesh.bundle.hash(), None),
    ] {
        let contact = Arc::new(FirstContact::new(hash, Some(domain())));
        let presented = vec![between.der.clone(), mesh.root.der.clone()];
        let leaf = between.leaf(CA);
        let errors = handshake(None, contact.clone(), (&leaf, presented), callers(&mesh));
        assert_eq!(words(&errors).0, expected, "{what}");
        let learned = contact.learned().map(|bundle| bundle.hash());
        assert_eq!(learned, expected.is_none().then_some(hash), "{what}");
    }
}

#[test]
fn first_contact_refuses_a_leaf_under_another_root() {
    let (mesh, stranger) = (Mesh::new(), root("stranger"));
    let between = stranger.intermediate("theirs");
    let leaf = between.leaf(CA);
    let contact = Arc::new(FirstContact::new(mesh.bundle.hash(), None));
    let presented = vec![between.der.clone(), mesh.root.der.clone()];
    let errors = handshake(None, contact.clone(), (&leaf, presented), callers(&mesh));
    assert_eq!(words(&errors).0, Some("untrusted_root"));
    assert!(contact.learned().is_none());
    assert_ne!(mesh.bundle.hash(), BundleHash::from_bytes([0; 32]));
}
