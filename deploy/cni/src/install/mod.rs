//! The program on a node: copied, given its way to the API, chained into the network's configuration,
//! and looked after as long as this runs. Called by `main`.
//!
//! The order matters: the chain comes last, so that no runtime calls what cannot answer yet. At the
//! end the order is the other way round, and the program stays: a runtime still calls it for pods
//! whose network was made with it.
//!
//! Never: a configuration of the node that is half written; removes itself unasked.

// SPDX-License-Identifier: Apache-2.0

mod access;
mod chain;
mod files;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use self::chain::{Link, TYPE};
use crate::args::InstallArgs;

/// How often everything is looked at: between a network plugin that writes its configuration anew
/// and us, pods start without rules (`repair` finds them).
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Files in the configuration's directory that are looked at; a node has one or two.
const MAX_CONFIGURATIONS: usize = 256;
/// The program itself; a debug build has 100 MiB.
const MAX_PROGRAM_BYTES: u64 = 256 * 1024 * 1024;

const PROGRAM_MODE: u32 = 0o755;
/// It holds a token.
const KUBECONFIG_MODE: u32 = 0o600;
const KUBECONFIG: &str = "myelin-cni.kubeconfig";

/// Installs, and looks after it until a signal comes.
pub(crate) fn run(args: &InstallArgs) -> Result<(), String> {
    let server = match &args.api_server {
        Some(server) => server.clone(),
        None => access::server(|name| std::env::var(name).ok())?,
    };
    let mut node = Node { args, server, program: None, said: BTreeSet::new() };
    if args.once {
        return node.mend();
    }
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|why| format!("cannot start: {why}"))?;
    runtime.block_on(node.keep())
}

struct Node<'a> {
    args: &'a InstallArgs,
    server: String,
    /// Of the installed program when it was last found to be ours: size and time of its change.
    program: Option<(u64, SystemTime)>,
    /// What went wrong at the last look, which is not said again.
    said: BTreeSet<String>,
}

impl Node<'_> {
    async fn keep(&mut self) -> Result<(), String> {
        let unheard = |why: io::Error| format!("cannot listen for signals: {why}");
        let mut terminate = signal(SignalKind::terminate()).map_err(unheard)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(unheard)?;
        loop {
            match self.mend() {
                Ok(()) => self.said.clear(),
                Err(why) => {
                    if self.said.insert(why.clone()) {
                        say(&format!("not installed: {why}"));
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        if self.args.remove_at_end { self.remove() } else { Ok(()) }
    }

    /// Brings everything to where it should be. What is right already is not touched.
    fn mend(&mut self) -> Result<(), String> {
        let kubeconfig = self.args.conf_dir.join(KUBECONFIG);
        let wanted = access::kubeconfig(&self.args.account_dir, &self.server)?;
        if self.write_if_other(&kubeconfig, &wanted, KUBECONFIG_MODE)? {
            say(&format!("kubeconfig written: {}", kubeconfig.display()));
        }
        self.mend_program()?;
        let chained = self.mend_chain()?;
        if let Some(path) = chained {
            say(&format!("chained into {}", path.display()));
        }
        Ok(())
    }

    fn write_if_other(&self, path: &Path, wanted: &str, mode: u32) -> Result<bool, String> {
        let is = files::read(path).map_err(|why| unreadable(path, &why))?;
        let right = is.as_deref() == Some(wanted)
            && files::mode(path).map_err(|why| unreadable(path, &why))? == mode;
        if !right {
            files::replace(path, wanted.as_bytes(), mode).map_err(|why| unwritten(path, &why))?;
        }
        Ok(!right)
    }

    /// Compares the program's bytes only when somebody has touched it.
    fn mend_program(&mut self) -> Result<(), String> {
        let path = self.args.bin_dir.join(TYPE);
        let found = stamp(&path);
        if found.is_some() && found == self.program {
            return Ok(());
        }
        let own = program(Path::new("/proc/self/exe"))
            .map_err(|why| format!("cannot read myself: {why}"))?;
        let runs = files::mode(&path).is_ok_and(|mode| mode == PROGRAM_MODE);
        if !runs || program(&path).ok().as_deref() != Some(&own) {
            files::replace(&path, &own, PROGRAM_MODE).map_err(|why| unwritten(&path, &why))?;
            say(&format!("program written: {}", path.display()));
        }
        self.program = stamp(&path);
        Ok(())
    }

    /// Chains us into the configuration that runtimes take: the first by its name.
    fn mend_chain(&self) -> Result<Option<PathBuf>, String> {
        let Some(path) = configurations(&self.args.conf_dir)?.into_iter().next() else {
            let dir = self.args.conf_dir.display();
            return Err(format!("{dir} has no network configuration (yet)"));
        };
        if path.extension().is_none_or(|extension| extension != "conflist") {
            return Err(format!(
                "{} is the configuration of a single plugin; make it a list (*.conflist) that others can join",
                path.display()
            ));
        }
        let Some(text) = files::read(&path).map_err(|why| unreadable(&path, &why))? else {
            return Err(format!("{} has just gone", path.display()));
        };
        let kubeconfig = self.args.node_conf_dir.join(KUBECONFIG);
        let kubeconfig = kubeconfig.to_string_lossy();
        let exclude_namespaces = &self.args.exclude_namespaces;
        let link = Link { kubeconfig: &kubeconfig, exclude_namespaces };
        let chained = chain::chained(&text, &link);
        let chained = chained.map_err(|why| format!("{}: {why}", path.display()))?;
        let Some(chained) = chained else { return Ok(None) };
        rewrite(&path, &chained)?;
        Ok(Some(path))
    }

    /// Takes the plugin out of every list of the node, and its way to the API.
    fn remove(&self) -> Result<(), String> {
        for path in configurations(&self.args.conf_dir)? {
            let Some(text) = files::read(&path).map_err(|why| unreadable(&path, &why))? else {
                continue;
            };
            // What is no list has no place for us.
            if let Ok(Some(without)) = chain::unchained(&text) {
                rewrite(&path, &without)?;
                say(&format!("taken out of {}", path.display()));
            }
        }
        let kubeconfig = self.args.conf_dir.join(KUBECONFIG);
        match fs::remove_file(&kubeconfig) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => Err(unwritten(&kubeconfig, &why)),
            _ => Ok(()),
        }
    }
}

/// In the order in which runtimes choose.
fn configurations(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let listed = fs::read_dir(dir).map_err(|why| unreadable(dir, &why))?;
    let mut paths: Vec<PathBuf> = listed
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let extension = path.extension().unwrap_or_default();
            ["conf", "conflist", "json"].iter().any(|known| extension == *known)
        })
        .take(MAX_CONFIGURATIONS)
        .collect();
    paths.sort();
    Ok(paths)
}

fn rewrite(path: &Path, text: &str) -> Result<(), String> {
    let mode = files::mode(path).map_err(|why| unreadable(path, &why))?;
    files::replace(path, text.as_bytes(), mode).map_err(|why| unwritten(path, &why))
}

fn program(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_PROGRAM_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn stamp(path: &Path) -> Option<(u64, SystemTime)> {
    let found = fs::metadata(path).ok()?;
    Some((found.size(), found.modified().ok()?))
}

fn unreadable(path: &Path, why: &io::Error) -> String {
    format!("{} cannot be read: {why}", path.display())
}

fn unwritten(path: &Path, why: &io::Error) -> String {
    format!("{} cannot be written: {why}", path.display())
}

#[expect(clippy::print_stdout, reason = "what a command does is its result")]
fn say(text: &str) {
    println!("{text}");
}
