//! Tables of the directory's routes.
//!
//! Never: a socket or a clock.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::services::{EncodedService, EndpointView, ServiceView};

use super::*;

const WEB: &str = "spiffe://td.example/ns/shop/sa/web";
const DB: &str = "spiffe://td.example/ns/shop/sa/db";

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn place(ip: &str, port: Option<u16>) -> Place {
    (ip.parse().unwrap(), port)
}

fn config() -> Config {
    Config {
        mesh: CidrSet::new(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]),
        exceptions: vec![
            Exception { name: "dns".into(), place: place("10.96.0.10", Some(53)) },
            Exception { name: "dns-2".into(), place: place("10.96.0.11", Some(53)) },
            Exception { name: "storage".into(), place: place("10.9.0.1", None) },
        ],
        services: vec![Service {
            name: "web".into(),
            address: address("10.96.0.80:80"),
            endpoints: vec![address("10.1.0.1:8080"), address("10.1.0.2:8080")],
            ids: vec![id(WEB)],
            protocol: Protocol::Myelin1,
            max_uses: None,
        }],
        peers: vec![
            StaticPeer {
                place: place("203.0.113.9", Some(5432)),
                id: id(DB),
                protocol: Protocol::Myelin1,
                nat: true,
                max_uses: NonZeroU32::new(1),
            },
            StaticPeer {
                place: place("10.2.0.1", None),
                id: id(DB),
                protocol: Protocol::PlainMtls { alpn: Some(b"h2".to_vec()) },
                nat: false,
                max_uses: None,
            },
        ],
    }
}

fn learned(answers: &[(&str, Option<u16>, Option<&str>)]) -> Learned {
    let answers = answers.iter().map(|(ip, port, resident)| Answer {
        place: place(ip, *port),
        resident: resident.map(|text| (id(text), Protocol::Myelin1)),
    });
    Learned::default().with(answers).0
}

/// A route in one line, so that tables stay readable.
fn routed(dst: &str, learned: &Learned, spin: u32) -> String {
    let now = Instant::now();
    routed_with(dst, learned, &Services::new(now, 7), spin, now)
}

fn routed_with(
    dst: &str,
    learned: &Learned,
    services: &Services,
    spin: u32,
    now: Instant,
) -> String {
    let directory = Directory::new(config());
    match directory.route(OrigDst(address(dst)), learned, services, spin, || now) {
        Route::Service(target, _) => {
            let Target { endpoint, expected, .. } = target;
            format!("service {endpoint} {} at {:?}", expected.ids[0].as_str(), expected.address)
        }
        Route::Unserved { name, unmeshed } => format!("unserved {name} {unmeshed}"),
        Route::Mesh(Target { endpoint, expected, protocol, .. }) => {
            let ids: Vec<&str> = expected.ids.iter().map(SpiffeId::as_str).collect();
            let at = expected.address.map_or_else(|| "anywhere".to_owned(), |ip| ip.to_string());
            let protocol = match protocol {
                Protocol::Myelin1 => "myelin/1".to_owned(),
                Protocol::PlainMtls { alpn } => {
                    format!("mtls:{}", String::from_utf8(alpn.unwrap_or_default()).unwrap())
                }
            };
            format!("mesh {endpoint} {} at {at} {protocol}", ids.join("|"))
        }
        Route::Plain(Plain::Exception(name)) => format!("plain: {name}"),
        Route::Plain(Plain::OutsideMesh) => "plain: outside".to_owned(),
        Route::Plain(Plain::OwnPod(_)) => "plain: own pod".to_owned(),
        Route::Ask { otherwise: Otherwise::Refuse } => "ask, else refuse".to_owned(),
        Route::Ask { otherwise: Otherwise::Plain } => "ask, else plain".to_owned(),
    }
}

