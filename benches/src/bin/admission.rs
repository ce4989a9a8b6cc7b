//! The program `admission`: how long an API server waits for the injection webhook. Called by hand;
//! `--help` says what it does.
//!
//! Never: decides anything; `myelin_benches::admission` does the work.

// SPDX-License-Identifier: Apache-2.0

#![expect(clippy::print_stderr, reason = "this is the room that talks to the terminal")]

use std::process::ExitCode;

fn main() -> ExitCode {
    match myelin_benches::admission::perform() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("admission: {error:#}");
            ExitCode::FAILURE
        }
    }
}
