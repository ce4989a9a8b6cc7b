//! Every state of both machines against every frame: the whole meaning of "out of order".
//!
//! Never: a state left out, a frame left out.

// SPDX-License-Identifier: Apache-2.0

use super::{Said, acceptor, dialer, feed, number};
use crate::wire::{Action, Frame, Phase, Received, Refuse, Side};

/// One column a frame. `l` is the last use that was opened, `n` the next, `s` one that skips.
const COLUMNS: &str = "hello, open n l s, accepted l n, refused l n, retiring l l-1 n, \
                       data fin reset idle";

fn columns(last: u64) -> Vec<Frame<'static>> {
    let before = number(last.wrapping_sub(1));
    let (last, next, skipping) = (number(last), number(last + 1), number(last + 2));
    vec![
        Frame::Hello { version: 1, proof: b"" },
        Frame::Open(next),
        Frame::Open(last),
        Frame::Open(skipping),
        Frame::Accepted(last),
        Frame::Accepted(next),
        Frame::Refused(last, Refuse::Overloaded),
        Frame::Refused(next, Refuse::Overloaded),
        Frame::Retiring(last),
        Frame::Retiring(before),
        Frame::Retiring(next),
        Frame::Data(b"x"),
        Frame::Fin,
        Frame::Reset,
        Frame::Idle,
    ]
}

/// For each column the phase that the frame leads to, or `x` for a violation, or `u` for
/// undecided. Greeting, Idle, Opened, Running, reCycling, Discarding, reTired, reSet.
fn row<M: Side>(make: impl Fn() -> M) -> String {
    let verdicts = columns(make().course().last_use().value()).into_iter().map(|frame| {
        let mut side = make();
        let before = side.course().phase();
        match feed(&mut side, &frame) {
            Err(violation) => {
                assert_final(&mut side, violation.word());
                'x'
            }
            Ok(Said::Undecided) => {
                assert_eq!(side.course().phase(), before, "undecided changes nothing");
                'u'
            }
            Ok(said) => {
                let discarding = side.course().phase() == Phase::Discarding;
                let opens = matches!(frame, Frame::Open(_));
                assert_eq!(said == Said::Discarded, discarding && !opens);
                letter(side.course().phase())
            }
        }
    });
    let row: String = verdicts.collect();
    // Grouped as in COLUMNS.
    let cuts = [0, 1, 4, 6, 8, 11, 15];
    cuts.windows(2).map(|cut| &row[cut[0]..cut[1]]).collect::<Vec<_>>().join(" ")
}

fn letter(phase: Phase) -> char {
    match phase {
        Phase::Greeting => 'G',
        Phase::Idle => 'I',
        Phase::Opened => 'O',
        Phase::Running => 'R',
        Phase::Recycling => 'C',
        Phase::Discarding => 'D',
        Phase::Retired => 'T',
        Phase::Reset => 'S',
        Phase::Broken => 'x',
    }
}