#[test]
fn destinations_are_routed_by_what_is_configured() {
    let nothing = Learned::default();
    for (dst, expected) in [
        ("169.254.169.254:80", "plain: outside"),
        ("[fe80::1]:80", "plain: outside"),
        ("127.0.0.1:80", "plain: outside"),
        ("10.96.0.80:80", &format!("mesh 10.1.0.1:8080 {WEB} at anywhere myelin/1")),
        ("[::ffff:10.96.0.80]:80", &format!("mesh 10.1.0.1:8080 {WEB} at anywhere myelin/1")),
        ("10.96.0.80:81", "ask, else refuse"),
        ("203.0.113.9:5432", &format!("mesh 203.0.113.9:5432 {DB} at anywhere myelin/1")),
        ("203.0.113.9:5433", "ask, else plain"),
        ("10.2.0.1:1", &format!("mesh 10.2.0.1:1 {DB} at 10.2.0.1 mtls:h2")),
        ("10.96.0.10:53", "plain: dns"),
        ("10.96.0.10:54", "ask, else refuse"),
        ("10.9.0.1:9", "plain: storage"),
        ("10.3.0.1:80", "ask, else refuse"),
        ("[fd00::5]:80", "ask, else refuse"),
        ("192.0.2.1:443", "ask, else plain"),
    ] {
        assert_eq!(routed(dst, &nothing, 0), expected, "{dst}");
    }
}

#[test]
fn what_the_ca_taught_decides_inside_and_outside_the_mesh_ranges() {
    let learned = learned(&[
        ("10.3.0.1", Some(80), Some(WEB)),
        ("10.3.0.2", Some(80), None),
        ("198.51.100.7", None, Some(DB)),
        ("192.0.2.1", Some(443), None),
    ]);
    for (dst, expected) in [
        ("10.3.0.1:80", &*format!("mesh 10.3.0.1:80 {WEB} at 10.3.0.1 myelin/1")),
        ("10.3.0.1:81", "ask, else refuse"),
        ("10.3.0.2:80", "ask, else refuse"),
        // A meshed peer with a public address is still spoken to in mTLS only.
        ("198.51.100.7:9", &*format!("mesh 198.51.100.7:9 {DB} at 198.51.100.7 myelin/1")),
        ("192.0.2.1:443", "plain: outside"),
    ] {
        assert_eq!(routed(dst, &learned, 0), expected, "{dst}");
    }
}

#[test]
fn a_service_goes_around_its_endpoints_and_expects_only_its_ids() {
    let nothing = Learned::default();
    let ends: Vec<String> =
        [0, 1, 2, u32::MAX].iter().map(|spin| routed("10.96.0.80:80", &nothing, *spin)).collect();
    assert!(ends[0].contains("10.1.0.1:8080") && ends[1].contains("10.1.0.2:8080"));
    assert_eq!(ends[0], ends[2]);
    assert_eq!(ends[1], ends[3]);
    // T57: whoever is found at the endpoint, the CA's answer for it included, only the service's
    // own identities are expected.
    let forged = learned(&[("10.1.0.1", Some(8080), Some(DB))]);
    assert_eq!(routed("10.96.0.80:80", &forged, 0), ends[0]);
}

#[test]
fn a_directly_dialled_endpoint_of_a_service_is_not_plaintext() {
    assert_eq!(routed("10.1.0.1:8080", &Learned::default(), 0), "ask, else refuse");
}

#[test]
fn an_exception_never_covers_what_is_named_as_meshed() {
    assert_eq!(routed("10.9.0.1:9", &Learned::default(), 0), "plain: storage");
    let taught = learned(&[("10.9.0.1", Some(9), Some(WEB))]);
    assert!(routed("10.9.0.1:9", &taught, 0).starts_with("mesh "));
    assert_eq!(routed("10.9.0.1:10", &taught, 0), "plain: storage", "another port of that host");
    let everywhere = learned(&[("10.9.0.1", None, Some(WEB))]);
    assert!(routed("10.9.0.1:10", &everywhere, 0).starts_with("mesh "));
}

