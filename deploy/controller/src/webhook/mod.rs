//! The admission webhook: the API server asks over HTTPS what becomes of a pod, `inject` decides.
//! Called by `app`.
//!
//! Never: writes anything anywhere; asks anybody else before it answers; logs a pod.

// SPDX-License-Identifier: Apache-2.0

mod review;
#[cfg(test)]
pub(crate) mod tests;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::bundle::Held;
use crate::ca_address;
use crate::certificate::Identity;
use crate::door::{self, Answer};
use crate::inject::Settings;
use crate::metrics::{Metrics, Reviewed};

pub use self::review::{BadReview, Verdict, judge};

/// Where the API server asks. It asks only about pods that its selectors chose, by the namespace's
/// label or their own.
pub const PATH: &str = "/inject";

/// Connections at once: the API servers keep a few open each and open more in a burst.
const MAX_CONNECTIONS: usize = 128;

/// An object has at most 3 MiB (the API server's bound for a request); a review wraps one.
const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;

/// Bodies that are held at once; they are judged one after the other. A quarter of the memory that the
/// chart allows.
const MAX_REVIEWS: usize = 32;

/// For a TLS handshake. The whole question may take 5 s before the API server gives up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// For a question to arrive once its head has, its turn included.
const BODY_TIMEOUT: Duration = Duration::from_secs(4);

pub struct Webhook {
    settings: Settings,
    bundle: Held,
    ca: ca_address::Held,
    identity: Identity,
    metrics: Arc<Metrics>,
    reviews: Semaphore,
}

impl Webhook {
    pub fn new(
        settings: Settings,
        bundle: Held,
        ca: ca_address::Held,
        identity: Identity,
        metrics: Arc<Metrics>,
    ) -> Self {
        let reviews = Semaphore::new(MAX_REVIEWS);
        Self { settings, bundle, ca, identity, metrics, reviews }
    }

    /// Serves until dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) -> Infallible {
        let serve = |stream| {
            let webhook = Arc::clone(&self);
            async move { webhook.connection(stream).await }
        };
        door::each(listener, MAX_CONNECTIONS, serve).await
    }

    async fn connection(&self, stream: TcpStream) {
        // Without a certificate there is nothing to say; the API server asks another replica.
        let Some(identity) = self.identity.load_full() else { return };
        let handshake = TlsAcceptor::from(identity).accept(stream);
        match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => door::http(stream, |request| self.answer(request)).await,
            Ok(Err(why)) => tracing::debug!(%why, "a handshake of the webhook failed"),
            Err(_) => tracing::debug!("a handshake of the webhook took too long"),
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        if request.uri().path() != PATH {
            return plain(StatusCode::NOT_FOUND, "there is only POST /inject\n");
        }
        if *request.method() != Method::POST {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "there is only POST /inject\n");
        }
        let deadline = Instant::now() + BODY_TIMEOUT;
        let Ok(_turn) = tokio::time::timeout_at(deadline, self.reviews.acquire()).await else {
            return self.unready("has too many questions at once");
        };
        let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
        match tokio::time::timeout_at(deadline, body).await {
            Ok(Ok(body)) => self.review(&body.to_bytes()),
            Ok(Err(_)) => {
                self.unread(StatusCode::PAYLOAD_TOO_LARGE, "no review of a pod is so large")
            }
            Err(_) => self.unread(StatusCode::REQUEST_TIMEOUT, "the review did not arrive in time"),
        }
    }

    fn review(&self, body: &Bytes) -> Answer {
        let started = Instant::now();
        let Some(bundle) = self.bundle.load_full() else {
            return self.unready("holds no trust bundle yet: is ca.bundle_file there?");
        };
        let ca = self.ca.load_full();
        if ca.is_empty() {
            return self.unready("does not know the CA's address yet: is ca.service there?");
        }
        let bundle_pem = bundle.as_str().into();
        let settings = Settings { bundle_pem, ca: ca.to_vec(), ..self.settings.clone() };
        match judge(body, &settings) {
            Ok(verdict) => {
                let Verdict { answer, reviewed, warnings, what } = verdict;
                match reviewed {
                    Reviewed::Refused(reason) => tracing::warn!(pod = %what, reason, "refused"),
                    _ => tracing::debug!(pod = %what, ?reviewed, "reviewed"),
                }
                self.metrics.reviewed(reviewed, warnings, started.elapsed().as_secs_f64());
                door::answer(StatusCode::OK, "application/json", answer)
            }
            Err(why) => self.unread(StatusCode::BAD_REQUEST, &why.to_string()),
        }
    }

    fn unready(&self, why: &str) -> Answer {
        self.metrics.reviewed(Reviewed::Unready, 0, 0.0);
        plain(StatusCode::SERVICE_UNAVAILABLE, &format!("this injector {why}\n"))
    }

    fn unread(&self, status: StatusCode, why: &str) -> Answer {
        tracing::warn!(%why, "a question of the API server's was not understood");
        self.metrics.reviewed(Reviewed::Unreadable, 0, 0.0);
        plain(status, &format!("{why}\n"))
    }
}

fn plain(status: StatusCode, text: &str) -> Answer {
    door::answer(status, "text/plain; charset=utf-8", text.to_owned())
}
