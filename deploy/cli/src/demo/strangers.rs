//! The chapters about strangers: one who speaks plaintext or waits, one who has a certificate of
//! another trust domain. Called by `Story::tell`.
//! Never: takes the stranger's word for it; the sidecar's own metrics must name the reason.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use super::outsider;
use super::scrape::{Metrics, SIDECAR_OPS};
use super::story::Story;

/// Clients of the mesh are counted beside strangers; this outcome word is for strangers alone.
const PLAINTEXT_WORD: &str = "plaintext_refused";

/// The stranger's CA is in nobody's bundle.
const FOREIGN_WORDS: [&str; 2] = ["untrusted_root", "wrong_trust_domain"];

const FOREIGN_ID: &str = "spiffe://other.example/ns/demo/sa/client";

/// A connection's outcome is counted when the connection has ended, which is after the stranger knows.
const COUNT_LIMIT: Duration = Duration::from_secs(3);

impl Story<'_> {
    pub(super) async fn plaintext_stranger(&mut self) -> Result<()> {
        self.view.chapter(
            "plaintext",
            "A stranger without a sidecar knocks",
            "It sends an HTTP request in plaintext; then it connects to the greeter and waits for its first word.",
        );
        self.capture = None;
        let (web, greeter) = self.doors();
        let before = self.outcomes(&[PLAINTEXT_WORD]).await?;
        let request = format!("GET / HTTP/1.1\r\nHost: {web}\r\n\r\n");
        let spoken = outsider::speak_plaintext(&self.stage.pods.stranger, web, &request).await?;
        let waited =
            outsider::say_nothing(&self.stage.pods.stranger, greeter, self.pace.silence).await?;
        let counted = self.counted(&[PLAINTEXT_WORD], &before).await?;
        let measured = format!(
            "asked: {}; waited: {}; reason word: {}",
            spoken.words(),
            waited.words(),
            reason(&counted)
        );
        let holds = spoken.nothing() && waited.nothing() && !counted.is_empty();
        self.claim("plaintext", "A plaintext client is refused, unheard", holds, measured);
        Ok(())
    }

    pub(super) async fn foreign_stranger(&mut self) -> Result<()> {
        self.view.chapter(
            "foreign",
            "A client of another trust domain knocks",
            "Its certificate is flawless, from a CA of its own, for spiffe://other.example/ns/demo/sa/client.",
        );
        let (web, greeter) = self.doors();
        let before = self.outcomes(&FOREIGN_WORDS).await?;
        let first =
            outsider::present_foreign_svid(&self.stage.pods.stranger, web, FOREIGN_ID).await?;
        let second =
            outsider::present_foreign_svid(&self.stage.pods.stranger, greeter, FOREIGN_ID).await?;
        let counted = self.counted(&FOREIGN_WORDS, &before).await?;
        let sum: u64 = counted.iter().map(|(_, count)| count).sum();
        let measured = format!(
            "http: {}; greeter: {}; reason word: {}",
            first.words(),
            second.words(),
            reason(&counted)
        );
        let holds = first.nothing() && second.nothing() && sum == 2;
        self.claim("foreign", "A client of another trust domain is refused", holds, measured);
        Ok(())
    }

    /// The two services, as a stranger would dial them.
    fn doors(&self) -> (SocketAddr, SocketAddr) {
        let server = &self.stage.pods.server;
        (SocketAddr::new(server.v4(), 8080), SocketAddr::new(server.v6(), 7070))
    }

    /// How often the server's sidecar ended an inbound connection with each of these words.
    async fn outcomes(&self, words: &[&'static str]) -> Result<Vec<(&'static str, u64)>> {
        let metrics = Metrics::of(&self.stage.pods.server, SIDECAR_OPS).await?;
        let count = |word: &&'static str| {
            let labels = [("direction", "inbound"), ("outcome", *word)];
            (*word, metrics.count("myelin_connections_closed_total", &labels))
        };
        Ok(words.iter().map(count).collect())
    }

    /// What was counted since `before`; waits a moment for the first count.
    async fn counted(
        &mut self,
        words: &[&'static str],
        before: &[(&'static str, u64)],
    ) -> Result<Vec<(&'static str, u64)>> {
        let deadline = tokio::time::Instant::now() + COUNT_LIMIT;
        loop {
            let now = self.outcomes(words).await?;
            let pairs = now.iter().zip(before);
            let grown = pairs.map(|((word, now), (_, before))| (*word, now - before));
            let grown: Vec<_> = grown.filter(|(_, count)| *count > 0).collect();
            if !grown.is_empty() || tokio::time::Instant::now() > deadline {
                return Ok(grown);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// `untrusted_root ×2`, as the sidecar counted it.
fn reason(counted: &[(&'static str, u64)]) -> String {
    if counted.is_empty() {
        return "NONE COUNTED".to_owned();
    }
    let each = counted.iter().map(|(word, count)| format!("{word} ×{count}"));
    each.collect::<Vec<_>>().join(", ")
}
