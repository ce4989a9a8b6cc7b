//! Rules as text: the way `nft list table` prints them, as JSON, and the lines that the commands
//! say. Called by the room's door.
//!
//! Never: printing; a rule that reads otherwise here than in `nft`.

// SPDX-License-Identifier: Apache-2.0

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::plan::{Plan, Range};
use super::ruleset::{Chain, HookPoint, Key, REDIRECTED, Rule, Ruleset, Set, Step, TABLE, TRACKED};
use super::{Applying, Removal};

/// What `show` says when there is nothing.
pub(super) const ABSENT: &str = "no rules of ours here (no table inet myelin)\n";

/// The ruleset as `nft list table inet myelin` prints it; sets are not wrapped.
pub(super) fn render(ruleset: &Ruleset) -> String {
    let mut out = format!("table inet {TABLE} {{\n");
    if let Some(comment) = &ruleset.comment {
        push(&mut out, 1, &format!("comment \"{comment}\""));
    }
    let mut blocks = Vec::new();
    blocks.extend(ruleset.sets.iter().map(set_lines));
    blocks.extend(ruleset.chains.iter().map(chain_lines));
    for (index, (head, lines)) in blocks.into_iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        push(&mut out, 1, &format!("{head} {{"));
        for line in lines {
            push(&mut out, 2, &line);
        }
        push(&mut out, 1, "}");
    }
    out.push_str("}\n");
    out
}

/// The same for machines; `present` is false when there is no table.
pub(super) fn render_json(ruleset: Option<&Ruleset>) -> String {
    let value = ruleset.map_or_else(
        || json!({ "present": false }),
        |ruleset| {
            json!({
                "present": true,
                "table": format!("inet {TABLE}"),
                "sets": ruleset.sets.iter().map(set_json).collect::<Vec<_>>(),
                "chains": ruleset.chains.iter().map(chain_json).collect::<Vec<_>>(),
            })
        },
    );
    format!("{value:#}\n")
}

/// The first line in which two unequal rulesets differ.
pub(super) fn first_difference(found: &Ruleset, wanted: &Ruleset) -> String {
    let (found, wanted) = (render(found), render(wanted));
    let (mut found, mut wanted) = (found.lines(), wanted.lines());
    loop {
        match (found.next(), wanted.next()) {
            (None, None) => return "they read the same but are not".to_owned(),
            (left, right) if left == right => {}
            (left, right) => {
                let say = |line: Option<&str>| line.map_or("nothing more", str::trim).to_owned();
                return format!("the kernel has `{}`, the plan says `{}`", say(left), say(right));
            }
        }
    }
}

pub(super) fn applying(what: Applying, plan: &Plan) -> String {
    let how = match what {
        Applying::Written => "rules written",
        Applying::Replaced => "rules replaced",
        Applying::Unchanged => "rules were in place already",
    };
    let exempt = match plan.mark {
        Some(mark) => format!("UID {} with mark {mark:#x}", plan.proxy_uid),
        None => format!("UID {} with any mark", plan.proxy_uid),
    };
    format!(
        "{how}: table inet {TABLE}, outbound TCP to port {}, inbound TCP to port {}, \
         not captured: {exempt}\n",
        plan.outbound_port, plan.inbound_port
    )
}

pub(super) const fn removal(what: Removal) -> &'static str {
    match what {
        Removal::Removed => "rules removed: table inet myelin is gone, traffic is not protected\n",
        Removal::WasAbsent => "nothing to remove: no rules of ours here\n",
    }
}

type Block = (String, Vec<String>);

fn set_lines(set: &Set) -> Block {
    let kind = match set.key {
        Key::DestinationV4 => "ipv4_addr",
        Key::DestinationV6 => "ipv6_addr",
        Key::DestinationPort => "inet_service",
        Key::SocketUid => "uid",
    };
    let mut lines = vec![format!("type {kind}")];
    if set.key.is_interval() {
        lines.push("flags interval".to_owned());
    }
    if !set.elements.is_empty() {
        lines.push(format!("elements = {{ {} }}", elements(set).join(", ")));
    }
    (format!("set {}", set.name), lines)
}

fn elements(set: &Set) -> Vec<String> {
    set.elements.iter().map(|range| element(set.key, *range)).collect()
}

/// A single key, a CIDR, or first-last.
fn element(key: Key, range: Range) -> String {
    let address = |number: u128| -> Option<IpAddr> {
        match key {
            Key::DestinationV4 => u32::try_from(number).ok().map(|n| Ipv4Addr::from(n).into()),
            Key::DestinationV6 => Some(Ipv6Addr::from(number).into()),
            Key::DestinationPort | Key::SocketUid => None,
        }
    };
    let (Some(first), Some(last)) = (address(range.first), address(range.last)) else {
        return range.first.to_string();
    };
    if first == last {
        return first.to_string();
    }
    // As many host bits as the length is a power of two, if the start is a multiple of it.
    let host_bits = (range.last - range.first).trailing_ones();
    let bits = if first.is_ipv4() { 32 } else { 128 };
    let prefix = u8::try_from(bits - host_bits.min(bits)).unwrap_or_default();
    match IpNet::new(first, prefix) {
        Ok(net) if net.network() == first && net.broadcast() == last => net.to_string(),
        _ => format!("{first}-{last}"),
    }
}

