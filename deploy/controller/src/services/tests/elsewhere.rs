//! Endpoints that somebody wrote at another address than their pod's, or twice; callers whose zone is known
//! only later; callers that ask too much.
//!
//! Never: a socket.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::services::{MAX_ASKED, Said, ServiceAnswer, ServiceQuestion, proto};

use super::*;
use crate::services::talk::Talk;

const CALLER: &str = "10.1.0.77";

fn ready(address: &str, pod: &str) -> Value {
    endpoint(address, pod, Some(true), false)
}

#[test]
fn an_endpoint_at_another_address_than_its_pods_is_left_out_and_counted() {
    let mut catalog = catalog();
    // Another pod's address, one of nobody, and its own.
    let forged =
        [ready("10.1.0.2", "first"), ready("10.8.8.8", "first"), ready("10.1.0.1", "first")];
    catalog.slices(News::All(vec![read(slice("web-1", &forged))]));
    let web = catalog.view(place(WEB)).unwrap();
    assert_eq!((shown(Some(&web)), web.unmeshed), (vec!["10.1.0.1:8080 web".to_owned()], 2));
    // The pod's own status may come later than its slice.
    catalog.pods(News::Now(read(pod_at("first", "web", &["10.1.0.1", "10.8.8.8"]))));
    let web = catalog.view(place(WEB)).unwrap();
    assert_eq!((web.endpoints.len(), web.unmeshed), (2, 1));
}

#[test]
fn an_address_is_told_once_whatever_two_slices_say_of_it() {
    let mut catalog = catalog();
    let going = endpoint("10.1.0.1", "first", Some(false), true);
    let slices = [
        slice("web-1", &[going, ready("10.1.0.2", "second")]),
        slice("web-2", &[ready("10.1.0.1", "first")]),
    ];
    catalog.slices(News::All(slices.into_iter().map(read).collect()));
    let web = catalog.view(place(WEB)).unwrap();
    assert_eq!(shown(Some(&web)), ["10.1.0.1:8080 web", "10.1.0.2:8080 default"]);
}

fn asks(at: SocketAddr, forget: bool) -> proto::ServiceQuestion {
    ServiceQuestion { place: at, forget, known: None }.into()
}

/// Of each answer, where it says that the caller is, and how many endpoints there are.
fn heard(talk: &mut Talk) -> Vec<(Option<String>, usize)> {
    talk.read(talk.mailbox().take());
    let mut heard = Vec::new();
    while talk.has_more() {
        let Some(answer) = talk.next() else { continue };
        let ServiceAnswer { said, zone, .. } = answer.try_into().unwrap();
        let Said::Service(_, view) = said else { panic!("{said:?}") };
        heard.push((zone, view.endpoints.len()));
    }
    heard
}

#[test]
fn a_zone_that_comes_late_reaches_whoever_asked_before() {
    let hub = fed();
    let mut caller = pod_at("caller", "web", &[CALLER]);
    caller["spec"]["nodeName"] = json!("");
    let node = |zone: Option<&str>| -> Node {
        let mut node = json!({ "metadata": { "name": "node-1" } });
        if let Some(zone) = zone {
            node["metadata"]["labels"] = json!({ "topology.kubernetes.io/zone": zone });
        }
        read(node)
    };
    let mut talk = Talk::new(hub.join(&[CALLER.parse().unwrap()]));
    let mut other = Talk::new(hub.join(&["10.1.0.78".parse().unwrap()]));
    for talk in [&mut talk, &mut other] {
        talk.note(asks(place(WEB), false)).unwrap();
        assert_eq!(heard(talk), [(None, 2)]);
    }
    // A pod that is not bound yet, and one that is, to a node without a zone.
    hub.pods(News::Now(read(caller.clone())));
    caller["spec"]["nodeName"] = json!("node-1");
    hub.pods(News::Now(read(caller)));
    hub.nodes(News::Now(node(None)));
    assert!(heard(&mut talk).is_empty());
    hub.nodes(News::Now(node(Some("a"))));
    assert_eq!(heard(&mut talk), [(Some("a".to_owned()), 2)]);
    hub.nodes(News::Now(node(Some("a"))));
    assert!(heard(&mut talk).is_empty(), "the same again is no news");
    // Bound when its node has a zone already, as most are.
    hub.pods(News::Now(read(pod_at("other", "web", &["10.1.0.78"]))));
    assert_eq!(heard(&mut other), [(Some("a".to_owned()), 2)]);
    assert!(heard(&mut talk).is_empty());
    hub.nodes(News::Gone(node(None).metadata));
    assert_eq!((heard(&mut talk), heard(&mut other)), (vec![(None, 2)], vec![(None, 2)]));
}

#[test]
fn more_places_than_a_stream_may_have_are_refused() {
    let mut talk = Talk::new(fed().join(&[]));
    let far = |number: usize| SocketAddr::from((u32::try_from(number).unwrap().to_be_bytes(), 80));
    for number in 1..=MAX_ASKED {
        talk.note(asks(far(number), false)).unwrap();
    }
    // The same once more takes no place.
    talk.note(asks(far(1), false)).unwrap();
    let refused = talk.note(asks(far(MAX_ASKED + 1), false)).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    talk.note(asks(far(1), true)).unwrap();
    talk.note(asks(far(MAX_ASKED + 1), false)).unwrap();
}
