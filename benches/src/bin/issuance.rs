//! The program `issuance`: how fast a CA issues, starts, watches and takes a storm. Called by hand;
//! `--help` says what it does.
//!
//! Never: decides anything; `myelin_benches::issuance` does the work.

// SPDX-License-Identifier: Apache-2.0

#![expect(clippy::print_stderr, reason = "this is the room that talks to the terminal")]

use std::process::ExitCode;

fn main() -> ExitCode {
    match myelin_benches::issuance::perform() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("issuance: {error:#}");
            ExitCode::FAILURE
        }
    }
}
