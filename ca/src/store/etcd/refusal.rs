//! What a failed call to etcd means: whether another member may do better, and what an operator
//! should do. Pure. Called by `cluster`.
//!
//! Never: hides what etcd said.

// SPDX-License-Identifier: Apache-2.0

use tonic::{Code, Status};

use crate::store::StoreError;

/// Whether it is worth asking again.
#[derive(Debug)]
pub(super) enum Failure {
    /// This member, or the way to it, is not well, or the cluster is choosing a leader. Whether a
    /// transaction happened is open.
    Elsewhere(String),
    /// Every member would say the same.
    Final(StoreError),
}

/// Longest part of what etcd said that goes into our log.
const MAX_QUOTED_CHARACTERS: usize = 300;

pub(super) fn judge(status: &Status) -> Failure {
    let said = quoted(status);
    match status.code() {
        Code::ResourceExhausted if said.contains("space exceeded") => {
            Failure::Final(StoreError::Full(said))
        }
        Code::PermissionDenied | Code::Unauthenticated => Failure::Final(StoreError::Denied(said)),
        Code::InvalidArgument if said.contains("permission denied") => {
            Failure::Final(StoreError::Denied(said))
        }
        Code::InvalidArgument | Code::Unimplemented | Code::OutOfRange | Code::NotFound => {
            Failure::Final(StoreError::Refused(said))
        }
        // Unavailable, deadline, leader changed, too many requests, a broken connection.
        _ => Failure::Elsewhere(said),
    }
}

/// One line, bounded, with the causes that tonic keeps below its own.
fn quoted(status: &Status) -> String {
    let mut said = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let text = error.to_string();
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        cause = error.source();
    }
    said.chars().filter(|c| !c.is_control()).take(MAX_QUOTED_CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart_by_what_to_do() {
        let elsewhere =
            |code, said: &str| matches!(judge(&Status::new(code, said)), Failure::Elsewhere(_));
        for (code, said) in [
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::Unavailable, "etcdserver: no leader"),
            (Code::DeadlineExceeded, ""),
            (Code::Unknown, "transport error"),
            (Code::ResourceExhausted, "etcdserver: too many requests"),
        ] {
            assert!(elsewhere(code, said), "{code:?} {said}");
        }
        let last = |code, said: &str| match judge(&Status::new(code, said)) {
            Failure::Final(error) => error,
            Failure::Elsewhere(said) => panic!("{said}"),
        };
        let full = last(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
        assert!(matches!(full, StoreError::Full(_)));
        assert!(full.to_string().contains("alarm disarm"), "{full}");
        let denied = last(Code::PermissionDenied, "etcdserver: permission denied");
        assert!(denied.to_string().contains("--etcd-cert"), "{denied}");
        let large = last(Code::InvalidArgument, "etcdserver: request is too large");
        assert!(matches!(large, StoreError::Refused(_)));
    }
}
