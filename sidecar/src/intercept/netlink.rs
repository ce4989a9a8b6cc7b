//! The netlink socket to nf_tables: one batch in, or one table out. Called by the room's door.
//!
//! Never: knowledge of what the rules mean; a wait without a limit.

// SPDX-License-Identifier: Apache-2.0

use std::io;

use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NetlinkMessage, NetlinkPayload, NlaBuffer, NlasIterator,
};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute,
    SetElementList, SetElementMessage, SetMessage, TableAttribute, TableMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    NetfilterSubsystem,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::InterceptError;
use super::encode::Request;
use super::ruleset::TABLE;

/// The kernel answers within the system call, or never (a lost answer): a batch takes some 10 ms.
const ANSWER_TIMEOUT_S: i64 = 5;
/// Datagrams of one answer. Our own table fits into a few; 4096 lets other tables have as many
/// chains and sets as a big node has, and still ends.
const MAX_DATAGRAMS: usize = 4096;
/// Netlink message and netfilter header lengths.
const NLMSG_HEADER_LEN: usize = 16;
const NETFILTER_HEADER_LEN: usize = 4;
/// `NLMSGERR_ATTR_MSG`: the kernel's explanation in words.
const ERROR_TEXT: u16 = 1;
/// Attribute 1 of every nf_tables message is the table's name.
const TABLE_NAME: u16 = 1;
/// Every table, chain, set and rule that we ask for is of this family.
const FAMILY: NetfilterProtoFamily = NetfilterProtoFamily::Inet;

type Message = NetlinkMessage<NetfilterMessage>;

/// A socket to nf_tables of the network namespace in which it was opened.
pub(super) struct NfSocket(Socket);

/// Our table as the kernel tells it, all parts from one generation of the ruleset.
pub(super) struct TableDump {
    pub(super) table: TableMessage,
    pub(super) chains: Vec<ChainMessage>,
    pub(super) sets: Vec<SetMessage>,
    pub(super) elements: Vec<SetElementMessage>,
    pub(super) rules: Vec<RuleMessage>,
}

