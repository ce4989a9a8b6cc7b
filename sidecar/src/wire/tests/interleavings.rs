//! Two machines joined by byte queues, under random interleavings, splits, resets, refusals and
//! injected frames. The oracle is not the machines: each payload byte carries the use that the
//! sender's own stream of frames puts it in.
//!
//! Never: an assumption that the peer is honest, except where a test says so.

// SPDX-License-Identifier: Apache-2.0

use std::collections::VecDeque;

use proptest::prelude::*;

use super::{ample, number};
use crate::wire::{
    Acceptor, Action, Decoded, Dialer, Event, Fate, Frame, Phase, Received, Refuse, Side,
    Violation, decode,
};

/// The tag of bytes that belong to no use.
const NOBODY: u8 = 0xff;

#[derive(Debug, Clone)]
enum Step {
    Open,
    Accept,
    Refuse,
    Retire,
    DialerReset,
    AcceptorReset,
    DialerSays(usize),
    AcceptorSays(usize),
    DialerFin,
    AcceptorFin,
    Refresh,
    /// This many bytes of the wire arrive.
    ToAcceptor(usize),
    ToDialer(usize),
    /// A frame that no machine asked for.
    InjectToAcceptor(u8, u64),
    InjectToDialer(u8, u64),
}

/// One direction: what is on its way, what has arrived, and the oracle.
#[derive(Default)]
struct Lane {
    wire: VecDeque<u8>,
    arrived: Vec<u8>,
    /// The use that the sender's stream is in, by its frames alone.
    current: Option<u64>,
    sent: Vec<u8>,
    delivered: Vec<u8>,
    violation: Option<Violation>,
}

impl Lane {
    /// Puts whole frames on the wire and keeps the oracle.
    fn send(&mut self, frames: &[u8]) {
        let mut rest = frames;
        while let Ok(Decoded::Whole { frame, consumed }) = decode(rest) {
            match frame {
                Frame::Open(number) | Frame::Accepted(number) => {
                    self.current = Some(number.value());
                }
                Frame::Refused(..) | Frame::Fin | Frame::Reset | Frame::Idle => self.current = None,
                Frame::Hello { .. } | Frame::Retiring(_) | Frame::Data(_) => {}
            }
            rest = &rest[consumed..];
        }
        self.wire.extend(frames);
    }

    fn tag(&self) -> u8 {
        self.current.map_or(NOBODY, |number| u8::try_from(number % 251).expect("below 251"))
    }

    fn says(&mut self, header: [u8; 4], length: usize) {
        let tag = self.tag();
        self.wire.extend(header);
        self.wire.extend(std::iter::repeat_n(tag, length));
        self.sent.extend(std::iter::repeat_n(tag, length));
    }

    fn inject(&mut self, kind: u8, value: u64) {
        let tag = [self.tag(); 5];
        let value = number(value);
        let frame = match kind % 10 {
            0 => Frame::Hello { version: 1, proof: &[] },
            1 => Frame::Open(value),
            2 => Frame::Accepted(value),
            3 => Frame::Refused(value, Refuse::Draining),
            4 => Frame::Retiring(value),
            5 => Frame::Data(&tag),
            6 => Frame::Fin,
            7 => Frame::Reset,
            8 => Frame::Idle,
            _ => return self.wire.extend([0xfe, 1, 2, 3, 4, 5, 6, 7]),
        };
        let mut bytes = Vec::new();
        frame.encode_into(&mut bytes);
        self.send(&bytes);
    }

    /// Lets bytes arrive and feeds the machine as a driver would.
    fn arrive(&mut self, count: usize, side: &mut impl Side) {
        let count = count.min(self.wire.len());
        self.arrived.extend(self.wire.drain(..count));
        loop {
            let consumed = match side.receive(&self.arrived) {
                Ok(Received::Incomplete { need }) => {
                    assert!(need > self.arrived.len());
                    return;
                }
                Ok(Received::Undecided) => {
                    assert_eq!(side.course().phase(), Phase::Opened);
                    return;
                }
                Ok(Received::Event { event, consumed }) => {
                    assert_eq!(self.violation, None, "nothing is handed out after a violation");
                    if let Event::Data { of, bytes } = event {
                        let tag = u8::try_from(of.value() % 251).expect("below 251");
                        assert!(bytes.iter().all(|byte| *byte == tag), "bytes of another use");
                        self.delivered.extend(bytes);
                    }
                    consumed
                }
                Err(violation) => {
                    self.violation.get_or_insert(violation);
                    return;
                }
            };
            self.arrived.drain(..consumed);
        }
    }
}

struct World {
    dialer: Dialer,
    acceptor: Acceptor,
    up: Lane,
    down: Lane,
}

impl World {
    fn greeted() -> Self {
        let mut world = Self {
            dialer: Dialer::new(ample()),
            acceptor: Acceptor::new(ample()),
            up: Lane::default(),
            down: Lane::default(),
        };
        let mut out = Vec::new();
        world.dialer.course_mut().hello(b"up", &mut out).expect("first");
        world.up.send(&std::mem::take(&mut out));
        world.acceptor.course_mut().hello(b"down", &mut out).expect("first");
        world.down.send(&out);
        world
    }

