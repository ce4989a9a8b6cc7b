//! The messages of both sides: what they become, and what is refused.
//! Never: a socket.

// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::id::SpiffeId;

fn place() -> SocketAddr {
    "10.96.0.80:80".parse().unwrap()
}

fn view() -> ServiceView {
    let endpoint = |address: &str, account: &str, zone: Option<&str>, terminating| EndpointView {
        address: address.parse().unwrap(),
        id: SpiffeId::parse(&format!("spiffe://td.example/ns/shop/sa/{account}")).unwrap(),
        zone: zone.map(Into::into),
        terminating,
    };
    ServiceView {
        name: "shop/web".to_owned(),
        endpoints: vec![
            endpoint("10.1.0.1:8080", "web", Some("a"), false),
            endpoint("10.1.0.2:8080", "web", Some("b"), true),
            endpoint("[fd00::3]:8080", "web-next", None, false),
        ],
        unmeshed: 2,
    }
}

fn heard(wire: proto::ServiceAnswer) -> Result<ServiceAnswer, ServicesError> {
    // As it comes from the wire.
    ServiceAnswer::try_from(proto::ServiceAnswer::decode(&*wire.encode_to_vec()).unwrap())
}

#[test]
fn a_service_arrives_as_it_was_and_only_once() {
    let encoded = EncodedService::new(&view());
    let version = encoded.version();
    let answer = heard(encoded.answer(place(), None, "a")).unwrap();
    assert_eq!((answer.place, answer.zone.as_deref()), (place(), Some("a")));
    assert_eq!(answer.said, Said::Service(version, view()));
    let again = heard(encoded.answer(place(), Some(version), "")).unwrap();
    assert_eq!((again.said, again.zone), (Said::Unchanged(version), None));
    let mut changed = view();
    changed.endpoints[0].terminating = true;
    let changed = EncodedService::new(&changed);
    assert_ne!(changed.version(), version);
    let news = heard(changed.answer(place(), Some(version), "")).unwrap();
    assert!(matches!(news.said, Said::Service(..)), "{news:?}");
    assert_eq!(heard(no_service(place(), "")).unwrap().said, Said::NotAService);
}

#[test]
fn a_question_arrives_as_it_was() {
    let known = Some(EncodedService::new(&view()).version());
    for (forget, known) in [(false, None), (true, None), (false, known)] {
        let question = ServiceQuestion { place: place(), forget, known };
        assert_eq!(ServiceQuestion::try_from(proto::ServiceQuestion::from(question)), Ok(question));
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let question = proto::ServiceQuestion::from(ServiceQuestion {
        place: place(),
        forget: false,
        known: None,
    });
    for wrong in [
        proto::ServiceQuestion { address: vec![1, 2, 3], ..question.clone() },
        proto::ServiceQuestion { port: 0, ..question.clone() },
        proto::ServiceQuestion { port: 65_536, ..question.clone() },
        proto::ServiceQuestion { known: vec![0; 15], ..question },
    ] {
        assert!(ServiceQuestion::try_from(wrong.clone()).is_err(), "{wrong:?}");
    }
    let good = EncodedService::new(&view()).answer(place(), None, "");
    let with = |service: proto::Service| {
        let service = Bytes::from(service.encode_to_vec());
        let version = ServiceVersion::of(&service).to_vec();
        proto::ServiceAnswer { service, version, ..good.clone() }
    };
    let service = view().to_proto();
    let many = vec![service.endpoints[0].clone(); MAX_ENDPOINTS_TOLD + 1];
    for wrong in [
        proto::ServiceAnswer { version: vec![0; 16], ..good.clone() },
        proto::ServiceAnswer { zone: "z".repeat(MAX_ZONE_BYTES + 1), ..good.clone() },
        with(proto::Service { spiffe_ids: Vec::new(), ..service.clone() }),
        with(proto::Service { spiffe_ids: vec!["web".to_owned(); 2], ..service.clone() }),
        with(proto::Service { zones: Vec::new(), ..service.clone() }),
        with(proto::Service { endpoints: many, ..service }),
    ] {
        assert!(heard(wrong.clone()).is_err(), "{wrong:?}");
    }
}
