//! Frames: round trips, limits, and every malformed shape.
//!
//! Never: a machine.

// SPDX-License-Identifier: Apache-2.0

use proptest::prelude::*;

use super::{encoded, number};
use crate::wire::{
    Decoded, Frame, HEADER_LEN, Header, Kind, MAX_FRAME, MAX_PAYLOAD, MAX_PROOF, Refuse, UseNumber,
    Violation, data_header, decode,
};

fn samples() -> Vec<Frame<'static>> {
    const BYTES: &[u8] = &[0x5a; MAX_PAYLOAD];
    vec![
        Frame::Hello { version: 1, proof: &[] },
        Frame::Hello { version: u16::MAX, proof: BYTES.split_at(MAX_PROOF).0 },
        Frame::Open(number(1)),
        Frame::Accepted(number(u64::MAX)),
        Frame::Refused(number(7), Refuse::Draining),
        Frame::Retiring(UseNumber::NONE),
        Frame::Data(BYTES.split_at(1).0),
        Frame::Data(BYTES),
        Frame::Fin,
        Frame::Reset,
        Frame::Idle,
    ]
}

#[test]
fn each_frame_comes_back_as_it_was_sent() {
    for frame in samples() {
        let bytes = encoded(&frame);
        assert!(bytes.len() <= MAX_FRAME);
        assert_eq!(decode(&bytes), Ok(Decoded::Whole { frame, consumed: bytes.len() }));
    }
}

#[test]
fn a_frame_that_is_not_there_whole_is_never_handed_out() {
    for frame in samples() {
        let bytes = encoded(&frame);
        for cut in 0..bytes.len() {
            let need = if cut < HEADER_LEN { HEADER_LEN } else { bytes.len() };
            assert_eq!(decode(&bytes[..cut]), Ok(Decoded::Incomplete { need }), "{frame:?} {cut}");
        }
    }
}

#[test]
fn bytes_after_a_frame_are_left_alone() {
    for frame in samples() {
        let mut bytes = encoded(&frame);
        let consumed = bytes.len();
        bytes.extend([0xff; 9]);
        assert_eq!(decode(&bytes), Ok(Decoded::Whole { frame, consumed }));
    }
}

#[test]
fn the_wire_bytes_are_these() {
    assert_eq!(encoded(&Frame::Hello { version: 1, proof: b"p" }), [1, 0, 0, 5, 0, 1, 0, 1, b'p']);
    assert_eq!(encoded(&Frame::Open(number(258))), [2, 0, 0, 8, 0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!(
        encoded(&Frame::Refused(number(1), Refuse::PolicyDenied)),
        [4, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    );
    assert_eq!(encoded(&Frame::Data(b"ab")), [6, 0, 0, 2, b'a', b'b']);
    assert_eq!(encoded(&Frame::Idle), [9, 0, 0, 0]);
}

#[test]
fn an_unknown_type_is_a_violation_at_its_first_byte() {
    for byte in 0..=u8::MAX {
        let known = (1..=9).contains(&byte);
        let expected = if known {
            Ok(Decoded::Incomplete { need: HEADER_LEN })
        } else {
            Err(Violation::UnknownType(byte))
        };
        assert_eq!(decode(&[byte]), expected);
    }
}

#[test]
fn a_length_that_no_such_frame_has_is_a_violation_before_the_payload() {
    for kind in Kind::ALL {
        let legal = kind.lengths();
        for length in (0..MAX_FRAME + 2).chain([(1 << 24) - 1]) {
            let [.., high, middle, low] = length.to_be_bytes();
            let header = [kind as u8, high, middle, low];
            match decode(&header) {
                Ok(_) => assert!(legal.contains(&length), "{kind:?} {length}"),
                Err(violation) => {
                    assert!(!legal.contains(&length), "{kind:?} {length}");
                    assert_eq!(violation.word(), "wrong_frame_length");
                }
            }
            if legal.contains(&length) {
                assert_eq!(Header::decode(header).map(Header::encode), Ok(header));
            }
        }
    }
}

#[test]
fn a_hello_that_lies_about_its_proof_is_a_violation() {
    let cases: [(&[u8], &str); 4] = [
        (&[1, 0, 0, 4, 0, 1, 0, 1], "wrong_proof_length"),
        (&[1, 0, 0, 5, 0, 1, 0, 0, 9], "wrong_proof_length"),
        (&[1, 0, 0, 5, 0, 1, 0xff, 0xff, 9], "wrong_proof_length"),
        (&[1, 0, 0, 4, 0, 0, 0, 0], "wrong_version"),
    ];
    for (bytes, word) in cases {
        assert_eq!(decode(bytes).map_err(Violation::word), Err(word), "{bytes:?}");
    }
}

#[test]
fn a_data_header_in_place_is_the_header_of_the_encoded_frame() {
    for length in [1, 2, 255, 256, 16_379, MAX_PAYLOAD] {
        let bytes = encoded(&Frame::Data(&vec![0; length]));
        assert_eq!(data_header(length).as_ref().map(|header| &header[..]), Some(&bytes[..4]));
    }
    assert_eq!(data_header(0), None);
    assert_eq!(data_header(MAX_PAYLOAD + 1), None);
}

#[test]
fn refuse_codes_and_words_are_a_closed_table() {
    for (index, reason) in Refuse::ALL.into_iter().enumerate() {
        assert_eq!(usize::from(reason.code()), index);
        assert_eq!(Refuse::from_code(reason.code()), reason);
        let same_word = Refuse::ALL.into_iter().filter(|other| other.word() == reason.word());
        assert_eq!(same_word.count(), 1, "{reason}");
    }
    let unknown = u8::try_from(Refuse::ALL.len()).expect("a byte");
    for code in unknown..=u8::MAX {
        assert_eq!(Refuse::from_code(code), Refuse::Unspecified);
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic_and_never_overrun(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(Decoded::Whole { frame, consumed }) = decode(&bytes) {
            prop_assert!(consumed <= bytes.len());
            if !matches!(frame, Frame::Refused(_, Refuse::Unspecified)) {
                prop_assert_eq!(encoded(&frame), &bytes[..consumed]);
            }
        }
    }
}
