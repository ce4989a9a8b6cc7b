//! What this process denies everybody else before it holds a key: no core dump, no look into its
//! memory by other processes of its user, no page of it on a swap device where that can be had.
//! Called by `main`, once, before anything is opened.
//!
//! Never: fails a start; what cannot be had is said in one line.

// SPDX-License-Identifier: Apache-2.0

use std::fs;

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// Bit of CAP_IPC_LOCK in the masks of /proc/self/status (capability.h).
const CAP_IPC_LOCK: u32 = 14;

/// What could not be had, each in one line with the way to get it.
pub fn apply() -> Vec<String> {
    let mut missing = Vec::new();
    if let Err(error) = setrlimit(Resource::RLIMIT_CORE, 0, 0) {
        missing.push(format!("a crash may leave a core dump: cannot set its limit to 0: {error}"));
    }
    if let Err(error) = prctl::set_dumpable(false) {
        missing.push(format!(
            "other processes of this user may read this one's memory: cannot make it undumpable: {error}"
        ));
    }
    missing.extend(lock_memory().err());
    missing
}

/// Locks all pages as they come into use. With a limit on locked memory the process would die at
/// the first page beyond it, so then nothing is locked.
fn lock_memory() -> Result<(), String> {
    let how = "run it with LimitMEMLOCK=infinity (systemd) or CAP_IPC_LOCK, or without swap";
    let (_, most) = getrlimit(Resource::RLIMIT_MEMLOCK)
        .map_err(|error| format!("keys may reach a swap device: no limit to read: {error}"))?;
    if most != RLIM_INFINITY && !may_lock_all() {
        return Err(format!(
            "keys may reach a swap device: only {most} bytes may be locked in memory; {how}"
        ));
    }
    if most == RLIM_INFINITY {
        // The soft limit counts; raising it to the hard one is everybody's right.
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, most, most);
    }
    let every = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE;
    mlockall(every | MlockAllFlags::from_bits_retain(MCL_ONFAULT))
        .map_err(|error| format!("keys may reach a swap device: mlockall: {error}; {how}"))
}

/// Pages are locked as they are first touched (Linux 4.4), so that what is only reserved costs
/// nothing.
const MCL_ONFAULT: i32 = 4;

fn may_lock_all() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> CAP_IPC_LOCK & 1 == 1)
}
