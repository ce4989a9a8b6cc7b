//! The program `directory`: what the controller's service directory weighs and how fast it is with a
//! mesh's worth of sidecars. Called by hand; `--help` says what it does.
//!
//! Never: decides anything; `myelin_benches::directory` does the work.

// SPDX-License-Identifier: Apache-2.0

#![expect(clippy::print_stderr, reason = "this is the room that talks to the terminal")]

use std::process::ExitCode;

fn main() -> ExitCode {
    match myelin_benches::directory::perform() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("directory: {error:#}");
            ExitCode::FAILURE
        }
    }
}
