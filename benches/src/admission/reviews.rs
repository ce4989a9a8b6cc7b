//! Admission reviews, and an API server's way to send them: HTTP/1.1 over TLS, verified against the
//! registered certificate. Called by `mod`.
//!
//! Never: takes an answer for good that does not allow the pod and patch it.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Of every kind of workload, and the two that cost the most: many probes, many init containers.
const FIXTURES: [&str; 7] = [
    include_str!("../../../deploy/controller/fixtures/deployment.json"),
    include_str!("../../../deploy/controller/fixtures/statefulset.json"),
    include_str!("../../../deploy/controller/fixtures/daemonset.json"),
    include_str!("../../../deploy/controller/fixtures/job.json"),
    include_str!("../../../deploy/controller/fixtures/cronjob.json"),
    include_str!("../../../deploy/controller/fixtures/every-probe.json"),
    include_str!("../../../deploy/controller/fixtures/init-containers.json"),
];

/// One review, and when its turn is.
pub(super) struct Review {
    body: Bytes,
    turn: usize,
}

pub(super) type Connection = SendRequest<Full<Bytes>>;

/// How to reach the webhook.
pub(super) struct Door {
    address: SocketAddr,
    name: &'static str,
    tls: TlsConnector,
}

impl Review {
    pub(super) fn all() -> Vec<Self> {
        let review =
            |text: &'static str| Self { body: Bytes::from_static(text.as_bytes()), turn: 0 };
        FIXTURES.map(review).into()
    }

    pub(super) fn at(&self, turn: usize) -> Self {
        Self { body: self.body.clone(), turn }
    }

    pub(super) fn turn(&self) -> usize {
        self.turn
    }
}

impl Door {
    pub(super) fn new(
        address: SocketAddr,
        name: &'static str,
        certificate: CertificateDer<'static>,
    ) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { address, name, tls: TlsConnector::from(Arc::new(config)) })
    }

    pub(super) async fn dial(&self) -> Result<Connection> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream = self.tls.connect(ServerName::try_from(self.name)?, stream).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // Its errors come back from the request that meets them.
        tokio::spawn(connection);
        Ok(sender)
    }

    /// Sends one review and looks at what comes back.
    pub(super) async fn ask_on(&self, on: &mut Connection, review: &Review) -> Result<()> {
        let request = Request::post("/inject?timeout=5s")
            .header(HOST, self.name)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(review.body.clone()))?;
        on.ready().await?;
        let answer = on.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "the webhook said {status}");
        let said: Value = serde_json::from_slice(&body).context("the webhook said no JSON")?;
        let response = &said["response"];
        let patched = response["patch"].as_str().is_some_and(|patch| !patch.is_empty());
        ensure!(response["allowed"] == true && patched, "no patched pod came back: {response}");
        Ok(())
    }
}
