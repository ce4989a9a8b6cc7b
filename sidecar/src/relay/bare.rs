//! A mesh connection to a declared peer that speaks no `myelin/1`: its bytes go as they are, one
//! TLS connection a workload connection, close_notify standing for end of stream. Called by
//! `inbound` and `outbound` for peers that configuration declares.
//!
//! Never: a second use; an end of stream without close_notify taken for a clean one.

// SPDX-License-Identifier: Apache-2.0

use super::carrier::{Carrier, LinkError, Step};
use super::records::Records;

#[derive(Debug)]
pub struct Bare {
    records: Records,
    said_close: bool,
}

impl Bare {
    pub fn new(records: Records) -> Self {
        Self { records, said_close: false }
    }

    pub fn into_records(self) -> Records {
        self.records
    }
}

impl Carrier for Bare {
    fn records(&mut self) -> &mut Records {
        &mut self.records
    }

    fn step(&mut self) -> Result<Step, LinkError> {
        Ok(Step::Deliver(self.records.chunk().len()))
    }

    fn send(&mut self, payload: &[u8]) -> Result<(), LinkError> {
        Ok(self.records.write(payload)?)
    }

    fn send_fin(&mut self) -> Result<(), LinkError> {
        self.said_close = true;
        self.records.say_close();
        Ok(())
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
