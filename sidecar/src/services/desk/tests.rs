//! Questions and answers without a controller.
//!
//! Never: a socket; time is paused.

// SPDX-License-Identifier: Apache-2.0

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Waker};

use myelin_identity::services::{EncodedService, ServiceView};
use tokio::time::Instant;

use super::*;
use crate::directory::Found;

type Table = Arc<ArcSwap<Services>>;

fn desk() -> (Arc<ServiceDesk>, Table) {
    let table = Arc::new(ArcSwap::from_pointee(Services::new(Instant::now(), 7)));
    (ServiceDesk::new(Arc::clone(&table), true), table)
}

fn place(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 96, 0, last], 80))
}

fn service(name: &str) -> Said {
    let view = ServiceView { name: name.to_owned(), endpoints: Vec::new(), unmeshed: 0 };
    Said::Service(EncodedService::new(&view).version(), view)
}

fn answer(place: SocketAddr, said: Said) -> ServiceAnswer {
    ServiceAnswer { place, said, zone: None }
}

fn name(table: &Table, place: SocketAddr) -> String {
    match table.load().lookup(place) {
        Found::Service(service) => service.name.to_string(),
        other => format!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn equal_questions_are_asked_once_and_answered_together() {
    let (desk, table) = desk();
    let (first, mut asked) = desk.up();
    assert!(first.is_empty());
    let (one, other) = (desk.ask(place(1)), desk.ask(place(1)));
    let controller = async {
        let question = asked.recv().await.unwrap();
        assert_eq!((question.place, question.known), (place(1), None));
        desk.answered(answer(place(2), service("shop/other")));
        desk.answered(answer(place(1), service("shop/web")));
    };
    let (one, other, ()) = tokio::join!(one, other, controller);
    assert_eq!((one, other), (Asked::Answered, Asked::Answered));
    assert!(asked.try_recv().is_err());
    assert_eq!(name(&table, place(1)), "shop/web");
    assert_eq!(name(&table, place(2)), "Nothing", "nobody asked about it");
}

#[tokio::test(start_paused = true)]
async fn what_was_said_outlives_the_controller_and_is_not_said_again() {
    let (desk, table) = desk();
    let (_, mut asked) = desk.up();
    let told = async {
        asked.recv().await.unwrap();
        desk.answered(answer(place(1), service("shop/web")));
    };
    tokio::join!(desk.ask(place(1)), told);
    desk.down();
    assert_eq!(name(&table, place(1)), "shop/web");
    let began = Instant::now();
    assert_eq!(desk.ask(place(1)).await, Asked::Unreachable);
    assert_eq!(desk.ask(place(2)).await, Asked::Unreachable);
    assert_eq!(began.elapsed(), Duration::ZERO, "nobody waits for whoever is away");
    let (mut again, _asked) = desk.up();
    again.sort_by_key(|question| question.place);
    let known = table.load().version(place(1));
    assert!(known.is_some());
    assert_eq!(again.iter().map(|it| it.known).collect::<Vec<_>>(), [known, None]);
    desk.answered(answer(place(1), Said::Unchanged(known.unwrap())));
    assert_eq!(desk.ask(place(1)).await, Asked::Answered);
    assert_eq!(name(&table, place(1)), "shop/web");
}

#[tokio::test(start_paused = true)]
async fn whoever_is_in_another_zone_now_asks_for_the_endpoints_again() {
    let (desk, table) = desk();
    let (_, mut asked) = desk.up();
    let told = async {
        asked.recv().await.unwrap();
        desk.answered(answer(place(1), service("shop/web")));
    };
    tokio::join!(desk.ask(place(1)), told);
    let known = table.load().version(place(1)).unwrap();
    desk.answered(answer(place(1), Said::Unchanged(known)));
    assert!(asked.try_recv().is_err(), "nothing is new");
    let moved =
        ServiceAnswer { zone: Some("a".to_owned()), ..answer(place(1), Said::Unchanged(known)) };
    desk.answered(moved);
    let again = asked.try_recv().unwrap();
    assert_eq!((again.place, again.forget, again.known), (place(1), false, None));
}

#[tokio::test(start_paused = true)]
async fn a_question_calls_for_a_connection_and_waits_for_it_but_not_for_ever() {
    let (desk, table) = desk();
    assert!(!desk.is_needed());
    let mut asking = pin!(desk.ask(place(1)));
    assert!(asking.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    desk.wanted().await;
    assert!(desk.is_needed());
    let (first, _asked) = desk.up();
    assert_eq!(first.len(), 1);
    desk.answered(answer(place(1), Said::NotAService));
    assert_eq!(asking.await, Asked::Answered);
    assert_eq!(name(&table, place(1)), "NotAService");
    let began = Instant::now();
    assert_eq!(desk.ask(place(2)).await, Asked::Silent);
    assert_eq!(began.elapsed(), ANSWER_WITHIN);
}

#[tokio::test(start_paused = true)]
async fn without_a_controller_nothing_is_asked() {
    let table = Arc::new(ArcSwap::from_pointee(Services::new(Instant::now(), 7)));
    let desk = ServiceDesk::new(table, false);
    assert_eq!(desk.ask(place(1)).await, Asked::Off);
    assert!(!desk.is_needed());
}

#[tokio::test(start_paused = true)]
async fn questions_that_nobody_takes_are_bounded() {
    let (desk, _) = desk();
    let (_, _asked) = desk.up();
    let far = |number: u32| SocketAddr::from((number.to_be_bytes(), 80));
    let taken = (0..).take_while(|number| desk.register(far(*number)).is_ok()).count();
    assert_eq!(taken, MAX_QUEUED);
    assert_eq!(desk.ask(place(1)).await, Asked::Busy);
}
