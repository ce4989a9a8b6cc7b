//! A pod's network namespace, entered by a thread that ends there. Called by `plugin` and `repair`.
//!
//! Never: our own namespace, which is the node's: rules there would take the whole node off the wire.

// SPDX-License-Identifier: Apache-2.0

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};

#[derive(Debug, thiserror::Error)]
pub(crate) enum NetnsError {
    #[error("{} is not there", .0.display())]
    Gone(PathBuf),
    #[error("{} cannot be opened: {why}", path.display())]
    Unopened { path: PathBuf, why: io::Error },
    #[error("{} is the node's own network namespace", .0.display())]
    OfNode(PathBuf),
    #[error("{} cannot be entered ({why}): is it a network namespace, and are we root?", path.display())]
    Unentered { path: PathBuf, why: io::Error },
}

pub(crate) struct Netns {
    file: File,
    path: PathBuf,
}

impl Netns {
    pub(crate) fn open(path: &Path) -> Result<Self, NetnsError> {
        let unopened = |why: io::Error| match why.kind() {
            io::ErrorKind::NotFound => NetnsError::Gone(path.to_owned()),
            _ => NetnsError::Unopened { path: path.to_owned(), why },
        };
        let file = File::open(path).map_err(unopened)?;
        let own = File::open("/proc/self/ns/net").map_err(unopened)?;
        let number = |file: &File| file.metadata().map(|found| (found.dev(), found.ino()));
        if number(&file).map_err(unopened)? == number(&own).map_err(unopened)? {
            return Err(NetnsError::OfNode(path.to_owned()));
        }
        Ok(Self { file, path: path.to_owned() })
    }

    /// Runs `work` inside and waits for it.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        let unentered = |why| NetnsError::Unentered { path: self.path.clone(), why };
        thread::scope(|scope| {
            let inside = thread::Builder::new().name("pod".to_owned()).spawn_scoped(scope, || {
                setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)?;
                Ok::<T, nix::errno::Errno>(work())
            });
            let ended = inside.map_err(unentered)?.join();
            let ended = ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            ended.map_err(|errno| unentered(errno.into()))
        })
    }
}
