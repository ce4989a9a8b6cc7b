//! `myelin inject` and `myelin check`: what has to do with Kubernetes is in `myelin-controller`, which
//! links the webhook and a client of the API; this program, which runs the demo, is built without them
//! and starts that one. Called by `main`.
//!
//! Never: a program from the PATH that happens to have the name, or an answer of our own in its place.

// SPDX-License-Identifier: Apache-2.0

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::args::{CheckArgs, InjectArgs};

/// Beside this program.
const CONTROLLER: &str = "myelin-controller";

pub(crate) fn inject(args: &InjectArgs) -> ExitCode {
    become_controller(args.controller_bin.as_deref(), inject_call(args))
}

pub(crate) fn check(args: &CheckArgs) -> ExitCode {
    become_controller(args.controller_bin.as_deref(), check_call(args))
}

fn inject_call(args: &InjectArgs) -> Vec<OsString> {
    let mut call: Vec<OsString> = vec!["inject".into()];
    let mut say = |flag: &str, value: &OsStr| call.extend([flag.into(), value.to_owned()]);
    say("--file", args.file.as_os_str());
    say("--config", args.config.as_os_str());
    say("--namespace", OsStr::new(&args.namespace));
    if let Some(bundle) = &args.bundle {
        say("--bundle", bundle.as_os_str());
    }
    for address in &args.ca_address {
        say("--ca-address", OsStr::new(&address.to_string()));
    }
    call
}

fn check_call(args: &CheckArgs) -> Vec<OsString> {
    let mut call: Vec<OsString> =
        vec!["preflight".into(), "--namespace".into(), args.namespace.clone().into()];
    if let Some(kubeconfig) = &args.kubeconfig {
        call.extend(["--kubeconfig".into(), kubeconfig.as_os_str().to_owned()]);
    }
    if args.json {
        call.push("--json".into());
    }
    call
}

/// Its output, its exit code. Returns only if it could not be started.
fn become_controller(named: Option<&Path>, call: Vec<OsString>) -> ExitCode {
    let why = match program(named) {
        Ok(path) => {
            let why = Command::new(&path).args(call).exec();
            format!("{} cannot be started: {why}", path.display())
        }
        Err(why) => why,
    };
    complain(&why);
    ExitCode::FAILURE
}

fn program(named: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let own = std::env::current_exe()
        .map_err(|why| format!("cannot find this program's own file: {why}"))?;
    let beside = own.with_file_name(CONTROLLER);
    if beside.is_file() {
        return Ok(beside);
    }
    Err(format!(
        "{} is not there: build it (cargo build --release -p {CONTROLLER}), or name it with --controller-bin",
        beside.display()
    ))
}

#[expect(clippy::print_stderr, reason = "one line that says what failed")]
fn complain(text: &str) {
    eprintln!("myelin: {text}");
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Args, Command as Asked};

    fn call(line: &str) -> Vec<String> {
        let call = match Args::parse_from(line.split(' ')).command {
            Asked::Inject(args) => inject_call(&args),
            Asked::Check(args) => check_call(&args),
            other => panic!("{other:?}"),
        };
        call.into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    /// What the controller's own suite calls it with (`deploy/controller/tests/commands.rs`).
    #[test]
    fn everything_that_was_asked_for_is_handed_on() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let table = [
            (
                "myelin inject -f - --config c.toml",
                "inject --file - --config c.toml --namespace default",
            ),
            (
                "myelin inject -f a.yaml -c c.toml -n shop --bundle b.pem --ca-address 10.0.0.1:1 --ca-address [::1]:2",
                "inject --file a.yaml --config c.toml --namespace shop --bundle b.pem --ca-address 10.0.0.1:1 --ca-address [::1]:2",
            ),
            ("myelin check --pre", "preflight --namespace myelin-system"),
            (
                "myelin check --pre --kubeconfig k -n mesh --json",
                "preflight --namespace mesh --kubeconfig k --json",
            ),
        ];
        for (line, expected) in table {
            assert_eq!(call(line), words(expected), "{line}");
        }
        for wrong in ["myelin check", "myelin inject --config c", "myelin inject -f -"] {
            assert!(Args::try_parse_from(wrong.split(' ')).is_err(), "{wrong}");
        }
    }

    #[test]
    fn controller_that_is_not_there_is_said_with_what_to_type() {
        // The test's own program lies where no controller is.
        let why = program(None).unwrap_err();
        assert!(why.contains("cargo build --release -p myelin-controller"), "{why}");
        assert_eq!(program(Some(Path::new("/x"))).unwrap(), Path::new("/x"));
    }
}
