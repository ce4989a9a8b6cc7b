//! Netlink messages to ruleset: what the kernel holds, in the words of `ruleset`. Called by the
//! room's door with a dump of our table.
//!
//! Whatever we never write becomes `Step::Unknown` or an unusual value, so that it shows up as a
//! difference instead of being overlooked.
//!
//! Never: I/O; a judgement about what was found.

// SPDX-License-Identifier: Apache-2.0

use netlink_packet_core::{DefaultNla, Nla};
use netlink_packet_netfilter::nftables::{
    Bitwise, ChainAttribute, ChainMessage, Cmp, DataAttribute, ExpressionAttribute, Expressions,
    Hook, Immediate, InetHookNumber, ListAttribute, Lookup, Meta, MetaKey, Operator, Payload,
    RuleAttribute, RuleMessage, SetAttribute, SetElementAttribute, SetElementFlags, SetElementList,
    SetElementMessage, SetMessage, TableAttribute, Verdict, VerdictAttribute,
};

use super::InterceptError;
use super::encode::{
    ACCEPT, COMMENT, COUNTER_BYTES, COUNTER_PACKETS, CT_DIRECTION, CT_KEY, CT_KEY_STATE,
    CT_KEY_STATUS, CT_KEY_ZONE, CT_SREG, DROP, IPV4, IPV6, NETWORK_HEADER, ORIGINAL, SYN, TCP,
    TCP_FLAGS, TCP_FLAGS_OFFSET, TRANSPORT_HEADER,
};
use super::netlink::TableDump;
use super::plan::Range;
use super::ruleset::{Chain, HookPoint, Key, Rule, Ruleset, Set, Step};

/// Finds one attribute's value in a list of typed attributes.
macro_rules! find {
    ($attributes:expr, $variant:path) => {
        $attributes.iter().find_map(|attribute| match attribute {
            $variant(value) => Some(value),
            _ => None,
        })
    };
}

/// Reads a dump.
pub(super) fn ruleset(dump: &TableDump) -> Result<Ruleset, InterceptError> {
    let comment = find!(dump.table.attributes, TableAttribute::UserData);
    let sets = dump.sets.iter().map(|set| self::set(set, &dump.elements));
    Ok(Ruleset {
        comment: comment.and_then(|data| self::comment(data)),
        sets: sets.collect::<Result<_, _>>()?,
        chains: dump.chains.iter().map(|chain| self::chain(chain, &dump.rules)).collect(),
    })
}

fn set(message: &SetMessage, elements: &[SetElementMessage]) -> Result<Set, InterceptError> {
    let name = find!(message.attributes, SetAttribute::Name).cloned().unwrap_or_default();
    let key = match find!(message.attributes, SetAttribute::KeyType) {
        Some(7) => Key::DestinationV4,
        Some(8) => Key::DestinationV6,
        Some(13) => Key::DestinationPort,
        Some(24) => Key::SocketUid,
        other => {
            let what = format!("set {name} in our table has keys of type {other:?}");
            return Err(InterceptError::Unreadable(what));
        }
    };
    let found = elements
        .iter()
        .filter(|part| find!(part.attributes, SetElementList::Set).is_some_and(|set| *set == name));
    let mut bounds: Vec<(u128, bool)> = found
        .filter_map(|part| find!(part.attributes, SetElementList::Elements))
        .flatten()
        .filter_map(|element| match element {
            ListAttribute::Element(attributes) => bound(key, attributes),
            _ => None,
        })
        .collect();
    bounds.sort_unstable();
    Ok(Set { name, key, elements: ranges(key, &bounds) })
}

/// One element: its key, and whether a range begins there (else it ended just before).
fn bound(key: Key, attributes: &[SetElementAttribute]) -> Option<(u128, bool)> {
    let DataAttribute::Value(bytes) = find!(attributes, SetElementAttribute::Key)? else {
        return None;
    };
    let flags = find!(attributes, SetElementAttribute::Flags).copied().unwrap_or_default();
    Some((key.value_of(bytes)?, !flags.contains(SetElementFlags::IntervalEnd)))
}

