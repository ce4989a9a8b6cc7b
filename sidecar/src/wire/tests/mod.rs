//! The tests of the wire room and what they share: a one-letter script language that brings a
//! machine into a state.
//!
//! Never: a socket, TLS, a clock.

// SPDX-License-Identifier: Apache-2.0

mod frames;
mod interleavings;
mod stories;
mod tables;

use std::num::NonZeroU64;

use super::{Acceptor, Budget, Dialer, Event, Frame, Received, Refuse, Side, UseNumber, Violation};

/// A budget that no test spends by accident.
fn ample() -> Budget {
    budget(1 << 20, 1 << 40)
}

fn budget(max_uses: u64, max_bytes: u64) -> Budget {
    let nonzero = |n| NonZeroU64::new(n).expect("a test's budget is not zero");
    Budget { max_uses: nonzero(max_uses), max_bytes: nonzero(max_bytes) }
}

fn encoded(frame: &Frame<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame.encode_into(&mut bytes);
    bytes
}

fn number(value: u64) -> UseNumber {
    UseNumber::new(value)
}

/// Feeds one whole frame and hands back what the machine said, payloads dropped.
fn feed(side: &mut impl Side, frame: &Frame<'_>) -> Result<Said, Violation> {
    let bytes = encoded(frame);
    Ok(match side.receive(&bytes)? {
        Received::Incomplete { .. } => panic!("a whole frame is never incomplete"),
        Received::Undecided => Said::Undecided,
        Received::Event { event: Event::Discarded, consumed } => {
            assert_eq!(consumed, bytes.len(), "a discarded frame is consumed whole");
            Said::Discarded
        }
        Received::Event { consumed, .. } => {
            assert_eq!(consumed, bytes.len(), "an event consumes its frame whole");
            Said::Event
        }
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Undecided,
    Discarded,
    Event,
}

/// The steps that both machines know: capitals are sent, small letters are read.
fn shared_step(side: &mut impl Side, step: char) {
    let mut out = Vec::new();
    let last = side.course().last_use();
    let course = side.course_mut();
    let sent = match step {
        'H' => course.hello(b"proof", &mut out),
        'D' => course.data(3).map(|_| ()),
        'F' => course.fin(&mut out),
        'I' => course.keys_refreshed(&mut out),
        'S' => course.reset(&mut out),
        _ => Ok(()),
    };
    sent.expect("a script takes legal steps");
    let frame = match step {
        'h' => Frame::Hello { version: 1, proof: b"proof" },
        'o' => Frame::Open(last.next()),
        'a' => Frame::Accepted(last),
        'r' => Frame::Refused(last, Refuse::PolicyDenied),
        't' => Frame::Retiring(last),
        'p' => Frame::Retiring(number(last.value() - 1)),
        'd' => Frame::Data(b"abc"),
        'f' => Frame::Fin,
        's' => Frame::Reset,
        'i' => Frame::Idle,
        'z' => {
            side.receive(&[0xff]).expect_err("garbage is a violation");
            return;
        }
        _ => return,
    };
    feed(side, &frame).expect("a script takes legal steps");
}

fn dialer(script: &str) -> Dialer {
    let mut dialer = Dialer::new(ample());
    for step in script.chars() {
        match step {
            'O' => drop(dialer.open(&mut Vec::new()).expect("a script opens when it may")),
            other => shared_step(&mut dialer, other),
        }
    }
    dialer
}

fn acceptor(script: &str) -> Acceptor {
    acceptor_with(ample(), script)
}

fn acceptor_with(budget: Budget, script: &str) -> Acceptor {
    let mut acceptor = Acceptor::new(budget);
    let out = &mut Vec::new();
    for step in script.chars() {
        let answered = match step {
            'A' => acceptor.accept(out),
            'R' => acceptor.refuse(Refuse::PolicyDenied, out),
            'T' => acceptor.retire(out),
            other => {
                shared_step(&mut acceptor, other);
                continue;
            }
        };
        answered.expect("a script answers when it may");
    }
    acceptor
}
