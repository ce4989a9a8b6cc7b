//! The queue before a token: deadlines, a full line, a device that fails and comes back.
//!
//! Never: a real token; that one is in the end-to-end suite.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use super::*;

/// Answers when it is told to, with what it is told.
struct Puppet {
    orders: Receiver<Result<Vec<u8>, TokenFault>>,
    asked: Arc<Mutex<usize>>,
}

impl Device for Puppet {
    fn make(&mut self, _: &[u8]) -> Result<Vec<u8>, TokenFault> {
        unreachable!("no test makes a key here")
    }

    fn sign(&mut self, _: &[u8], _: &[u8]) -> Result<Vec<u8>, TokenFault> {
        *self.asked.lock().unwrap() += 1;
        self.orders.recv().unwrap()
    }

    fn forget(&mut self, _: &[u8]) -> Result<(), TokenFault> {
        Ok(())
    }

    fn wrap(&mut self, _: &str, _: &[u8]) -> Result<Vec<u8>, TokenFault> {
        unreachable!("no test wraps here")
    }

    fn unwrap(&mut self, _: &str, _: &[u8]) -> Result<Zeroizing<Vec<u8>>, TokenFault> {
        unreachable!("no test unwraps here")
    }
}

type Signed = Result<Vec<u8>, TokenFault>;
type Orders = Sender<Result<Vec<u8>, TokenFault>>;

fn token(deadline: Duration) -> (Token, Orders, Arc<Mutex<usize>>) {
    let (order, orders) = channel();
    let asked = Arc::new(Mutex::new(0));
    let puppet = Puppet { orders, asked: asked.clone() };
    (Token::start(puppet, deadline).unwrap(), order, asked)
}

#[test]
fn token_that_fails_and_comes_back_is_used_again() {
    let (token, order, _) = token(DEADLINE);
    let away = TokenFault::Unavailable("pulled out".to_owned());
    for answer in
        [Ok(vec![1]), Err(away.clone()), Err(TokenFault::KeyMissing("7".into())), Ok(vec![2])]
    {
        order.send(answer.clone()).unwrap();
        assert_eq!(token.sign(b"id", b"digest"), answer);
    }
    assert_eq!(away.word(), "hsm_unavailable");
}

/// A token whose worker is inside the device, for somebody else.
fn occupied(deadline: Duration) -> (Token, Orders, Arc<Mutex<usize>>, JoinHandle<Signed>) {
    let (token, order, asked) = token(DEADLINE);
    let patient = token.clone();
    let first = std::thread::spawn(move || patient.sign(b"id", b"first"));
    while *asked.lock().unwrap() == 0 {
        std::thread::yield_now();
    }
    (Token { deadline, ..token }, order, asked, first)
}

#[test]
fn silent_token_is_a_timeout_and_whoever_left_is_not_served() {
    let (token, order, asked, first) = occupied(Duration::ZERO);
    assert_eq!(token.sign(b"id", b"two"), Err(TokenFault::TimedOut));
    let patient = Token { deadline: DEADLINE, ..token };
    order.send(Ok(b"first".to_vec())).unwrap();
    order.send(Ok(b"three".to_vec())).unwrap();
    assert_eq!(patient.sign(b"id", b"three"), Ok(b"three".to_vec()));
    assert_eq!(first.join().unwrap(), Ok(b"first".to_vec()));
    assert_eq!(*asked.lock().unwrap(), 2, "the second had left before its turn");
}

#[test]
fn full_line_is_refused_at_once() {
    let (token, order, _, first) = occupied(Duration::ZERO);
    for _ in 0..QUEUE {
        assert_eq!(token.sign(b"id", b"digest"), Err(TokenFault::TimedOut));
    }
    assert_eq!(token.sign(b"id", b"digest"), Err(TokenFault::Busy));
    order.send(Ok(Vec::new())).unwrap();
    first.join().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn waiting_for_a_token_holds_up_no_other_task() {
    let (token, order, _) = token(DEADLINE);
    let signing = tokio::spawn(async move { token.sign(b"id", b"digest") });
    // With one worker thread this runs only if the one that signs stepped aside.
    tokio::spawn(async move { order.send(Ok(vec![9])).unwrap() }).await.unwrap();
    assert_eq!(signing.await.unwrap(), Ok(vec![9]));
}