impl NfSocket {
    pub(super) fn open() -> Result<Self, InterceptError> {
        let doing = "opening a netlink socket";
        let broken = |source| InterceptError::Socket { doing, source };
        let mut socket =
            Socket::new(NETLINK_NETFILTER).map_err(|source| {
                match Errno::from_raw(source.raw_os_error().unwrap_or_default()) {
                    errno @ (Errno::EPROTONOSUPPORT | Errno::EAFNOSUPPORT) => {
                        InterceptError::NoNfTables { doing: doing.to_owned(), errno }
                    }
                    _ => broken(source),
                }
            })?;
        socket.bind_auto().map_err(broken)?;
        socket.connect(&SocketAddr::new(0, 0)).map_err(broken)?;
        // Answers then carry the kernel's words, and not a copy of the question.
        socket.set_ext_ack(true).map_err(broken)?;
        socket.set_cap_ack(true).map_err(broken)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_TIMEOUT_S))
            .map_err(|errno| broken(errno.into()))?;
        Ok(Self(socket))
    }

    /// Sends all requests as one transaction and waits for each one's answer.
    pub(super) fn commit(&self, requests: Vec<Request>) -> Result<(), InterceptError> {
        // Begin and end are not acknowledged: kernels before 6.10 never answer them.
        let mut bytes = serialize(frame(ControlMessage::BatchBegin), NLM_F_REQUEST, 0);
        let mut what = Vec::with_capacity(requests.len());
        for (request, seq) in requests.into_iter().zip(1..) {
            let flags = NLM_F_REQUEST | NLM_F_ACK | request.flags;
            bytes.extend(serialize(question(request.message), flags, seq));
            what.push((request.doing, request.flags & NLM_F_CREATE != 0));
        }
        let end = u32::try_from(what.len()).unwrap_or(u32::MAX).saturating_add(1);
        bytes.extend(serialize(frame(ControlMessage::BatchEnd), NLM_F_REQUEST, end));
        self.send(&bytes)?;

        let mut answered = 0;
        for _ in 0..MAX_DATAGRAMS {
            if answered == what.len() {
                return Ok(());
            }
            for message in messages(&self.receive()?) {
                let message = parse(message?)?;
                let NetlinkPayload::Error(answer) = &message.payload else { continue };
                let seq = message.header.sequence_number as usize;
                let doing = seq.checked_sub(1).and_then(|index| what.get(index));
                if answer.code.is_some() {
                    let batch = ("changing nf_tables".to_owned(), false);
                    let (doing, creates) = doing.unwrap_or(&batch);
                    return Err(refusal(doing, *creates, answer));
                }
                answered += usize::from(doing.is_some());
            }
        }
        Err(InterceptError::Unreadable("more answers than questions".to_owned()))
    }

    /// Reads our table. "Not found" when there is none, `Unsettled` when it changed meanwhile.
    pub(super) fn read_table(&self) -> Result<TableDump, InterceptError> {
        let table = || TABLE.to_owned();
        let attributes = vec![TableAttribute::Name(table())];
        let mut generation = None;
        let mut ask = |message, flags| self.ask(message, flags, &mut generation);
        let one = ask(NfTablesMessage::GetTable(TableMessage { attributes }), NLM_F_ACK)?;
        let attributes = vec![ChainAttribute::Table(table())];
        let chains = ask(NfTablesMessage::GetChain(ChainMessage { attributes }), NLM_F_DUMP)?;
        let attributes = vec![SetAttribute::Table(table())];
        let sets = ask(NfTablesMessage::GetSet(SetMessage { attributes }), NLM_F_DUMP)?;
        let mut elements = Vec::new();
        for name in sets.iter().filter_map(set_name) {
            let attributes = vec![SetElementList::Table(table()), SetElementList::Set(name)];
            let get = NfTablesMessage::GetSetElement(SetElementMessage { attributes });
            elements.extend(ask(get, NLM_F_DUMP)?);
        }
        let attributes = vec![RuleAttribute::Table(table())];
        let rules = ask(NfTablesMessage::GetRule(RuleMessage { attributes }), NLM_F_DUMP)?;
        macro_rules! all {
            ($from:expr, $kind:ident) => {
                $from.into_iter().filter_map(|message| match message {
                    NfTablesMessage::$kind(message) => Some(message),
                    _ => None,
                })
            };
        }
        Ok(TableDump {
            table: all!(one, NewTable)
                .next()
                .ok_or_else(|| InterceptError::Unreadable("no table in it".to_owned()))?,
            chains: all!(chains, NewChain).collect(),
            sets: all!(sets, NewSet).collect(),
            elements: all!(elements, NewSetElement).collect(),
            rules: all!(rules, NewRule).collect(),
        })
    }

    /// One question, all messages about our table in the answer. `generation` is the ruleset's, as
    /// the kernel puts it into each answer: it must be the same in all of them.
    fn ask(
        &self,
        message: NfTablesMessage,
        flags: u16,
        generation: &mut Option<u16>,
    ) -> Result<Vec<NfTablesMessage>, InterceptError> {
        let doing = format!("reading table inet {TABLE}");
        self.send(&serialize(question(message), NLM_F_REQUEST | flags, 1))?;
        let mut found = Vec::new();
        for _ in 0..MAX_DATAGRAMS {
            for bytes in messages(&self.receive()?) {
                let bytes = bytes?;
                if !is_control(bytes) && !is_ours(bytes) {
                    continue;
                }
                let message = parse(bytes)?;
                if message.header.flags & NLM_F_DUMP_INTR != 0 {
                    return Err(InterceptError::Unsettled);
                }
                match message.payload {
                    NetlinkPayload::Error(answer) if answer.code.is_some() => {
                        return Err(refusal(&doing, false, &answer));
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::InnerMessage(inner) => {
                        if *generation.get_or_insert(inner.header.res_id) != inner.header.res_id {
                            return Err(InterceptError::Unsettled);
                        }
                        if let NetfilterMessageInner::NfTables(inner) = inner.inner {
                            found.push(inner);
                        }
                    }
                    _ => {}
                }
            }
        }
        Err(InterceptError::Unreadable("an answer without an end".to_owned()))
    }

    fn send(&self, bytes: &[u8]) -> Result<(), InterceptError> {
        let doing = "asking nf_tables";
        match self.0.send(bytes, 0) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) => Err(InterceptError::Socket { doing, source: io::ErrorKind::WriteZero.into() }),
            Err(source) => Err(InterceptError::Socket { doing, source }),
        }
    }

    fn receive(&self) -> Result<Vec<u8>, InterceptError> {
        match self.0.recv_from_full() {
            Ok((bytes, _)) => Ok(bytes),
            Err(source) if source.kind() == io::ErrorKind::WouldBlock => {
                Err(InterceptError::TimedOut(ANSWER_TIMEOUT_S))
            }
            Err(source) => Err(InterceptError::Socket { doing: "hearing from nf_tables", source }),
        }
    }
}

