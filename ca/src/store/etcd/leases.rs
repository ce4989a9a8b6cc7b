//! A lease as a key that lives as long as an etcd lease: who creates it holds it, and the revision
//! of its creation is the fence.
//!
//! Never: deletes a key that somebody else's lease keeps alive.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use tonic::{Code, Status};

use super::cluster::request;
use super::stubs::{
    KeyValue, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, RangeRequest,
    TxnRequest, compare,
};
use super::{Etcd, words};
use crate::store::{Lease, StoreError};

impl Etcd {
    pub(super) async fn acquire_now(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        let key = self.words.lease_key(name);
        match self.holder_of(&key).await? {
            Some(held) if held.value != holder.as_bytes() => return Ok(None),
            // Ours, from before: whoever of us held it has lost it now.
            Some(held) => self.revoke(held.lease).await?,
            None => {}
        }
        let handle = self.grant(ttl).await?;
        let absent = compare::TargetUnion::CreateRevision(0);
        let transaction = TxnRequest {
            compare: vec![words::equal(key.clone(), compare::Target::Create, absent)],
            success: vec![words::put_op(key.clone(), holder.as_bytes().to_vec(), handle)],
            failure: Vec::new(),
        };
        let told = self.cluster.ask("taking a lease", |member| {
            let transaction = transaction.clone();
            async move { member.kv().txn(request(transaction)).await }
        });
        // An answer that was lost shows in whose lease the key has.
        let _ = told.await?;
        match self.holder_of(&key).await? {
            Some(held) if held.lease == handle => {
                let fence = words::unsigned(held.create_revision);
                let (name, holder) = (name.to_owned(), holder.to_owned());
                Ok(Some(Lease { name, holder, fence, handle }))
            }
            _ => {
                self.revoke(handle).await?;
                Ok(None)
            }
        }
    }

    pub(super) async fn keep_now(&self, lease: &Lease) -> Result<bool, StoreError> {
        let id = lease.handle;
        let told = self.cluster.ask("keeping a lease", |member| async move {
            let asked = tokio_stream::once(LeaseKeepAliveRequest { id });
            let mut answers = member.lease().lease_keep_alive(request(asked)).await?.into_inner();
            let answer = answers.message().await?;
            answer.map(tonic::Response::new).ok_or_else(|| Status::unavailable("no answer"))
        });
        // A lease that is gone has no time left to live.
        Ok(told.await?.answer.ttl > 0)
    }

    pub(super) async fn revoke(&self, id: i64) -> Result<(), StoreError> {
        let told = self.cluster.ask("giving a lease back", |member| async move {
            match member.lease().lease_revoke(request(LeaseRevokeRequest { id })).await {
                Err(status) if status.code() == Code::NotFound => {
                    Ok(tonic::Response::new(super::stubs::LeaseRevokeResponse {}))
                }
                answered => answered,
            }
        });
        told.await.map(|_| ())
    }

    async fn grant(&self, ttl: Duration) -> Result<i64, StoreError> {
        // Whole seconds, at least one.
        let ttl = i64::try_from(ttl.as_millis().div_ceil(1000).max(1)).unwrap_or(i64::MAX);
        let told = self.cluster.ask("a lease", |member| async move {
            member.lease().lease_grant(request(LeaseGrantRequest { ttl })).await
        });
        Ok(told.await?.answer.id)
    }

    async fn holder_of(&self, key: &[u8]) -> Result<Option<KeyValue>, StoreError> {
        let asked = RangeRequest { key: key.to_vec(), range_end: Vec::new(), limit: 1 };
        Ok(self.range(asked).await?.kvs.into_iter().next())
    }
}
