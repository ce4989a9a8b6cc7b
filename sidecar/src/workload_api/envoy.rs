//! Envoy's secret discovery (SDS v3, state of the world): the workload's certificate under
//! `default` or its SPIFFE ID, the roots under `ROOTCA` or the trust domain's ID, those of a foreign
//! domain under that one's ID, and all of them, each for its own names, under `ALL`. A foreign domain
//! that is not federated, or is no longer, has the root of nobody: its stream goes on with the
//! rest. Called by the gRPC server through `door`.
//!
//! Never: sends what was not asked for, leaves a proxy with roots that no longer count, or sends
//! again what it has refused before there is something else to send.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::sync::LazyLock;

use myelin_identity::id::TrustDomain;
use myelin_identity::pem;
use prost::Message as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::follow::{ANSWERS_QUEUED, Answers, Desk, LOOK_AGAIN, Place, word};
use super::offer::{Offer, Roots, Version};
use super::stubs::secrets::secret::Type;
use super::stubs::secrets::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use super::stubs::secrets::{
    Any, CertificateValidationContext, DataSource, DiscoveryRequest, DiscoveryResponse, NotRead,
    Secret, SpiffeCertValidatorConfig, TlsCertificate, TypedExtensionConfig,
    spiffe_cert_validator_config,
};
use crate::metrics::WorkloadCall;

const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const CERTIFICATE: &str = "default";
const ROOTS: &str = "ROOTCA";
/// Every trust domain's roots at once: Envoy's SPIFFE validator keeps them apart.
const ALL: &str = "ALL";
const VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";
const VALIDATOR_CONFIG: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";

/// A first request describes the whole proxy, with every extension that it was built with.
const MAX_REQUEST_BYTES: usize = 512 * 1024;
/// Names in one request: a certificate's, and some trust domains'.
const MAX_NAMES: usize = 16;
/// Of a proxy's complaint, what goes into our log.
const MAX_QUOTED_CHARACTERS: usize = 240;

pub(super) type SecretsService = SecretDiscoveryServiceServer<Secrets>;

#[derive(Clone)]
pub(super) struct Secrets {
    desk: Desk,
}

/// One proxy's stream: what it wants and what it was told.
#[derive(Default)]
struct Conversation {
    names: BTreeSet<String>,
    sent: u64,
    told: Option<Version>,
}

impl Secrets {
    pub(super) fn service(desk: Desk) -> SecretsService {
        SecretDiscoveryServiceServer::new(Self { desk })
            .max_decoding_message_size(MAX_REQUEST_BYTES)
    }

    /// Until the proxy leaves or the identity is withdrawn.
    async fn converse(
        &self,
        mut requests: Streaming<DiscoveryRequest>,
        sender: &mpsc::Sender<Result<DiscoveryResponse, Status>>,
        uid: u32,
    ) -> Result<(), Status> {
        let mut changes = self.desk.sources.changes();
        let mut conversation = Conversation::default();
        loop {
            if !conversation.names.is_empty()
                && let Some(offer) = self.desk.news(&mut conversation.told, Offer::version)?
            {
                let answer = conversation.answer(&offer)?;
                self.say_strangers(&conversation, &offer, uid);
                self.desk.metrics.workload_answer(WorkloadCall::Sds, "served");
                if sender.send(Ok(answer)).await.is_err() {
                    return Ok(());
                }
            }
            tokio::select! {
                request = requests.next() => match request {
                    Some(request) => {
                        if let Some(said) = conversation.note(request?)? {
                            self.complained(&said, uid);
                        }
                    }
                    None => return Ok(()),
                },
                () = changes.next() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = sender.closed() => return Ok(()),
            }
        }
    }

    /// Otherwise a mistyped domain would look like one whose peers are all refused.
    fn say_strangers(&self, conversation: &Conversation, offer: &Offer, uid: u32) {
        let mut strangers = conversation.names.iter().filter_map(|name| stranger(name, offer));
        if let Some(first) = strangers.next()
            && let Some(left_out) = self.desk.said.strangers.now(uid)
        {
            tracing::warn!(
                uid,
                trust_domain = %first,
                left_out,
                "workload API: a proxy asks for the roots of a domain with which there is no \
                 federation; it is given the root of nobody"
            );
        }
    }

