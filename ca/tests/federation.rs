//! Two CAs that federate, and endpoints that misbehave: what is fetched, what is refused and by
//! which word, that the last good bundle stays, and that sidecars are told.
//!
//! Never: a sidecar; the suite `tests/tests/federation` has those.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod harness;

use std::sync::Arc;
use std::time::Duration;

use harness::config;
use harness::web::{Scripted, WebCa, http};
use myelin_ca::app::{Builder, Running};
use myelin_ca::config::{EndpointConfig, EndpointIdentity, ServeConfig};
use myelin_ca::federation::AddRequest;
use myelin_ca::journal::{Batch, EndpointProfile, FederationRecord, Journal, RollRecord};
use myelin_ca::operator::{Answer, Ask, FederationAnswer, FederationAsk, FederationLine};
use myelin_ca::store::embedded::Embedded;
use myelin_ca::template::{Lifetimes, MAX_LIFETIME, MIN_LIFETIME};
use myelin_identity::bundle::{ForeignBundles, MAX_FORM_BYTES, TrustBundle};
use myelin_identity::id::TrustDomain;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose};
use rustls_pki_types::CertificateDer;

const B: &str = "b.example";

struct Ca {
    running: Running,
    directory: tempfile::TempDir,
    config: ServeConfig,
}

impl Ca {
    /// With a bundle endpoint of its own, under its own SVID.
    async fn start(trust_domain: &str) -> Self {
        Self::start_as(trust_domain, EndpointIdentity::OwnSvid).await
    }