#[test]
fn a_withdrawn_answer_does_not_open_a_meshed_address_to_plaintext() {
    let outside = ("192.0.2.1", Some(443), Some(WEB));
    let (withdrawn, _) =
        learned(&[outside]).with([Answer { place: place("192.0.2.1", Some(443)), resident: None }]);
    assert_eq!(routed("192.0.2.1:443", &withdrawn, 0), "ask, else refuse");
    assert!(Directory::new(config()).is_known_meshed("192.0.2.1".parse().unwrap(), &withdrawn));
    let (back, _) = withdrawn.with([Answer {
        place: place("192.0.2.1", Some(443)),
        resident: Some((id(DB), Protocol::Myelin1)),
    }]);
    assert!(routed("192.0.2.1:443", &back, 0).contains(DB));
}

#[test]
fn the_answer_for_all_ports_is_not_hidden_by_nobody_on_one() {
    let learned = learned(&[("10.3.0.1", None, Some(WEB)), ("10.3.0.1", Some(80), None)]);
    assert!(routed("10.3.0.1:80", &learned, 0).contains(WEB));
}

#[test]
fn known_meshed_sources_are_recognised_and_others_are_not() {
    let directory = Directory::new(config());
    let learned = learned(&[("10.3.0.1", Some(80), Some(WEB)), ("10.3.0.2", Some(80), None)]);
    for (source, meshed) in [
        ("10.3.0.1", true),
        ("::ffff:10.3.0.1", true),
        ("10.3.0.2", false),
        ("10.3.0.3", false),
        ("10.1.0.2", true),
        ("203.0.113.9", true),
        ("10.96.0.80", false),
    ] {
        let known = directory.is_known_meshed(source.parse().unwrap(), &learned);
        assert_eq!(known, meshed, "{source}");
    }
}

#[test]
fn own_addresses_must_lie_in_the_mesh() {
    let directory = Directory::new(config());
    let check = |own: &[&str]| {
        let own: Vec<IpAddr> = own.iter().map(|text| text.parse().unwrap()).collect();
        directory.check_own(&own).map_err(|error| error.to_string())
    };
    assert_eq!(check(&["127.0.0.1", "10.1.2.3", "fd00::1", "fe80::1"]), Ok(()));
    let outside = check(&["10.1.2.3", "192.168.7.7"]).unwrap_err();
    assert!(outside.starts_with("own address 192.168.7.7 lies outside mesh_cidrs"), "{outside}");
    assert!(outside.contains("10.0.0.0/8, fd00::/8"), "{outside}");
    assert!(check(&["127.0.0.1", "fe80::1"]).unwrap_err().starts_with("no own address"));
    assert!(check(&[]).is_err());
}

#[test]
fn learned_is_bounded_and_forgets_the_longest_unused_negatives_first() {
    let number = |n: usize| IpAddr::from([10, 50, (n / 256) as u8, (n % 256) as u8]);
    let negative = |n| Answer { place: (number(n), Some(80)), resident: None };
    let meshed = Answer {
        place: place("198.51.100.7", Some(80)),
        resident: Some((id(WEB), Protocol::Myelin1)),
    };
    let (mut learned, evicted) =
        Learned::default().with((0..MAX_LEARNED - 1).map(negative).chain([meshed]));
    assert!(evicted.is_empty() && learned.len() == MAX_LEARNED);
    // Number 0 is dialled after another answer came; number 1 is not.
    (learned, _) = learned.with([negative(2)]);
    assert!(matches!(learned.lookup(number(0), 80), Known::NotMeshed));
    let (next, evicted) = learned.with((MAX_LEARNED..MAX_LEARNED + 3).map(negative));
    assert_eq!(next.len(), MAX_LEARNED);
    assert_eq!(evicted, [1, 3, 4].map(|n| (number(n), Some(80))));
    assert!(matches!(next.lookup(number(0), 80), Known::NotMeshed));
    assert!(matches!(next.lookup(number(1), 80), Known::Nothing));
    let meshed = next.lookup("198.51.100.7".parse().unwrap(), 80);
    assert!(matches!(meshed, Known::Meshed { .. }));
}

