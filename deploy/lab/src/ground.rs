//! Gains the right to make network namespaces: as root nothing is needed, otherwise one user namespace
//! in which the caller is root. Called first in `main`, before any thread or runtime starts.
//! Never: asks for a password, calls a setuid helper, or changes a setting of the host.

// SPDX-License-Identifier: Apache-2.0

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use crate::netns::Netns;

/// The UID under which a sidecar runs where UIDs can be told apart (the documented proxy UID).
pub const PROXY_UID: u32 = 1337;

/// Bit of `CAP_SYS_ADMIN` in `CapEff` of `/proc/self/status` (capabilities(7)).
const CAP_SYS_ADMIN_BIT: u32 = 21;

/// How the right to make namespaces was gained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The process had `CAP_SYS_ADMIN` already: nothing was changed.
    Privileged,
    /// The process moved into a user namespace of its own, with one UID (0 inside).
    UserNamespace,
}

/// The proof that namespaces can be made here, and what kind of identities they offer.
#[derive(Clone, Copy, Debug)]
pub struct Ground {
    standing: Standing,
    proxy_uid_is_mapped: bool,
}

impl Ground {
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// The UID to run a sidecar under: 1337 where that UID exists, 0 in a user namespace with one UID.
    /// In the latter everybody is UID 0, so interception must tell the sidecar by its mark alone:
    /// exempt nothing by UID there, and start the sidecar with its mark set.
    pub fn proxy_uid(&self) -> u32 {
        if self.proxy_uid_is_mapped { PROXY_UID } else { 0 }
    }

    /// Whether sidecar and workload can run under different UIDs.
    pub fn tells_uids_apart(&self) -> bool {
        self.proxy_uid_is_mapped
    }
}

/// Makes sure that this process may create network namespaces.
///
/// With `CAP_SYS_ADMIN` this changes nothing and may be called from anywhere, async tests included.
/// Without it the process moves into a new user namespace, which the kernel allows only while it has
/// one thread: call it first in `main`. A test binary (its harness has threads) is run by somebody
/// who is not root as `unshare --user --map-root-user cargo nextest run ...`.
pub fn enter() -> Result<Ground> {
    if has_sys_admin()? {
        Netns::new().context(
            "this process has CAP_SYS_ADMIN but cannot make a network namespace; \
             a seccomp filter of the container may forbid it: allow unshare(2) there",
        )?;
        return ground(Standing::Privileged);
    }
    enter_user_namespace()
}

/// For test binaries: as [`enter`], but `MYELIN_SKIP_NETNS=1` in the environment yields `None`, so that
/// a suite is skipped only by somebody's explicit wish and never by a missing privilege.
pub fn enter_unless_skipped() -> Result<Option<Ground>> {
    if std::env::var_os("MYELIN_SKIP_NETNS").is_some_and(|value| value == "1") {
        return Ok(None);
    }
    enter().context("set MYELIN_SKIP_NETNS=1 to skip the namespace suites").map(Some)
}

/// Moves into a new user namespace even where the caller has privilege already: for trying the
/// unprivileged path on a machine where one is root.
pub fn enter_user_namespace() -> Result<Ground> {
    let threads = fs::read_dir("/proc/self/task").context("cannot list own threads")?.count();
    ensure!(
        threads == 1,
        "a user namespace can be entered only before threads start, but {threads} threads run: \
         call ground::enter first in main, or run tests as root or under \
         `unshare --user --map-root-user`"
    );
    let (uid, gid) = (geteuid(), getegid());
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWUSER) {
        bail!("cannot make a user namespace ({errno}): {}", advice(errno, read_setting));
    }
    write_map("/proc/self/setgroups", "deny")?;
    write_map("/proc/self/uid_map", &format!("0 {uid} 1"))?;
    write_map("/proc/self/gid_map", &format!("0 {gid} 1"))?;
    if let Err(error) = Netns::new() {
        bail!(
            "cannot make a network namespace inside a user namespace ({error:#}): {}",
            advice(Errno::EPERM, read_setting)
        );
    }
    ground(Standing::UserNamespace)
}

/// What the process can do right now, without changing anything: for a room that was called after
/// somebody else has entered.
pub(crate) fn here() -> Result<Ground> {
    ensure!(
        has_sys_admin()?,
        "no right to make network namespaces: call ground::enter first in main, or run as root"
    );
    ground(Standing::Privileged)
}

fn ground(standing: Standing) -> Result<Ground> {
    let map = fs::read_to_string("/proc/self/uid_map").context("cannot read own uid_map")?;
    Ok(Ground { standing, proxy_uid_is_mapped: maps_uid(&map, PROXY_UID) })
}

fn has_sys_admin() -> Result<bool> {
    let status = fs::read_to_string("/proc/thread-self/status")
        .context("cannot read /proc/thread-self/status; is /proc mounted?")?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .context("/proc/thread-self/status has no readable CapEff line")?;
    Ok(effective & (1 << CAP_SYS_ADMIN_BIT) != 0)
}

fn write_map(path: &str, text: &str) -> Result<()> {
    let Err(error) = fs::write(path, text) else {
        return Ok(());
    };
    bail!("cannot write {path} ({error}): {}", advice(Errno::EPERM, read_setting))
}

fn read_setting(name: &str) -> Option<String> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The one thing to do when the host forbids user namespaces, judged from its settings.
fn advice(errno: Errno, setting: impl Fn(&str) -> Option<String>) -> String {
    let forbids = [
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("user.max_user_namespaces", "0", "15000"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ];
    for (name, bad, good) in forbids {
        if setting(name).as_deref() == Some(bad) {
            return format!("{name} is {bad}: run `sudo sysctl -w {name}={good}`, or run as root");
        }
    }
    match errno {
        Errno::ENOSPC | Errno::EUSERS => {
            "the limit is reached: raise user.max_user_namespaces, or run as root".to_owned()
        }
        _ => "the host or its container runtime forbids it: run as root, \
              or allow user namespaces in its seccomp profile"
            .to_owned(),
    }
}

/// Whether `uid_map` (lines of: first inside, first outside, count) has a row that covers `uid`.
fn maps_uid(uid_map: &str, uid: u32) -> bool {
    uid_map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(|word| word.parse::<u64>().unwrap_or(0));
        let (first, count) = (numbers.next().unwrap_or(0), numbers.nth(1).unwrap_or(0));
        (first..first.saturating_add(count)).contains(&u64::from(uid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uid_map_of_the_host_covers_the_proxy_uid() {
        assert!(maps_uid("         0          0 4294967295\n", PROXY_UID));
        assert!(maps_uid("0 1000 1\n1 100000 65536\n", PROXY_UID));
    }

    #[test]
    fn uid_map_with_one_uid_does_not_cover_the_proxy_uid() {
        assert!(!maps_uid("         0       1000          1\n", PROXY_UID));
        assert!(!maps_uid("", PROXY_UID));
    }

    #[test]
    fn advice_names_the_setting_that_forbids() {
        for (name, value) in [
            ("kernel.unprivileged_userns_clone", "0"),
            ("user.max_user_namespaces", "0"),
            ("kernel.apparmor_restrict_unprivileged_userns", "1"),
        ] {
            let text = advice(Errno::EPERM, |asked| (asked == name).then(|| value.to_owned()));
            assert!(text.contains(name), "{text}");
            assert!(!text.contains('\n'));
        }
        assert!(advice(Errno::EPERM, |_| None).contains("run as root"));
    }
}
