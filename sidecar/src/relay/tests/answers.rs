//! What passes between an `open` and its answer: words that are kept, handed back, or waited for.
//!
//! Never: a mesh connection that was not made by `tls`.

// SPDX-License-Identifier: Apache-2.0

use std::future::pending;

use super::*;

const ANSWERED: Limits = Limits { idle: SOON, answer: Some(SOON), linger: None };

/// Waits for an `open` and hands it back.
async fn hand_back(acceptor: &mut Link<Acceptor>) {
    let opened = acceptor.event(SOON, |event| matches!(event, Event::Opened(_))).await;
    assert!(opened.unwrap().unwrap());
    acceptor.control(Acceptor::retire).unwrap();
    acceptor.flush().await.unwrap();
}

#[tokio::test]
async fn a_use_that_is_handed_back_goes_whole_over_another_connection() {
    let (mut dialer, mut acceptor) = links().await;
    let (client, near) = connection().await;
    let meter = Count::default();
    let question = pattern(20_001, 9);
    let said = tokio::spawn({
        let question = question.clone();
        async move { say(client, &question).await }
    });
    // Everything that the workload says is there before the acceptor answers.
    while near.peek(&mut vec![0; question.len()]).await.unwrap() < question.len() {}
    dialer.control(Dialer::open).unwrap();
    let (ending, ()) = tokio::join!(
        run(&mut dialer, &near, &meter, ANSWERED, Said::default(), pending::<()>()),
        hand_back(&mut acceptor),
    );
    let Ending::HandedBack(back) = ending else { panic!("{ending:?}") };
    assert!(question.starts_with(&back.bytes), "what was said is not what comes back");

    let (mut dialer, mut acceptor) = links().await;
    let (far, server) = connection().await;
    dialer.control(Dialer::open).unwrap();
    let uncounted = Count::default();
    let serve = async {
        let opened = acceptor.event(SOON, |event| matches!(event, Event::Opened(_))).await;
        assert!(opened.unwrap().unwrap());
        acceptor.control(Acceptor::accept).unwrap();
        use_up(&mut acceptor, &far, &uncounted).await
    };
    let (one, other, asked) = tokio::join!(
        run(&mut dialer, &near, &meter, ANSWERED, back, pending::<()>()),
        serve,
        say(server, b"answer"),
    );
    assert!(matches!((one, other), (Ending::Completed, Ending::Completed)));
    assert!(asked.unwrap() == question);
    drop(near);
    assert_eq!(said.await.unwrap().unwrap(), b"answer");
    assert_eq!(meter.sent.get(), question.len(), "each byte is metered once");
}

#[tokio::test]
async fn no_more_than_the_most_is_kept_before_the_answer() {
    let (mut dialer, mut acceptor) = links().await;
    let (client, near) = connection().await;
    let meter = Count::default();
    dialer.control(Dialer::open).unwrap();
    let flood = pattern(4 * MOST_SAID, 3);
    let kept = async {
        // The acceptor says nothing until the dialer's side has taken all that it may.
        while meter.sent.get() < MOST_SAID {
            tokio::task::yield_now().await;
        }
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        // It stops at the first read that reaches the bound.
        assert!(meter.sent.get() < MOST_SAID + crate::wire::MAX_PAYLOAD);
        hand_back(&mut acceptor).await;
    };
    let (ending, (), _) = tokio::join!(
        async {
            let unsaid = Said::default();
            let ending = run(&mut dialer, &near, &meter, ANSWERED, unsaid, pending::<()>()).await;
            crate::net::reset(near);
            ending
        },
        kept,
        say(client, &flood),
    );
    let Ending::HandedBack(back) = ending else { panic!("{ending:?}") };
    assert!(back.bytes == flood[..meter.sent.get()] && !back.ended);
}

#[tokio::test]
async fn an_answer_waits_for_the_first_words_and_not_for_ever() {
    const LINGERS: Limits = Limits { idle: SOON, answer: None, linger: Some(LINGER) };
    let (mut dialer, mut acceptor) = links().await;
    dialer.control(Dialer::open).unwrap();
    dialer.flush().await.unwrap();
    acceptor.event(SOON, |_| ()).await.unwrap();
    acceptor.control(Acceptor::accept).unwrap();
    let (far, server) = connection().await;
    let meter = Count::default();
    let hears = async {
        // The workload has said nothing: the answer comes all the same.
        let accepted = dialer.event(SOON, |event| matches!(event, Event::Accepted(_))).await;
        assert!(accepted.unwrap().unwrap());
        server.try_write(b"first words").unwrap();
        let heard = dialer.event(
            SOON,
            |event| matches!(event, Event::Data { bytes, .. } if bytes == b"first words"),
        );
        assert!(heard.await.unwrap().unwrap());
    };
    tokio::select! {
        () = hears => {}
        ending = run(&mut acceptor, &far, &meter, LINGERS, Said::default(), pending::<()>()) => {
            panic!("{ending:?}")
        }
    }
}