    async fn start_as(trust_domain: &str, identity: EndpointIdentity) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (default, longest) = (MAX_LIFETIME, MAX_LIFETIME);
        let lifetimes = Lifetimes { default, shortest: MIN_LIFETIME, longest };
        let endpoint = EndpointConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            identity,
            refresh_hint: Duration::from_secs(60),
        };
        let config = ServeConfig {
            trust_domain: TrustDomain::parse(trust_domain).unwrap(),
            federation: Some(endpoint),
            ..config(directory.path().join("data"), lifetimes)
        };
        let running = Builder::new(config.clone()).start().await.unwrap();
        Self { running, directory, config }
    }

    async fn restart(self) -> Self {
        let Self { running, directory, config } = self;
        running.stop().await;
        let running = Builder::new(config.clone()).start().await.unwrap();
        Self { running, directory, config }
    }

    fn url(&self) -> String {
        format!("https://{}/", self.running.federation.unwrap())
    }

    fn json(&self) -> String {
        self.running.authority().bundle().to_spiffe_json()
    }

    async fn ask(&self, ask: FederationAsk) -> Result<FederationAnswer, String> {
        match self.running.ask(Ask::Federation(ask)).await {
            Ok(Answer::Federation(answer)) => Ok(answer),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Federates, and returns the line of it.
    async fn add(&self, request: AddRequest) -> FederationLine {
        match self.ask(FederationAsk::Add(request)).await.unwrap() {
            FederationAnswer::Done { federation: Some(line), .. } => line,
            other => panic!("{other:?}"),
        }
    }

    /// The outcome word of a refresh that was asked for.
    async fn refresh(&self) -> String {
        match self.ask(FederationAsk::Refresh(B.to_owned())).await {
            Ok(_) => "taken".to_owned(),
            Err(error) => {
                let word = error.split_once('(').unwrap().1.split_once(')').unwrap().0;
                word.to_owned()
            }
        }
    }

    /// Waits until watchers are told what fits.
    async fn told(&self, fits: impl Fn(&ForeignBundles) -> bool) {
        let mut statements = self.running.authority().statements();
        let told = statements.wait_for(|said| said.as_ref().is_some_and(|s| fits(&s.foreign)));
        tokio::time::timeout(Duration::from_secs(2), told).await.expect("told in time").unwrap();
    }
}

fn by_spiffe(b: &Ca) -> AddRequest {
    AddRequest {
        trust_domain: B.to_owned(),
        profile: EndpointProfile::HttpsSpiffe,
        url: b.url(),
        endpoint_spiffe_id: None,
        address: None,
        bundle: Some(b.json()),
        web_roots_pem: None,
        unlogged: false,
    }
}

fn by_web(url: String, roots: &WebCa) -> AddRequest {
    AddRequest {
        trust_domain: B.to_owned(),
        profile: EndpointProfile::HttpsWeb,
        url,
        endpoint_spiffe_id: None,
        address: None,
        bundle: None,
        web_roots_pem: Some(roots.authority.pem()),
        unlogged: false,
    }
}

#[tokio::test]
async fn two_domains_fetch_each_other_s_bundle_and_sidecars_are_told() {
    let (a, b) = (Ca::start("a.example").await, Ca::start(B).await);
    let line = a.add(by_spiffe(&b)).await;
    let hash = b.running.authority().bundle().hash();
    assert_eq!(line.hash, Some(hash.to_string()));
    assert!(line.failure.is_none() && line.fetched.unwrap() > 0, "{line}");
    a.told(|foreign| foreign.bundles().iter().any(|f| f.bundle.hash() == hash)).await;
    let back = AddRequest { trust_domain: "a.example".to_owned(), ..by_spiffe(&a) };
    assert!(b.add(back).await.failure.is_none());
    assert_eq!(a.refresh().await, "taken");
    // A restart remembers.
    let a = a.restart().await;
    a.told(|foreign| foreign.bundles().len() == 1).await;
    // Removal is told within two seconds.
    a.ask(FederationAsk::Remove(B.to_owned())).await.unwrap();
    a.told(|foreign| foreign.epoch() > 1 && foreign.bundles().is_empty()).await;
    drop((a.directory, b.directory));
}

#[tokio::test]
async fn an_endpoint_that_is_not_exactly_the_named_one_is_refused() {
    let (a, b) = (Ca::start("a.example").await, Ca::start(B).await);
    let impostor = Ca::start(B).await;
    let other_id = AddRequest {
        endpoint_spiffe_id: Some("spiffe://b.example/ns/web/sa/endpoint".to_owned()),
        ..by_spiffe(&b)
    };
    // Of the same name, but under another root than the bundle's.
    let other_root = AddRequest { url: impostor.url(), ..by_spiffe(&b) };
    // A mesh certificate where a web one was promised.
    let not_web = by_web(b.url(), &WebCa::new());
    for (request, said) in
        [(other_id, "was expected"), (other_root, "signature"), (not_web, "handshake")]
    {
        let line = a.add(request).await;
        let failure = line.failure.unwrap();
        assert_eq!(failure.word, "endpoint_refused");
        assert!(failure.why.contains(said), "{}", failure.why);
        assert_eq!(a.refresh().await, "endpoint_refused");
        a.ask(FederationAsk::Remove(B.to_owned())).await.unwrap();
    }
    assert!(a.add(by_spiffe(&b)).await.failure.is_none());
}

#[tokio::test]
async fn an_endpoint_with_a_web_certificate_is_read_and_one_of_another_authority_is_not() {
    use std::os::unix::fs::PermissionsExt;
    let web = WebCa::new();
    let files = tempfile::tempdir().unwrap();
    let (certificate, key) = (files.path().join("cert.pem"), files.path().join("key.pem"));
    std::fs::write(&certificate, &web.leaf_pem).unwrap();
    std::fs::write(&key, web.key.serialize_pem()).unwrap();
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    let b = Ca::start_as(B, EndpointIdentity::Web { certificate, key: key.clone() }).await;
    let a = Ca::start("a.example").await;

    let stranger = a.add(by_web(b.url(), &WebCa::new())).await;
    assert_eq!(stranger.failure.unwrap().word, "endpoint_refused");
    assert_eq!(stranger.sequence, None, "nothing is held of it");
    a.ask(FederationAsk::Remove(B.to_owned())).await.unwrap();

    let port = b.running.federation.unwrap().port();
    let address = Some(b.running.federation.unwrap());
    let wrong_name =
        AddRequest { address, ..by_web(format!("https://other.b.example:{port}/"), &web) };
    assert_eq!(a.add(wrong_name).await.failure.unwrap().word, "endpoint_refused");
    a.ask(FederationAsk::Remove(B.to_owned())).await.unwrap();

    let by_name = AddRequest { address, ..by_web(format!("https://web.b.example:{port}/"), &web) };
    let line = a.add(by_name).await;
    assert_eq!(line.hash, Some(b.running.authority().bundle().hash().to_string()), "{line}");

    // The twin at the serving side: a key that everybody may read is not used.
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    let Ca { running, config, directory } = b;
    running.stop().await;
    let refused = Builder::new(config).start().await.map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("chmod o-rwx"), "{refused}");
    drop(directory);
}

