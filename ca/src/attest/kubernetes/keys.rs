//! The issuer's public keys (a JWKS), from a file or over HTTPS: cached, read again when they are
//! old or a token names one that is not there, and never more often than that is useful.
//!
//! Never: asks the source for each request, forgets good keys because the source is away, or keeps
//! a caller whose key is at hand waiting for somebody else's look at the source.

// SPDX-License-Identifier: Apache-2.0

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jsonwebtoken::jwk::{Jwk, JwkSet};
use tokio::time::{Instant, timeout};

use super::super::Evidence;
use super::fetch::{FetchError, HttpsSource};
use crate::datadir::read_bounded;

/// Most keys of one issuer: two during a rotation, with room for a careless one.
const MAX_KEYS: usize = 64;
/// Largest key set: [`MAX_KEYS`] RSA keys of 4096 bits with their certificates left out.
pub(super) const MAX_JWKS_BYTES: usize = 128 * 1024;
/// A key set is read again after this: a key that the issuer withdrew is refused soon after.
const FRESH_FOR: Duration = Duration::from_secs(5 * 60);
/// An unknown key id makes us look again this long after the last look ended, whatever strangers
/// send: a source that hangs is not asked without a pause.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// While the source is away its keys still count for this long, so that its outage is not ours.
const KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);
/// One reading of the source; the sidecar waits for it.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// Where keys come from.
#[derive(Debug)]
pub enum Source {
    File(PathBuf),
    Https(HttpsSource),
}

#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("cannot read {}: {cause}", path.display())]
    File { path: PathBuf, cause: std::io::Error },
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the source took longer than {READ_WITHIN:?}")]
    TooSlow,
    #[error("the keys are no JWKS: {0}")]
    Malformed(String),
    #[error("the keys have {0} bytes, more than {MAX_JWKS_BYTES}")]
    TooLarge(usize),
    #[error("there are {0} keys, expected 1 to {MAX_KEYS}")]
    Count(usize),
}

/// The cached keys of one issuer.
pub struct Jwks {
    source: Source,
    /// Locked for a moment only, never over an await.
    held: Mutex<Held>,
    /// Held by the one caller who looks at the source, for as long as that takes.
    looking: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Held {
    /// With the moment at which they were asked for.
    keys: Option<(Arc<JwkSet>, Instant)>,
    /// The last look, good or not: when it began, then when it ended.
    looked: Option<Instant>,
    /// Why the last reading brought nothing.
    failed: Option<String>,
}

impl Jwks {
    pub fn new(source: Source) -> Self {
        Self { source, held: Mutex::default(), looking: tokio::sync::Mutex::default() }
    }

    /// Reads the keys once, so that a mistake is seen at start.
    pub async fn prime(&self) -> Result<usize, KeysError> {
        let asked = Instant::now();
        let keys = self.read().await?;
        let count = keys.keys.len();
        self.held().took(keys, asked);
        Ok(count)
    }

    /// The key with this id. One caller at a time looks at the source. Meanwhile the others go on
    /// with a key that is at hand, and wait for what is found only if they have none.
    pub(super) async fn key(&self, kid: &str) -> Result<Jwk, Evidence> {
        let now = Instant::now();
        if let Some(key) = self.held().find(kid, now, FRESH_FOR) {
            return Ok(key);
        }
        let looking = match self.looking.try_lock() {
            Ok(looking) => looking,
            Err(_) => {
                let kept = self.held().find(kid, now, KEPT_FOR);
                match kept {
                    Some(key) => return Ok(key),
                    None => self.looking.lock().await,
                }
            }
        };
        if self.held().due(Instant::now()) {
            self.look().await;
        }
        drop(looking);
        let held = self.held();
        match (held.find(kid, Instant::now(), KEPT_FOR), &held.failed) {
            (Some(key), _) => Ok(key),
            (None, Some(why)) => Err(Evidence::TokenKeysUnavailable(why.clone())),
            (None, None) => Err(Evidence::TokenKey { kid: kid.to_owned() }),
        }
    }

    /// Reads the source once. Who holds `looking` calls this.
    async fn look(&self) {
        let asked = Instant::now();
        // Also if this caller goes away before the source has answered.
        self.held().looked = Some(asked);
        match self.read().await {
            Ok(keys) => self.held().took(keys, asked),
            Err(error) => {
                tracing::warn!(%error, "the keys of the service-account issuer cannot be read");
                self.held().missed(error.to_string());
            }
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // Whatever panicked left whole values behind: each is assigned at once.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self) -> Result<JwkSet, KeysError> {
        let reading = async {
            match &self.source {
                Source::File(path) => read_file(path.clone()).await,
                Source::Https(source) => Ok(source.get(MAX_JWKS_BYTES, READ_WITHIN).await?),
            }
        };
        let bytes = timeout(READ_WITHIN, reading).await.map_err(|_| KeysError::TooSlow)??;
        parse(&bytes)
    }
}

impl Held {
    /// The key, if the set that holds it was asked for less than `within` ago.
    fn find(&self, kid: &str, now: Instant, within: Duration) -> Option<Jwk> {
        let (keys, asked) = self.keys.as_ref()?;
        if now - *asked >= within { None } else { keys.find(kid).cloned() }
    }

    fn due(&self, now: Instant) -> bool {
        self.looked.is_none_or(|looked| now - looked >= LOOK_AGAIN_AFTER)
    }

    fn took(&mut self, keys: JwkSet, asked: Instant) {
        self.keys = Some((Arc::new(keys), asked));
        (self.failed, self.looked) = (None, Some(Instant::now()));
    }