/// Sorted bounds to ranges. An end sorts before a beginning at the same key.
fn ranges(key: Key, bounds: &[(u128, bool)]) -> Vec<Range> {
    let mut ranges = Vec::new();
    for (index, &(first, begins)) in bounds.iter().enumerate() {
        if !begins {
            continue;
        }
        let last = match bounds.get(index + 1) {
            _ if !key.is_interval() => first,
            Some(&(next, _)) => next.saturating_sub(1),
            None => key.highest(),
        };
        ranges.push(Range { first, last });
    }
    ranges
}

fn chain(message: &ChainMessage, rules: &[RuleMessage]) -> Chain {
    let name = find!(message.attributes, ChainAttribute::Name).cloned().unwrap_or_default();
    let (mut hook, mut priority) = (HookPoint::Other(u32::MAX), 0);
    for part in find!(message.attributes, ChainAttribute::Hook).into_iter().flatten() {
        match part {
            Hook::Number(number) => {
                hook = match InetHookNumber::from(u32::from(*number)) {
                    InetHookNumber::PreRouting => HookPoint::Prerouting,
                    InetHookNumber::LocalIn => HookPoint::Input,
                    InetHookNumber::LocalOut => HookPoint::Output,
                    other => HookPoint::Other(other.into()),
                }
            }
            Hook::Priority(value) => priority = value.cast_signed(),
            _ => {}
        }
    }
    let ours = rules
        .iter()
        .filter(|rule| find!(rule.attributes, RuleAttribute::Chain).is_some_and(|of| *of == name));
    Chain {
        kind: find!(message.attributes, ChainAttribute::Type).cloned().unwrap_or_default(),
        hook,
        priority,
        accepts: find!(message.attributes, ChainAttribute::Policy) == Some(&ACCEPT),
        rules: ours.map(rule).collect(),
        name,
    }
}

fn rule(message: &RuleMessage) -> Rule {
    let mut reading = Reading::default();
    let list = find!(message.attributes, RuleAttribute::Expressions);
    for element in list.into_iter().flatten() {
        let ListAttribute::Element(attributes) = element else { continue };
        match find!(attributes, ExpressionAttribute::Data) {
            Some(expression) => reading.expression(expression),
            // Some expressions (notrack, for one) are a name and nothing else.
            None => {
                let name = find!(attributes, ExpressionAttribute::Name).cloned();
                reading.unknown(&name.unwrap_or_default());
            }
        }
    }
    let comment = find!(message.attributes, RuleAttribute::UserData);
    Rule { steps: reading.steps, comment: comment.and_then(|data| self::comment(data)) }
}

/// The steps so far, and what register 1 holds.
#[derive(Default)]
struct Reading {
    steps: Vec<Step>,
    register: Register1,
}

#[derive(Default, Clone, PartialEq, Eq)]
enum Register1 {
    #[default]
    Empty,
    Meta(MetaKey),
    /// Base, offset and length of what was read from a header.
    Header(u32, u32, u32),
    /// A property of the connection, by the kernel's number.
    Ct(u32),
    CtMasked(u32, u32),
    TcpFlags,
    Constant(Vec<u8>),
}

/// The destination port of a TCP header.
const PORT: Register1 = Register1::Header(TRANSPORT_HEADER, 2, 2);

impl Reading {
    fn expression(&mut self, expression: &Expressions) {
        let known = match expression {
            Expressions::Meta(parts) => self.meta(parts),
            Expressions::Payload(parts) => self.payload(parts),
            Expressions::Bitwise(parts) => self.bitwise(parts),
            Expressions::Cmp(parts) => self.compare(parts),
            Expressions::Lookup(parts) => self.lookup(parts),
            Expressions::Immediate(parts) => self.immediate(parts),
            Expressions::Other { expression_type, attributes } => {
                self.other(expression_type, attributes)
            }
            _ => None,
        };
        if known.is_none() {
            self.unknown(name_of(expression));
        }
    }

    fn unknown(&mut self, name: &str) {
        self.register = Register1::Empty;
        self.steps.push(Step::Unknown(name.to_owned()));
    }

    fn meta(&mut self, parts: &[Meta]) -> Option<()> {
        find!(parts, Meta::DestinationRegister)?;
        self.register = Register1::Meta(*find!(parts, Meta::Key)?);
        Some(())
    }

