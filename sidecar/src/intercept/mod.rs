//! Interception: the nf_tables rules that bring every TCP connection of this network namespace to
//! the sidecar, written, read back and removed over netlink by our own code. Called by `main`
//! (`myelin-sidecar intercept apply | remove | show`) and by `app` (`/ready` asks [`state`]).
//!
//! What is written is one table, `inet myelin`, for IPv4 and IPv6, in one atomic batch:
//!
//! - chain `outbound` (nat, output, dstnat): the sidecar's own traffic, loopback and the named
//!   exclusions return; every other TCP connection is redirected to the outbound listener.
//! - chain `inbound` (nat, prerouting, dstnat): loopback, the named ports, the ops port and a probe port return; every other
//!   port, the sidecar's own listeners included, is redirected to the inbound listener, which sees
//!   the original port and refuses its own as a loop.
//! - chains `outbound_guard` and `inbound_guard` (filter, output and input): drop what should have
//!   been redirected and was not, see below.
//! - chain `outbound_zone` (filter, output, raw): has connection tracking keep what bears the mark, the
//!   sidecar's own connections, in a zone apart. A plan without a mark has none.
//!
//! Why this is fail-closed. The rules live in the kernel, not in the sidecar: a dead or not yet
//! started sidecar leaves a redirect to a port where nobody listens, and the kernel answers that
//! with a reset; behind a hung one connections wait. Nothing here ever removes a rule on exit.
//! Address translation, however, only looks at packets that belong to a tracked connection: one
//! that connection tracking calls invalid, or that a foreign `notrack` rule hides from it, would
//! leave for its original destination as it is. And it looks at the first packet of a connection
//! only, while connection tracking remembers one for seconds to minutes after its end: a connection
//! from the same port to the same destination inherits what was decided then. After one of the
//! sidecar's own, a workload's would leave in plaintext; after a workload's, the sidecar's own would
//! come back to it. The zone keeps the two apart (a zone for the original direction alone, so that
//! answers are found as ever). The guards drop whatever is left: first packets that do not go to our
//! listener and should, whoever else has rewritten them, and packets that belong to no tracked
//! connection. Without a mark, and after a connection of an excluded user, only the guards stand: a
//! port that is used again is then held back.
//!
//! What is *not* protected, so that nobody has to guess:
//!
//! - loopback and the pod's own addresses: they are routed over `lo` and never leave the pod;
//! - UDP, SCTP and every protocol but TCP, in both directions. ICMP and neighbour discovery go on;
//! - outbound TCP to `fe80::/10`: link-local is never mesh, and the zone that dialling it needs
//!   does not survive the redirect. Inbound TCP to a link-local address *is* captured;
//! - connections from before `apply`. If the kernel already tracked them they go on as they were;
//!   if nothing in the namespace tracked connections before, their next packet is redirected and
//!   they are reset. So: apply first, then start the workload;
//! - connections that were redirected when `remove` is called: translation ends with the table, so
//!   what the workload still sends on them leaves as it is. Stop the workload first. Replacing
//!   the rules by another plan's has no such gap;
//! - whatever runs as the proxy UID and also sets the mark, and each excluded UID. This steers
//!   workloads that cooperate; a hostile one with NET_RAW may set marks. The boundary is the peers'
//!   strict inbound.
//!
//! Forwarded traffic is captured too, and refused by the sidecar: a router is no place for these
//! rules.
//!
//! Reading needs CAP_NET_ADMIN as much as writing does: the kernel asks for it on every message.
//!
//! Never: a shell, `nft`, `iptables` or `ip`; another table than `inet myelin`; a half-written
//! ruleset.

// SPDX-License-Identifier: Apache-2.0

mod args;
mod decode;
mod encode;
mod error;
mod netlink;
mod plan;
mod ruleset;
mod text;

pub use args::{ApplyArgs, InterceptArgs, InterceptCommand, RemoveArgs, ShowArgs};
pub use error::InterceptError;
pub use plan::{Config, MAX_EXCLUSIONS, Plan, parse_cidr};

use netlink::NfSocket;
use ruleset::Ruleset;

