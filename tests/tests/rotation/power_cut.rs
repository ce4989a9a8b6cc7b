//! T45: the CA is killed in the middle of issuing, again and again. It restarts, the sidecars get
//! what they asked for, no serial exists twice, and audit log and journal tell the same story.
//!
//! Never: a clean shutdown.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use myelin_ca::journal::{IssuedRecord, Journal};
use myelin_ca::store::embedded::Embedded;
use myelin_tests::programs::eventually;
use myelin_tests::{Mesh, Options, Spec, Workload};

use crate::serial;

/// So many ask at once that some are always in the middle.
const ASKING: usize = 6;
const CUTS: usize = 4;

/// Serials as the CA's audit lines tell them, with how often.
fn audited(mesh: &Mesh) -> Result<BTreeMap<String, usize>> {
    let log = std::fs::read_to_string(mesh.ca.data().with_extension("log"))?;
    let mut found = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains("certificate issued")) {
        // A repeated answer hands out the same certificate once more.
        if line.contains("repeated") {
            continue;
        }
        let serial = line.split("serial=").nth(1).and_then(|rest| rest.split(' ').next());
        *found.entry(serial.unwrap_or_default().to_owned()).or_insert(0) += 1;
    }
    Ok(found)
}

/// Serials in the journal of a CA that is down.
async fn journalled(mesh: &Mesh) -> Result<BTreeSet<String>> {
    let copy = tempfile::tempdir()?;
    let path = copy.path().join("store.redb");
    std::fs::copy(mesh.ca.data().join("store.redb"), &path)?;
    let journal = Journal::new(Arc::new(Embedded::open(&path)?));
    let records = journal.all::<IssuedRecord>().await?;
    Ok(records.iter().filter_map(|e| e.key.rsplit('/').next().map(str::to_owned)).collect())
}

#[tokio::test]
async fn ca_killed_while_it_issues_restarts_and_no_serial_exists_twice() -> Result<()> {
    let Some(mesh) = Mesh::start(Options::lifetime(30)).await? else { return Ok(()) };
    let mut asking: Vec<Workload> = Vec::new();
    for number in 0..ASKING {
        asking.push(mesh.prepare(Spec::new(&format!("asks{number}"))).await?);
    }
    let mut held = BTreeSet::new();
    for cut in 0..CUTS {
        let before = audited(&mesh)?.len();
        for workload in &asking {
            workload.kill9();
            workload.start()?;
        }
        // The first certificate has left: the others are on their way.
        eventually("the CA issues", Duration::from_secs(30), async || {
            Ok(audited(&mesh)?.len() > before)
        })
        .await?;
        mesh.ca.kill9();
        mesh.ca.up().await?;
        for workload in &asking {
            workload.ready().await?;
            held.insert(serial(workload).await?);
        }
        ensure!(held.len() == (cut + 1) * ASKING, "a serial came back after cut {cut}: {held:?}");
    }
    mesh.ca.kill9();
    let (audited, journalled) = (audited(&mesh)?, journalled(&mesh).await?);
    let plain = |serial: &String| serial.replace(':', "").to_lowercase();
    let twice: Vec<_> = audited.iter().filter(|(_, times)| **times > 1).collect();
    ensure!(twice.is_empty(), "issued twice: {twice:?}");
    let known: BTreeSet<String> = journalled.iter().map(plain).collect();
    for serial in held.iter().chain(audited.keys()) {
        ensure!(known.contains(&plain(serial)), "the journal does not know {serial}: {known:?}");
    }
    Ok(())
}