    fn payload(&mut self, parts: &[Payload]) -> Option<()> {
        let (base, offset) = (find!(parts, Payload::Base)?, find!(parts, Payload::Offset)?);
        self.register = Register1::Header(*base, *offset, *find!(parts, Payload::Len)?);
        Some(())
    }

    fn bitwise(&mut self, parts: &[Bitwise]) -> Option<()> {
        let (mask, xor) = (find!(parts, Bitwise::Mask)?, find!(parts, Bitwise::Xor)?);
        let DataAttribute::Value(unchanged) = xor else { return None };
        unchanged.iter().all(|byte| *byte == 0).then_some(())?;
        self.register = match &self.register {
            Register1::Ct(key) => Register1::CtMasked(*key, host_word(mask)?),
            Register1::Header(TRANSPORT_HEADER, TCP_FLAGS_OFFSET, 1)
                if *mask == DataAttribute::Value(vec![TCP_FLAGS]) =>
            {
                Register1::TcpFlags
            }
            _ => return None,
        };
        Some(())
    }

    fn compare(&mut self, parts: &[Cmp]) -> Option<()> {
        let op = find!(parts, Cmp::Op)?;
        let data = find!(parts, Cmp::Data)?;
        let DataAttribute::Value(value) = data else { return None };
        let step = match (std::mem::take(&mut self.register), op) {
            (Register1::CtMasked(key, bits), Operator::NotEqual) if host_word(data)? == 0 => {
                match key {
                    CT_KEY_STATE => Step::CtState(bits),
                    CT_KEY_STATUS => Step::CtStatus(bits),
                    _ => return None,
                }
            }
            (Register1::TcpFlags, Operator::NotEqual) if *value == [SYN] => {
                self.guarded(&Step::Tcp, Step::NotFirst)?
            }
            (PORT, Operator::Equal) => {
                let port = u16::from_be_bytes(value.as_slice().try_into().ok()?);
                self.guarded(&Step::Tcp, Step::DestinationPort(port))?
            }
            (Register1::Meta(key), Operator::Equal) => match (key, value.as_slice()) {
                (MetaKey::SocketUserId, _) => Step::SocketUid(host_word(data)?),
                (MetaKey::Mark, _) => Step::Mark(host_word(data)?),
                (MetaKey::Iifname, name) => Step::InInterface(interface(name)?),
                (MetaKey::Oifname, name) => Step::OutInterface(interface(name)?),
                (MetaKey::L4Proto, [TCP]) => Step::Tcp,
                (MetaKey::Nfproto, [IPV4]) => Step::Ipv4,
                (MetaKey::Nfproto, [IPV6]) => Step::Ipv6,
                _ => return None,
            },
            _ => return None,
        };
        self.steps.push(step);
        Some(())
    }

    /// A lookup, together with the guard that the header it reads is of that protocol.
    fn lookup(&mut self, parts: &[Lookup]) -> Option<()> {
        let set = find!(parts, Lookup::Set)?.clone();
        if find!(parts, Lookup::Flags).is_some_and(|flags| *flags != 0) {
            return None;
        }
        let (key, guard) = match std::mem::take(&mut self.register) {
            Register1::Meta(MetaKey::SocketUserId) => (Key::SocketUid, None),
            Register1::Header(NETWORK_HEADER, 16, 4) => (Key::DestinationV4, Some(Step::Ipv4)),
            Register1::Header(NETWORK_HEADER, 24, 16) => (Key::DestinationV6, Some(Step::Ipv6)),
            PORT => (Key::DestinationPort, Some(Step::Tcp)),
            _ => return None,
        };
        let step = Step::InSet { key, set };
        let step = match guard {
            Some(guard) => self.guarded(&guard, step)?,
            None => step,
        };
        self.steps.push(step);
        Some(())
    }

    /// That the header is of this protocol is part of the step that reads it.
    fn guarded(&mut self, guard: &Step, step: Step) -> Option<Step> {
        (self.steps.last() == Some(guard)).then(|| self.steps.pop())?.map(|_| step)
    }

