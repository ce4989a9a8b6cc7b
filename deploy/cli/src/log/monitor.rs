//! The monitor's course: from the trust bundle to the roots' logs, from those to every issuer's log, and
//! through all of them for one ID; then once more at each turn, if it is to follow. Called by `log`.
//! Never: skips a log that a root's log names, or tells of an entry before the log's root is verified.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, ensure};
use aws_lc_rs::rand;
use myelin_identity::bundle::TrustBundle;
use myelin_identity::id::SpiffeId;
use myelin_identity::log::LogKey;

use super::find::{Issuers, Matches, Odds, Read, known_serials};
use super::memory;
use super::reader::{Contradiction, Reader, State};
use super::servers::{Place, Servers, Survey};
use super::show::Show;
use crate::args::MonitorArgs;

/// Issuers' logs that are read: a fleet of replicas over years.
pub(super) const MAX_LOGS: usize = 1024;
/// While something cannot be read the pause doubles, up to this: a CA that comes back is not met by
/// every monitor at once, and its owner hears of what it did meanwhile soon enough.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// What one turn, or all of them, came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) contradiction: bool,
    pub(super) unexpected: bool,
    pub(super) unread: bool,
}

struct Monitor<'a> {
    args: &'a MonitorArgs,
    id: SpiffeId,
    servers: Servers,
    known: Option<BTreeSet<String>>,
    /// Of logs that earlier runs have read and this one has not met yet.
    before: HashMap<LogKey, State>,
    issuers: Issuers,
    /// Hash of the bundle whose roots are watched.
    bundle: String,
    roots: Vec<Reader>,
    logs: Vec<Reader>,
    named: Named,
    show: Show,
}

/// Reads everything, once or until it is stopped. An error is one of the command line, its files, or
/// a first look that found no bundle; what cannot be read later is in the verdict.
pub(super) async fn run(args: &MonitorArgs) -> Result<Verdict> {
    let mut monitor = Monitor::new(args)?;
    monitor.learn_roots().await?;
    let (mut verdict, mut failures) = (Verdict::default(), 0_u32);
    loop {
        let turn = monitor.turn().await;
        verdict.add(turn);
        monitor.remember()?;
        if !args.follow || turn.contradiction {
            monitor.show.end(&monitor.id, !verdict.unread);
            return Ok(verdict);
        }
        failures = if turn.unread { failures.saturating_add(1) } else { 0 };
        let mut random = [0];
        rand::fill(&mut random).context("no random numbers")?;
        tokio::time::sleep(pause(args.every, failures, random[0])).await;
        if let Err(error) = monitor.learn_roots().await {
            verdict.add(monitor.trouble(&error));
        }
    }
}

/// Until the next turn, after so many failed ones; a quarter more or less by chance.
pub(super) fn pause(every: Duration, failures: u32, random: u8) -> Duration {
    let longest = every.max(LONGEST_PAUSE);
    let pause = every.saturating_mul(1 << failures.min(10)).min(longest);
    pause.mul_f64(0.75 + f64::from(random) / 512.0)
}

/// The logs that issuers name, each once: the same as are read, in that order.
#[derive(Clone, Default)]
pub(super) struct Named {
    pub(super) logs: Vec<LogKey>,
    /// There are more than can be watched.
    pub(super) left_out: bool,
}

impl Named {
    pub(super) fn take(&mut self, log: LogKey) {
        if self.logs.contains(&log) {
            return;
        }
        self.left_out |= self.logs.len() >= MAX_LOGS;
        if self.logs.len() < MAX_LOGS {
            self.logs.push(log);
        }
    }
}

impl Verdict {
    fn add(&mut self, other: Self) {
        self.contradiction |= other.contradiction;
        self.unexpected |= other.unexpected;
        self.unread |= other.unread;
    }
}

impl<'a> Monitor<'a> {
    fn new(args: &'a MonitorArgs) -> Result<Self> {
        let id = SpiffeId::parse(&args.id);
        let id = id.with_context(|| format!("{} is no SPIFFE ID", args.id))?;
        let known = args.known.as_ref().map(|path| {
            let text = fs::read_to_string(path);
            text.map(|text| known_serials(&text))
                .with_context(|| format!("cannot read {}", path.display()))
        });
        let before = args.state.as_deref().map_or_else(|| Ok(HashMap::new()), memory::recall)?;
        Ok(Self {
            args,
            id,
            servers: Servers::new(&args.url)?,
            known: known.transpose()?,
            before,
            issuers: Issuers::default(),
            bundle: String::new(),
            roots: Vec::new(),
            logs: Vec::new(),
            named: Named::default(),
            show: Show::new(args.json),
        })
    }