#[tokio::test]
async fn whatever_an_endpoint_says_the_last_good_bundle_stays() {
    let web = WebCa::new();
    let (a, b) = (Ca::start("a.example").await, Ca::start(B).await);
    let scripted = Scripted::start(&web).await;
    let good = b.json();
    scripted.say("200 OK", &good);
    let line = a.add(by_web(scripted.url(), &web)).await;
    assert_eq!((line.sequence, line.failure.is_none()), (Some(1), true), "{line}");
    a.told(|foreign| foreign.bundles().len() == 1).await;
    let epoch = read_epoch(&a);

    let other = Ca::start(B).await.json();
    let back = good.replace("\"spiffe_sequence\": 1", "\"spiffe_sequence\": 0");
    assert_ne!(back, good);
    let huge = format!("{good}{}", " ".repeat(MAX_FORM_BYTES));
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}",
        format!("4000\r\n{}\r\n", " ".repeat(0x4000)).repeat(40)
    );
    let cut = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{good}", good.len() + 1);
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        ("garbage", http("200 OK", "<html>"), "malformed"),
        ("half a document", http("200 OK", &good[..good.len() / 2]), "malformed"),
        ("no keys", http("200 OK", "{\"keys\":[]}"), "malformed"),
        ("huge", http("200 OK", &huge), "too_big"),
        ("huge, in chunks", chunked.into_bytes(), "too_big"),
        ("cut", cut.into_bytes(), "broken_answer"),
        ("no HTTP", b"hello\r\n\r\n".to_vec(), "broken_answer"),
        ("nothing", Vec::new(), "broken_answer"),
        ("an error", http("500 Oops", &good), "http_status"),
        (
            "elsewhere",
            b"HTTP/1.1 302 Found\r\nlocation: https://127.0.0.1/\r\ncontent-length: 0\r\n\r\n"
                .to_vec(),
            "http_status",
        ),
        ("back", http("200 OK", &back), "went_back"),
        ("other roots, same number", http("200 OK", &other), "contradiction"),
    ];
    for (what, bytes, expected) in table {
        scripted.say_bytes(bytes);
        assert_eq!(a.refresh().await, expected, "{what}");
        let FederationAnswer::List { federations: lines, .. } =
            a.ask(FederationAsk::List).await.unwrap()
        else {
            panic!("no list")
        };
        assert_eq!(lines[0].hash, line.hash, "{what}");
        assert_eq!(lines[0].failure.as_ref().unwrap().word, expected);
    }
    assert_eq!(read_epoch(&a), epoch, "sidecars were told nothing");
    // The twin: what goes forward is taken, and the failure is forgotten.
    scripted.say("200 OK", &other.replace("\"spiffe_sequence\": 1", "\"spiffe_sequence\": 2"));
    assert_eq!(a.refresh().await, "taken");
    a.told(|foreign| foreign.bundles().iter().any(|f| f.bundle.generation() == 2)).await;
    assert!(read_epoch(&a) > epoch);
}

#[tokio::test]
async fn a_change_is_fetched_by_itself_within_the_hint() {
    let web = WebCa::new();
    let (a, b) = (Ca::start("a.example").await, Ca::start(B).await);
    let scripted = Scripted::start(&web).await;
    let hinted = |sequence: u64| {
        let json = b.running.authority().bundle().to_spiffe_json_hinting(1);
        json.replace("\"spiffe_sequence\": 1", &format!("\"spiffe_sequence\": {sequence}"))
    };
    scripted.say("200 OK", &hinted(1));
    a.add(by_web(scripted.url(), &web)).await;
    scripted.say("200 OK", &hinted(2));
    let mut statements = a.running.authority().statements();
    let told = statements.wait_for(|said| {
        let bundles = said.as_ref().map(|said| said.foreign.bundles().to_vec());
        bundles.is_some_and(|all| all.iter().any(|f| f.bundle.generation() == 2))
    });
    // The shortest wait between fetches is eight seconds, whatever the hint.
    tokio::time::timeout(Duration::from_secs(30), told).await.expect("fetched by itself").unwrap();
}

