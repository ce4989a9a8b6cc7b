//! What sidecar and controller say to each other about who may enter a workload: the wire messages
//! (generated from `proto/policy.proto`) and the domain types that they become with every bound
//! checked. Called by the sidecar's `policies` and by the controller's.
//! Never: decisions. Who is let in is the sidecar's business, what was declared the controller's.

// SPDX-License-Identifier: Apache-2.0

mod rule;
#[cfg(test)]
mod tests;
mod view;

pub use rule::{MAX_CIDRS_IN_RULE, MAX_NAMES_IN_RULE, MAX_RULE_NAME_BYTES, RuleView};
pub use view::{MAX_PORTS, MAX_RULES, Mode, PolicyView, PortView};

pub use crate::wire::Version as PolicyVersion;

use prost::bytes::Bytes;

use crate::id::IdError;
use crate::wire::NoVersion;

/// Messages of package `myelin.policy.v1`. Both sides map their stubs onto these with `extern_path`.
#[allow(clippy::all, clippy::use_self, clippy::or_fun_call, unreachable_pub, missing_docs)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/myelin.policy.v1.rs"));
}

/// One workload's whole policy, encoded: some four thousand IDs.
pub const MAX_POLICY_BYTES: usize = 256 * 1024;

/// A caller asks what is said of its own workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyQuestion {
    /// What the caller holds already.
    pub known: Option<PolicyVersion>,
}

/// What the controller says of the caller's workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyAnswer {
    /// What the caller holds under this version is still so.
    Unchanged(PolicyVersion),
    Policy(PolicyVersion, PolicyView),
}

/// Why a policy, or a message of the other side, is refused. Never repeats a text that may be
/// hostile or long.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    #[error(transparent)]
    Version(#[from] NoVersion),
    #[error("the answer has no version")]
    Unversioned,
    #[error("the policy is not the one that its version names")]
    OtherVersion,
    #[error("the policy has {bytes} bytes, more than {MAX_POLICY_BYTES}")]
    TooLarge { bytes: usize },
    #[error("the policy cannot be read: {why}")]
    Malformed { why: String },
    #[error("the policy says something that is not known here; update this sidecar")]
    Unknown,
    #[error("the policy has {seen} {what}, more than {most}")]
    TooMany { what: &'static str, seen: usize, most: usize },
    #[error("{seen} is no port")]
    Port { seen: u32 },
    #[error("port {port} has two demands")]
    PortTwice { port: u16 },
    #[error("a mode that is not permissive has an end")]
    StrictWithEnd,
    #[error("a permissive mode has no end before the year 10000")]
    PermissiveWithoutEnd,
    #[error(
        "a rule's name has {bytes} bytes or a strange letter; expected 1 to {MAX_RULE_NAME_BYTES} \
         of a-z A-Z 0-9 . _ - /"
    )]
    RuleName { bytes: usize },
    #[error("rule {rule}: {source}")]
    Id { rule: String, source: IdError },
    #[error("rule {rule} names an identity of the mesh itself")]
    Reserved { rule: String },
    #[error("rule {rule} names a namespace that is none")]
    Namespace { rule: String },
    #[error("rule {rule} names a range of addresses that is none: {why}")]
    Cidr { rule: String, why: &'static str },
}

/// A workload's policy as it goes to all of its sidecars: encoded once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedPolicy {
    version: PolicyVersion,
    bytes: Bytes,
}

impl EncodedPolicy {
    /// Fails for whatever a sidecar would not take.
    pub fn new(view: &PolicyView) -> Result<Self, PolicyError> {
        let bytes = view.encode();
        PolicyView::read(bytes.clone())?;
        Ok(Self { version: PolicyVersion::of(&bytes), bytes })
    }

    pub fn version(&self) -> PolicyVersion {
        self.version
    }

    /// The answer for whoever holds `known`.
    pub fn answer(&self, known: Option<PolicyVersion>) -> proto::PolicyAnswer {
        let is_known = known == Some(self.version);
        proto::PolicyAnswer {
            version: self.version.to_vec(),
            policy: if is_known { Bytes::new() } else { self.bytes.clone() },
        }
    }
}

impl TryFrom<proto::PolicyQuestion> for PolicyQuestion {
    type Error = PolicyError;

    fn try_from(wire: proto::PolicyQuestion) -> Result<Self, PolicyError> {
        Ok(Self { known: PolicyVersion::read(&wire.known)? })
    }
}

impl From<PolicyQuestion> for proto::PolicyQuestion {
    fn from(question: PolicyQuestion) -> Self {
        Self { known: question.known.map(PolicyVersion::to_vec).unwrap_or_default() }
    }
}

impl TryFrom<proto::PolicyAnswer> for PolicyAnswer {
    type Error = PolicyError;

    fn try_from(wire: proto::PolicyAnswer) -> Result<Self, PolicyError> {
        let proto::PolicyAnswer { version, policy } = wire;
        let version = PolicyVersion::read(&version)?.ok_or(PolicyError::Unversioned)?;
        if version == PolicyVersion::of(&policy) {
            return Ok(Self::Policy(version, PolicyView::read(policy)?));
        }
        // The version of no bytes is that of the policy that says nothing, see above.
        if policy.is_empty() {
            Ok(Self::Unchanged(version))
        } else {
            Err(PolicyError::OtherVersion)
        }
    }
}
