//! Wrong inputs and the exact line that each gives, from the table beside this file.
//!
//! Never: a complaint without its place, or of more than one line.

// SPDX-License-Identifier: Apache-2.0

use super::super::parse;

/// The text of a file, for one case of the table.
fn file(kind: &str, text: &str) -> String {
    let (top, below) = match kind {
        "whole" => return text.to_owned(),
        "top" => (text, ""),
        "below" => ("", text),
        other => panic!("no such kind of case: {other}"),
    };
    format!(
        "trust_domain = \"td.example\"\nmesh_cidrs = [\"10.0.0.0/8\"]\n{top}\n\
         [ca]\naddress = \"10.0.0.2:15010\"\n{below}\n"
    )
}

#[test]
fn each_wrong_input_is_one_line_that_says_where_what_and_how_to_fix_it() {
    let cases: Vec<&str> = include_str!("wrong.txt").split("\n===== ").skip(1).collect();
    assert!(cases.len() > 70, "the table is read whole");
    for case in cases {
        let (kind, rest) = case.split_once('\n').unwrap();
        let (text, expected) = rest.split_once("\n-----\n").unwrap();
        let text = file(kind, text);
        let complaint = parse("f", &text).unwrap_err().to_string();
        assert_eq!(complaint, expected.trim_end_matches('\n'), "{text}");
        assert!(!complaint.contains('\n'), "{complaint}");
    }
}
