//! A network namespace for one test, on a thread that dies with it, and the system's `nft` and `ip`
//! run inside. Used by every test of this suite.
//!
//! Without privilege these tests fail and say what is missing: only `MYELIN_SKIP_NETNS=1` skips
//! them, loudly, and never where `MYELIN_REQUIRE_NETNS=1` is set (as in CI).
//!
//! Never: a change in the namespace of the process.

// SPDX-License-Identifier: Apache-2.0

use std::io::{self, Write as _};
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, unshare};

const MISSING: &str = "needs CAP_SYS_ADMIN for a network namespace of its own: run as root, or \
    `unshare --map-root-user cargo test ...`; MYELIN_SKIP_NETNS=1 skips it";

/// Runs `test` in a fresh network namespace whose loopback is up.
pub(crate) fn in_new_netns(test: impl FnOnce() + Send + 'static) {
    let done = thread::spawn(move || {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
            let set = |name: &str| std::env::var(name).is_ok_and(|value| value == "1");
            assert!(set("MYELIN_SKIP_NETNS"), "{MISSING} (unshare: {errno})");
            assert!(!set("MYELIN_REQUIRE_NETNS"), "MYELIN_REQUIRE_NETNS=1, but {MISSING}");
            // Past the capture of the test harness: a skipped test must be seen.
            let _ = writeln!(io::stderr(), "SKIPPED, NOT PASSED: {MISSING} (unshare: {errno})");
            return;
        }
        run("ip", "link set lo up");
        test();
    });
    if let Err(panic) = done.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a program in the namespace of the calling thread; its output, which must be a success.
pub(crate) fn run(program: &str, arguments: &str) -> String {
    let output =
        Command::new(program).args(arguments.split_whitespace()).output().unwrap_or_else(|error| {
            panic!("{program} is needed (apt install nftables iproute2): {error}")
        });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The whole ruleset as `nft` tells it, with counters at zero.
pub(crate) fn nft_ruleset() -> String {
    without_counts(&run("nft", "list ruleset"))
}

/// `counter packets N bytes M` becomes `counter`.
pub(crate) fn without_counts(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let mut rest = words.as_slice();
        let mut kept = Vec::new();
        while let Some((word, tail)) = rest.split_first() {
            kept.push(*word);
            rest = match tail {
                ["packets", _, "bytes", _, tail @ ..] if *word == "counter" => tail,
                _ => tail,
            };
        }
        out.push_str(&kept.join(" "));
        out.push('\n');
    }
    out
}
