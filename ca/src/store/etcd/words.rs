//! What we say to etcd and what it answers, in our own terms. Pure. Used by the other files of this
//! folder.
//!
//! Never: asks for a key outside our prefix.

// SPDX-License-Identifier: Apache-2.0

use super::stubs::{
    Compare, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, RequestOp, ResponseHeader,
    ResponseOp, compare, request_op, response_op,
};
use crate::store::{Expect, StoreError, Versioned, Write};

/// Our corner of the cluster.
#[derive(Clone, Debug)]
pub(super) struct Words {
    /// Ends with a slash, or is empty.
    prefix: String,
}

impl Words {
    pub(super) fn new(prefix: &str) -> Self {
        let prefix = prefix.trim_end_matches('/');
        Self { prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") } }
    }

    pub(super) fn key(&self, key: &str) -> Vec<u8> {
        format!("{}{key}", self.prefix).into_bytes()
    }

    /// Under which key a lease is held. A dot, because no record's key begins with one.
    pub(super) fn lease_key(&self, name: &str) -> Vec<u8> {
        format!("{}.lease/{name}", self.prefix).into_bytes()
    }

    /// Our name of a key; None if it is no text of ours.
    pub(super) fn ours(&self, key: &[u8]) -> Option<String> {
        let text = std::str::from_utf8(key).ok()?;
        text.strip_prefix(self.prefix.as_str()).map(str::to_owned)
    }

    pub(super) fn one(&self, key: &str) -> RangeRequest {
        // etcd knows no empty key; with an empty prefix any other asks for the revision as well.
        let key = self.key(if key.is_empty() { ".none" } else { key });
        RangeRequest { key, range_end: Vec::new(), limit: 1 }
    }

    pub(super) fn page(&self, prefix: &str, after: Option<&str>, bound: usize) -> RangeRequest {
        let (first, range_end) = self.span(prefix);
        let key = match after {
            Some(after) => [self.key(after), vec![0]].concat(),
            None => first,
        };
        RangeRequest { key, range_end, limit: bound as i64 }
    }

    /// First key and end of everything that starts with `prefix`.
    pub(super) fn span(&self, prefix: &str) -> (Vec<u8>, Vec<u8>) {
        let first = self.key(prefix);
        let mut end = first.clone();
        // Keys are UTF-8, in which no byte is 0xff.
        match end.last_mut() {
            Some(last) => *last += 1,
            // A single zero byte means: to the end of all keys.
            None => return (vec![0], vec![0]),
        }
        (first, end)
    }

    pub(super) fn compare(&self, expect: &Expect) -> Compare {
        let (key, target, union) = match expect {
            Expect::Absent(key) => {
                (self.key(key), compare::Target::Create, compare::TargetUnion::CreateRevision(0))
            }
            Expect::Revision(key, revision) => (
                self.key(key),
                compare::Target::Mod,
                compare::TargetUnion::ModRevision(signed(*revision)),
            ),
            Expect::Held { name, fence } => (
                self.lease_key(name),
                compare::Target::Create,
                compare::TargetUnion::CreateRevision(signed(*fence)),
            ),
        };
        equal(key, target, union)
    }

    pub(super) fn write(&self, write: &Write) -> RequestOp {
        let request = match write {
            Write::Put(key, value) => request_op::Request::RequestPut(PutRequest {
                key: self.key(key),
                value: value.clone(),
                lease: 0,
            }),
            Write::Delete(key) => {
                request_op::Request::RequestDeleteRange(DeleteRangeRequest { key: self.key(key) })
            }
        };
        RequestOp { request: Some(request) }
    }
}

pub(super) fn equal(key: Vec<u8>, target: compare::Target, union: compare::TargetUnion) -> Compare {
    Compare {
        result: compare::Result::Equal.into(),
        target: target.into(),
        key,
        target_union: Some(union),
    }
}

pub(super) fn put_op(key: Vec<u8>, value: Vec<u8>, lease: i64) -> RequestOp {
    let put = PutRequest { key, value, lease };
    RequestOp { request: Some(request_op::Request::RequestPut(put)) }
}

pub(super) fn range_op(request: RangeRequest) -> RequestOp {
    RequestOp { request: Some(request_op::Request::RequestRange(request)) }
}

/// What each range of a transaction found, in the order in which it was asked for. An answer that
/// leaves one out says nothing about any.
pub(super) fn all_found(
    responses: Vec<ResponseOp>,
    asked: usize,
) -> Result<Vec<Option<Versioned>>, StoreError> {
    let answered = responses.len();
    let found: Vec<_> = responses.into_iter().map_while(first_of).collect();
    if found.len() != asked {
        let why =
            format!("it answered {answered} of {asked} reads, {} of them as reads", found.len());
        return Err(StoreError::Refused(why));
    }
    Ok(found)
}

/// None: it is no answer to a range.
fn first_of(response: ResponseOp) -> Option<Option<Versioned>> {
    match response.response {
        Some(response_op::Response::ResponseRange(range)) => {
            Some(range.kvs.into_iter().next().map(versioned))
        }
        _ => None,
    }
}

pub(super) fn versioned(kv: KeyValue) -> Versioned {
    Versioned { revision: unsigned(kv.mod_revision), value: kv.value }
}

pub(super) fn revision(header: Option<ResponseHeader>) -> u64 {
    unsigned(header.map_or(0, |header| header.revision))
}

/// etcd counts from 1 and will not reach the sign.
pub(super) fn unsigned(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

pub(super) fn signed(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::stubs::RangeResponse;
    use super::*;

    #[test]
    fn everything_asked_for_lies_under_the_prefix() {
        for (prefix, expected) in [("", ""), ("/myelin/prod", "/myelin/prod/"), ("m/", "m/")] {
            let words = Words::new(prefix);
            assert_eq!(words.key("a/1"), format!("{expected}a/1").into_bytes());
            assert_eq!(words.ours(&words.key("a/1")).as_deref(), Some("a/1"));
            let (first, end) = words.span("a/");
            assert_eq!(first, format!("{expected}a/").into_bytes());
            assert_eq!(end, format!("{expected}a0").into_bytes());
        }
        assert_eq!(Words::new("x").ours(b"y/a"), None);
        assert_eq!(Words::new("x").ours(&[b'x', b'/', 0xff]), None);
        assert_eq!(Words::new("").span(""), (vec![0], vec![0]));
        assert_eq!(Words::new("x").span("").1, b"x0");
    }

    #[test]
    fn answer_that_is_short_or_of_another_kind_is_refused_whole() {
        let range = |values: &[&str]| {
            let kvs = values
                .iter()
                .map(|value| KeyValue { value: value.as_bytes().to_vec(), ..KeyValue::default() });
            let range = RangeResponse { kvs: kvs.collect(), ..RangeResponse::default() };
            ResponseOp { response: Some(response_op::Response::ResponseRange(range)) }
        };
        let values = |found: Vec<Option<Versioned>>| {
            found.into_iter().map(|one| one.map(|it| it.value)).collect::<Vec<_>>()
        };
        let found = all_found(vec![range(&["a"]), range(&[])], 2).unwrap();
        assert_eq!(values(found), [Some(b"a".to_vec()), None]);
        for (answer, asked) in [
            (vec![range(&["a"])], 2),
            (vec![], 1),
            (vec![range(&["a"]), range(&[])], 1),
            (vec![range(&["a"]), ResponseOp { response: None }], 2),
        ] {
            assert!(matches!(all_found(answer, asked), Err(StoreError::Refused(_))), "{asked}");
        }
    }

    #[test]
    fn page_begins_behind_the_last_key() {
        let page = Words::new("x").page("a/", Some("a/7"), 3);
        assert_eq!((page.key.as_slice(), page.limit), (b"x/a/7\0".as_slice(), 3));
        assert_eq!(page.range_end, b"x/a0");
    }
}
