//! The guard: counts the instructions of the hot path with gungraun and fails when one of them has
//! grown past its budget. Called by hand and by the project's own checks.
//!
//! Never: changes the budget without `--accept`; passes over a bench that could not be counted.

// SPDX-License-Identifier: Apache-2.0

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the room that talks to the terminal"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, bail};
use myelin_benches::budget::{Budget, Counts, Row, read_counts};

/// How both programs are made, in one build.
const BUILD: &str = "build it: cargo build --release -p myelin-benches --features instructions";

/// Enough to see most of the spread in a few minutes.
const ACCEPTED_RUNS: usize = 5;

fn main() -> ExitCode {
    match perform() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("budget: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn perform() -> anyhow::Result<ExitCode> {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("budget.toml");
    match asked.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => check(&path),
        ["--accept"] => accept(&path),
        other => bail!("{other:?} means nothing here; say --accept to keep new counts, or nothing"),
    }
}

fn check(path: &PathBuf) -> anyhow::Result<ExitCode> {
    let budget = read(path)?;
    let (rustc, valgrind) = tools()?;
    let rows = budget.judge(&count()?);
    print(&rows);
    for (kept, now) in [(&budget.rustc, &rustc), (&budget.valgrind, &valgrind)] {
        if kept != now {
            println!("The budget was taken with {kept}, this is {now}: a shift may be theirs.");
        }
    }
    if rows.iter().any(|row| row.verdict.is_failure()) {
        println!(
            "The hot path does not keep its budget. Where that is wanted, run this program with \
             --accept\nand say why in the commit that changes benches/budget.toml."
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn accept(path: &PathBuf) -> anyhow::Result<ExitCode> {
    let (rustc, valgrind) = tools()?;
    let runs = (0..ACCEPTED_RUNS).map(|_| count()).collect::<anyhow::Result<Vec<_>>>()?;
    let budget = Budget::of(&runs, rustc, valgrind);
    for counts in &runs {
        print(&budget.judge(counts));
    }
    std::fs::write(path, budget.write())
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("Kept in {}.", path.display());
    Ok(ExitCode::SUCCESS)
}

fn read(path: &PathBuf) -> anyhow::Result<Budget> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {}; --accept writes it", path.display()))?;
    Ok(Budget::parse(&text)?)
}

/// The versions that counts depend on.
fn tools() -> anyhow::Result<(String, String)> {
    let version = |tool: &str, why: &str| {
        let asked = Command::new(tool).arg("--version").output();
        let asked = asked.with_context(|| format!("cannot run {tool}; {why}"))?;
        Ok::<_, anyhow::Error>(String::from_utf8(asked.stdout)?.trim().to_owned())
    };
    let rustc = version("rustc", "it comes with the Rust toolchain")?;
    Ok((rustc, version("valgrind", "install it: apt-get install valgrind libc6-dbg")?))
}

/// One run of every instruction bench: the program beside this one, of the same build.
fn count() -> anyhow::Result<Counts> {
    if cfg!(debug_assertions) {
        bail!("this is a debug build, whose counts mean nothing; {BUILD}");
    }
    let program = std::env::current_exe()?.with_file_name("instructions");
    let run = Command::new(&program)
        // What cargo says to a bench target; without it gungraun only goes through the motions.
        .args(["--bench", "--output-format=json"])
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}; {BUILD}", program.display()))?;
    if !run.status.success() {
        bail!("the instruction benches failed; benches/README.md says what they need");
    }
    let counts = read_counts(&String::from_utf8(run.stdout)?)?;
    if counts.is_empty() {
        bail!("gungraun counted nothing");
    }
    Ok(counts)
}

fn print(rows: &[Row]) {
    println!("{:<36} {:>14} {:>14} {:>7} {:>7}", "bench", "budget", "now", "ratio", "limit");
    for Row { bench, kept, now, verdict } in rows {
        let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let ratio = kept.zip(*now).map_or_else(
            || "-".to_owned(),
            |(kept, now)| format!("{:.3}", now as f64 / kept.instructions as f64),
        );
        let limit = kept.map_or_else(|| "-".to_owned(), |kept| format!("{:.3}", 1.0 + kept.growth));
        println!(
            "{bench:<36} {:>14} {:>14} {ratio:>7} {limit:>7} {}",
            number(kept.map(|kept| kept.instructions)),
            number(*now),
            verdict.word(),
        );
    }
}
