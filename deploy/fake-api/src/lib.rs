//! A FAKE of the Kubernetes API, over real HTTP on loopback: what tests of the store, the attestor,
//! the controller and the CNI plugin talk to where there is no cluster. It keeps objects of any kind
//! with one counter of resource versions, and does what a client must survive: conflicts, watches
//! that break or are too old, refusals, answers that are lost.
//!
//! What it does not do: schemas, defaults and validation (but for sizes and the few rules that
//! clients lean on), admission, server-side apply and strategic merges, discovery of resources, garbage
//! collection, scheduling, TLS, authentication, and more of RBAC than [`FakeApi::allow_only`].
//! Passing against it shows that a loop survives what it should; that a real API server
//! behaves so is for a suite against a real one to show.
//!
//! Never: a dependency of anything that ships.

// SPDX-License-Identifier: Apache-2.0

#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

mod access;
mod discovery;
mod door;
mod faults;
mod list;
mod objects;
mod patch;
mod path;
mod selectors;
mod serve;
mod status;
mod tokens;
mod verbs;
mod watches;

pub use access::Rule;
pub use door::Door;
pub use faults::{Fault, Request, Trouble};
pub use path::Resource;
pub use tokens::PodToken;

use access::Access;
use discovery::Discovery;
use faults::Faults;
use objects::Objects;
use tokens::Tokens;

/// One API server. It ends with its last clone.
#[derive(Clone)]
pub struct FakeApi {
    inner: Arc<Inner>,
    _serving: Arc<Serving>,
}

/// What requests and tests share.
struct Inner {
    address: SocketAddr,
    objects: Mutex<Objects>,
    faults: Mutex<Faults>,
    tokens: Mutex<Tokens>,
    access: Mutex<Access>,
    discovery: Mutex<Discovery>,
    /// Grows whenever a watch may have something to say, or has to end.
    stirred: watch::Sender<u64>,
}

struct Serving(JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl FakeApi {
    /// Listens on a free port of loopback.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        Self::serve_on(listener)
    }

    /// Serves on a listener that is there already: for a network namespace of a test.
    pub fn serve_on(listener: TcpListener) -> std::io::Result<Self> {
        let inner = Arc::new(Inner {
            address: listener.local_addr()?,
            objects: Mutex::default(),
            faults: Mutex::default(),
            tokens: Mutex::default(),
            access: Mutex::default(),
            discovery: Mutex::default(),
            stirred: watch::Sender::new(0),
        });
        let serving = tokio::spawn(serve::accept(listener, Arc::clone(&inner), None));
        Ok(Self { inner, _serving: Arc::new(Serving(serving)) })
    }

    pub fn address(&self) -> SocketAddr {
        self.inner.address
    }

    /// Where a client is pointed to.
    pub fn url(&self) -> String {
        format!("http://{}", self.inner.address)
    }

    /// A kubeconfig in JSON (which is YAML): one cluster, one user without credentials.
    pub fn kubeconfig(&self) -> String {
        serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url()}}],
            "users": [{"name": "fake", "user": {}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
        })
        .to_string()
    }

    /// Writes an object as it is given, `status` included, whatever is there; as an operator or a
    /// kubelet would over time. `metadata.name` and, unless it is of the cluster, `.namespace` are
    /// taken from it. Returns it as stored.
    pub fn put(&self, resource: &Resource, object: Value) -> Value {
        let stored = self.inner.objects().put_whole(resource, object);
        self.inner.stir();
        stored
    }

    /// The object as it is now.
    pub fn read(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Value> {
        self.inner.objects().read(&resource.key(namespace, name)).cloned()
    }

    /// All objects of a resource, in the order of namespace and name.
    pub fn all(&self, resource: &Resource) -> Vec<Value> {
        self.inner.objects().all(resource, "").cloned().collect()
    }

    /// Takes an object away at once, finalizers or not. None: there was none.
    pub fn remove(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Value> {
        let removed = self.inner.objects().remove(&resource.key(namespace, name));
        self.inner.stir();
        removed
    }

    /// The newest resource version.
    pub fn version(&self) -> u64 {
        self.inner.objects().version()
    }

    /// From now on requests that this trouble is about get it, until it is spent.
    pub fn trouble(&self, trouble: Trouble) {
        self.inner.faults().add(trouble);
    }

    /// From now on every connection is closed without an answer, and running ones are cut.
    pub fn vanish(&self) {
        self.inner.faults().vanished = true;
        self.disconnect_watches();
    }

    /// After `requests` more requests were answered it vanishes.
    pub fn vanish_after(&self, requests: usize) {
        self.inner.faults().vanish_after = Some(requests);
    }

    /// It is there again, and every trouble is forgotten.
    pub fn heal(&self) {
        let mut faults = self.inner.faults();
        *faults = Faults::default().counting(faults.told());
    }

    /// Cuts every running watch in the middle.
    pub fn disconnect_watches(&self) {
        self.inner.objects().cut_watches();
        self.inner.stir();
    }

    /// Forgets what happened so far, as a compaction does: watches and continued lists that begin
    /// before now are too old (410). Running watches go on.
    pub fn forget_history(&self) {
        self.inner.objects().forget();
    }

    /// Whether a watch that is too old is answered with status 410, instead of an ERROR event in a
    /// stream that began well. Real servers do both.
    pub fn too_old_is_a_status(&self, yes: bool) {
        self.inner.faults().gone_as_status = yes;
    }

    /// Every running watch that allows bookmarks gets one.
    pub fn bookmark(&self) {
        self.inner.objects().bookmark();
        self.inner.stir();
    }

    /// All requests so far, in their order, those that were refused included.
    pub fn requests(&self) -> Vec<Request> {
        self.inner.faults().told()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.inner.faults().forget_told();
    }

    /// This token is genuine: a TokenReview for one of its audiences says so, as long as its pod is
    /// there, where it names one.
    pub fn allow_token(&self, text: &str, token: PodToken) {
        self.inner.tokens().allow(text, token);
    }

    /// This token is genuine no more.
    pub fn revoke_token(&self, text: &str) {
        self.inner.tokens().revoke(text);
    }

    /// What it says of its version, such as `v1.33.0`.
    pub fn is_of_version(&self, version: &str) {
        self.inner.discovery().set_version(version);
    }

    /// It says that it does not serve this group, such as `policy/v1`.
    pub fn serves_no(&self, group: &str) {
        self.inner.discovery().leave_out(group);
    }

    /// From now on only what one of these rules allows is answered, everything else is 403. There
    /// are no users: the rules are of whoever asks.
    pub fn allow_only(&self, rules: Vec<Rule>) {
        self.inner.access().only(rules);
    }
}

impl Inner {
    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tokens(&self) -> MutexGuard<'_, Tokens> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn access(&self) -> MutexGuard<'_, Access> {
        self.access.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn discovery(&self) -> MutexGuard<'_, Discovery> {
        self.discovery.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stir(&self) {
        self.stirred.send_modify(|count| *count += 1);
    }
}