    /// Reads the trust bundle, and watches the logs of roots that are new in it. Those of a root that
    /// has left it are watched on: what was issued below it is still of interest.
    async fn learn_roots(&mut self) -> Result<()> {
        let pem = match &self.args.bundle {
            Some(path) => fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?,
            None => self.servers.bundle().await?,
        };
        let bundle = TrustBundle::from_pem(self.id.trust_domain().clone(), 0, &pem)?;
        let hash = bundle.hash().to_string();
        if self.bundle == hash {
            return Ok(());
        }
        if self.args.bundle.is_none() {
            self.show.unpinned(&hash);
        }
        let mut unlogged = 0;
        for root in bundle.root_ids() {
            match bundle.log_of(&root).context("a root's name of its log")? {
                Some(log) if self.roots.iter().any(|reader| reader.log == log) => {}
                Some(log) => self.roots.push(Reader::new(log.clone(), self.before.remove(&log))),
                None => unlogged += 1,
            }
        }
        ensure!(
            !self.roots.is_empty(),
            "no log is known for any root of this bundle, so nobody can tell what was issued below it; \
             was it cut from the CA's /bundle.pem, where lines before the blocks name the logs of corporate roots?"
        );
        if unlogged > 0 {
            self.show.unlogged(unlogged);
        }
        self.bundle = hash;
        Ok(())
    }

    /// Reads what is new in every log, and tells what concerns the ID.
    async fn turn(&mut self) -> Verdict {
        let (mut survey, mut verdict) = (Survey::default(), Verdict::default());
        // In this order every issuer of what the issuers' logs hold is in the roots' logs already.
        for place in [Place::Issuer, Place::Root] {
            for error in self.servers.survey(&mut survey, place).await {
                verdict.add(self.trouble(&error));
            }
        }
        let mut roots_are_read = true;
        for nth in 0..self.roots.len() {
            match self.read_root(&survey, nth).await {
                Ok(turn) => verdict.add(turn),
                Err(error) => {
                    verdict.add(self.trouble(&error));
                    roots_are_read = false;
                }
            }
        }
        // Without all issuers good certificates would look like those of a stranger.
        let logs = if roots_are_read { self.logs.len() } else { 0 };
        for nth in 0..logs {
            match self.read_log(&survey, nth).await {
                Ok(turn) => verdict.add(turn),
                Err(error) => verdict.add(self.trouble(&error)),
            }
        }
        verdict
    }

    async fn read_root(&mut self, survey: &Survey, nth: usize) -> Result<Verdict> {
        let (root, show) = (&mut self.roots[nth], &mut self.show);
        let shown = self.servers.showing(survey, &root.log)?;
        let (log, before) = (root.log.name().to_owned(), root.size());
        let (mut issuers, mut odds) = (Issuers::default(), Odds::default());
        let mut named = self.named.clone();
        let entry = |index, bytes: &[u8]| match issuers.read(bytes) {
            Read::Log(log) => named.take(*log),
            Read::Odd(why) => odds.take(index, why),
        };
        root.advance(shown, entry, |read, all| show.progress(&log, read, all)).await?;
        show.read(&log, before, root.size(), "issuers");
        show.odd(&log, &odds);
        self.issuers.add(issuers);
        for log in named.logs.iter().skip(self.logs.len()) {
            self.logs.push(Reader::new(log.clone(), self.before.remove(log)));
        }
        let mut verdict = Verdict { unexpected: !odds.shown.is_empty(), ..Verdict::default() };
        if named.left_out {
            verdict.add(self.trouble(&anyhow!(
                "the roots' logs name more than {MAX_LOGS} logs; only the first are watched"
            )));
        }
        self.named = named;
        Ok(verdict)
    }

    async fn read_log(&mut self, survey: &Survey, nth: usize) -> Result<Verdict> {
        let (reader, show) = (&mut self.logs[nth], &mut self.show);
        let shown = self.servers.showing(survey, &reader.log)?;
        let (log, before) = (reader.log.name().to_owned(), reader.size());
        let mut matches = Matches::new(self.known.as_ref());
        let entry = |index, bytes: &[u8]| {
            if let Some(found) = self.issuers.find(&self.id, index, bytes) {
                matches.take(found);
            }
        };
        reader.advance(shown, entry, |read, all| show.progress(&log, read, all)).await?;
        show.read(&log, before, reader.size(), "certificates");
        show.found(&self.id, &log, &matches);
        Ok(Verdict { unexpected: matches.counts().1 > 0, ..Verdict::default() })
    }

    fn trouble(&mut self, error: &Error) -> Verdict {
        self.show.trouble(error);
        let contradiction = error.is::<Contradiction>();
        Verdict { contradiction, unread: !contradiction, unexpected: false }
    }

    /// Keeps the newest states; of logs that were not met this time, those of earlier runs.
    fn remember(&self) -> Result<()> {
        let Some(path) = &self.args.state else { return Ok(()) };
        let read = self.roots.iter().chain(&self.logs);
        let read = read.filter_map(|reader| reader.state().map(|state| (&reader.log, state)));
        memory::keep(path, read.chain(&self.before))
    }
}
