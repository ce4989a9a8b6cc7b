//! A token (an HSM behind PKCS#11, or SoftHSM) that holds CA keys and signs with them. One worker
//! thread owns the device, because sessions of a token are not to be shared; askers queue before it
//! and wait no longer than a deadline. What was gone and is back is used again without a restart.
//!
//! Never: holds a private key, tries a PIN twice that was refused, or waits without an end.

// SPDX-License-Identifier: Apache-2.0

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use zeroize::Zeroizing;

#[cfg(feature = "pkcs11")]
mod pkcs11;

#[cfg(feature = "pkcs11")]
pub use pkcs11::open;

/// Longest wait for the token, queue included: a network HSM answers within 100 ms, and an issue
/// has 10 s.
const DEADLINE: Duration = Duration::from_secs(3);
/// Askers that wait in line: at a few milliseconds each they are served within the deadline.
const QUEUE: usize = 256;

/// Why the token did not do what it was asked. The word is the reason in audit line and metric.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    #[error(
        "the PKCS#11 token cannot be used: {0}; it is tried again at the next signature, no restart is needed"
    )]
    Unavailable(String),
    #[error("the PKCS#11 token refuses the PIN: {0}")]
    Pin(String),
    #[error(
        "the PKCS#11 token holds no key {0}; is it the token that this CA was made with? restore it from its backup"
    )]
    KeyMissing(String),
    #[error(
        "the PKCS#11 token did not answer within {} s; look at the HSM and the network before it",
        DEADLINE.as_secs()
    )]
    TimedOut,
    #[error("{QUEUE} requests wait for the PKCS#11 token already; it is too slow for this load")]
    Busy,
}

impl TokenFault {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "hsm_unavailable",
            Self::Pin(_) => "hsm_pin",
            Self::KeyMissing(_) => "hsm_key_missing",
            Self::TimedOut => "hsm_timeout",
            Self::Busy => "hsm_busy",
        }
    }
}

/// Which token of which PKCS#11 module, and how to enter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pkcs11Settings {
    pub module: PathBuf,
    pub token_label: String,
    /// Read at every login, so that a new PIN takes effect without a restart.
    pub pin_file: PathBuf,
}

/// A build without PKCS#11 says so.
#[cfg(not(feature = "pkcs11"))]
pub fn open(settings: Pkcs11Settings) -> Result<Token, TokenFault> {
    let module = settings.module.display();
    Err(TokenFault::Unavailable(format!(
        "this myelin-ca is built without the feature pkcs11 and cannot load {module}"
    )))
}

/// What a token does. It may forget its session at any time; then it begins anew by itself.
pub(super) trait Device: Send + 'static {
    /// Makes a P-256 key pair that never leaves the token; yields the uncompressed point.
    fn make(&mut self, id: &[u8]) -> Result<Vec<u8>, TokenFault>;

    /// ECDSA over a SHA-256: r and s, 32 bytes each.
    fn sign(&mut self, id: &[u8], digest: &[u8]) -> Result<Vec<u8>, TokenFault>;

    /// Destroys a key pair.
    fn forget(&mut self, id: &[u8]) -> Result<(), TokenFault>;

    /// Encrypts under the token's AES key of this name, which is made if it is not there.
    fn wrap(&mut self, name: &str, plain: &[u8]) -> Result<Vec<u8>, TokenFault>;

    fn unwrap(&mut self, name: &str, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, TokenFault>;
}

type Job = Box<dyn FnOnce(&mut dyn Device) + Send>;

/// The way to the token. Cheap to clone.
#[derive(Clone)]
pub struct Token {
    jobs: SyncSender<Job>,
    deadline: Duration,
}

impl Token {
    /// Starts the worker; the device is asked nothing yet.
    #[cfg_attr(not(feature = "pkcs11"), allow(dead_code, reason = "no device is built in"))]
    pub(super) fn start(device: impl Device, deadline: Duration) -> Result<Self, TokenFault> {
        let (jobs, waiting) = sync_channel::<Job>(QUEUE);
        let mut device = device;
        std::thread::Builder::new()
            .name("token".to_owned())
            .spawn(move || waiting.into_iter().for_each(|job| job(&mut device)))
            .map_err(|error| TokenFault::Unavailable(format!("no thread for it: {error}")))?;
        Ok(Self { jobs, deadline })
    }

    pub(super) fn make(&self, id: Vec<u8>) -> Result<Vec<u8>, TokenFault> {
        self.ask(move |device| device.make(&id))
    }

    pub(super) fn sign(&self, id: &[u8], digest: &[u8]) -> Result<Vec<u8>, TokenFault> {
        let (id, digest) = (id.to_vec(), digest.to_vec());
        self.ask(move |device| device.sign(&id, &digest))
    }

    pub(super) fn forget(&self, id: Vec<u8>) -> Result<(), TokenFault> {
        self.ask(move |device| device.forget(&id))
    }

    /// A small secret, encrypted under an AES key that never leaves the token.
    pub fn wrap(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, TokenFault> {
        let (name, plain) = (name.to_owned(), Zeroizing::new(plain.to_vec()));
        self.ask(move |device| device.wrap(&name, &plain))
    }

    pub fn unwrap(&self, name: &str, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, TokenFault> {
        let (name, wrapped) = (name.to_owned(), wrapped.to_vec());
        self.ask(move |device| device.unwrap(&name, &wrapped))
    }

    fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut dyn Device) -> Result<T, TokenFault> + Send + 'static,
    ) -> Result<T, TokenFault> {
        let (reply, answer) = sync_channel(1);
        let given_up = Arc::new(AtomicBool::new(false));
        let unwanted = given_up.clone();
        let job: Job = Box::new(move |device| {
            // Whoever waited too long has left: the token's time is for the others.
            if !unwanted.load(Ordering::Relaxed) {
                let _ = reply.try_send(work(device));
            }
        });
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => TokenFault::Busy,
            TrySendError::Disconnected(_) => gone(),
        })?;
        aside(|| answer.recv_timeout(self.deadline)).unwrap_or_else(|error| match error {
            RecvTimeoutError::Timeout => {
                given_up.store(true, Ordering::Relaxed);
                Err(TokenFault::TimedOut)
            }
            RecvTimeoutError::Disconnected => Err(gone()),
        })
    }
}

fn gone() -> TokenFault {
    TokenFault::Unavailable("its worker has ended; restart the CA".to_owned())
}

/// Waits without holding up the other tasks of this thread, where there are any.
fn aside<T>(wait: impl FnOnce() -> T) -> T {
    let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    match flavor {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(wait),
        _ => wait(),
    }
}

#[cfg(test)]
mod tests;
