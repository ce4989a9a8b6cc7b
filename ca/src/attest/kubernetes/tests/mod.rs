//! Service-account tokens, minted on the spot and broken in each way that T38 names: which word
//! refuses each, and what the good ones show.
//!
//! Never: a cluster; the key set is a file.

// SPDX-License-Identifier: Apache-2.0

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64, Engine as _};
use serde_json::{Value, json};

mod reviewed;

use super::*;
use crate::attest::AttestError;

const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://kubernetes.default.svc";
const AUDIENCE: &str = "myelin-ca/prod.example";

/// A change that breaks a token, and the word for it.
type Case = (&'static str, fn(&mut Value), &'static str);

/// An issuer with one key of each kind.
struct Cluster {
    ec: EcdsaKeyPair,
    rsa: RsaKeyPair,
    attestor: Kubernetes,
    _dir: tempfile::TempDir,
}

fn ec_key() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

fn ec_jwk(kid: &str, key: &EcdsaKeyPair) -> Value {
    let point = key.public_key().as_ref();
    let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
    json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": kid, "x": x, "y": y})
}

fn rsa_jwk(kid: &str, key: &RsaKeyPair) -> Value {
    let parts: PublicKeyComponents<Vec<u8>> = key.public_key().into();
    let (n, e) = (BASE64.encode(parts.n), BASE64.encode(parts.e));
    json!({"kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid, "n": n, "e": e})
}

impl Cluster {
    fn new() -> Self {
        let (ec, rsa) = (ec_key(), RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
        let shared = json!({"kty": "oct", "kid": "shared", "k": BASE64.encode("secret")});
        let keys = json!({"keys": [ec_jwk("ec", &ec), rsa_jwk("rsa", &rsa), shared]});
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jwks.json");
        std::fs::write(&path, keys.to_string()).unwrap();
        let domain = TrustDomain::parse("prod.example").unwrap();
        let keys = Jwks::new(Source::File(path));
        let attestor = Kubernetes::new(ISSUER.to_owned(), &domain, keys);
        Self { ec, rsa, attestor, _dir: dir }
    }

    fn mint(&self, header: &Value, claims: &Value) -> String {
        let signed = signed_part(header, claims);
        let random = SystemRandom::new();
        let signature = match header["alg"].as_str() {
            Some("RS256") => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                let bytes = signed.as_bytes();
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature).unwrap();
                signature
            }
            _ => self.ec.sign(&random, signed.as_bytes()).unwrap().as_ref().to_vec(),
        };
        format!("{signed}.{}", BASE64.encode(signature))
    }

    async fn attest(&self, token: &str) -> Result<Attested, &'static str> {
        let word = |error: Evidence| AttestError::from(error).word();
        let token = ServiceToken::new(token).map_err(|_| "malformed")?;
        self.attestor.attest(&token, NOW).await.map_err(word)
    }
}

fn signed_part(header: &Value, claims: &Value) -> String {
    format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()))
}

fn header() -> Value {
    json!({"alg": "ES256", "kid": "ec"})
}

fn claims() -> Value {
    json!({
        "iss": ISSUER,
        "aud": [AUDIENCE],
        "sub": "system:serviceaccount:shop:web",
        "iat": NOW - 10,
        "nbf": NOW - 10,
        "exp": NOW + 3600,
        "jti": "0f6d",
        "kubernetes.io": {
            "namespace": "shop",
            "serviceaccount": {"name": "web", "uid": "5f1c"},
            "pod": {"name": "web-7d9f-x2", "uid": "9a8b-77"},
            "node": {"name": "node-1", "uid": "33"},
        },
    })
}