#[test]
fn protocols_are_read_strictly() {
    let alpn = |text: &str| Some(Protocol::PlainMtls { alpn: Some(text.into()) });
    for (text, expected) in [
        ("", Some(Protocol::Myelin1)),
        ("myelin/1", Some(Protocol::Myelin1)),
        ("mtls", Some(Protocol::PlainMtls { alpn: None })),
        ("mtls:h2", alpn("h2")),
        ("mtls:http/1.1", alpn("http/1.1")),
        ("mtls:", None),
        ("mtls:myelin/1", None),
        ("mtls:h 2", None),
        ("myelin/2", None),
        ("MTLS", None),
        ("plain", None),
        (&format!("mtls:{}", "x".repeat(255)), alpn(&"x".repeat(255))),
        (&format!("mtls:{}", "x".repeat(256)), None),
    ] {
        assert_eq!(Protocol::parse(text), expected, "{text:?}");
    }
}

fn told(place: &str, endpoints: &[&str]) -> Told {
    let endpoints = endpoints.iter().map(|at| EndpointView {
        address: address(at),
        id: id(WEB),
        zone: None,
        terminating: false,
    });
    let endpoints = endpoints.collect();
    let view = ServiceView { name: "shop/web".to_owned(), endpoints, unmeshed: 3 };
    let version = EncodedService::new(&view).version();
    Told { place: address(place), service: Some((version, view)), zone: None }
}

#[test]
fn a_learned_service_leads_to_its_endpoints_and_never_to_plaintext() {
    let (now, nothing) = (Instant::now(), Learned::default());
    let mut services = Services::new(now, 7);
    for told in [
        told("10.96.0.90:80", &["10.1.0.9:8080"]),
        told("[fd00::90]:80", &["[fd00::9]:8080"]),
        told("10.96.0.91:80", &[]),
        // Configuration names these two.
        told("10.96.0.80:80", &["10.1.0.9:8080"]),
        told("10.2.0.1:80", &["10.1.0.9:8080"]),
        // An exception never covers what is named as meshed, and does where nobody of the mesh serves.
        told("10.96.0.10:53", &["10.1.0.9:53"]),
        told("10.96.0.11:53", &[]),
    ] {
        services = services.with(told).0;
    }
    let not_one = Told { place: address("10.96.0.92:80"), service: None, zone: None };
    services = services.with(not_one).0;
    for (dst, expected) in [
        ("10.96.0.90:80", format!("service 10.1.0.9:8080 {WEB} at Some(10.1.0.9)")),
        ("[::ffff:10.96.0.90]:80", format!("service 10.1.0.9:8080 {WEB} at Some(10.1.0.9)")),
        ("[fd00::90]:80", format!("service [fd00::9]:8080 {WEB} at Some(fd00::9)")),
        ("10.96.0.90:81", "ask, else refuse".to_owned()),
        ("10.96.0.91:80", "unserved shop/web 3".to_owned()),
        ("10.96.0.92:80", "ask, else refuse".to_owned()),
        ("10.96.0.80:80", format!("mesh 10.1.0.1:8080 {WEB} at anywhere myelin/1")),
        ("10.2.0.1:80", format!("mesh 10.2.0.1:80 {DB} at 10.2.0.1 mtls:h2")),
        ("10.96.0.10:53", format!("service 10.1.0.9:53 {WEB} at Some(10.1.0.9)")),
        ("10.96.0.11:53", "plain: dns-2".to_owned()),
        ("198.51.100.1:80", "ask, else plain".to_owned()),
    ] {
        assert_eq!(routed_with(dst, &nothing, &services, 0, now), expected, "{dst}");
    }
}