    fn complained(&self, said: &str, uid: u32) {
        self.desk.metrics.workload_answer(WorkloadCall::Sds, "nack");
        if let Some(left_out) = self.desk.said.complaints.now(uid) {
            tracing::warn!(
                uid,
                said,
                left_out,
                "workload API: a proxy did not take over its certificate"
            );
        }
    }
}

impl Conversation {
    /// Takes a request; what it says against the last answer.
    fn note(&mut self, request: DiscoveryRequest) -> Result<Option<String>, Status> {
        if !matches!(request.type_url.as_str(), "" | SECRET) {
            return Err(Status::invalid_argument("only secrets are discovered on this socket"));
        }
        if request.resource_names.len() > MAX_NAMES {
            return Err(Status::invalid_argument("too many names in one request"));
        }
        // About an answer before the last one: the proxy had not read that yet.
        if !request.response_nonce.is_empty() && request.response_nonce != self.sent.to_string() {
            return Ok(None);
        }
        let names: BTreeSet<String> = request.resource_names.into_iter().collect();
        if names != self.names {
            self.names = names;
            self.told = None;
        }
        let Some(complaint) = request.error_detail else { return Ok(None) };
        let said: String = complaint
            .message
            .chars()
            .filter(|c| !c.is_control())
            .take(MAX_QUOTED_CHARACTERS)
            .collect();
        Ok(Some(said))
    }