/// After a violation nothing is handed out or sent, whatever arrives.
fn assert_final(side: &mut impl Side, word: &str) {
    assert!(word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
    assert_eq!(side.action(), Action::Abort);
    // Not even an incomplete frame is waited for, and the reason stays the first one.
    let again = side.receive(&[6]).expect_err("a violation is final");
    assert_eq!(again.word(), word);
    for frame in columns(side.course().last_use().value()) {
        feed(side, &frame).expect_err("a violation is final");
    }
    let phase = side.course().phase();
    assert!(matches!(phase, Phase::Broken | Phase::Reset));
    assert!(!side.course().may_send_data() && !side.course().eof_is_clean(0));
    let mut out = Vec::new();
    let course = side.course_mut();
    assert!(course.data(1).is_err() && course.fin(&mut out).is_err());
    assert!(course.reset(&mut out).is_err() && course.keys_refreshed(&mut out).is_err());
    assert!(out.is_empty());
}

#[test]
fn each_state_of_the_dialer_judges_each_frame() {
    // Capitals of a script are sent, small letters are read.
    let table = [
        ("fresh", "", "G xxx xx xx xxx xxxx"),
        ("hello sent", "H", "I xxx xx xx xxx xxxx"),
        ("hello read", "h", "x xxx xx xx xxx xxxx"),
        ("idle before the first use", "Hh", "x xxx xx xx Txx xxxx"),
        ("opened", "HhO", "x xxx Rx Tx OTx xxSx"),
        ("opened, early data", "HhOD", "x xxx Rx Tx OTx xxSx"),
        ("opened, early fin", "HhOF", "x xxx Rx Tx OTx xxSx"),
        ("opened, acceptor retiring", "HhOt", "x xxx Rx Tx xxx xxSx"),
        ("running", "HhOa", "x xxx xx xx Rxx RRSx"),
        ("running after early fin", "HhOFa", "x xxx xx xx Rxx RCSx"),
        ("running, fin sent", "HhOaF", "x xxx xx xx Rxx RCSx"),
        ("running, fin read", "HhOaf", "x xxx xx xx Rxx xxSx"),
        ("running, acceptor retiring", "HhOat", "x xxx xx xx xxx RRSx"),
        ("both fins", "HhOaFf", "x xxx xx xx Cxx xxSC"),
        ("both fins, the other way round", "HhOafF", "x xxx xx xx Cxx xxSC"),
        ("idle sent", "HhOaFfI", "x xxx xx xx Cxx xxSI"),
        ("idle read", "HhOaFfi", "x xxx xx xx Cxx xxxx"),
        ("idle sent, acceptor retiring", "HhOaFftI", "x xxx xx xx xxx xxST"),
        ("idle after a use", "HhOaFfIi", "x xxx xx xx Txx xxxx"),
        ("second use opened", "HhOaFfIiO", "x xxx Rx Tx OTx xxSx"),
        ("second use running", "HhOaFfIiOa", "x xxx xx xx Rxx RRSx"),
        ("retired by refusal", "HhOr", "x xxx xx xx xxx xxxx"),
        ("retired with the use handed back", "HhOp", "x xxx xx xx xxx xxxx"),
        ("retired while idle", "Hht", "x xxx xx xx xxx xxxx"),
        ("retired after the use", "HhOatFfIi", "x xxx xx xx xxx xxxx"),
        ("reset sent", "HhOaS", "x xxx xx xx xxx xxxx"),
        ("reset read", "HhOas", "x xxx xx xx xxx xxxx"),
        ("broken", "Hhz", "x xxx xx xx xxx xxxx"),
    ];
    for (state, script, expected) in table {
        assert_eq!(row(|| dialer(script)), expected, "{state}; columns: {COLUMNS}");
    }
}

#[test]
fn each_state_of_the_acceptor_judges_each_frame() {
    let table = [
        ("fresh", "", "G xxx xx xx xxx xxxx"),
        ("hello sent", "H", "I xxx xx xx xxx xxxx"),
        ("hello read", "h", "x xxx xx xx xxx xxxx"),
        ("idle before the first use", "Hh", "x Oxx xx xx xxx xxxx"),
        ("opened", "Hho", "x xxx xx xx xxx uuSx"),
        ("running", "HhoA", "x xxx xx xx xxx RRSx"),
        ("running, fin sent", "HhoAF", "x xxx xx xx xxx RCSx"),
        ("running, fin read", "HhoAf", "x xxx xx xx xxx xxSx"),
        ("running, retiring said", "HhoAT", "x xxx xx xx xxx RRSx"),
        ("both fins", "HhoAFf", "x xxx xx xx xxx xxSC"),
        ("both fins, the other way round", "HhoAfF", "x xxx xx xx xxx xxSC"),
        ("idle sent", "HhoAFfI", "x xxx xx xx xxx xxSI"),
        ("idle read", "HhoAFfi", "x xxx xx xx xxx xxxx"),
        ("retiring said, then idle sent", "HhoAFfTI", "x xxx xx xx xxx xxST"),
        ("idle sent, then retiring said", "HhoAFfIT", "x xxx xx xx xxx xxST"),
        ("idle after a use", "HhoAFfIi", "x Oxx xx xx xxx xxxx"),
        ("second use opened", "HhoAFfIio", "x xxx xx xx xxx uuSx"),
        ("second use running", "HhoAFfIioA", "x xxx xx xx xxx RRSx"),
        ("refused", "HhoR", "x xxx xx xx xxx DDSx"),
        ("refused, early fin dropped", "HhoRdf", "x xxx xx xx xxx xxSx"),
        ("handed back", "HhoT", "x xxx xx xx xxx DDSx"),
        ("retired while idle: an open may cross", "HhT", "x Dxx xx xx xxx xxxx"),
        ("an open has crossed", "HhTo", "x xxx xx xx xxx DDSx"),
        ("retired after its idle: an open may cross", "HhoAFfITi", "x Dxx xx xx xxx xxxx"),
        ("retired before its idle: none can cross", "HhoATFfIi", "x xxx xx xx xxx xxxx"),
        ("reset sent", "HhoAS", "x xxx xx xx xxx xxxx"),
        ("reset read", "HhoAs", "x xxx xx xx xxx xxxx"),
        ("broken", "Hhz", "x xxx xx xx xxx xxxx"),
    ];
    for (state, script, expected) in table {
        assert_eq!(row(|| acceptor(script)), expected, "{state}; columns: {COLUMNS}");
    }
}

#[test]
fn an_incomplete_frame_changes_no_state() {
    for script in ["", "Hh", "HhoA", "HhoAFf", "HhoR"] {
        let mut side = acceptor(script);
        let before = side.course().phase();
        assert_eq!(side.receive(&[6, 0, 0, 9, 1, 2]), Ok(Received::Incomplete { need: 13 }));
        assert_eq!(side.course().phase(), before);
    }
}
