//! What a peer may say inside TLS once the handshake is over, besides data: alerts, new keys, and
//! (a server only) session tickets, which nobody keeps. Called by `records` for each such record.
//!
//! Never: a message that may span a change of keys, an unbounded one, a warning taken for an end.

// SPDX-License-Identifier: Apache-2.0

use rustls::{AlertDescription, Error, InvalidMessage, PeerMisbehaved};

/// Tickets are the longest messages that may come; those of servers that put the client's chain
/// inside take some kilobytes.
const MAX_MESSAGE: usize = 32 * 1024;

/// Changes of keys without data between them: as many as rustls takes. Each use of a recycled
/// connection has one each way, and data.
const MAX_IDLE_UPDATES: u8 = 32;

const MESSAGE_HEADER: usize = 4;
const NEW_SESSION_TICKET: u8 = 4;
const KEY_UPDATE: u8 = 24;

/// `KeyUpdate` of RFC 8446 section 4.6.3 that asks for none in return.
pub(super) const OUR_KEY_UPDATE: [u8; 5] = [KEY_UPDATE, 0, 0, 1, 0];
/// A warning that is none: close_notify.
pub(super) const CLOSE_NOTIFY: [u8; 2] = [1, 0];

/// What a record that is no data asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    Nothing,
    /// The peer ends its half cleanly.
    End,
    /// The peer has new keys; `answered`: it wants ours renewed too.
    NewKeys {
        answered: bool,
    },
}

/// Reads these records; remembers a message that is not there whole, which is rare.
#[derive(Debug)]
pub(super) struct After {
    partial: Vec<u8>,
    idle_updates: u8,
    /// We are the client: tickets may come.
    is_client: bool,
}

impl After {
    pub(super) fn new(is_client: bool) -> Self {
        Self { partial: Vec::new(), idle_updates: 0, is_client }
    }

    /// Data has come: changes of keys are counted from here.
    pub(super) fn data(&mut self) -> Result<(), Error> {
        self.idle_updates = 0;
        if self.partial.is_empty() { Ok(()) } else { Err(misbehaved()) }
    }

    pub(super) fn alert(&self, alert: &[u8]) -> Result<Asks, Error> {
        let [_level, description] = alert else {
            return Err(Error::InvalidMessage(InvalidMessage::MessageTooShort));
        };
        match AlertDescription::from(*description) {
            AlertDescription::CloseNotify => Ok(Asks::End),
            // "I did not want to go on" comes before a close_notify and says nothing by itself.
            AlertDescription::UserCanceled => Ok(Asks::Nothing),
            other => Err(Error::AlertReceived(other)),
        }
    }

    pub(super) fn handshake(&mut self, part: &[u8]) -> Result<Asks, Error> {
        if part.is_empty() {
            return Err(misbehaved());
        }
        let mut joined = std::mem::take(&mut self.partial);
        if joined.len() + part.len() > MAX_MESSAGE {
            return Err(Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge));
        }
        joined.extend_from_slice(part);
        let mut rest = &joined[..];
        while let Some([kind, high, middle, low]) = rest.first_chunk::<MESSAGE_HEADER>() {
            let length = u32::from_be_bytes([0, *high, *middle, *low]) as usize;
            if MESSAGE_HEADER + length > MAX_MESSAGE {
                return Err(Error::InvalidMessage(InvalidMessage::HandshakePayloadTooLarge));
            }
            let Some(body) = rest.get(MESSAGE_HEADER..MESSAGE_HEADER + length) else { break };
            let behind = &rest[MESSAGE_HEADER + length..];
            match *kind {
                KEY_UPDATE => return self.new_keys(body, behind),
                NEW_SESSION_TICKET if self.is_client => rest = behind,
                _ => return Err(misbehaved()),
            }
        }
        self.partial = rest.to_vec();
        Ok(Asks::Nothing)
    }

    /// Nothing may share a record with it: what follows is under the new keys.
    fn new_keys(&mut self, body: &[u8], behind: &[u8]) -> Result<Asks, Error> {
        if !behind.is_empty() {
            return Err(PeerMisbehaved::KeyEpochWithPendingFragment.into());
        }
        self.idle_updates += 1;
        if self.idle_updates > MAX_IDLE_UPDATES {
            return Err(PeerMisbehaved::TooManyKeyUpdateRequests.into());
        }
        match body {
            [0] => Ok(Asks::NewKeys { answered: false }),
            [1] => Ok(Asks::NewKeys { answered: true }),
            _ => Err(Error::InvalidMessage(InvalidMessage::InvalidKeyUpdate)),
        }
    }
}

fn misbehaved() -> Error {
    Error::InvalidMessage(InvalidMessage::UnexpectedMessage("a handshake message after it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> After {
        After::new(true)
    }

    #[test]
    fn a_change_of_keys_is_read_and_one_with_company_is_refused() {
        assert_eq!(client().handshake(&OUR_KEY_UPDATE), Ok(Asks::NewKeys { answered: false }));
        assert_eq!(client().handshake(&[24, 0, 0, 1, 1]), Ok(Asks::NewKeys { answered: true }));
        for wrong in [&[24, 0, 0, 1, 2][..], &[24, 0, 0, 1, 0, 24], &[24, 0, 0, 2, 0, 0], &[]] {
            assert!(client().handshake(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn changes_of_keys_without_data_are_bounded() {
        let mut after = client();
        for _ in 0..MAX_IDLE_UPDATES {
            assert!(after.handshake(&OUR_KEY_UPDATE).is_ok());
        }
        assert!(after.handshake(&OUR_KEY_UPDATE).is_err());
        let mut after = client();
        for _ in 0..100 {
            assert!(after.handshake(&OUR_KEY_UPDATE).is_ok());
            after.data().unwrap();
        }
    }

    #[test]
    fn a_ticket_in_two_records_is_passed_over_and_data_between_them_is_refused() {
        let mut after = client();
        assert_eq!(after.handshake(&[4, 0, 0, 3, 7]), Ok(Asks::Nothing));
        assert!(after.data().is_err());
        assert_eq!(after.handshake(&[7, 7, 24, 0]), Ok(Asks::Nothing));
        assert_eq!(after.handshake(&[0, 1, 0]), Ok(Asks::NewKeys { answered: false }));
        assert!(after.data().is_ok());
    }

    #[test]
    fn a_server_takes_no_ticket_and_nobody_a_second_hello_or_an_endless_message() {
        assert!(After::new(false).handshake(&[4, 0, 0, 0]).is_err());
        assert!(client().handshake(&[1, 0, 0, 0]).is_err());
        assert!(client().handshake(&[4, 255, 255, 255]).is_err());
    }

    #[test]
    fn only_close_notify_is_an_end() {
        assert_eq!(client().alert(&CLOSE_NOTIFY), Ok(Asks::End));
        assert_eq!(client().alert(&[1, 90]), Ok(Asks::Nothing));
        assert!(client().alert(&[2, 20]).is_err());
        assert!(client().alert(&[1]).is_err());
    }
}
