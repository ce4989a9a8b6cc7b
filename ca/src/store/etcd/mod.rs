//! The store of several replicas: an etcd cluster, over the few messages of its API that we use.
//! Opened by `app`.
//!
//! Reads go through the quorum, so that no replica decides on what a cut-off member remembers. A
//! commit whose answer was lost is sent again; if it then conflicts, what is stored shows whether
//! it was our own doing.
//!
//! Who may write under the prefix may issue, by a token or an entry of his own making: etcd's users
//! and its client certificates are what keeps others out, and nothing in here does.
//!
//! Never: reads from one member alone, or asks a question without a deadline.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::{
    Changes, Commit, Expect, Lease, MAX_LIST, MAX_WRITES, Store, StoreError, Versioned, Write,
    bounded, within_bounds,
};

mod cluster;
mod commit;
mod connect;
mod endpoint;
mod leases;
mod refusal;
mod watch;
mod words;

pub use connect::ClientTls;
pub use endpoint::{EtcdEndpoint, EtcdEndpointError};

use cluster::Cluster;
use stubs::{RangeRequest, TxnRequest};
use words::Words;

/// What tonic makes of ca/proto/etcd.proto.
#[allow(
    clippy::all,
    clippy::use_self,
    clippy::or_fun_call,
    clippy::large_futures,
    clippy::too_many_lines,
    unreachable_pub,
    unused_qualifications,
    missing_docs
)]
mod stubs {
    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs"));
}

/// Where the cluster is, and under what our keys are in it.
#[derive(Clone, Debug)]
pub struct EtcdConfig {
    pub endpoints: Vec<EtcdEndpoint>,
    /// None: plaintext, which only loopback endpoints may have.
    pub tls: Option<ClientTls>,
    /// In front of every key, so that several meshes may share one cluster.
    pub prefix: String,
}

/// A client of one etcd cluster. Clones share its connections.
#[derive(Clone)]
pub struct Etcd {
    cluster: Cluster,
    words: Words,
}

impl Etcd {
    /// Sets up the client and asks the cluster once, so that a wrong configuration is found now.
    pub async fn open(config: &EtcdConfig) -> Result<Self, StoreError> {
        let cluster = Cluster::new(&config.endpoints, config.tls.as_ref())?;
        let store = Self { cluster, words: Words::new(&config.prefix) };
        store.revision().await?;
        Ok(store)
    }

    async fn range(&self, request: RangeRequest) -> Result<stubs::RangeResponse, StoreError> {
        let told = self.cluster.ask("a read", |member| {
            let asked = request.clone();
            async move { member.kv().range(cluster::request(asked)).await }
        });
        Ok(told.await?.answer)
    }

    async fn txn(&self, request: TxnRequest) -> Result<stubs::TxnResponse, StoreError> {
        let told = self.cluster.ask("a reading", |member| {
            let asked = request.clone();
            async move { member.kv().txn(cluster::request(asked)).await }
        });
        Ok(told.await?.answer)
    }

    async fn read_now(&self, key: &str) -> Result<Option<Versioned>, StoreError> {
        let answer = self.range(self.words.one(key)).await?;
        Ok(answer.kvs.into_iter().next().map(words::versioned))
    }

    async fn read_many_now(&self, keys: &[String]) -> Result<Vec<Option<Versioned>>, StoreError> {
        bounded("a reading", keys.len(), MAX_WRITES)?;
        let success = keys.iter().map(|key| words::range_op(self.words.one(key))).collect();
        let answer = self.txn(TxnRequest { success, ..TxnRequest::default() }).await?;
        words::all_found(answer.responses, keys.len())
    }

    async fn list_now(
        &self,
        prefix: &str,
        after: Option<&str>,
        bound: usize,
    ) -> Result<Vec<(String, Versioned)>, StoreError> {
        let answer = self.range(self.words.page(prefix, after, bound.min(MAX_LIST))).await?;
        let entry = |kv: stubs::KeyValue| Some((self.words.ours(&kv.key)?, words::versioned(kv)));
        Ok(answer.kvs.into_iter().filter_map(entry).collect())
    }
}

impl Store for Etcd {
    fn read<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Versioned>, StoreError>> {
        Box::pin(self.read_now(key))
    }

    fn read_many<'a>(
        &'a self,
        keys: &'a [String],
    ) -> BoxFuture<'a, Result<Vec<Option<Versioned>>, StoreError>> {
        Box::pin(self.read_many_now(keys))
    }

    fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        bound: usize,
    ) -> BoxFuture<'a, Result<Vec<(String, Versioned)>, StoreError>> {
        Box::pin(self.list_now(prefix, after, bound))
    }

    fn commit(
        &self,
        expects: Vec<Expect>,
        writes: Vec<Write>,
    ) -> BoxFuture<'static, Result<Commit, StoreError>> {
        if let Err(error) = within_bounds(&expects, &writes) {
            return Box::pin(async move { Err(error) });
        }
        let store = self.clone();
        // A task of its own goes on to its end even when nobody waits for it any more.
        let task = tokio::spawn(async move { store.commit_now(&expects, &writes).await });
        Box::pin(async move { task.await.unwrap_or(Err(StoreError::Ended)) })
    }

    fn revision(&self) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let answer = self.range(self.words.one("")).await?;
            Ok(words::revision(answer.header))
        })
    }

    fn watch<'a>(
        &'a self,
        prefix: &'a str,
        after: u64,
    ) -> BoxFuture<'a, Result<Changes, StoreError>> {
        Box::pin(self.watch_now(prefix, after))
    }

    fn acquire<'a>(
        &'a self,
        name: &'a str,
        holder: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Option<Lease>, StoreError>> {
        Box::pin(self.acquire_now(name, holder, ttl))
    }

    fn keep<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(self.keep_now(lease))
    }

    fn release<'a>(&'a self, lease: &'a Lease) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.revoke(lease.handle))
    }
}