    fn missed(&mut self, why: String) {
        (self.failed, self.looked) = (Some(why), Some(Instant::now()));
    }
}

async fn read_file(path: PathBuf) -> Result<Vec<u8>, KeysError> {
    let at = path.clone();
    let read = tokio::task::spawn_blocking(move || read_bounded(&at, MAX_JWKS_BYTES as u64));
    let read = read.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    read.map_err(|cause| KeysError::File { path, cause })
}

fn parse(bytes: &[u8]) -> Result<JwkSet, KeysError> {
    if bytes.len() > MAX_JWKS_BYTES {
        return Err(KeysError::TooLarge(bytes.len()));
    }
    let keys: JwkSet =
        serde_json::from_slice(bytes).map_err(|error| KeysError::Malformed(error.to_string()))?;
    if !(1..=MAX_KEYS).contains(&keys.keys.len()) {
        return Err(KeysError::Count(keys.keys.len()));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"one","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

    fn named(kid: &str) -> String {
        ONE.replace("one", kid)
    }

    fn refused(answer: Result<Jwk, Evidence>) -> bool {
        matches!(answer, Err(Evidence::TokenKey { .. }))
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_key_makes_us_look_again_but_not_at_each_request() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jwks");
        std::fs::write(&path, named("one")).unwrap();
        let keys = Jwks::new(Source::File(path.clone()));
        assert_eq!(keys.prime().await.unwrap(), 1);
        assert!(keys.key("one").await.is_ok());
        std::fs::write(&path, named("two")).unwrap();
        assert!(refused(keys.key("two").await), "looked a moment ago");
        tokio::time::advance(LOOK_AGAIN_AFTER).await;
        assert!(keys.key("two").await.is_ok());
        assert!(refused(keys.key("one").await), "withdrawn");
    }

    #[tokio::test(start_paused = true)]
    async fn withdrawn_key_is_refused_once_the_set_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jwks");
        std::fs::write(&path, named("one")).unwrap();
        let keys = Jwks::new(Source::File(path.clone()));
        assert!(keys.key("one").await.is_ok());
        std::fs::write(&path, named("two")).unwrap();
        tokio::time::advance(FRESH_FOR).await;
        assert!(refused(keys.key("one").await));
    }

    #[tokio::test(start_paused = true)]
    async fn source_that_is_away_is_bridged_for_a_day() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jwks");
        std::fs::write(&path, named("one")).unwrap();
        let keys = Jwks::new(Source::File(path.clone()));
        assert!(keys.key("one").await.is_ok());
        std::fs::remove_file(&path).unwrap();
        tokio::time::advance(FRESH_FOR).await;
        assert!(keys.key("one").await.is_ok(), "the last that was heard");
        let other = keys.key("two").await.unwrap_err();
        assert!(matches!(other, Evidence::TokenKeysUnavailable(_)), "{other}");
        tokio::time::advance(KEPT_FOR).await;
        let late = keys.key("one").await.unwrap_err();
        assert!(matches!(late, Evidence::TokenKeysUnavailable(_)), "{late}");
    }

    /// A server that accepts and never answers, and keys that are at hand but old.
    async fn hanging() -> Jwks {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/jwks", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok(accepted) = listener.accept().await {
                open.push(accepted);
            }
        });
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = rcgen::CertificateParams::default().self_signed(&key).unwrap().pem();
        let clock = crate::clock::Clock::new(rustls_pki_types::UnixTime::now);
        let source = HttpsSource::new(&url, "/ca.pem".into(), ca.as_bytes(), None, &clock).unwrap();
        let keys = Jwks::new(Source::Https(source));
        keys.held().took(parse(ONE.as_bytes()).unwrap(), Instant::now());
        tokio::time::advance(FRESH_FOR).await;
        keys
    }

    #[tokio::test(start_paused = true)]
    async fn source_that_hangs_holds_up_nobody_whose_key_is_at_hand() {
        let keys = Arc::new(hanging().await);
        let from = Instant::now();
        let all: Vec<_> = (0..20)
            .map(|_| {
                let keys = Arc::clone(&keys);
                tokio::spawn(async move { (keys.key("one").await, Instant::now()) })
            })
            .collect();
        let mut waited = Vec::new();
        for one in all {
            let (key, at) = one.await.unwrap();
            assert!(key.is_ok());
            waited.push(at - from);
        }
        waited.sort();
        assert!(waited[18].is_zero(), "only one looks: {waited:?}");
        assert!(waited[19] <= READ_WITHIN + Duration::from_millis(10), "{waited:?}");
        // The look has ended a moment ago: the next one is not made yet.
        assert!(keys.key("one").await.is_ok());
        assert!(from.elapsed() <= READ_WITHIN + Duration::from_millis(10), "{:?}", from.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn stranger_who_names_unknown_keys_holds_up_nobody() {
        let keys = Arc::new(hanging().await);
        let stranger = Arc::clone(&keys);
        let stranger = tokio::spawn(async move { stranger.key("two").await });
        tokio::task::yield_now().await;
        let from = Instant::now();
        assert!(keys.key("one").await.is_ok());
        assert!(from.elapsed().is_zero());
        let refused = stranger.await.unwrap().unwrap_err();
        assert!(matches!(refused, Evidence::TokenKeysUnavailable(_)), "{refused}");
    }

    #[test]
    fn what_is_no_key_set_is_refused() {
        let many = format!("{{\"keys\":[{}]}}", vec!["{}"; MAX_KEYS + 1].join(","));
        for wrong in ["", "{}", "{\"keys\":[]}", &many, &" ".repeat(MAX_JWKS_BYTES + 1)] {
            assert!(parse(wrong.as_bytes()).is_err(), "{}", &wrong[..wrong.len().min(40)]);
        }
        assert!(parse(ONE.as_bytes()).is_ok());
    }
}
