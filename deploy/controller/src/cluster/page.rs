//! A list read page by page: each page has a bound, and each object on it is read for itself, so that
//! one that makes no sense costs nobody else. Called by the room's door and by `follow`.
//!
//! Never: an answer without a bound; what an object holds in an error or a log; a list that lacks a page.

// SPDX-License-Identifier: Apache-2.0

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::error::quoted;
use super::{Cluster, ClusterError, MAX_PAGES, Meta, percent_encoded};

/// A list of one moment.
#[derive(Debug)]
pub struct Listed<T = Value> {
    pub items: Vec<T>,
    /// From which a watch goes on.
    pub version: String,
    /// What is there and cannot be read.
    pub unread: Vec<Unread>,
}

/// An object that cannot be read: which, and where in it. Never what stands there.
#[derive(Clone, Debug)]
pub struct Unread {
    pub name: String,
    pub column: usize,
}

/// One page. Without items it is no list, and an empty one is no list of nothing.
#[derive(Deserialize)]
struct Page<'p> {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(borrow, deserialize_with = "null_is_none")]
    items: Vec<&'p RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    next: String,
}

/// What of every object is read, whatever else it is.
#[derive(Deserialize)]
struct Named {
    metadata: Meta,
}

impl Cluster {
    /// All that `path` and its query select, so many on a page; fewer where they are too large for one
    /// answer together.
    pub async fn list_of<T: DeserializeOwned>(
        &self,
        path: &str,
        most: usize,
    ) -> Result<Listed<T>, ClusterError> {
        let what = || format!("GET {path}");
        let mut all = Listed { items: Vec::new(), version: String::new(), unread: Vec::new() };
        let (mut next, mut size) = (String::new(), most);
        for _ in 0..MAX_PAGES {
            let mark = if path.contains('?') { '&' } else { '?' };
            let mut asked = format!("{path}{mark}limit={size}");
            if !next.is_empty() {
                asked = format!("{asked}&continue={}", percent_encoded(&next));
            }
            let answer = match self.ask("GET", &asked, None).await {
                // The next page of the same list, only shorter.
                Err(ClusterError::TooLong { .. }) if size > 1 => {
                    size /= 2;
                    continue;
                }
                answer => answer?,
            };
            size = (size * 2).min(most);
            let page: Page<'_> = serde_json::from_slice(&answer)
                .map_err(|why| super::error::no_json(what(), &why))?;
            for item in page.items {
                match read(item) {
                    Ok(item) => all.items.push(item),
                    Err(unread) => all.unread.push(unread),
                }
            }
            // Every page is of the same moment.
            all.version = page.metadata.resource_version;
            next = page.metadata.next;
            if next.is_empty() {
                return Ok(all);
            }
        }
        Err(ClusterError::TooMany { what: what() })
    }
}

/// An object as its reader wants it.
pub(super) fn read<T: DeserializeOwned>(object: &RawValue) -> Result<T, Unread> {
    serde_json::from_str(object.get()).map_err(|why| {
        let name =
            meta(object).map_or_else(|| "one without a name".to_owned(), |meta| meta.full_name());
        Unread { name, column: why.column() }
    })
}

/// What is read even of an object that otherwise makes no sense.
pub(super) fn meta(object: &RawValue) -> Option<Meta> {
    serde_json::from_str::<Named>(object.get()).ok().map(|named| named.metadata)
}

impl Meta {
    /// Namespace, if there is one, and name, with a slash between.
    fn full_name(&self) -> String {
        let Self { namespace, name, .. } = self;
        quoted(&if namespace.is_empty() { name.clone() } else { format!("{namespace}/{name}") })
    }
}

/// A list of none may be `null`.
fn null_is_none<'de, D, T>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(from)?.unwrap_or_default())
}
