//! The log of a running CA, read by crates that nobody here wrote: `signed_note` for the checkpoint,
//! `tlog_tiles` for tiles and proofs.
//!
//! Never: our own reader where the verdict is asked for.

// SPDX-License-Identifier: Apache-2.0

#![allow(clippy::unwrap_used)]

mod served;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use myelin_ca::app::{Builder, Running};
use myelin_ca::authority::Settings;
use myelin_ca::config::{AttestConfig, Keys, ServeConfig, StoreConfig};
use myelin_ca::template::{Lifetimes, MAX_LIFETIME, MIN_LIFETIME};
use myelin_identity::id::TrustDomain;
use myelin_identity::log::{Hash, LogKey, entry_of, leaf_hash, named_log, verify_consistency};
use tlog_tiles::{TileHashReader, check_record, check_tree, prove_record, prove_tree, tree_hash};

use served::Served;

/// Entries beside the CA's own certificates: more than two tiles.
const MORE: u64 = 600;

async fn start(directory: &std::path::Path) -> Result<Running> {
    let config = ServeConfig {
        trust_domain: TrustDomain::parse("prod.example")?,
        data: directory.join("data"),
        store: StoreConfig::Embedded,
        keys: Keys::default(),
        root_cert: None,
        federation: None,
        listen: "127.0.0.1:0".parse()?,
        ops_listen: "127.0.0.1:0".parse()?,
        attest: AttestConfig::default(),
        witnesses: myelin_ca::config::WitnessConfig::default(),
        authority: Settings {
            lifetimes: Lifetimes {
                default: MAX_LIFETIME,
                shortest: MIN_LIFETIME,
                longest: MAX_LIFETIME,
            },
            rotate_root_every: None,
            own_addresses: vec!["127.0.0.1".parse()?],
            own_names: vec![],
            kubernetes_namespaces: vec![],
        },
    };
    Ok(Builder::new(config).start().await?)
}

/// Real certificates of this CA, and others that only the log has to know.
async fn fill(ca: &Running) -> Result<()> {
    for _ in 0..5 {
        ca.authority().issue_own().await?;
    }
    let log = &ca.authority().logs().issuing;
    let appends = (0..MORE).map(|n| log.append(entry_of(&n.to_be_bytes(), b"issuer")));
    let mut waiting: Vec<_> = appends.map(Box::pin).collect();
    for append in &mut waiting {
        tokio::time::timeout(Duration::from_secs(30), append).await.context("slow")??;
    }
    Ok(())
}

fn ours(hash: &tlog_tiles::Hash) -> Hash {
    Hash(hash.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_independent_reader_agrees_with_the_served_log() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let ca = start(directory.path()).await?;
    let key = ca.authority().logs().issuing.key().clone();
    let served = Served::new(ca.ops, "/log", &key);
    let old = tokio::task::spawn_blocking({
        let served = served.clone();
        move || served.checkpoint()
    });
    let old = old.await??;
    fill(&ca).await?;
    let read = tokio::task::spawn_blocking(move || {
        let now = served.checkpoint()?;
        ensure!(now.size() == MORE + 6, "{} entries", now.size());
        let reader = TileHashReader::new(now.size(), *now.hash(), &served);
        ensure!(tree_hash(now.size(), &reader)? == *now.hash(), "the tiles make another root");
        let mut certificates = 0;
        for (index, entry) in (0..).zip(served.entries(now.size())?) {
            let hash = tlog_tiles::record_hash(&entry);
            ensure!(ours(&hash) == leaf_hash(&entry));
            if index % 37 == 0 || index < 6 || index + 1 == now.size() {
                let proof = prove_record(now.size(), index, &reader)?;
                check_record(&proof, now.size(), *now.hash(), index, hash)?;
            }
            let entry = myelin_identity::log::Entry::parse(&entry)?;
            certificates += usize::from(named_or_svid(entry.certificate));
        }
        ensure!(certificates == 6, "{certificates} real certificates");
        let proof = prove_tree(now.size(), old.size(), &reader)?;
        check_tree(&proof, now.size(), *now.hash(), old.size(), *old.hash())?;
        let proof: Vec<Hash> = proof.iter().map(ours).collect();
        ensure!(verify_consistency(
            old.size(),
            &ours(old.hash()),
            now.size(),
            &ours(now.hash()),
            &proof
        ));
        Ok(())
    });
    read.await??;
    ca.stop().await;
    Ok(())
}

/// Whether the bytes are a certificate at all.
fn named_or_svid(der: &[u8]) -> bool {
    named_log(der).is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn our_proofs_are_those_of_an_independent_reader() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let ca = start(directory.path()).await?;
    fill(&ca).await?;
    let log = ca.authority().logs().issuing.clone();
    let served = Arc::new(Served::new(ca.ops, "/log", log.key()));
    for index in [0, 3, 255, 256, 511, 512, MORE + 5] {
        let served = served.clone();
        let (entry, theirs, root) = tokio::task::spawn_blocking(move || {
            let now = served.checkpoint()?;
            let reader = TileHashReader::new(now.size(), *now.hash(), &*served);
            let entry = served.entries(now.size())?.swap_remove(usize::try_from(index)?);
            anyhow::Ok((entry, prove_record(now.size(), index, &reader)?, *now.hash()))
        })
        .await??;
        let ours_is = log.prove(index, &entry).await?;
        let theirs: Vec<Hash> = theirs.iter().map(ours).collect();
        ensure!(ours_is.path == theirs, "entry {index}");
        ensure!(log.published().root == ours(&root));
    }
    ca.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_independent_reader_reads_the_roots_log_that_the_root_names() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let ca = start(directory.path()).await?;
    let bundle = ca.authority().bundle();
    let root = bundle.roots().next().context("no root")?;
    let key: LogKey = named_log(root)?.context("the root names no log")?;
    let served = Served::new(ca.ops, "/root-log", &key);
    let entries = tokio::task::spawn_blocking(move || {
        let now = served.checkpoint()?;
        let reader = TileHashReader::new(now.size(), *now.hash(), &served);
        ensure!(tree_hash(now.size(), &reader)? == *now.hash());
        served.entries(now.size())
    });
    let entries = entries.await??;
    ensure!(entries.len() == 1, "{} intermediates", entries.len());
    let intermediate = myelin_identity::log::Entry::parse(&entries[0])?;
    // Whoever enumerates the root's log finds every issuing log by its name.
    let issuing = named_log(intermediate.certificate)?;
    ensure!(issuing.as_ref() == Some(ca.authority().logs().issuing.key()));
    ca.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_independent_reader_refuses_what_was_changed() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let ca = start(directory.path()).await?;
    fill(&ca).await?;
    let key = ca.authority().logs().issuing.key().clone();
    let other: LogKey = LogKey::new(key.name(), [7; 32])?;
    let (good, stranger) = (Served::new(ca.ops, "/log", &key), Served::new(ca.ops, "/log", &other));
    let judged = tokio::task::spawn_blocking(move || {
        ensure!(stranger.checkpoint().is_err(), "a checkpoint of another key was believed");
        let now = good.checkpoint()?;
        let changed = good.changed();
        let reader = TileHashReader::new(now.size(), *now.hash(), &changed);
        ensure!(prove_record(now.size(), 3, &reader).is_err(), "a changed tile was believed");
        Ok(())
    });
    judged.await??;
    ca.stop().await;
    Ok(())
}
