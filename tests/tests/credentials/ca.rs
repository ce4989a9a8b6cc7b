//! A real CA in this process, on loopback, with lifetimes of seconds; it can be stopped and come
//! back on the same ports with the same data.
//!
//! Never: reaches into the CA past what an operator may ask.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::time::Duration;

use myelin_ca::app::{Builder, Running};
use myelin_ca::authority::Settings;
use myelin_ca::authority::tokens::TokenRequest;
use myelin_ca::config::{AttestConfig, Keys, ServeConfig, StoreConfig};
use myelin_ca::operator::{Answer, Ask, SvidLine};
use myelin_ca::template::Lifetimes;
use myelin_identity::id::TrustDomain;
use myelin_identity::issuance::JoinToken;

pub(crate) const TRUST_DOMAIN: &str = "example.org";
pub(crate) const WEB: &str = "spiffe://example.org/ns/shop/sa/web";
pub(crate) const DB: &str = "spiffe://example.org/ns/shop/sa/db";

pub(crate) fn trust_domain() -> TrustDomain {
    TrustDomain::parse(TRUST_DOMAIN).unwrap()
}

pub(crate) struct Ca {
    config: ServeConfig,
    running: Option<Running>,
    _data: tempfile::TempDir,
}

impl Ca {
    /// `life` is that of the SVIDs it issues; below five minutes, as only tests may.
    pub(crate) async fn start(life: Duration) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut config = ServeConfig {
            trust_domain: trust_domain(),
            data: data.path().join("ca"),
            store: StoreConfig::Embedded,
            keys: Keys::default(),
            root_cert: None,
            listen: "127.0.0.1:0".parse().unwrap(),
            ops_listen: "127.0.0.1:0".parse().unwrap(),
            attest: AttestConfig::default(),
            witnesses: myelin_ca::config::WitnessConfig::default(),
            authority: Settings {
                lifetimes: Lifetimes {
                    default: life,
                    shortest: Duration::from_secs(4),
                    longest: myelin_ca::template::MAX_LIFETIME,
                },
                own_addresses: vec!["127.0.0.1".parse().unwrap()],
                own_names: Vec::new(),
                kubernetes_namespaces: Vec::new(),
                rotate_root_every: None,
            },
            federation: None,
        };
        let running = Builder::new(config.clone()).start().await.unwrap();
        (config.listen, config.ops_listen) = (running.grpc, running.ops);
        Self { config, running: Some(running), _data: data }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.config.listen
    }

    pub(crate) async fn stop(&mut self) {
        self.running.take().unwrap().stop().await;
    }

    pub(crate) async fn come_back(&mut self) {
        self.running = Some(Builder::new(self.config.clone()).start().await.unwrap());
    }

    /// A token for this ID at this address, for a few minutes.
    pub(crate) async fn token(&self, id: &str, address: &str) -> JoinToken {
        let request = TokenRequest {
            spiffe_id: id.to_owned(),
            addresses: vec![address.parse().unwrap()],
            ports: Vec::new(),
            protocol: String::new(),
            ttl_seconds: 300,
        };
        match self.ask(Ask::CreateToken(request)).await {
            Answer::Token(made) => made.token.parse().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// Every live SVID, as `myelin-ca svid list` shows it.
    pub(crate) async fn svids(&self) -> Vec<SvidLine> {
        match self.ask(Ask::ListSvids).await {
            Answer::Svids(lines) => lines,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn deny_epoch(&self) -> u64 {
        self.running.as_ref().unwrap().authority().deny_epoch()
    }

    async fn ask(&self, question: Ask) -> Answer {
        self.running.as_ref().unwrap().ask(question).await.unwrap()
    }
}
