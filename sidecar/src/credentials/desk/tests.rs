//! Tables and short scenes for the desk: coalescing, deadlines, bounds, outages. Run by cargo.
//!
//! Never: sleeps in real time, opens a socket.

// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::directory::{Known, Protocol};
use myelin_identity::id::SpiffeId;

const HERE: Place = (IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7)), 5432);

fn desk() -> Arc<Desk> {
    Desk::new(Arc::new(ArcSwap::default()))
}

fn resident(place: Place) -> Entry {
    let id = SpiffeId::parse("spiffe://example.org/ns/shop/sa/db").unwrap();
    Entry { place: (place.0, Some(place.1)), resident: Some((id, Protocol::Myelin1)) }
}

fn nobody(place: Place) -> Entry {
    Entry { place: (place.0, Some(place.1)), resident: None }
}

fn numbered(number: usize) -> Place {
    let [.., high, low] = u32::try_from(number).unwrap().to_be_bytes();
    (IpAddr::from([10, 9, high, low]), 80)
}

#[tokio::test(start_paused = true)]
async fn an_answer_reaches_everybody_who_asked_and_is_learned() {
    let desk = desk();
    let (first, mut questions) = desk.up();
    assert!(first.is_empty());
    let answer = async {
        assert_eq!(questions.recv().await, Some(Question::Watch(HERE)));
        desk.answered(resident(HERE));
    };
    let ask = || desk.ask(HERE.0, HERE.1);
    let (one, two, ()) = tokio::join!(ask(), ask(), answer);
    assert_eq!((one, two), (Answer::Learned, Answer::Learned));
    assert!(questions.try_recv().is_err(), "the same question went out twice");
    let learned = desk.learned.load();
    assert!(matches!(learned.lookup(HERE.0, HERE.1), Known::Meshed { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_second_question_about_a_watched_place_is_answered_at_once() {
    let desk = desk();
    let (_, mut questions) = desk.up();
    let answer = async {
        questions.recv().await.unwrap();
        desk.answered(nobody(HERE));
    };
    tokio::join!(desk.ask(HERE.0, HERE.1), answer);
    let before = tokio::time::Instant::now();
    assert_eq!(desk.ask(HERE.0, HERE.1).await, Answer::Learned);
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_silent_ca_costs_the_deadline_and_no_more() {
    let desk = desk();
    let (_, _questions) = desk.up();
    let before = tokio::time::Instant::now();
    assert_eq!(desk.ask(HERE.0, HERE.1).await, Answer::Silent);
    assert_eq!(before.elapsed(), ANSWER_WITHIN);
}

#[tokio::test(start_paused = true)]
async fn without_a_line_nobody_waits() {
    let desk = desk();
    desk.down();
    let before = tokio::time::Instant::now();
    assert_eq!(desk.ask(HERE.0, HERE.1).await, Answer::Unreachable);
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_told_when_the_line_goes_down() {
    let desk = desk();
    let (_, _questions) = desk.up();
    let before = tokio::time::Instant::now();
    let cut = async { desk.down() };
    let (answer, ()) = tokio::join!(desk.ask(HERE.0, HERE.1), cut);
    assert_eq!(answer, Answer::Unreachable);
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_question_asked_while_connecting_goes_out_when_the_line_is_up() {
    let desk = desk();
    desk.connecting();
    let connect = async {
        tokio::task::yield_now().await;
        let (first, questions) = desk.up();
        assert_eq!(first, [Question::Watch(HERE)]);
        desk.answered(resident(HERE));
        questions
    };
    let (answer, _questions) = tokio::join!(desk.ask(HERE.0, HERE.1), connect);
    assert_eq!(answer, Answer::Learned);
}

#[tokio::test(start_paused = true)]
async fn an_expected_line_is_waited_for_and_a_line_that_is_up_stays_so() {
    let desk = desk();
    desk.down();
    assert!(desk.expect_line());
    assert_eq!(desk.ask(HERE.0, HERE.1).await, Answer::Silent);
    let (_, mut questions) = desk.up();
    assert!(!desk.expect_line());
    desk.register((HERE.0, 1)).unwrap();
    assert_eq!(questions.try_recv(), Ok(Question::Watch((HERE.0, 1))));
}

#[tokio::test(start_paused = true)]
async fn a_new_stream_asks_again_and_old_knowledge_stays_meanwhile() {
    let desk = desk();
    let (_, mut questions) = desk.up();
    let answer = async {
        questions.recv().await.unwrap();
        desk.answered(resident(HERE));
    };
    tokio::join!(desk.ask(HERE.0, HERE.1), answer);
    desk.down();
    assert!(matches!(desk.learned.load().lookup(HERE.0, HERE.1), Known::Meshed { .. }));
    let (again, _questions) = desk.up();
    assert_eq!(again, [Question::Watch(HERE)]);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_asked_about_is_not_learned() {
    let desk = desk();
    let (_, _questions) = desk.up();
    desk.answered(resident(HERE));
    assert!(desk.learned.load().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_full_desk_forgets_the_oldest_empty_place_and_never_a_peer() {
    let desk = desk();
    desk.connecting();
    for number in 0..MAX_WATCHED {
        desk.register(numbered(number)).unwrap();
    }
    let (first, mut questions) = desk.up();
    assert_eq!(first.len(), MAX_WATCHED);
    assert_eq!(desk.register(HERE).err(), Some(Answer::Busy), "all are still unanswered");
    desk.answered(resident(numbered(0)));
    desk.answered(nobody(numbered(1)));
    assert!(desk.register(HERE).is_ok());
    assert_eq!(questions.try_recv(), Ok(Question::Forget(numbered(1))));
    assert_eq!(questions.try_recv(), Ok(Question::Watch(HERE)));
    assert_eq!(desk.register(numbered(1)).err(), Some(Answer::Busy), "only a peer is left");
}

#[tokio::test(start_paused = true)]
async fn one_address_with_many_ports_forgets_its_own_oldest_and_asks_for_it_again() {
    let desk = desk();
    let (_, mut questions) = desk.up();
    let ports = 1..=u16::try_from(MAX_WATCHED_PORTS).unwrap();
    for port in ports {
        desk.register((HERE.0, port)).unwrap();
        desk.answered(resident((HERE.0, port)));
        questions.try_recv().unwrap();
    }
    desk.register((HERE.0, 9_999)).unwrap();
    assert_eq!(questions.try_recv(), Ok(Question::Forget((HERE.0, 1))));
    assert_eq!(questions.try_recv(), Ok(Question::Watch((HERE.0, 9_999))));
    let learned = desk.learned.load();
    assert!(matches!(learned.lookup(HERE.0, 1), Known::Withdrawn));
    assert!(matches!(learned.lookup(HERE.0, 2), Known::Meshed { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_does_not_move_refuses_further_questions() {
    let desk = desk();
    let (_, _questions) = desk.up();
    for number in 0..MAX_QUEUED {
        desk.register(numbered(number)).unwrap();
    }
    assert_eq!(desk.ask(HERE.0, HERE.1).await, Answer::Busy);
}