    /// Takes a step if the machine allows it. A misuse must send nothing.
    fn take(&mut self, step: &Step) {
        let (up, down) = (&mut Vec::new(), &mut Vec::new());
        let allowed = match *step {
            Step::Open => self.dialer.open(up).is_ok(),
            Step::Accept => self.acceptor.accept(down).is_ok(),
            Step::Refuse => self.acceptor.refuse(Refuse::PolicyDenied, down).is_ok(),
            Step::Retire => self.acceptor.retire(down).is_ok(),
            Step::DialerReset => self.dialer.course_mut().reset(up).is_ok(),
            Step::AcceptorReset => self.acceptor.course_mut().reset(down).is_ok(),
            Step::DialerFin => self.dialer.course_mut().fin(up).is_ok(),
            Step::AcceptorFin => self.acceptor.course_mut().fin(down).is_ok(),
            Step::Refresh => {
                let dialer = self.dialer.course_mut().keys_refreshed(up).is_ok();
                self.acceptor.course_mut().keys_refreshed(down).is_ok() || dialer
            }
            Step::DialerSays(length) => return say(&mut self.dialer, &mut self.up, length),
            Step::AcceptorSays(length) => return say(&mut self.acceptor, &mut self.down, length),
            Step::ToAcceptor(count) => return self.up.arrive(count, &mut self.acceptor),
            Step::ToDialer(count) => return self.down.arrive(count, &mut self.dialer),
            Step::InjectToAcceptor(kind, value) => return self.up.inject(kind, value),
            Step::InjectToDialer(kind, value) => return self.down.inject(kind, value),
        };
        assert!(allowed || (up.is_empty() && down.is_empty()), "a misuse sends nothing");
        self.up.send(up);
        self.down.send(down);
    }

    /// Lets the running use, if any, end well.
    fn settle(&mut self) {
        let steps = [
            Step::ToAcceptor(usize::MAX),
            Step::Accept,
            Step::DialerFin,
            Step::ToAcceptor(usize::MAX),
            Step::AcceptorFin,
            Step::ToDialer(usize::MAX),
            Step::Refresh,
            Step::ToAcceptor(usize::MAX),
            Step::Refresh,
            Step::ToDialer(usize::MAX),
            Step::ToAcceptor(usize::MAX),
        ];
        for step in steps {
            self.take(&step);
        }
    }
}

fn say(side: &mut impl Side, lane: &mut Lane, length: usize) {
    if let Ok(header) = side.course_mut().data(length) {
        lane.says(header, length);
    }
}

fn legal_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Open),
        3 => Just(Step::Accept),
        3 => (1usize..40).prop_map(Step::DialerSays),
        3 => (1usize..40).prop_map(Step::AcceptorSays),
        2 => Just(Step::DialerFin),
        2 => Just(Step::AcceptorFin),
        3 => Just(Step::Refresh),
        8 => (1usize..60).prop_map(Step::ToAcceptor),
        8 => (1usize..60).prop_map(Step::ToDialer),
    ]
}

fn honest_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        60 => legal_step(),
        1 => Just(Step::Refuse),
        1 => Just(Step::Retire),
        1 => Just(Step::DialerReset),
        1 => Just(Step::AcceptorReset),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => honest_step(),
        1 => (any::<u8>(), 0u64..6).prop_map(|(kind, n)| Step::InjectToAcceptor(kind, n)),
        1 => (any::<u8>(), 0u64..6).prop_map(|(kind, n)| Step::InjectToDialer(kind, n)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// The assertions are in `Lane::arrive`: no byte reaches a use that is not its own, and none
    /// reaches anybody after a violation, whatever either side injects.
    #[test]
    fn not_one_byte_reaches_another_use(steps in prop::collection::vec(any_step(), 0..300)) {
        let mut world = World::greeted();
        for step in &steps {
            world.take(step);
        }
        world.settle();
    }

    #[test]
    fn honest_machines_never_accuse_each_other(
        steps in prop::collection::vec(honest_step(), 0..300),
    ) {
        let mut world = World::greeted();
        for step in &steps {
            world.take(step);
        }
        world.settle();
        for violation in [world.up.violation, world.down.violation].into_iter().flatten() {
            prop_assert_eq!(violation, Violation::AfterEnd { phase: Phase::Reset });
        }
        prop_assert!(world.up.sent.starts_with(&world.up.delivered));
        prop_assert!(world.down.sent.starts_with(&world.down.delivered));
    }

    #[test]
    fn legal_runs_always_recycle_and_lose_nothing(
        steps in prop::collection::vec(legal_step(), 0..300),
    ) {
        let mut world = World::greeted();
        for step in &steps {
            world.take(step);
        }
        world.settle();
        prop_assert_eq!(world.dialer.course().phase(), Phase::Idle);
        prop_assert_eq!(world.acceptor.course().phase(), Phase::Idle);
        prop_assert_eq!(world.dialer.action(), Action::Wait);
        let last = world.dialer.course().last_use();
        prop_assert_eq!(world.acceptor.course().last_use(), last);
        for value in 1..=last.value() {
            prop_assert_eq!(world.dialer.fate(number(value)), Fate::Complete);
        }
        prop_assert_eq!(world.up.sent, world.up.delivered);
        prop_assert_eq!(world.down.sent, world.down.delivered);
    }

    /// What the dialer may replay was never handed out by the acceptor.
    #[test]
    fn a_replayable_use_was_never_delivered(
        steps in prop::collection::vec(honest_step(), 0..300),
    ) {
        let mut world = World::greeted();
        for step in &steps {
            world.take(step);
        }
        let last = world.dialer.course().last_use();
        if world.dialer.fate(last).may_replay() {
            let tag = u8::try_from(last.value() % 251).expect("below 251");
            prop_assert!(!world.up.delivered.contains(&tag));
        }
    }
}
