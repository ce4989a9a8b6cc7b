//! The events of a watch, a line each, as they come. Called by `follow`.
//!
//! Never: holds more than one event's bound; an event that has not come whole; the client's own reader, which
//! knows no bound.

// SPDX-License-Identifier: Apache-2.0

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use kube::client::Body;

use super::MAX_ANSWER_BYTES;

/// Why there is no next line.
#[derive(Debug)]
pub(super) enum NoLine {
    /// The watch came to its end as it should.
    End,
    Broken(String),
    /// One event is longer than any answer may be.
    TooLong,
}

pub(super) struct Lines {
    body: Body,
    held: BytesMut,
    /// As far as no line ends.
    looked: usize,
}

impl Lines {
    pub(super) fn new(body: Body) -> Self {
        Self { body, held: BytesMut::new(), looked: 0 }
    }

    /// Without its end. May be dropped while it waits: nothing is lost.
    pub(super) async fn next(&mut self) -> Result<Bytes, NoLine> {
        loop {
            if let Some(end) = self.held[self.looked..].iter().position(|byte| *byte == b'\n') {
                let mut line = self.held.split_to(self.looked + end + 1);
                line.truncate(line.len() - 1);
                self.looked = 0;
                return Ok(line.freeze());
            }
            self.looked = self.held.len();
            if self.looked > MAX_ANSWER_BYTES {
                return Err(NoLine::TooLong);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    self.held.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
                }
                Some(Err(why)) => return Err(NoLine::Broken(super::error::causes(&why))),
                None if self.held.is_empty() => return Err(NoLine::End),
                None => return Err(NoLine::Broken("it ended within an event".to_owned())),
            }
        }
    }
}