#[tokio::test]
async fn good_token_shows_which_pod_it_is_of() {
    let cluster = Cluster::new();
    for (algorithm, kid) in [("ES256", "ec"), ("RS256", "rsa")] {
        let token = cluster.mint(&json!({"alg": algorithm, "kid": kid}), &claims());
        let attested = cluster.attest(&token).await.unwrap();
        let shown: Vec<&str> = attested.selectors.iter().map(Selector::as_str).collect();
        for expected in [
            "k8s:ns:shop",
            "k8s:sa:web",
            "k8s:pod-name:web-7d9f-x2",
            "k8s:pod-uid:9a8b-77",
            "k8s:node-name:node-1",
            "k8s:issuer:https://kubernetes.default.svc",
        ] {
            assert!(shown.contains(&expected), "{expected}: {shown:?}");
        }
        assert_eq!(attested.service_account, Some(("shop".to_owned(), "web".to_owned())));
        assert!(attested.bound_to.is_some());
    }
}

#[tokio::test]
async fn two_pods_are_bound_apart_and_one_pod_to_itself() {
    let cluster = Cluster::new();
    let mut other = claims();
    other["kubernetes.io"]["pod"]["uid"] = json!("9a8b-78");
    let mut later = claims();
    later["jti"] = json!("1f6d");
    later["exp"] = json!(NOW + 3000);
    let mut bound = Vec::new();
    for claims in [claims(), other, later] {
        let token = cluster.mint(&header(), &claims);
        bound.push(cluster.attest(&token).await.unwrap().bound_to);
    }
    assert_ne!(bound[0], bound[1]);
    assert_eq!(bound[0], bound[2]);
}

/// The claims of T38, each signed properly.
#[tokio::test]
async fn token_that_says_something_else_is_refused_in_that_word() {
    let table: &[Case] = &[
        ("issuer", |it| it["iss"] = json!("https://elsewhere"), "jwt_issuer"),
        ("no issuer", |it| drop(it.as_object_mut().unwrap().remove("iss")), "jwt_issuer"),
        ("audience", |it| it["aud"] = json!(["vault"]), "jwt_audience"),
        ("audience among others", |it| it["aud"] = json!([AUDIENCE, "vault"]), "jwt_audience"),
        ("no audience", |it| drop(it.as_object_mut().unwrap().remove("aud")), "jwt_audience"),
        ("other trust domain", |it| it["aud"] = json!("myelin-ca/other.example"), "jwt_audience"),
        ("expired", |it| it["exp"] = json!(NOW - 61), "jwt_expired"),
        ("no exp", |it| drop(it.as_object_mut().unwrap().remove("exp")), "jwt_not_pod_bound"),
        ("no iat", |it| drop(it.as_object_mut().unwrap().remove("iat")), "jwt_not_pod_bound"),
        ("exp as text", |it| it["exp"] = json!("never"), "jwt_malformed"),
        ("nbf ahead", |it| it["nbf"] = json!(NOW + 61), "jwt_not_yet_valid"),
        ("iat ahead", |it| it["iat"] = json!(NOW + 61), "jwt_not_yet_valid"),
        ("a year", |it| it["exp"] = json!(NOW + 365 * 86_400), "jwt_not_pod_bound"),
        ("no pod", |it| it["kubernetes.io"]["pod"] = Value::Null, "jwt_not_pod_bound"),
        (
            "no private claims",
            |it| drop(it.as_object_mut().unwrap().remove("kubernetes.io")),
            "jwt_not_pod_bound",
        ),
        (
            "subject of another account",
            |it| it["sub"] = json!("system:serviceaccount:shop:db"),
            "jwt_contradicts",
        ),
        (
            "claims of another namespace",
            |it| it["kubernetes.io"]["namespace"] = json!("bank"),
            "jwt_contradicts",
        ),
        (
            "claims of another account",
            |it| it["kubernetes.io"]["serviceaccount"]["name"] = json!("db"),
            "jwt_contradicts",
        ),
        (
            "a name that is none",
            |it| {
                it["kubernetes.io"]["namespace"] = json!("shop/sa/db");
                it["sub"] = json!("system:serviceaccount:shop/sa/db:web");
            },
            "jwt_contradicts",
        ),
        ("an empty pod uid", |it| it["kubernetes.io"]["pod"]["uid"] = json!(""), "jwt_contradicts"),
    ];
    let cluster = Cluster::new();
    for (what, change, expected) in table {
        let mut claims = claims();
        change(&mut claims);
        let token = cluster.mint(&header(), &claims);
        assert_eq!(cluster.attest(&token).await.err(), Some(*expected), "{what}");
    }
    // The skew that is forgiven, to the second.
    for (key, value) in [("exp", NOW - 60), ("nbf", NOW + 60), ("iat", NOW + 60)] {
        let mut claims = claims();
        claims[key] = json!(value);
        let token = cluster.mint(&header(), &claims);
        assert!(cluster.attest(&token).await.is_ok(), "{key} {value}");
    }
}

