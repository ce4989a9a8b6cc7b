//! `WatchDirectory`: a caller asks who lives at the addresses it dials, and is told now and at each
//! change.
//!
//! Never: lists the mesh; a caller learns only what it names.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;

use myelin_identity::id::SpiffeId;
use myelin_identity::issuance::{DirectoryAnswer, DirectoryQuestion, MYELIN_PROTOCOL, proto};
use myelin_identity::verify::Peer;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::error::RecvError;
use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status, Streaming};

use super::{Api, lean, stopped};
use crate::authority::HEARTBEAT;

/// Addresses that one stream may ask about: what one workload dials, many times over (as the proto
/// file says).
pub(super) const MAX_ADDRESSES: usize = 4096;
/// Ports that one stream may ask about on one address.
pub(super) const MAX_PORTS: usize = 64;

/// Answers that wait for one slow watcher; together they fill a frame rather than one each.
const ANSWERS_BUFFERED: usize = 64;

pub(super) type Answers = lean::Told<proto::DirectoryAnswer>;
type Sender = lean::Sender<proto::DirectoryAnswer>;

/// What a stream asked, and what it was told last.
#[derive(Default)]
struct Asked(HashMap<IpAddr, HashMap<u16, Option<DirectoryAnswer>>>);

impl Api {
    pub(super) fn answer_watch_directory(
        &self,
        request: Request<Streaming<proto::DirectoryQuestion>>,
    ) -> Result<Response<Answers>, Status> {
        let peer = self.peer(&request)?;
        let permit = self.directory_watches.clone().try_acquire_owned();
        let permit = permit.map_err(|_| {
            Status::resource_exhausted("too many watches on this CA; try another replica")
        })?;
        let (sender, answers) = lean::channel(ANSWERS_BUFFERED);
        tokio::spawn(self.clone().tell_directory(peer, request.into_inner(), sender, permit));
        Ok(Response::new(answers))
    }

    async fn tell_directory(
        self,
        peer: Peer,
        mut questions: Streaming<proto::DirectoryQuestion>,
        sender: Sender,
        _permit: OwnedSemaphorePermit,
    ) {
        let _counted =
            super::counted::Counted::new(self.metrics.watches.with_label_values(&["directory"]));
        let ended = tokio::select! {
            ended = self.converse(&peer, &mut questions, &sender) => ended,
            () = stopped(self.stopping.clone()) => Ok(()),
        };
        if let Err(status) = ended {
            let _ = sender.send(Box::new(Err(status))).await;
            // A dropped question stream is a reset, which would overtake the status on its way to
            // the client.
            super::linger(&mut questions).await;
        }
    }

    async fn converse(
        &self,
        peer: &Peer,
        questions: &mut Streaming<proto::DirectoryQuestion>,
        sender: &Sender,
    ) -> Result<(), Status> {
        let mut asked = Asked::default();
        let mut changes = self.authority.live().changes();
        let mut beat = tokio::time::interval(HEARTBEAT);
        let mut open = true;
        // Questions are read even while answers wait: h2 cuts a connection on which many small
        // frames lie unread.
        let mut touched: BTreeSet<IpAddr> = BTreeSet::new();
        let mut outbox: VecDeque<DirectoryAnswer> = VecDeque::new();
        loop {
            while outbox.is_empty()
                && let Some(address) = touched.pop_first()
            {
                outbox.extend(self.news(&mut asked, address));
            }
            tokio::select! {
                question = questions.next(), if open => match question {
                    Some(question) => touched.extend(asked.note(question?)?),
                    // Half-closed: no more questions, but the answers go on.
                    None => open = false,
                },
                change = changes.recv() => match change {
                    Ok(address) if asked.0.contains_key(&address) => _ = touched.insert(address),
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => touched.extend(asked.0.keys()),
                    Err(RecvError::Closed) => return Ok(()),
                },
                permit = sender.reserve(), if !outbox.is_empty() => match (permit, outbox.pop_front()) {
                    (Ok(permit), Some(answer)) => permit.send(Box::new(Ok(answer.into()))),
                    _ => return Ok(()),
                },
                _ = beat.tick() => {}
                () = sender.closed() => return Ok(()),
            }
            self.judge(peer)?;
        }
    }

    /// The answers about one address that differ from what was said last.
    fn news(&self, asked: &mut Asked, address: IpAddr) -> Vec<DirectoryAnswer> {
        let now = self.authority.clock().seconds();
        let mut news = Vec::new();
        for (&port, told) in asked.0.get_mut(&address).into_iter().flatten() {
            let claim = self.authority.live().at(address, port, now);
            let protocol = claim
                .as_ref()
                .map(|claim| claim.protocol.clone())
                .filter(|named| !named.is_empty());
            let answer = DirectoryAnswer {
                address,
                port,
                id: claim.and_then(|claim| SpiffeId::parse(&claim.spiffe_id).ok()),
                protocol: protocol.unwrap_or_else(|| MYELIN_PROTOCOL.to_owned()),
            };
            if told.as_ref() != Some(&answer) {
                *told = Some(answer.clone());
                news.push(answer);
            }
        }
        news
    }
}

impl Asked {
    /// Takes a question; yields the address that must be looked up for it.
    fn note(&mut self, question: proto::DirectoryQuestion) -> Result<Option<IpAddr>, Status> {
        let question = DirectoryQuestion::try_from(question)
            .map_err(|error| Status::invalid_argument(format!("malformed: {error}")))?;
        let DirectoryQuestion { address, port, forget } = question;
        if forget {
            if let Some(ports) = self.0.get_mut(&address) {
                ports.remove(&port);
                if ports.is_empty() {
                    self.0.remove(&address);
                }
            }
            return Ok(None);
        }
        let known = self.0.contains_key(&address);
        if !known && self.0.len() >= MAX_ADDRESSES {
            return Err(Status::resource_exhausted(
                "more than 4096 addresses on one stream; forget some",
            ));
        }
        let ports = self.0.entry(address).or_default();
        if !ports.contains_key(&port) && ports.len() >= MAX_PORTS {
            return Err(Status::resource_exhausted(
                "more than 64 ports of one address; forget some",
            ));
        }
        // Asked again: answered again.
        ports.insert(port, None);
        Ok(Some(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(address: [u8; 4], port: u32, forget: bool) -> proto::DirectoryQuestion {
        proto::DirectoryQuestion { address: address.to_vec(), port, forget }
    }

    #[test]
    fn questions_are_bounded_and_forgetting_makes_room() {
        let mut asked = Asked::default();
        for index in 0..MAX_ADDRESSES as u32 {
            let [_, _, high, low] = index.to_be_bytes();
            asked.note(question([10, 0, high, low], 80, false)).unwrap();
        }
        assert!(asked.note(question([10, 1, 0, 0], 80, false)).is_err());
        assert!(asked.note(question([10, 0, 0, 0], 80, false)).is_ok(), "asked before");
        asked.note(question([10, 0, 0, 0], 80, true)).unwrap();
        assert!(asked.note(question([10, 1, 0, 0], 80, false)).is_ok());
        for port in 81..80 + MAX_PORTS as u32 {
            asked.note(question([10, 1, 0, 0], port, false)).unwrap();
        }
        assert!(asked.note(question([10, 1, 0, 0], 9999, false)).is_err());
    }

    #[test]
    fn malformed_question_is_refused() {
        let mut asked = Asked::default();
        let short = proto::DirectoryQuestion { address: vec![1, 2, 3], port: 80, forget: false };
        assert!(asked.note(short).is_err());
        assert!(asked.note(question([10, 0, 0, 1], 70_000, false)).is_err());
    }
}