    fn answer(&mut self, offer: &Offer) -> Result<DiscoveryResponse, Status> {
        let secrets = self.names.iter().map(|name| secret(name, offer));
        let secrets = secrets.collect::<Result<Vec<_>, _>>()?;
        self.sent += 1;
        let version = offer.version();
        Ok(DiscoveryResponse {
            version_info: version.to_string(),
            resources: secrets,
            type_url: SECRET.to_owned(),
            nonce: self.sent.to_string(),
        })
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for Secrets {
    type StreamSecretsStream = Answers<DiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let place: Place = self.desk.admit(WorkloadCall::Sds, &request)?;
        let (sender, answers) = mpsc::channel(ANSWERS_QUEUED);
        let secrets = self.clone();
        tokio::spawn(async move {
            let uid = place.uid;
            if let Err(status) = secrets.converse(request.into_inner(), &sender, uid).await {
                secrets.desk.metrics.workload_answer(WorkloadCall::Sds, word(&status));
                // A proxy that has left does not need to know.
                let _ = sender.send(Err(status)).await;
            }
            drop(place);
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    type DeltaSecretsStream = Answers<NotRead>;

    async fn delta_secrets(
        &self,
        _: Request<Streaming<NotRead>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(Status::unimplemented("set `api_type: GRPC` in the proxy's sds_config"))
    }

    async fn fetch_secrets(
        &self,
        _: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("secrets are streamed: set `api_type: GRPC`"))
    }
}

fn secret(name: &str, offer: &Offer) -> Result<Any, Status> {
    let (svid, own) = (&offer.svid.svid, offer.own());
    let all = || std::iter::once(&own).chain(&offer.foreign);
    let r#type = if name == CERTIFICATE || name == svid.id().as_str() {
        let chain = svid.chain().iter().map(|der| pem::encode("CERTIFICATE", der)).collect();
        let key = pem::encode("PRIVATE KEY", offer.svid.reveal_key());
        let (certificate_chain, private_key) = (inline(chain), inline(key));
        Type::TlsCertificate(TlsCertificate { certificate_chain, private_key })
    } else if name == ALL {
        Type::ValidationContext(by_domain(all()))
    } else if let Some(roots) = all().find(|roots| name == ROOTS || name == roots.name()) {
        let trusted_ca = inline(roots.pem());
        Type::ValidationContext(CertificateValidationContext {
            trusted_ca,
            custom_validator_config: None,
        })
    } else if stranger(name, offer).is_some() {
        let nobody = NOBODY.clone();
        let pem = nobody.ok_or_else(|| Status::internal("no root of nobody could be made"))?;
        Type::ValidationContext(CertificateValidationContext {
            trusted_ca: inline(pem),
            custom_validator_config: None,
        })
    } else {
        let id = svid.id();
        let domains: Vec<String> = all().map(|roots| format!("`{}`", roots.name())).collect();
        return Err(Status::invalid_argument(format!(
            "no secret has the name that was asked for; there are `{CERTIFICATE}`, `{id}`, \
             `{ROOTS}`, `{ALL}`, {}",
            domains.join(", ")
        )));
    };
    let secret = Secret { name: name.to_owned(), r#type: Some(r#type) };
    Ok(Any { type_url: SECRET.to_owned(), value: secret.encode_to_vec() })
}

/// The trust domain of a name that is one's, if its roots are not offered.
fn stranger(name: &str, offer: &Offer) -> Option<TrustDomain> {
    let domain = TrustDomain::parse(name.strip_prefix("spiffe://")?).ok()?;
    let held = |roots: &Roots| roots.trust_domain == domain;
    let is_offered = held(&offer.own()) || offer.foreign.iter().any(held);
    (!is_offered).then_some(domain)
}

/// A root whose key was dropped when it was made. A proxy takes over no context without a root, and
/// would go on with those that it has.
static NOBODY: LazyLock<Option<String>> = LazyLock::new(|| {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "nobody: there is no federation");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).ok()?;
    Some(pem::encode("CERTIFICATE", params.self_signed(&key).ok()?.der()))
});

fn inline(text: String) -> Option<DataSource> {
    Some(DataSource { inline_bytes: text.into_bytes() })
}

fn by_domain<'r>(domains: impl Iterator<Item = &'r Roots>) -> CertificateValidationContext {
    let trust_domains = domains.map(|roots| spiffe_cert_validator_config::TrustDomain {
        name: roots.trust_domain.to_string(),
        trust_bundle: inline(roots.pem()),
    });
    let config = SpiffeCertValidatorConfig { trust_domains: trust_domains.collect() };
    let value = config.encode_to_vec();
    let typed_config = Some(Any { type_url: VALIDATOR_CONFIG.to_owned(), value });
    let validator = TypedExtensionConfig { name: VALIDATOR.to_owned(), typed_config };
    CertificateValidationContext { trusted_ca: None, custom_validator_config: Some(validator) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload_api::stubs::secrets::Status as Complaint;

    fn request(names: &[&str], nonce: &str, complaint: Option<&str>) -> DiscoveryRequest {
        DiscoveryRequest {
            resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
            type_url: SECRET.to_owned(),
            response_nonce: nonce.to_owned(),
            error_detail: complaint.map(|said| Complaint { code: 13, message: said.to_owned() }),
            ..DiscoveryRequest::default()
        }
    }

    fn told() -> Option<Version> {
        let bundle = "00".repeat(32).parse().unwrap();
        Some(Version { serial: Some("1".to_owned()), bundle, foreign: [0; 32] })
    }

    #[test]
    fn what_was_taken_over_is_not_sent_again_and_other_names_are() {
        let mut held = Conversation::default();
        assert_eq!(held.note(request(&["default"], "", None)).unwrap(), None);
        (held.sent, held.told) = (1, told());
        assert_eq!(held.note(request(&["default"], "1", None)).unwrap(), None);
        assert_eq!(held.told, told(), "taken over");
        assert_eq!(
            held.note(request(&["default"], "1", Some("n\no"))).unwrap().as_deref(),
            Some("no")
        );
        assert_eq!(held.told, told(), "refused: the same again would be refused again");
        assert_eq!(held.note(request(&["ROOTCA"], "0", Some("late"))).unwrap(), None);
        assert_eq!(held.told, told(), "about an answer before the last");
        assert_eq!(held.note(request(&["default", "ROOTCA"], "1", None)).unwrap(), None);
        assert_eq!(held.told, None, "it wants something else");
    }

    #[test]
    fn other_kinds_of_resources_and_too_many_names_are_refused() {
        let mut held = Conversation::default();
        let names: Vec<String> = (0..=MAX_NAMES).map(|at| at.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert!(held.note(request(&names, "", None)).is_err());
        assert!(held.note(request(&names[1..], "", None)).is_ok());
        let of_clusters = "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned();
        let other = DiscoveryRequest { type_url: of_clusters, ..request(&["a"], "", None) };
        assert!(held.note(other).is_err());
    }
}