/// A reader of JWKS that nobody here wrote finds the same roots in what we serve, P-384 included.
#[tokio::test]
async fn an_independent_reader_of_jwks_finds_the_same_roots() {
    use base64::Engine as _;
    use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, JwkSet, PublicKeyUse};
    let b = Ca::start(B).await;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let p384 = CertificateDer::from(params.self_signed(&key).unwrap());
    let own = b.running.authority().bundle();
    let roots = own.roots().cloned().chain([p384]).collect();
    let bundle = TrustBundle::new(own.trust_domain().clone(), 9, roots).unwrap();

    let json = bundle.to_spiffe_json();
    let set: JwkSet = serde_json::from_str(&json).unwrap();
    let curves = [EllipticCurve::P256, EllipticCurve::P384];
    assert_eq!(set.keys.len(), 2);
    for ((jwk, root), curve) in set.keys.iter().zip(bundle.roots()).zip(curves) {
        assert_eq!(jwk.common.public_key_use, Some(PublicKeyUse::Other("x509-svid".to_owned())));
        let engine = base64::engine::general_purpose::STANDARD;
        let x5c = jwk.common.x509_chain.as_ref().unwrap();
        assert_eq!(engine.decode(&x5c[0]).unwrap(), root.as_ref());
        let AlgorithmParameters::EllipticCurve(point) = &jwk.algorithm else { panic!("{jwk:?}") };
        assert_eq!(point.curve, curve);
        let url = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let (_, parsed) = x509_parser::parse_x509_certificate(root).unwrap();
        let said = [url.decode(&point.x).unwrap(), url.decode(&point.y).unwrap()].concat();
        assert_eq!(parsed.public_key().subject_public_key.data[1..], said);
    }
    let whole: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&whole["spiffe_sequence"], &whole["spiffe_refresh_hint"]),
        (&9.into(), &300.into())
    );
}

/// Whoever has the store but not the seal key adds nobody, and ends nothing that he did not touch.
#[tokio::test]
async fn a_federation_that_was_written_into_the_store_by_hand_is_named_and_never_told() {
    let (a, b) = (Ca::start("a.example").await, Ca::start(B).await);
    a.add(by_spiffe(&b)).await;
    let Ca { running, directory, config } = a;
    running.stop().await;
    // The genuine record again, for another domain, without the duty of a log.
    let store = Embedded::open(&config.data.join("store.redb")).unwrap();
    let journal = Journal::new(Arc::new(store));
    let genuine = journal.read::<FederationRecord>(B).await.unwrap().unwrap().record;
    let roll = journal.read::<RollRecord>("current").await.unwrap().unwrap();
    let mut forged = roll.record.clone();
    forged.epoch += 1;
    forged.members.insert("c.example".to_owned(), forged.members[B].clone());
    let mut batch = Batch::default();
    batch.create("c.example", &FederationRecord { unlogged: true, ..genuine });
    batch.replace(&roll, &forged);
    let _ = journal.commit(batch).await.unwrap();
    journal.close().await;

    let running = Builder::new(config.clone()).start().await.unwrap();
    let a = Ca { running, directory, config };
    let held = a.running.authority().statements().borrow().clone().unwrap();
    let domains: Vec<&str> =
        held.foreign.bundles().iter().map(|it| it.bundle.trust_domain().as_str()).collect();
    assert_eq!((domains, held.foreign.epoch()), (vec![B], roll.record.epoch));
    let shown = a.ask(FederationAsk::List).await.unwrap().to_string();
    assert!(shown.contains("c.example  NOT BELIEVED (unlisted): "), "{shown}");
    let shown = a.ask(FederationAsk::Show("c.example".to_owned())).await.unwrap_err();
    assert!(shown.contains("is not believed (unlisted)"), "{shown}");
    // The twin: what the operator removes is gone, and what he adds is told.
    a.ask(FederationAsk::Remove("c.example".to_owned())).await.unwrap();
    let FederationAnswer::List { federations, passed_over } =
        a.ask(FederationAsk::List).await.unwrap()
    else {
        panic!("no list")
    };
    assert_eq!((federations.len(), passed_over.len()), (1, 0));
    assert_eq!(a.refresh().await, "taken");
}

fn read_epoch(ca: &Ca) -> u64 {
    let said = ca.running.authority().statements().borrow().clone();
    said.map_or(0, |said| said.foreign.epoch())
}
