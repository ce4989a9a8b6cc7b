//! One network namespace, held by a file descriptor: it dies with the last holder and the last process
//! inside. Everything that must happen inside happens on a throwaway thread.
//! Never: leaves a thread of a runtime in another namespace, or a name under `/run/netns`.

// SPDX-License-Identifier: Apache-2.0

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace; clones share it.
#[derive(Clone, Debug)]
pub struct Netns(Arc<OwnedFd>);

impl Netns {
    /// Makes an empty namespace (its loopback is still down).
    pub fn new() -> Result<Self> {
        on_throwaway_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| {
                anyhow!("cannot make a network namespace ({errno}): call ground::enter first, or run as root")
            })?;
            let file = File::open("/proc/thread-self/ns/net")
                .context("cannot open the new network namespace: is /proc mounted?")?;
            Ok(Self(Arc::new(file.into())))
        })
    }

    /// Runs `work` on a throwaway thread inside this namespace and waits for it. Sockets that it opens
    /// stay in this namespace wherever they are used later. It blocks: give it short work.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_throwaway_thread(|| {
            setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET)
                .map_err(|errno| anyhow!("cannot enter a network namespace ({errno})"))?;
            Ok(work())
        })
    }

    /// By which any process may enter it, as long as one of us holds it.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.raw_fd()).into()
    }

    pub(crate) fn raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn on_throwaway_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let handle = thread::Builder::new()
            .name("lab-netns".to_owned())
            .spawn_scoped(scope, work)
            .context("cannot start a thread for a network namespace")?;
        handle.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}
