//! The program `compare`: Myelin beside other proxies, and Myelin alone at growing numbers. Called
//! by hand, as root; `--help` says what it does.
//!
//! Never: decides anything; `myelin_benches::compare` does the work.

// SPDX-License-Identifier: Apache-2.0

#![expect(clippy::print_stderr, reason = "this is the room that talks to the terminal")]

use std::process::ExitCode;

fn main() -> ExitCode {
    match myelin_benches::compare::perform() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}