    fn immediate(&mut self, parts: &[Immediate]) -> Option<()> {
        match find!(parts, Immediate::Data)? {
            DataAttribute::Value(bytes) => self.register = Register1::Constant(bytes.clone()),
            DataAttribute::Verdict(verdict) => {
                self.steps.push(match find!(verdict, VerdictAttribute::Code)? {
                    Verdict::Return => Step::Return,
                    Verdict::Other(DROP) => Step::Drop,
                    _ => return None,
                });
            }
            _ => return None,
        }
        Some(())
    }

    fn other(&mut self, name: &str, attributes: &[DefaultNla]) -> Option<()> {
        match name {
            "counter" => {
                let packets = u64::from_be_bytes(value_of(attributes, COUNTER_PACKETS)?);
                let bytes = u64::from_be_bytes(value_of(attributes, COUNTER_BYTES)?);
                self.steps.push(Step::Counter { packets, bytes });
            }
            "ct" => self.connection(attributes)?,
            "redir" => {
                let Register1::Constant(port) = std::mem::take(&mut self.register) else {
                    return None;
                };
                self.steps.push(Step::Redirect(u16::from_be_bytes(port.try_into().ok()?)));
            }
            _ => return None,
        }
        Some(())
    }

    /// A property of the connection that is read, or the zone that is set.
    fn connection(&mut self, attributes: &[DefaultNla]) -> Option<()> {
        let key = u32::from_be_bytes(value_of(attributes, CT_KEY)?);
        if value_of::<4>(attributes, CT_SREG).is_none() {
            self.register = Register1::Ct(key);
            return Some(());
        }
        let Register1::Constant(zone) = std::mem::take(&mut self.register) else { return None };
        let is_ours = key == CT_KEY_ZONE && value_of(attributes, CT_DIRECTION)? == [ORIGINAL];
        let zone = u16::from_ne_bytes(zone.try_into().ok()?);
        self.steps.push(is_ours.then_some(Step::OriginalZone(zone))?);
        Some(())
    }
}

impl Key {
    /// The inverse of `to_bytes`.
    fn value_of(self, bytes: &[u8]) -> Option<u128> {
        if bytes.len() != usize::from(self.byte_len()) {
            return None;
        }
        let plain = bytes.iter().fold(0, |value, byte| value << 8 | u128::from(*byte));
        // Reading the bytes as if they were in network order is undone by writing them back.
        let plain = self.to_bytes(plain);
        Some(plain.iter().fold(0, |value, byte| value << 8 | u128::from(*byte)))
    }
}

fn name_of(expression: &Expressions) -> &str {
    match expression {
        Expressions::Bitwise(_) => "bitwise",
        Expressions::Cmp(_) => "cmp",
        Expressions::Immediate(_) => "immediate",
        Expressions::Lookup(_) => "lookup",
        Expressions::Meta(_) => "meta",
        Expressions::Payload(_) => "payload",
        Expressions::Other { expression_type, .. } => expression_type,
        _ => "unnamed",
    }
}

fn value_of<const N: usize>(attributes: &[DefaultNla], kind: u16) -> Option<[u8; N]> {
    let attribute = attributes.iter().find(|attribute| attribute.kind() == kind)?;
    let mut bytes = [0; N];
    (attribute.value_len() == N).then(|| attribute.emit_value(&mut bytes))?;
    Some(bytes)
}

fn host_word(data: &DataAttribute) -> Option<u32> {
    match data {
        DataAttribute::Value(bytes) => bytes.as_slice().try_into().ok().map(u32::from_ne_bytes),
        _ => None,
    }
}

/// The whole name; a comparison of fewer bytes is a prefix match, which we never write.
fn interface(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    String::from_utf8(bytes[..end].to_vec()).ok()
}

/// The comment in an object's user data: a list of (type, length, value).
fn comment(mut data: &[u8]) -> Option<String> {
    while let [kind, len, rest @ ..] = data {
        let value = rest.get(..usize::from(*len))?;
        if *kind == COMMENT {
            let text = value.strip_suffix(b"\0").unwrap_or(value);
            return String::from_utf8(text.to_vec()).ok();
        }
        data = &rest[usize::from(*len)..];
    }
    None
}
