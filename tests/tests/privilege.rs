//! A suite without the right to make namespaces fails, says why, and is skipped only by somebody's
//! explicit wish. This suite runs itself again, as nobody.
//!
//! Never: a missing privilege that looks like a pass.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use myelin_tests::mesh::Bare;
use myelin_tests::programs::user;

const TRIVIAL: &str = "namespaces_are_there";

/// The trivial suite: passes where namespaces can be made, and for who skips it on purpose.
#[test]
fn namespaces_are_there() -> Result<()> {
    Bare::start().map(drop)
}

/// Runs the trivial suite as a user who may do nothing.
fn as_nobody(settings: &[(&str, &str)]) -> Result<Output> {
    let (uid, gid) = user("nobody")?;
    let dir = tempfile::tempdir()?;
    fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755))?;
    // Nobody may not be allowed into the target directory.
    let copy = dir.path().join("suite");
    fs::copy(std::env::current_exe()?, &copy)?;
    fs::set_permissions(&copy, PermissionsExt::from_mode(0o755))?;
    let mut command = Command::new(&copy);
    command.args(["--exact", TRIVIAL, "--nocapture"]).current_dir("/").uid(uid).gid(gid);
    command.env_remove("MYELIN_SKIP_NETNS").env_remove("MYELIN_REQUIRE_NETNS");
    command.envs(settings.iter().copied());
    command.output().context("cannot run the suite as nobody: this suite itself needs root")
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

#[test]
fn suite_without_privilege_fails_and_says_what_to_do() -> Result<()> {
    for settings in [&[][..], &[("MYELIN_REQUIRE_NETNS", "1")]] {
        let output = as_nobody(settings)?;
        let said = said(&output);
        ensure!(!output.status.success(), "{settings:?}: a missing privilege passed: {said}");
        ensure!(said.contains("1 failed") && said.contains("run tests as root"), "{said}");
    }
    Ok(())
}

#[test]
fn suite_is_skipped_only_by_an_explicit_wish() -> Result<()> {
    let output = as_nobody(&[("MYELIN_SKIP_NETNS", "1")])?;
    ensure!(output.status.success(), "the wish was not heard: {}", said(&output));
    let output = as_nobody(&[("MYELIN_SKIP_NETNS", "0")])?;
    ensure!(!output.status.success(), "only 1 is a wish: {}", said(&output));
    Ok(())
}

#[test]
fn wish_to_skip_where_namespaces_are_demanded_is_refused() -> Result<()> {
    let both = [("MYELIN_SKIP_NETNS", "1"), ("MYELIN_REQUIRE_NETNS", "1")];
    let output = as_nobody(&both)?;
    ensure!(!output.status.success(), "CI would have skipped in silence: {}", said(&output));
    ensure!(said(&output).contains("contradict"), "{}", said(&output));
    Ok(())
}
