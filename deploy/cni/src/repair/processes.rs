//! From a container's ID to the network namespace of its processes, by the node's /proc. Called by
//! `repair`.
//!
//! Never: a process whose control group does not name the container, also after it was opened.

// SPDX-License-Identifier: Apache-2.0

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::netns::{Netns, NetnsError};

/// Longest /proc/<pid>/cgroup that is read: a line for each hierarchy.
const MAX_CGROUP_BYTES: u64 = 64 * 1024;
/// Shortest ID that is looked for: shorter ones could be part of anything.
const LEAST_ID_BYTES: usize = 12;

/// Control groups of every process of the node, at one moment.
pub(super) struct Processes {
    proc: PathBuf,
    groups: Vec<(PathBuf, String)>,
}

impl Processes {
    pub(super) fn read(proc: &Path) -> io::Result<Self> {
        let mut groups = Vec::new();
        for entry in fs::read_dir(proc)?.flatten() {
            let is_process =
                entry.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit());
            // Processes end while we read.
            if let Some(group) = is_process.then(|| group(&entry.path())).and_then(Result::ok) {
                groups.push((entry.path(), group));
            }
        }
        Ok(Self { proc: proc.to_owned(), groups })
    }

    /// The namespace of the first process of one of these containers.
    pub(super) fn netns_of<'a>(
        &self,
        containers: impl Iterator<Item = &'a str>,
    ) -> Option<Result<Netns, NetnsError>> {
        let ids: Vec<&str> = containers.filter(|id| id.len() >= LEAST_ID_BYTES).collect();
        let is_theirs = |group: &str| ids.iter().any(|id| group.contains(id));
        let processes = self.groups.iter().filter(|(_, group)| is_theirs(group));
        let mut opened = processes.filter_map(|(process, _)| {
            let netns = Netns::open(&process.join("ns/net"));
            // The number may be another process's by now.
            let still = group(process).is_ok_and(|group| is_theirs(&group));
            still.then_some(netns)
        });
        opened.next()
    }

    pub(super) fn place(&self) -> &Path {
        &self.proc
    }
}

fn group(process: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(process.join("cgroup"))?.take(MAX_CGROUP_BYTES).read_to_string(&mut text)?;
    Ok(text)
}
