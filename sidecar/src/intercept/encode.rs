//! Ruleset to netlink messages: pure, so that every byte can be tested without a kernel.
//! Called by `apply` and `remove`.
//!
//! Byte order is the trap of this file. Attributes are big-endian (the library sees to that), but
//! the *values* that rules compare are as the kernel holds them: UIDs, marks and state bits in the
//! byte order of the machine, ports and addresses in network order.
//!
//! Never: I/O; an expression that `decode` does not know.

// SPDX-License-Identifier: Apache-2.0

use netlink_packet_core::{DefaultNla, NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::nftables::{
    Bitwise, ChainAttribute, ChainMessage, Cmp, DataAttribute, Expressions, Hook, HookNumber,
    Immediate, InetHookNumber, ListAttribute, Lookup, Meta, MetaKey, NfTablesMessage, Operator,
    Payload, Register, RuleAttribute, RuleMessage, SetAttribute, SetElementAttribute,
    SetElementFlags, SetElementList, SetElementMessage, SetFlags, SetMessage, TableAttribute,
    TableFlags, TableMessage, Verdict, VerdictAttribute,
};

use super::ruleset::{Chain, HookPoint, Key, Rule, Ruleset, Set, Step, TABLE};

/// Protocol number of TCP.
pub(super) const TCP: u8 = 6;
/// `NFPROTO_IPV4` and `NFPROTO_IPV6`, as `meta nfproto` yields them.
pub(super) const IPV4: u8 = 2;
pub(super) const IPV6: u8 = 10;
/// `NF_DROP` and `NF_ACCEPT`.
pub(super) const DROP: u32 = 0;
pub(super) const ACCEPT: u32 = 1;
/// Attributes of expressions that the library has no types for (`linux/netfilter/nf_tables.h`).
pub(super) const REDIR_REG_PROTO_MIN: u16 = 1;
pub(super) const CT_DREG: u16 = 1;
pub(super) const CT_KEY: u16 = 2;
pub(super) const CT_DIRECTION: u16 = 3;
pub(super) const CT_SREG: u16 = 4;
pub(super) const CT_KEY_STATE: u32 = 0;
pub(super) const CT_KEY_STATUS: u32 = 2;
pub(super) const CT_KEY_ZONE: u32 = 17;
/// `IP_CT_DIR_ORIGINAL`: the direction in which a connection was opened.
pub(super) const ORIGINAL: u8 = 0;
/// Where a TCP header has its flags; of them FIN, SYN, RST and ACK tell a first packet, which has SYN
/// alone (RFC 9293 section 3.1).
pub(super) const TCP_FLAGS_OFFSET: u32 = 13;
pub(super) const TCP_FLAGS: u8 = 0x01 | SYN | 0x04 | 0x10;
pub(super) const SYN: u8 = 0x02;
pub(super) const COUNTER_BYTES: u16 = 1;
pub(super) const COUNTER_PACKETS: u16 = 2;
/// Interface names are compared with all 16 bytes (`IFNAMSIZ`): shorter would match prefixes.
const INTERFACE_NAME_LEN: usize = 16;
/// User data is a list of (type, length, value); libnftnl keeps comments in type 0.
pub(super) const COMMENT: u8 = 0;
/// In a set, type 0 is the byte order of its keys, so that `nft` prints them right.
const KEY_BYTE_ORDER: u8 = 0;
const HOST_ORDER: u32 = 1;
const NETWORK_ORDER: u32 = 2;

/// One message of a batch, with what it does in words (for error lines).
pub(super) struct Request {
    pub(super) message: NfTablesMessage,
    pub(super) flags: u16,
    pub(super) doing: String,
}

/// Replaces our table whole. "new" before "delete" so that the deletion always finds one.
pub(super) fn replace(ruleset: &Ruleset) -> Vec<Request> {
    let bare = Ruleset::default();
    let mut requests = vec![new_table(&bare), delete_table(), new_table(ruleset)];
    for (set, id) in ruleset.sets.iter().zip(1..) {
        requests.push(new_set(set, id));
        requests.push(new_elements(set, id));
    }
    for chain in &ruleset.chains {
        requests.push(new_chain(chain));
        for rule in &chain.rules {
            requests.push(new_rule(chain, rule, &ruleset.sets));
        }
    }
    requests
}

/// Deletes our table; the kernel says "not found" when there is none.
pub(super) fn delete_table() -> Request {
    let attributes = vec![TableAttribute::Name(TABLE.to_owned())];
    Request {
        message: NfTablesMessage::DeleteTable(TableMessage { attributes }),
        flags: 0,
        doing: format!("deleting table inet {TABLE}"),
    }
}

fn new_table(ruleset: &Ruleset) -> Request {
    let mut attributes =
        vec![TableAttribute::Name(TABLE.to_owned()), TableAttribute::Flags(TableFlags::empty())];
    attributes.extend(ruleset.comment.as_deref().map(comment).map(TableAttribute::UserData));
    Request {
        message: NfTablesMessage::NewTable(TableMessage { attributes }),
        flags: NLM_F_CREATE,
        doing: format!("creating table inet {TABLE}"),
    }
}

fn new_set(set: &Set, id: u32) -> Request {
    // (the number that `nft` prints as the type, bytes of a key, their order)
    let (key_type, len, order) = match set.key {
        Key::DestinationV4 => (7, 4, NETWORK_ORDER),
        Key::DestinationV6 => (8, 16, NETWORK_ORDER),
        Key::DestinationPort => (13, 2, NETWORK_ORDER),
        Key::SocketUid => (24, 4, HOST_ORDER),
    };
    let flags = if set.key.is_interval() { SetFlags::Interval } else { SetFlags::empty() };
    let attributes = vec![
        SetAttribute::Table(TABLE.to_owned()),
        SetAttribute::Name(set.name.clone()),
        SetAttribute::Flags(flags),
        SetAttribute::KeyType(key_type),
        SetAttribute::KeyLen(len),
        SetAttribute::Id(id),
        SetAttribute::UserData(user_data(KEY_BYTE_ORDER, &order.to_ne_bytes())),
    ];
    Request {
        message: NfTablesMessage::NewSet(SetMessage { attributes }),
        flags: NLM_F_CREATE,
        doing: format!("creating set {}", set.name),
    }
}

fn new_elements(set: &Set, id: u32) -> Request {
    let mut elements = Vec::with_capacity(2 * set.elements.len());
    for range in &set.elements {
        elements.push(element(set.key, range.first, SetElementFlags::empty()));
        // A range that runs to the highest key has no end element: there is nothing behind it.
        if set.key.is_interval() && range.last < set.key.highest() {
            elements.push(element(set.key, range.last + 1, SetElementFlags::IntervalEnd));
        }
    }
    let attributes = vec![
        SetElementList::Table(TABLE.to_owned()),
        SetElementList::Set(set.name.clone()),
        SetElementList::SetId(id),
        SetElementList::Elements(elements),
    ];
    Request {
        message: NfTablesMessage::NewSetElement(SetElementMessage { attributes }),
        flags: NLM_F_CREATE,
        doing: format!("filling set {}", set.name),
    }
}

fn element(key: Key, value: u128, flags: SetElementFlags) -> ListAttribute<SetElementAttribute> {
    let mut attributes = vec![SetElementAttribute::Key(DataAttribute::Value(key.to_bytes(value)))];
    if !flags.is_empty() {
        attributes.push(SetElementAttribute::Flags(flags));
    }
    ListAttribute::Element(attributes)
}

fn new_chain(chain: &Chain) -> Request {
    let hook = match chain.hook {
        HookPoint::Prerouting => HookNumber::Inet(InetHookNumber::PreRouting),
        HookPoint::Input => HookNumber::Inet(InetHookNumber::LocalIn),
        HookPoint::Output => HookNumber::Inet(InetHookNumber::LocalOut),
        HookPoint::Other(number) => HookNumber::Other(number),
    };
    let attributes = vec![
        ChainAttribute::Table(TABLE.to_owned()),
        ChainAttribute::Name(chain.name.clone()),
        ChainAttribute::Type(chain.kind.clone()),
        ChainAttribute::Hook(vec![
            Hook::Number(hook),
            Hook::Priority(chain.priority.cast_unsigned()),
        ]),
        ChainAttribute::Policy(if chain.accepts { ACCEPT } else { DROP }),
    ];
    Request {
        message: NfTablesMessage::NewChain(ChainMessage { attributes }),
        flags: NLM_F_CREATE,
        doing: format!("creating {} chain {}", chain.kind, chain.name),
    }
}

fn new_rule(chain: &Chain, rule: &Rule, sets: &[Set]) -> Request {
    let expressions = rule.steps.iter().flat_map(|step| expressions(step, sets));
    let mut attributes = vec![
        RuleAttribute::Table(TABLE.to_owned()),
        RuleAttribute::Chain(chain.name.clone()),
        RuleAttribute::Expressions(expressions.map(Into::into).collect()),
    ];
    attributes.extend(rule.comment.as_deref().map(comment).map(RuleAttribute::UserData));
    let words = rule.comment.as_deref().unwrap_or("a rule");
    Request {
        message: NfTablesMessage::NewRule(RuleMessage { attributes }),
        flags: NLM_F_CREATE | NLM_F_APPEND,
        doing: format!("adding `{words}` to chain {}", chain.name),
    }
}

/// What the kernel executes for one step. Everything passes through register 1.
fn expressions(step: &Step, sets: &[Set]) -> Vec<Expressions> {
    match step {
        Step::SocketUid(uid) => meta_is(MetaKey::SocketUserId, uid.to_ne_bytes().to_vec()),
        Step::Mark(mark) => meta_is(MetaKey::Mark, mark.to_ne_bytes().to_vec()),
        Step::InInterface(name) => meta_is(MetaKey::Iifname, interface(name)),
        Step::OutInterface(name) => meta_is(MetaKey::Oifname, interface(name)),
        Step::Tcp => meta_is(MetaKey::L4Proto, vec![TCP]),
        Step::Ipv4 => meta_is(MetaKey::Nfproto, vec![IPV4]),
        Step::Ipv6 => meta_is(MetaKey::Nfproto, vec![IPV6]),
        Step::InSet { key, set } => {
            let id = (1..).zip(sets).find(|(_, known)| known.name == *set).map(|(id, _)| id);
            let mut all = load(*key);
            let mut lookup = vec![Lookup::SourceRegister(Register::Reg1), Lookup::Set(set.clone())];
            lookup.extend(id.map(Lookup::SetId));
            all.push(Expressions::Lookup(lookup));
            all
        }
        Step::CtState(bits) => ct_has(CT_KEY_STATE, *bits),
        Step::CtStatus(bits) => ct_has(CT_KEY_STATUS, *bits),
        Step::NotFirst => of_tcp([
            payload(TRANSPORT_HEADER, TCP_FLAGS_OFFSET, 1),
            masked(vec![TCP_FLAGS]),
            compare(Operator::NotEqual, vec![SYN]),
        ]),
        Step::DestinationPort(port) => of_tcp([
            payload(TRANSPORT_HEADER, 2, 2),
            compare(Operator::Equal, port.to_be_bytes().to_vec()),
        ]),
        Step::OriginalZone(zone) => vec![
            constant(zone.to_ne_bytes().to_vec()),
            other(
                "ct",
                vec![
                    DefaultNla::new(CT_KEY, CT_KEY_ZONE.to_be_bytes().to_vec()),
                    DefaultNla::new(CT_DIRECTION, vec![ORIGINAL]),
                    register(CT_SREG),
                ],
            ),
        ],
        Step::Counter { packets, bytes } => vec![other(
            "counter",
            vec![
                DefaultNla::new(COUNTER_BYTES, bytes.to_be_bytes().to_vec()),
                DefaultNla::new(COUNTER_PACKETS, packets.to_be_bytes().to_vec()),
            ],
        )],
        Step::Return => vec![verdict(Verdict::Return)],
        Step::Drop => vec![verdict(Verdict::Other(DROP))],
        Step::Redirect(port) => vec![
            constant(port.to_be_bytes().to_vec()),
            other("redir", vec![register(REDIR_REG_PROTO_MIN)]),
        ],
        Step::Unknown(name) => vec![other(name, Vec::new())],
    }
}

/// Loads what a set of this kind is keyed by. A header is only read once it is known which it is.
fn load(key: Key) -> Vec<Expressions> {
    let (guard, base, offset) = match key {
        Key::SocketUid => return vec![meta_load(MetaKey::SocketUserId)],
        Key::DestinationV4 => (meta_is(MetaKey::Nfproto, vec![IPV4]), NETWORK_HEADER, 16),
        Key::DestinationV6 => (meta_is(MetaKey::Nfproto, vec![IPV6]), NETWORK_HEADER, 24),
        Key::DestinationPort => (meta_is(MetaKey::L4Proto, vec![TCP]), TRANSPORT_HEADER, 2),
    };
    let header = payload(base, offset, u32::from(key.byte_len()));
    guard.into_iter().chain([header]).collect()
}

fn payload(base: u32, offset: u32, len: u32) -> Expressions {
    Expressions::Payload(vec![
        Payload::DestinationRegister(Register::Reg1),
        Payload::Base(base),
        Payload::Offset(offset),
        Payload::Len(len),
    ])
}

/// `NFT_PAYLOAD_NETWORK_HEADER`.
pub(super) const NETWORK_HEADER: u32 = 1;
/// `NFT_PAYLOAD_TRANSPORT_HEADER`.
pub(super) const TRANSPORT_HEADER: u32 = 2;

impl Key {
    /// Bytes of one key.
    pub(super) const fn byte_len(self) -> u8 {
        match self {
            Self::DestinationV4 | Self::SocketUid => 4,
            Self::DestinationV6 => 16,
            Self::DestinationPort => 2,
        }
    }

    /// A key as the kernel compares it: the machine's order for UIDs, else network order.
    pub(super) fn to_bytes(self, value: u128) -> Vec<u8> {
        let mut bytes = value.to_be_bytes()[16 - usize::from(self.byte_len())..].to_vec();
        if matches!(self, Self::SocketUid) && cfg!(target_endian = "little") {
            bytes.reverse();
        }
        bytes
    }
}

/// A header is only read once it is known whose it is.
fn of_tcp(steps: impl IntoIterator<Item = Expressions>) -> Vec<Expressions> {
    meta_is(MetaKey::L4Proto, vec![TCP]).into_iter().chain(steps).collect()
}

fn meta_load(key: MetaKey) -> Expressions {
    Expressions::Meta(vec![Meta::DestinationRegister(Register::Reg1), Meta::Key(key)])
}

fn meta_is(key: MetaKey, value: Vec<u8>) -> Vec<Expressions> {
    vec![meta_load(key), compare(Operator::Equal, value)]
}

fn compare(op: Operator, value: Vec<u8>) -> Expressions {
    Expressions::Cmp(vec![
        Cmp::SourceRegister(Register::Reg1),
        Cmp::Op(op),
        Cmp::Data(DataAttribute::Value(value)),
    ])
}

fn ct_has(key: u32, bits: u32) -> Vec<Expressions> {
    let load = vec![DefaultNla::new(CT_KEY, key.to_be_bytes().to_vec()), register(CT_DREG)];
    vec![
        other("ct", load),
        masked(bits.to_ne_bytes().to_vec()),
        compare(Operator::NotEqual, vec![0; 4]),
    ]
}

fn masked(mask: Vec<u8>) -> Expressions {
    let zero = vec![0; mask.len()];
    Expressions::Bitwise(vec![
        Bitwise::SourceRegister(Register::Reg1),
        Bitwise::DestinationRegister(Register::Reg1),
        Bitwise::Length(u32::try_from(mask.len()).expect("a mask is a few bytes")),
        Bitwise::Mask(DataAttribute::Value(mask)),
        Bitwise::Xor(DataAttribute::Value(zero)),
    ])
}

fn constant(value: Vec<u8>) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Reg1),
        Immediate::Data(DataAttribute::Value(value)),
    ])
}

fn verdict(code: Verdict) -> Expressions {
    Expressions::Immediate(vec![
        Immediate::DestinationRegister(Register::Verdict),
        Immediate::Data(DataAttribute::Verdict(vec![VerdictAttribute::Code(code)])),
    ])
}

fn register(attribute: u16) -> DefaultNla {
    DefaultNla::new(attribute, u32::from(Register::Reg1).to_be_bytes().to_vec())
}

fn other(name: &str, attributes: Vec<DefaultNla>) -> Expressions {
    Expressions::Other { expression_type: name.to_owned(), attributes }
}

fn interface(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(INTERFACE_NAME_LEN, 0);
    bytes
}

fn comment(text: &str) -> Vec<u8> {
    user_data(COMMENT, &[text.as_bytes(), b"\0"].concat())
}

fn user_data(kind: u8, value: &[u8]) -> Vec<u8> {
    let len = u8::try_from(value.len()).expect("our own texts are shorter than 256 bytes");
    [&[kind, len], value].concat()
}