fn chain_lines(chain: &Chain) -> Block {
    let mut lines = vec![format!(
        "type {} hook {} priority {}; policy {};",
        chain.kind,
        hook(chain.hook),
        priority(chain),
        if chain.accepts { "accept" } else { "drop" },
    )];
    lines.extend(chain.rules.iter().map(rule));
    (format!("chain {}", chain.name), lines)
}

fn hook(hook: HookPoint) -> String {
    match hook {
        HookPoint::Prerouting => "prerouting".to_owned(),
        HookPoint::Input => "input".to_owned(),
        HookPoint::Output => "output".to_owned(),
        HookPoint::Other(number) => format!("(unknown hook {number})"),
    }
}

/// `nft` names a priority only where the name is usual; dstnat is not, on output.
fn priority(chain: &Chain) -> String {
    match (chain.priority, chain.hook) {
        (-100, HookPoint::Prerouting) => "dstnat".to_owned(),
        (0, _) => "filter".to_owned(),
        (-300, _) => "raw".to_owned(),
        (other, _) => other.to_string(),
    }
}

fn rule(rule: &Rule) -> String {
    let mut line = rule.steps.iter().map(step).collect::<Vec<_>>().join(" ");
    if let Some(comment) = &rule.comment {
        let _ = write!(line, " comment \"{comment}\"");
    }
    line
}

fn step(step: &Step) -> String {
    match step {
        Step::SocketUid(uid) => format!("meta skuid {uid}"),
        Step::Mark(mark) => format!("meta mark {mark:#010x}"),
        Step::InInterface(name) => format!("iifname \"{name}\""),
        Step::OutInterface(name) => format!("oifname \"{name}\""),
        Step::Tcp => "meta l4proto tcp".to_owned(),
        Step::Ipv4 => "meta nfproto ipv4".to_owned(),
        Step::Ipv6 => "meta nfproto ipv6".to_owned(),
        Step::InSet { key: Key::DestinationV4, set } => format!("ip daddr @{set}"),
        Step::InSet { key: Key::DestinationV6, set } => format!("ip6 daddr @{set}"),
        Step::InSet { key: Key::DestinationPort, set } => format!("tcp dport @{set}"),
        Step::InSet { key: Key::SocketUid, set } => format!("meta skuid @{set}"),
        Step::CtState(TRACKED) => "ct state established,related,new".to_owned(),
        Step::CtState(bits) => format!("ct state & {bits:#x} != 0"),
        Step::CtStatus(REDIRECTED) => "ct status dnat".to_owned(),
        Step::CtStatus(bits) => format!("ct status & {bits:#x} != 0"),
        Step::NotFirst => "tcp flags != syn / fin,syn,rst,ack".to_owned(),
        Step::DestinationPort(port) => format!("tcp dport {port}"),
        Step::OriginalZone(zone) => format!("ct original zone set {zone}"),
        Step::Counter { packets, bytes } => format!("counter packets {packets} bytes {bytes}"),
        Step::Return => "return".to_owned(),
        Step::Drop => "drop".to_owned(),
        Step::Redirect(port) => format!("redirect to :{port}"),
        Step::Unknown(name) => format!("(unknown expression {name})"),
    }
}

fn set_json(set: &Set) -> Value {
    json!({ "name": set.name, "elements": elements(set) })
}

fn chain_json(chain: &Chain) -> Value {
    let rules = chain.rules.iter().map(|rule| {
        let (packets, bytes) = rule
            .steps
            .iter()
            .find_map(|step| match step {
                Step::Counter { packets, bytes } => Some((*packets, *bytes)),
                _ => None,
            })
            .unzip();
        let plain = rule.steps.iter().filter(|step| !matches!(step, Step::Counter { .. }));
        json!({
            "rule": plain.map(step).collect::<Vec<_>>().join(" "),
            "comment": rule.comment,
            "packets": packets,
            "bytes": bytes,
        })
    });
    json!({
        "name": chain.name,
        "type": chain.kind,
        "hook": hook(chain.hook),
        "priority": chain.priority,
        "policy": if chain.accepts { "accept" } else { "drop" },
        "rules": rules.collect::<Vec<_>>(),
    })
}

fn push(out: &mut String, depth: usize, line: &str) {
    let _ = writeln!(out, "{}{line}", "\t".repeat(depth));
}