/// The headers and signatures of T38.
#[tokio::test]
async fn token_that_is_not_signed_by_the_issuers_key_is_refused_in_that_word() {
    let cluster = Cluster::new();
    let good = cluster.mint(&header(), &claims());
    let none = json!({"alg": "none", "kid": "ec"});
    let (body, _) = good.rsplit_once('.').unwrap();
    let unsigned = |header: &Value| format!("{}.", signed_part(header, &claims()));
    let by_secret = |kid: &str, secret: &[u8]| {
        let signed = signed_part(&json!({"alg": "HS256", "kid": kid}), &claims());
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        format!("{signed}.{}", BASE64.encode(hmac::sign(&key, signed.as_bytes())))
    };
    let public = cluster.rsa.public_key().as_ref().to_vec();
    let stranger = Cluster::new().mint(&header(), &claims());
    let mut other = claims();
    other["kubernetes.io"]["pod"]["name"] = json!("web-7d9f-x3");
    let swapped = cluster.mint(&header(), &other);
    let swapped =
        format!("{}.{}", swapped.rsplit_once('.').unwrap().0, good.rsplit_once('.').unwrap().1);
    let of_rsa = |header: Value| cluster.mint(&header, &claims());
    let big = format!("{good}{}", "x".repeat(9000));
    let table: Vec<(&str, String, &str)> = vec![
        ("alg none", unsigned(&none), "jwt_algorithm"),
        ("alg none with a signature", cluster.mint(&none, &claims()), "jwt_algorithm"),
        ("alg None", unsigned(&json!({"alg": "None", "kid": "ec"})), "jwt_algorithm"),
        ("no alg", unsigned(&json!({"kid": "ec"})), "jwt_algorithm"),
        ("HS256 by the RSA public key", by_secret("rsa", &public), "jwt_algorithm"),
        ("HS256 by a listed secret", by_secret("shared", b"secret"), "jwt_algorithm"),
        ("RS256 by the EC key", of_rsa(json!({"alg": "RS256", "kid": "ec"})), "jwt_algorithm"),
        ("ES256 by the RSA key", of_rsa(json!({"alg": "ES256", "kid": "rsa"})), "jwt_algorithm"),
        ("not the key's own", of_rsa(json!({"alg": "PS256", "kid": "rsa"})), "jwt_algorithm"),
        ("no kid", of_rsa(json!({"alg": "ES256"})), "jwt_malformed"),
        ("unknown kid", of_rsa(json!({"alg": "ES256", "kid": "none"})), "jwt_key_unknown"),
        ("long kid", of_rsa(json!({"alg": "ES256", "kid": "k".repeat(200)})), "jwt_malformed"),
        (
            "a key of its own",
            of_rsa(json!({"alg": "ES256", "kid": "own", "jwk": ec_jwk("own", &cluster.ec)})),
            "jwt_key_unknown",
        ),
        ("critical", of_rsa(json!({"alg": "ES256", "kid": "ec", "crit": ["x"]})), "jwt_malformed"),
        ("another cluster's", stranger, "jwt_signature"),
        ("another's signature", swapped, "jwt_signature"),
        ("no signature", format!("{body}."), "jwt_signature"),
        ("two parts", body.to_owned(), "jwt_malformed"),
        ("no JWT", "hello".to_owned(), "jwt_malformed"),
        ("oversize", big, "malformed"),
        ("empty", " ".to_owned(), "malformed"),
    ];
    for (what, token, expected) in table {
        assert_eq!(cluster.attest(&token).await.err(), Some(expected), "{what}");
    }
    assert!(cluster.attest(&good).await.is_ok());
}
