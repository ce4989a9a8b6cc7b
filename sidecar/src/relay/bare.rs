//! A mesh connection to a declared peer that speaks no `myelin/1`: its bytes go as they are, one
//! TLS connection a workload connection, close_notify standing for end of stream. Called by
//! `inbound` and `outbound` for peers that configuration declares.
//!
//! Never: a second use; an end of stream without close_notify taken for a clean one.

// SPDX-License-Identifier: Apache-2.0

use super::carrier::{Carrier, Framing, LinkError, Step};
use super::records::Records;
use crate::wire::HEADER_LEN;

#[derive(Debug)]
pub struct Bare {
    records: Box<Records>,
    said_close: bool,
    unframed: Unframed,
}

/// Nothing goes in front of the bytes.
#[derive(Debug)]
pub struct Unframed;

impl Framing for Unframed {
    const HEAD: usize = 0;

    fn header(&mut self, _length: usize) -> Result<[u8; HEADER_LEN], LinkError> {
        Ok([0; HEADER_LEN])
    }
}

impl Bare {
    pub fn new(records: Box<Records>) -> Self {
        Self { records, said_close: false, unframed: Unframed }
    }

    pub fn into_records(self) -> Records {
        *self.records
    }
}

impl Carrier for Bare {
    type Framing = Unframed;
    const SETTLES: bool = false;

    fn records(&mut self) -> &mut Records {
        &mut self.records
    }

    fn parts(&mut self) -> (&mut Records, &mut Unframed) {
        (&mut self.records, &mut self.unframed)
    }

    fn step(&mut self) -> Result<Step, LinkError> {
        Ok(Step::Deliver(self.records.chunk().len()))
    }

    fn send_fin(&mut self) -> Result<(), LinkError> {
        self.said_close = true;
        Ok(self.records.say_close()?)
    }

    fn send_reset(&mut self) {
        // TLS has no word for it; the RST that follows is the message.
    }

    fn may_send(&self) -> bool {
        !self.said_close
    }

    fn peer_closed(&mut self) -> Result<Step, LinkError> {
        Ok(Step::PeerFin)
    }
}
