//! Starts a program inside a pod: a throwaway thread enters the namespace, takes the wanted identity for
//! itself alone, and spawns. Called through `Pod::command`.
//! Never: a `pre_exec` hook, a setuid helper, or a change of identity of the calling process.

// SPDX-License-Identifier: Apache-2.0

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use anyhow::{Context, Result};
use rustix::thread::{self, CapabilitySet, CapabilitySets};
use rustix::thread::{Gid, Uid};

use crate::netns::Netns;
use crate::process::Proc;

/// A program to be started inside a pod. Standard input is empty; both outputs are kept line by line.
#[derive(Debug)]
pub struct Command {
    command: std::process::Command,
    netns: Netns,
    label: String,
    identity: Option<Identity>,
    tee: Option<PathBuf>,
}

/// Who the program runs as.
#[derive(Clone, Copy, Debug)]
struct Identity {
    uid: u32,
    gid: u32,
    keep_net_admin: bool,
}

impl Command {
    pub(crate) fn new(netns: Netns, pod: &str, program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref();
        let shown = Path::new(program).file_name().unwrap_or(program).to_string_lossy();
        let label = format!("{pod}/{shown}");
        let mut command = std::process::Command::new(program);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, so that the program and its children can be ended together and a
        // Ctrl-C at the terminal reaches only the caller.
        command.process_group(0);
        Self { command, netns, label, identity: None, tee: None }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    pub fn env_remove(mut self, key: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(key);
        self
    }

    pub fn current_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Feeds standard input from a file.
    pub fn stdin_file(mut self, file: File) -> Self {
        self.command.stdin(file);
        self
    }

    /// Sends standard output to a file byte for byte instead of keeping its lines.
    pub fn stdout_file(mut self, file: File) -> Self {
        self.command.stdout(file);
        self
    }

    /// The name that error messages use instead of `pod/program`.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Appends every line of both outputs to this file as well.
    pub fn tee(mut self, path: impl Into<PathBuf>) -> Self {
        self.tee = Some(path.into());
        self
    }

    /// Runs the program under this UID and GID without supplementary groups; it loses all capabilities.
    /// UID 0 changes nothing. In a user namespace with one UID only 0 exists: see `Ground::proxy_uid`.
    pub fn identity(mut self, uid: u32, gid: u32) -> Self {
        self.identity = Some(Identity { uid, gid, keep_net_admin: false });
        self
    }

    /// Runs the program as a sidecar runs: under this UID with `CAP_NET_ADMIN` alone (it needs that for
    /// `SO_MARK`). Give it `Ground::proxy_uid`; UID 0 changes nothing.
    pub fn sidecar_identity(mut self, uid: u32) -> Self {
        self.identity = Some(Identity { uid, gid: uid, keep_net_admin: true });
        self
    }

    /// Starts it.
    pub fn spawn(self) -> Result<Proc> {
        let Self { mut command, netns, label, identity, tee } = self;
        let tee = match tee {
            Some(path) => Some(open_tee(&path)?),
            None => None,
        };
        let spawned: Result<Child> = netns.run(|| {
            if let Some(identity) = identity.filter(|identity| identity.uid != 0) {
                take_identity(identity).with_context(|| {
                    format!(
                        "{label}: cannot become UID {}: where UIDs are not mapped \
                         use what Ground::proxy_uid says",
                        identity.uid
                    )
                })?;
            }
            let program = command.get_program().to_string_lossy().into_owned();
            command.spawn().with_context(|| {
                format!("{label}: cannot start {program}: is it installed and readable?")
            })
        })?;
        Proc::new(spawned?, label, tee)
    }
}

fn open_tee(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot open {} for a program's output", path.display()))
}

/// Changes the identity of this thread alone (the raw system calls act on one thread; glibc's wrappers
/// would change the whole process). The child inherits it at spawn. Ambient capabilities survive the
/// exec of a program that is not root, which plain setuid in the child would not allow.
fn take_identity(identity: Identity) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    thread::set_keep_capabilities(identity.keep_net_admin).context("PR_SET_KEEPCAPS")?;
    thread::set_thread_groups(&[]).context("setgroups")?;
    thread::set_thread_res_gid(gid, gid, gid).context("setresgid")?;
    thread::set_thread_res_uid(uid, uid, uid).context("setresuid")?;
    if identity.keep_net_admin {
        let only = CapabilitySet::NET_ADMIN;
        let sets = CapabilitySets { effective: only, permitted: only, inheritable: only };
        thread::set_capabilities(None, sets).context("capset")?;
        thread::configure_capability_in_ambient_set(only, true).context("PR_CAP_AMBIENT_RAISE")?;
    }
    Ok(())
}
