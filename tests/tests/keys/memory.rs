//! What of a running CA's keys can be had from outside: nothing by a core dump, nothing by another
//! process of its user; and of a key that is not in use nothing is left in memory at all.
//!
//! Never: a search that was not seen to find.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use memchr::memmem;
use myelin_tests::forge::Forge;
use myelin_tests::programs::{LIMIT, eventually};
use myelin_tests::{Mesh, Options, binaries};

/// Somebody without rights of his own.
const NOBODY: u32 = 65_534;
/// Where the secret number lies in the PKCS#8 of a P-256 key.
const SECRET: std::ops::Range<usize> = 36..68;

/// Of x86-64 and of arm64 as Debian has it.
const PAGE: u64 = 4096;

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A CA in a directory that any user may enter, with an unlimited core dump, as this user.
async fn ca(dir: &Path, uid: u32) -> Result<Process> {
    let data = dir.join("data");
    let serve = "ulimit -c unlimited; exec \"$@\"";
    let child = Command::new("sh")
        .args(["-c", serve, "sh"])
        .arg(binaries::ca()?)
        .args(["serve", "--trust-domain", "mesh.test", "--listen", "127.0.0.1:0"])
        .args(["--ops-listen", "127.0.0.1:0", "--data"])
        .arg(&data)
        .current_dir(dir)
        .uid(uid)
        .stderr(Stdio::null())
        .spawn()?;
    let process = Process(child);
    eventually("the CA serves", LIMIT, async || Ok(data.join("admin.sock").exists())).await?;
    Ok(process)
}

fn open_to(uid: u32) -> Result<tempfile::TempDir> {
    let dir = tempfile::tempdir()?;
    std::os::unix::fs::chown(dir.path(), Some(uid), Some(uid))?;
    Ok(dir)
}

/// Whether a process of this user can read what a debugger would.
fn readable(pid: u32, uid: u32) -> Result<bool> {
    let file = format!("/proc/{pid}/environ");
    let mut command = Command::new("cat");
    let status = command.arg(file).uid(uid).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    Ok(status.success())
}

#[tokio::test]
async fn another_process_of_the_same_user_cannot_read_the_ca_and_a_crash_leaves_no_core()
-> Result<()> {
    let dir = open_to(NOBODY)?;
    let mut ca = ca(dir.path(), NOBODY).await?;
    let plain = Process(Command::new("sleep").arg("60").uid(NOBODY).spawn()?);
    ensure!(readable(plain.0.id(), NOBODY)?, "the twin: an ordinary process is readable");
    ensure!(!readable(ca.0.id(), NOBODY)?, "the CA is readable");

    let limits = fs::read_to_string(format!("/proc/{}/limits", ca.0.id()))?;
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    let core: Vec<&str> = core.context("no such limit")?.split_whitespace().collect();
    ensure!(core[4..6] == ["0", "0"], "{core:?}");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(ca.0.id())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGABRT)?;
    let ended = ca.0.wait()?;
    ensure!(ended.signal() == Some(6) && !ended.core_dumped(), "{ended:?}");
    Ok(())
}

/// Which of these are in the writable memory of a process, as far as it has ever been touched.
fn found(pid: u32, wanted: &[Vec<u8>]) -> Result<Vec<usize>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let mut found = BTreeSet::new();
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let range = line.split(' ').next().context("no range")?;
        let (from, until) = range.split_once('-').context("no range")?;
        let page = |address| u64::from_str_radix(address, 16).map(|at| at / PAGE);
        for pages in touched(&pagemap, page(from)?, page(until)?)? {
            let mut bytes = vec![0; usize::try_from((pages.end - pages.start) * PAGE)?];
            // A region may have gone since.
            if memory.read_exact_at(&mut bytes, pages.start * PAGE).is_ok() {
                let is_there = |at: &usize| memmem::find(&bytes, &wanted[*at]).is_some();
                found.extend((0..wanted.len()).filter(is_there));
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// The runs of pages that are in memory or on a swap device (proc_pid_pagemap(5)).
fn touched(pagemap: &File, from: u64, until: u64) -> Result<Vec<std::ops::Range<u64>>> {
    let mut entries = vec![0; usize::try_from((until - from) * 8)?];
    pagemap.read_exact_at(&mut entries, from * 8)?;
    let mut runs: Vec<std::ops::Range<u64>> = Vec::new();
    for (page, entry) in (from..).zip(entries.chunks_exact(8)) {
        // Bits 63 and 62: present, swapped.
        if entry[7] & 0xc0 == 0 {
            continue;
        }
        match runs.last_mut().filter(|run| run.end == page) {
            Some(run) => run.end += 1,
            None => runs.push(page..page + 1),
        }
    }
    Ok(runs)
}

/// As it is written, and as arithmetic on it holds it.
fn both_ways(pkcs8: &[u8]) -> [Vec<u8>; 2] {
    let secret = pkcs8[SECRET].to_vec();
    let reversed = secret.iter().rev().copied().collect();
    [secret, reversed]
}

#[tokio::test]
async fn the_roots_key_is_not_in_memory_once_it_has_signed() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::default()).await? else { return Ok(()) };
    let forge = Forge::of(&mesh.ca).await?;
    let [root, issuing] = [&forge.keys[0], &forge.keys[1]].map(|key| both_ways(key));
    let pid = mesh.ca.pid().context("the CA is down")?;
    let wanted: Vec<Vec<u8>> = root.into_iter().chain(issuing).collect();
    let found = found(pid, &wanted)?;
    ensure!(!found.contains(&0) && !found.contains(&1), "the root's key is in memory");
    ensure!(found.contains(&2) || found.contains(&3), "the twin: the issuing key is found");
    ensure!(!found.contains(&2), "the issuing key's encoding is still in memory");
    Ok(())
}
