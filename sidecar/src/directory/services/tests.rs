//! The choice among a service's endpoints, as tables.
//!
//! Never: a socket; the clock is a value.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;

use myelin_identity::services::EncodedService;

use super::*;

fn place(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 96, 0, last], 80))
}

fn endpoint(last: u8, zone: Option<&str>, terminating: bool) -> EndpointView {
    EndpointView {
        address: SocketAddr::from(([10, 1, 0, last], 8080)),
        id: SpiffeId::parse("spiffe://td.example/ns/shop/sa/web").unwrap(),
        zone: zone.map(Into::into),
        terminating,
    }
}

fn told(at: SocketAddr, endpoints: Vec<EndpointView>) -> Told {
    let view = ServiceView { name: "shop/web".to_owned(), endpoints, unmeshed: 0 };
    let version = EncodedService::new(&view).version();
    Told { place: at, service: Some((version, view)), zone: Some("a".to_owned()) }
}

fn table(endpoints: Vec<EndpointView>, now: Instant) -> Services {
    Services::new(now, 7).with(told(place(80), endpoints)).0
}

fn known(table: &Services) -> &KnownService {
    match table.lookup(place(80)) {
        Found::Service(service) => service,
        other => panic!("{other:?}"),
    }
}

fn chosen(table: &Services, turn: u32, now: Instant) -> Arc<Spot> {
    Arc::clone(table.choose(known(table), turn, now).unwrap())
}

/// How often each endpoint, by the last number of its address, is chosen.
fn spread(table: &Services, now: Instant) -> BTreeMap<u8, usize> {
    let mut counts = BTreeMap::new();
    for turn in 0..1_000 {
        let SocketAddr::V4(address) = chosen(table, turn, now).address.0 else { panic!() };
        *counts.entry(address.ip().octets()[3]).or_default() += 1;
    }
    counts
}

#[tokio::test(start_paused = true)]
async fn endpoints_of_our_zone_come_first_and_those_that_go_come_last() {
    let now = Instant::now();
    let [near, far, going] =
        [endpoint(1, Some("a"), false), endpoint(2, Some("b"), false), endpoint(3, None, true)];
    let who = |endpoints: Vec<EndpointView>| -> Vec<u8> {
        spread(&table(endpoints, now), now).into_keys().collect()
    };
    assert_eq!(who(vec![going.clone(), far.clone(), near]), [1]);
    assert_eq!(who(vec![going.clone(), far]), [2]);
    assert_eq!(who(vec![going]), [3]);
    let none = table(Vec::new(), now);
    assert!(none.choose(known(&none), 0, now).is_none());
}

#[tokio::test(start_paused = true)]
async fn uses_spread_and_the_less_loaded_of_two_is_taken() {
    let now = Instant::now();
    let even = table((1..=4).map(|last| endpoint(last, None, false)).collect(), now);
    let counts = spread(&even, now);
    assert_eq!(counts.len(), 4);
    assert!(counts.values().all(|count| (150..=350).contains(count)), "{counts:?}");
    let two = table((1..=2).map(|last| endpoint(last, None, false)).collect(), now);
    let mut running: Vec<Running> = Vec::new();
    for turn in 0..100 {
        running.push(Running::new(chosen(&two, turn, now)));
    }
    let loads: Vec<u32> = known(&two).spots.iter().map(|spot| spot.load()).collect();
    assert_eq!(loads, [50, 50]);
    drop(running);
    assert!(known(&two).spots.iter().all(|spot| spot.load() == 0));
}

#[tokio::test(start_paused = true)]
async fn whoever_cannot_be_reached_rests_ever_longer_and_is_asked_if_all_do() {
    let mut now = Instant::now();
    let services = table((1..=2).map(|last| endpoint(last, None, false)).collect(), now);
    let dead = Arc::clone(&known(&services).spots[0]);
    let mut last = Duration::ZERO;
    for _ in 0..10 {
        services.unreached(&dead, now);
        let rest =
            Duration::from_millis(dead.rests_until.load(Ordering::Relaxed) - services.moment(now));
        assert!(rest >= last && rest <= LONGEST_REST);
        assert_eq!(spread(&services, now).into_keys().collect::<Vec<_>>(), [2]);
        assert_eq!(spread(&services, now + rest).len(), 2);
        (last, now) = (rest, now + rest);
    }
    assert_eq!(last, LONGEST_REST);
    services.unreached(&dead, now);
    services.unreached(&known(&services).spots[1], now);
    assert_eq!(spread(&services, now).len(), 2, "all rest");
    dead.reached();
    assert_eq!(spread(&services, now).into_keys().collect::<Vec<_>>(), [1]);
}

#[tokio::test(start_paused = true)]
async fn what_happened_at_an_endpoint_is_remembered_while_it_stays_who_it_is() {
    let now = Instant::now();
    let before = table(vec![endpoint(1, None, false), endpoint(2, None, false)], now);
    let spot = Arc::clone(&known(&before).spots[0]);
    let mut other = endpoint(1, None, false);
    other.id = SpiffeId::parse("spiffe://td.example/ns/shop/sa/other").unwrap();
    let (same, _) = before.with(told(place(80), vec![endpoint(1, None, true)]));
    assert!(Arc::ptr_eq(&known(&same).spots[0], &spot));
    let (different, _) = before.with(told(place(80), vec![other]));
    assert!(!Arc::ptr_eq(&known(&different).spots[0], &spot));
}

#[tokio::test(start_paused = true)]
async fn the_longest_unused_leaves_a_full_table() {
    let now = Instant::now();
    let mut services = Services::new(now, 7);
    let far = |number: u32| SocketAddr::from((number.to_be_bytes(), 80));
    for number in 0..MAX_PLACES as u32 {
        services = services.with(Told { place: far(number), service: None, zone: None }).0;
    }
    assert!(matches!(services.lookup(far(0)), Found::NotAService));
    let (next, evicted) = services.with(told(place(80), Vec::new()));
    assert_eq!((next.len(), evicted), (MAX_PLACES, vec![far(1)]));
    assert!(matches!(next.lookup(far(1)), Found::Nothing));
    let crowd = |services: &Services, last: u8| {
        let endpoints = vec![endpoint(1, None, false); MAX_ENDPOINTS_HELD / 2];
        services.with(told(place(last), endpoints))
    };
    let (one, _) = crowd(&Services::new(now, 7), 1);
    let (two, evicted) = crowd(&one, 2);
    assert!(evicted.is_empty());
    let (three, evicted) = crowd(&two, 3);
    assert_eq!((three.len(), evicted), (2, vec![place(1)]));
}
