//! The monitor's course: from the trust bundle to the roots' logs, from those to every issuer's log, and
//! through all of them for one ID; then once more at each turn, if it is to follow. Called by `log`.
//! Never: skips a log that a root's log names.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, HashMap};
use std::fs;

use anyhow::{Context, Result, ensure};
use myelin_identity::bundle::TrustBundle;
use myelin_identity::id::{SpiffeId, TrustDomain};
use myelin_identity::log::{LogKey, named_log};

use super::fetch::Server;
use super::find::{Found, Issuers, Read, UNKNOWN_SERIAL, known_serials};
use super::memory;
use super::reader::{Reader, State};
use super::show::Show;
use crate::args::MonitorArgs;

/// Sixteen roots in PEM.
const MAX_BUNDLE_BYTES: usize = 256 * 1024;
/// Issuers' logs that are read: a fleet of replicas over years.
const MAX_LOGS: usize = 1024;

struct Monitor {
    id: SpiffeId,
    server: Server,
    known: Option<BTreeMap<String, ()>>,
    before: HashMap<LogKey, State>,
    issuers: Issuers,
    roots: Vec<Reader>,
    logs: Vec<Reader>,
    show: Show,
    unexpected: bool,
}

/// Reads everything; `true`: something is not as its owner would expect.
pub(super) async fn run(args: &MonitorArgs) -> Result<bool> {
    let id = SpiffeId::parse(&args.id).with_context(|| format!("{} is no SPIFFE ID", args.id))?;
    let mut server = Server::new(&args.url)?;
    let mut show = Show::new(args.json);
    let bundle = bundle(args, id.trust_domain(), &mut server, &mut show).await?;
    let known = args.known.as_ref().map(|path| {
        let text = fs::read_to_string(path);
        text.map(|text| known_serials(&text))
            .with_context(|| format!("cannot read {}", path.display()))
    });
    let before = args.state.as_deref().map_or_else(|| Ok(HashMap::new()), memory::recall)?;
    let mut monitor = Monitor {
        id,
        server,
        known: known.transpose()?,
        before,
        issuers: Issuers::default(),
        roots: Vec::new(),
        logs: Vec::new(),
        show,
        unexpected: false,
    };
    monitor.roots = monitor.logs_of_roots(&bundle)?;
    loop {
        let found = monitor.turn().await?;
        monitor.show.found(&monitor.id, &found);
        if let Some(path) = &args.state {
            let states = monitor.roots.iter().chain(&monitor.logs);
            memory::keep(path, states.filter_map(|it| it.now.as_ref().map(|now| (&it.log, now))))?;
        }
        if !args.follow {
            monitor.show.end(&monitor.id);
            return Ok(monitor.unexpected);
        }
        tokio::time::sleep(args.every).await;
    }
}

async fn bundle(
    args: &MonitorArgs,
    trust_domain: &TrustDomain,
    server: &mut Server,
    show: &mut Show,
) -> Result<TrustBundle> {
    let pem = match &args.bundle {
        Some(path) => {
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        }
        None => String::from_utf8(server.get("/bundle.pem", MAX_BUNDLE_BYTES).await?)
            .context("the CA's /bundle.pem is no text")?,
    };
    let bundle = TrustBundle::from_pem(trust_domain.clone(), 0, &pem)?;
    if args.bundle.is_none() {
        show.unpinned(&bundle.hash().to_string());
    }
    Ok(bundle)
}

impl Monitor {
    fn reader(&mut self, log: LogKey) -> Reader {
        let before = self.before.remove(&log);
        Reader::new(log, before)
    }

    fn logs_of_roots(&mut self, bundle: &TrustBundle) -> Result<Vec<Reader>> {
        let mut readers: Vec<Reader> = Vec::new();
        for root in bundle.roots() {
            if let Some(log) = named_log(root).context("a root's name of its log")?
                && !readers.iter().any(|reader| reader.log == log)
            {
                readers.push(self.reader(log));
            }
        }
        ensure!(
            !readers.is_empty(),
            "no root of this bundle names a log: this mesh keeps none, so nobody can tell what was issued"
        );
        Ok(readers)
    }

    /// Reads what is new in every log; what concerns the ID comes back.
    async fn turn(&mut self) -> Result<Vec<Found>> {
        let mut named = Vec::new();
        for root in &mut self.roots {
            let (issuers, log) = (&mut self.issuers, root.log.name().to_owned());
            let mut odd = Vec::new();
            let entry = |index, bytes: &[u8]| match issuers.read(bytes) {
                Read::Log(found) => named.push(*found),
                Read::Odd(why) => odd.push((index, why)),
            };
            let before = root.size();
            root.advance(&mut self.server, entry, |read, all| self.show.progress(&log, read, all))
                .await?;
            self.show.read(&log, before, root.size(), "issuers");
            for (index, why) in odd {
                self.unexpected = true;
                self.show.odd(&log, index, why);
            }
        }
        for log in named {
            let is_new = !self.logs.iter().any(|reader| reader.log == log);
            if is_new {
                ensure!(
                    self.logs.len() < MAX_LOGS,
                    "the roots' logs name more than {MAX_LOGS} logs"
                );
                let reader = self.reader(log);
                self.logs.push(reader);
            }
        }
        let mut all = Vec::new();
        for reader in &mut self.logs {
            let log = reader.log.name().to_owned();
            let (issuers, id) = (&self.issuers, &self.id);
            let entry = |index, bytes: &[u8]| all.extend(issuers.find(id, &log, index, bytes));
            let before = reader.size();
            reader
                .advance(&mut self.server, entry, |read, all| self.show.progress(&log, read, all))
                .await?;
            self.show.read(&log, before, reader.size(), "certificates");
        }
        for found in &mut all {
            let known = self.known.as_ref();
            let is_unknown = known.is_some_and(|known| !known.contains_key(&found.serial));
            if is_unknown && found.objection.is_none() {
                found.objection = Some(UNKNOWN_SERIAL);
            }
            self.unexpected |= found.objection.is_some();
        }
        Ok(all)
    }
}
