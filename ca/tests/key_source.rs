//! T48: the server of the service-account issuer's keys accepts and then says nothing. A pod whose
//! key is at hand goes on as if nothing were, a stranger is refused, and the source's return is seen.
//!
//! Never: an assertion about speed; what came before what is asked.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod harness;

use std::sync::Arc;
use std::time::Duration;

use harness::web::{WebCa, http};
use harness::*;
use myelin_ca::config::{AttestConfig, KeysConfig, KubernetesConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tonic::Code;

/// Longer than all waits of the CA together; only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(60);
const ISSUES: usize = 4;

/// A server of keys that answers, or hears the question and says nothing.
struct KeySource {
    url: String,
    /// `None`: silence.
    answer: watch::Sender<Option<Vec<u8>>>,
    /// How many questions hang now.
    hanging: watch::Receiver<usize>,
}

impl KeySource {
    async fn start(web: &WebCa, jwks: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/openid/v1/jwks", listener.local_addr().unwrap());
        let answer = watch::Sender::new(Some(http("200 OK", jwks)));
        let (hang, hanging) = watch::channel(0);
        let (acceptor, answers) = (TlsAcceptor::from(Arc::new(web.server())), answer.subscribe());
        let hang = Arc::new(hang);
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, answers, hang) = (acceptor.clone(), answers.clone(), hang.clone());
                tokio::spawn(async move {
                    let mut tls = acceptor.accept(tcp).await?;
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(tls.read_u8().await?);
                    }
                    let said = answers.borrow().clone();
                    if let Some(said) = said {
                        tls.write_all(&said).await?;
                        return tls.shutdown().await;
                    }
                    hang.send_modify(|hanging| *hanging += 1);
                    let _ = tls.read_u8().await;
                    hang.send_modify(|hanging| *hanging -= 1);
                    Ok(())
                });
            }
        });
        Self { url, answer, hanging }
    }

    fn say(&self, jwks: Option<&str>) {
        self.answer.send_replace(jwks.map(|jwks| http("200 OK", jwks)));
    }

    async fn until(&self, wanted: impl FnMut(&usize) -> bool) {
        self.hanging.clone().wait_for(wanted).await.unwrap();
    }
}

/// As a pod would: until it is no longer refused with this word.
async fn ask_until_other(
    ca: &TestCa,
    host: &Host,
    token: &str,
    word: &str,
) -> Result<Held, tonic::Status> {
    loop {
        match issue(&ca.target(), host, By::Pod(token, None), &Intent::new()).await {
            Err(status) if reason(&status) == word => {}
            other => return other,
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn source_of_keys_that_hangs_holds_up_no_pod_whose_key_is_at_hand() {
    let (here, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let cluster = Cluster::new(here.path());
    let later = Cluster::with_key(elsewhere.path(), "two");
    let jwks = |cluster: &Cluster| std::fs::read_to_string(&cluster.jwks).unwrap();
    let web = WebCa::new();
    let source = KeySource::start(&web, &jwks(&cluster)).await;
    let trusted = here.path().join("ca.pem");
    std::fs::write(&trusted, web.authority.pem()).unwrap();
    let keys = KeysConfig::Https { url: source.url.clone(), ca: trusted, bearer_file: None };
    let kubernetes = Some(KubernetesConfig { issuer: ISSUER.to_owned(), keys, review: None });
    let attest = AttestConfig { kubernetes, machine_ca: None };
    let ca = TestCa::start_attesting(attest, &["shop"]).await;
    let now = ca.clock().seconds();

    source.say(None);
    // One pod, as its API server signs for it now, and will sign once it has another key.
    let [known, unknown] = [&cluster, &later].map(|it| it.token("shop", "web", "uid-1", now));
    let (host, other) = (Host::new(), Host::new());
    let stranger = ask_until_other(&ca, &other, &unknown, "jwt_key_unknown");
    let pod = async {
        source.until(|hanging| *hanging > 0).await;
        for _ in 0..ISSUES {
            let by = By::Pod(&known, None);
            issue(&ca.target(), &host, by, &Intent::new()).await.unwrap();
        }
        assert_ne!(*source.hanging.borrow(), 0, "the pod waited for the source");
    };
    let both = tokio::time::timeout(PATIENCE, Box::pin(async { tokio::join!(stranger, pod) }));
    let (refused, ()) = both.await.unwrap();
    assert_refused(refused, Code::Unavailable, "jwt_keys_unavailable");

    // The twin: the same token is good once the source says so, without a restart.
    source.say(Some(&jwks(&later)));
    let back = ask_until_other(&ca, &host, &unknown, "jwt_keys_unavailable");
    tokio::time::timeout(PATIENCE, back).await.unwrap().unwrap();
}