fn refusal(doing: &str, creates: bool, answer: &ErrorMessage) -> InterceptError {
    let errno = Errno::from_raw(answer.raw_code().abs());
    InterceptError::from_kernel(doing, creates, errno, &explanation(answer))
}

/// The kernel's own words, where it has some: behind the 16 bytes of the question's header.
fn explanation(answer: &ErrorMessage) -> String {
    let attributes = answer.header.get(NLMSG_HEADER_LEN..).unwrap_or_default();
    NlasIterator::new(attributes)
        .filter_map(Result::ok)
        .find(|attribute| attribute.kind() == ERROR_TEXT)
        .map(|attribute| text_of(&attribute))
        .unwrap_or_default()
}

fn text_of(attribute: &NlaBuffer<&[u8]>) -> String {
    let bytes = attribute.value();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn set_name(message: &NfTablesMessage) -> Option<String> {
    let NfTablesMessage::NewSet(set) = message else { return None };
    set.attributes.iter().find_map(|attribute| match attribute {
        SetAttribute::Name(name) => Some(name.clone()),
        _ => None,
    })
}

fn question(message: NfTablesMessage) -> NetfilterMessage {
    NetfilterMessage::new(NetfilterHeader::new(FAMILY, 0, 0), message)
}

/// The begin or end of a batch: its resource ID names the subsystem that the batch is for.
fn frame(message: ControlMessage) -> NetfilterMessage {
    let subsystem = u8::from(NetfilterSubsystem::NfTables);
    let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, subsystem.into());
    NetfilterMessage::new(header, message)
}

fn serialize(message: NetfilterMessage, flags: u16, seq: u32) -> Vec<u8> {
    let mut message = Message::from(message);
    message.header.flags = flags;
    message.header.sequence_number = seq;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// The messages of one datagram, each starting on a multiple of four bytes.
fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<&[u8], InterceptError>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = rest.first_chunk().map_or(0, |word| u32::from_ne_bytes(*word) as usize);
        if length < NLMSG_HEADER_LEN || length > rest.len() {
            rest = &[];
            return Some(Err(InterceptError::Unreadable("a cut message".to_owned())));
        }
        let message = &rest[..length];
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok(message))
    })
}

fn parse(bytes: &[u8]) -> Result<Message, InterceptError> {
    Message::deserialize(bytes).map_err(|error| InterceptError::Unreadable(error.to_string()))
}

/// Types below 16 belong to netlink itself: errors, ends.
fn is_control(bytes: &[u8]) -> bool {
    u16::from_ne_bytes([bytes[4], bytes[5]]) < 16
}

/// Dumps may hold other tables' chains and sets, which need not be readable for us.
fn is_ours(bytes: &[u8]) -> bool {
    let attributes = bytes.get(NLMSG_HEADER_LEN + NETFILTER_HEADER_LEN..).unwrap_or_default();
    NlasIterator::new(attributes)
        .filter_map(Result::ok)
        .any(|attribute| attribute.kind() == TABLE_NAME && text_of(&attribute) == TABLE)
}