/// The defaults that the sidecar, the installer and these rules agree on.
pub mod defaults {
    /// The UID that the sidecar runs as.
    pub const PROXY_UID: u32 = 1337;
    /// The mark (SO_MARK) that the sidecar sets on what it dials: "my" in ASCII.
    pub const MARK: u32 = 0x6d79;
    /// Where the sidecar listens for what the workload dials.
    pub const OUTBOUND_PORT: u16 = 15001;
    /// Where the sidecar listens for what others dial.
    pub const INBOUND_PORT: u16 = 15006;
    /// `/live`, `/ready` and `/metrics`: never captured inbound.
    pub const OPS_PORT: u16 = 15020;
    /// The workload's probes, where the sidecar runs any: then never captured inbound.
    pub const PROBE_PORT: u16 = 15021;
}

/// Another process may change nf_tables between two of our reads, which then do not fit together.
/// Three attempts outlast a deployment tool's burst; a ruleset that never rests is reported.
const READ_ATTEMPTS: u32 = 3;

/// What [`apply`] found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applying {
    /// There were none; now there are.
    Written,
    /// The table was there with other content and was replaced atomically.
    Replaced,
    /// Exactly these rules were there already; nothing was touched, counters go on.
    Unchanged,
}

/// What [`remove`] found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// The table is gone.
    Removed,
    /// It was not there.
    WasAbsent,
}

/// How the kernel's rules compare with a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// They are exactly what the plan says (counters aside).
    Applied,
    /// There is no table of ours.
    Absent,
    /// There is one, but it says something else: the first difference, in one line.
    Different(String),
}

/// Runs one `intercept` command and returns the text to print.
///
/// # Errors
/// Whatever [`Plan::new`], [`apply`], [`remove`] or the reading of the rules refuses.
pub fn run(args: &InterceptArgs) -> Result<String, InterceptError> {
    match &args.command {
        InterceptCommand::Apply(args) => {
            let plan = Plan::new(args.config())?;
            if args.dry_run {
                return Ok(text::render(&plan.ruleset()));
            }
            Ok(text::applying(apply(&plan)?, &plan))
        }
        InterceptCommand::Remove(_) => Ok(text::removal(remove()?).to_owned()),
        InterceptCommand::Show(args) => {
            let found = read()?;
            Ok(if args.json {
                text::render_json(found.as_ref())
            } else {
                found.as_ref().map_or_else(|| text::ABSENT.to_owned(), text::render)
            })
        }
    }
}

/// Makes the kernel's rules what the plan says, in one transaction: wholly, or not at all.
/// Blocking, some 10 ms; acts on the network namespace of the calling thread.
///
/// # Errors
/// The kernel's refusal, with what to do about it; the rules are then as they were before.
pub fn apply(plan: &Plan) -> Result<Applying, InterceptError> {
    let wanted = plan.ruleset();
    let found = read()?;
    if found.as_ref().is_some_and(|found| found.without_counts() == wanted) {
        return Ok(Applying::Unchanged);
    }
    NfSocket::open()?.commit(encode::replace(&wanted))?;
    Ok(if found.is_some() { Applying::Replaced } else { Applying::Written })
}

/// Deletes our table and nothing else. From then on nothing is protected, redirected connections
/// included: see the room's header.
///
/// # Errors
/// The kernel's refusal; an absent table is none.
pub fn remove() -> Result<Removal, InterceptError> {
    match NfSocket::open()?.commit(vec![encode::delete_table()]) {
        Ok(()) => Ok(Removal::Removed),
        Err(refused) if refused.is_not_found() => Ok(Removal::WasAbsent),
        Err(refused) => Err(refused),
    }
}

/// Compares what is in the kernel with a plan. Blocking; needs CAP_NET_ADMIN.
///
/// # Errors
/// When the kernel does not let us read, or what it says cannot be read.
pub fn state(plan: &Plan) -> Result<State, InterceptError> {
    let Some(found) = read()? else {
        return Ok(State::Absent);
    };
    let (found, wanted) = (found.without_counts(), plan.ruleset());
    Ok(if found == wanted {
        State::Applied
    } else {
        State::Different(text::first_difference(&found, &wanted))
    })
}

/// The rules in the kernel: one consistent view, or `None` when there is no table of ours.
fn read() -> Result<Option<Ruleset>, InterceptError> {
    for _ in 0..READ_ATTEMPTS {
        // A new socket each time: an abandoned answer may still be queued on the old one.
        match NfSocket::open()?.read_table() {
            Err(InterceptError::Unsettled) => {}
            Err(refused) if refused.is_not_found() => return Ok(None),
            Err(refused) => return Err(refused),
            Ok(dump) => return decode::ruleset(&dump).map(Some),
        }
    }
    Err(InterceptError::Unsettled)
}

#[cfg(test)]
mod tests;
