//! One stream: what its caller asked, what it was told, and what is to be said next. Called by `serve`.
//!
//! Never: more places than a stream may have; the same thing twice, unless it is asked twice.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use myelin_identity::services::{MAX_ASKED, ServiceQuestion, ServiceVersion, no_service, proto};
use tonic::Status;

use super::hub::{Mail, Mailbox, Stream};

/// What one stream asked and was told.
pub(super) struct Talk {
    stream: Stream,
    /// What the caller holds of each place.
    known: HashMap<SocketAddr, Told>,
    pending: BTreeSet<SocketAddr>,
}

#[derive(Clone, PartialEq, Eq)]
enum Told {
    /// Nothing yet on this stream, and this before.
    Before(Option<ServiceVersion>),
    /// On this stream, and where the caller is.
    Here(ServiceVersion, Arc<str>),
    /// On this stream: that it is no service.
    None,
}

impl Talk {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, known: HashMap::new(), pending: BTreeSet::new() }
    }

    pub(super) fn mailbox(&self) -> Arc<Mailbox> {
        Arc::clone(&self.stream.mailbox)
    }

    /// Something may have changed.
    pub(super) fn read(&mut self, mail: Mail) {
        self.pending.extend(mail.touched);
        if mail.moved {
            self.pending.extend(self.known.keys());
        }
    }

    pub(super) fn has_more(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn note(&mut self, question: proto::ServiceQuestion) -> Result<(), Status> {
        let question = ServiceQuestion::try_from(question);
        let question = question.map_err(|why| Status::invalid_argument(why.to_string()))?;
        let ServiceQuestion { place, forget, known } = question;
        if forget {
            self.stream.forget(place);
            self.known.remove(&place);
            self.pending.remove(&place);
            return Ok(());
        }
        if !self.stream.watches(place) && self.stream.len() >= MAX_ASKED {
            return Err(Status::resource_exhausted("too many places on one stream; forget some"));
        }
        self.stream.watch(place);
        // Asked again: answered again.
        self.known.insert(place, Told::Before(known));
        self.pending.insert(place);
        Ok(())
    }

    /// The next answer, if there is anything to say.
    pub(super) fn next(&mut self) -> Option<proto::ServiceAnswer> {
        let place = self.pending.pop_first()?;
        let (now, zone) = (self.stream.now(place), self.stream.zone());
        // Forgotten meanwhile: nobody waits for it.
        let told = self.known.get_mut(&place)?;
        let is =
            now.as_ref().map_or(Told::None, |now| Told::Here(now.version(), Arc::clone(&zone)));
        let before = match told {
            here if *here == is => return None,
            Told::Before(before) => *before,
            // Whoever is elsewhere now orders the endpoints anew, and has to see them for that.
            Told::Here(..) | Told::None => None,
        };
        *told = is;
        Some(match now {
            Some(now) => now.answer(place, before, &zone),
            None => no_service(place, &zone),
        })
    }
}
