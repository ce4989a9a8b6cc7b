//! Signed notes and their keys (c2sp.org/signed-note): a text, and lines of signatures below it.
//! Called by `checkpoint`; keys also by whoever reads one from a flag or a certificate.
//! Never: signs, or looks at a text before a key that we know has signed it.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::x509::sha256;

/// A checkpoint's text is under 400 bytes; with a log's and sixteen witnesses' signatures about
/// 3.5 KB.
pub const MAX_NOTE_BYTES: usize = 4096;
/// The note format asks readers to take at least 16.
pub const MAX_SIGNATURES: usize = 17;
/// Longest name of a key: an origin is a trust domain (255 bytes at most) and a path of ours.
const MAX_NAME_BYTES: usize = 300;
/// Bytes of an Ed25519 public key.
const KEY_BYTES: usize = 32;

/// Signature types of the note format that are used here.
const TYPE_ED25519: u8 = 0x01;
const TYPE_COSIGNATURE: u8 = 0x04;

/// A name and an Ed25519 key, as a note's signature line names them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct NoteKey {
    name: String,
    kind: u8,
    public: [u8; KEY_BYTES],
}

/// The key by which a log signs its checkpoints; its name is the log's origin.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogKey(NoteKey);

/// The key by which a witness cosigns checkpoints (c2sp.org/tlog-cosignature, Ed25519).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WitnessKey(NoteKey);

/// A note that is not believed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note<'a> {
    /// With its last newline.
    pub text: &'a str,
    pub signatures: Vec<NoteSignature<'a>>,
}

/// One line below a note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteSignature<'a> {
    pub name: &'a str,
    pub key_id: [u8; 4],
    /// What follows the key's id.
    pub signature: Vec<u8>,
}

/// Why bytes are no note, or none that a known key has signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    #[error("the note has {bytes} bytes, more than {MAX_NOTE_BYTES}")]
    TooBig { bytes: usize },
    #[error("the note is not text with at most {MAX_SIGNATURES} signature lines below it")]
    Malformed,
    #[error("the note carries no signature by the expected key")]
    NotSigned,
    #[error("the signature of the expected key does not belong to this note")]
    BadSignature,
}

/// The text or the parts are no key of a note.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("not a key of a signed note; expected <name>+<8 hex digits>+<base64>")]
    Malformed,
    #[error("a key's name has 1 to {MAX_NAME_BYTES} bytes without spaces, control characters or +")]
    Name,
    #[error("the key's id does not belong to its name and key; was the text cut or changed?")]
    Id,
    #[error("the key is of type {found:#04x}; expected {expected:#04x} ({what})")]
    Kind { found: u8, expected: u8, what: &'static str },
}

impl NoteKey {
    fn new(name: &str, kind: u8, public: [u8; KEY_BYTES]) -> Result<Self, KeyError> {
        let wrong = |c: char| c.is_whitespace() || c.is_control() || c == '+';
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains(wrong) {
            return Err(KeyError::Name);
        }
        Ok(Self { name: name.to_owned(), kind, public })
    }

    fn parse(text: &str, kind: u8, what: &'static str) -> Result<Self, KeyError> {
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(id), Some(key), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(KeyError::Malformed);
        };
        let bytes = STANDARD.decode(key).map_err(|_| KeyError::Malformed)?;
        let Some((&found, public)) = bytes.split_first() else {
            return Err(KeyError::Malformed);
        };
        if found != kind {
            return Err(KeyError::Kind { found, expected: kind, what });
        }
        let public = public.try_into().map_err(|_| KeyError::Malformed)?;
        let key = Self::new(name, kind, public)?;
        if id != format!("{:08x}", u32::from_be_bytes(key.id())) {
            return Err(KeyError::Id);
        }
        Ok(key)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn public(&self) -> &[u8; KEY_BYTES] {
        &self.public
    }

    /// First four bytes of SHA-256 over name, newline, type and key.
    pub fn id(&self) -> [u8; 4] {
        let mut named = self.name.clone().into_bytes();
        named.extend([b'\n', self.kind]);
        named.extend(self.public);
        let hash = sha256(&named);
        [hash[0], hash[1], hash[2], hash[3]]
    }

    /// The line that carries `signature` by this key below a note.
    pub fn line(&self, signature: &[u8]) -> String {
        let mut bytes = self.id().to_vec();
        bytes.extend(signature);
        format!("\u{2014} {} {}\n", self.name, STANDARD.encode(bytes))
    }

    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.public).verify(message, signature).is_ok()
    }
}

impl fmt::Display for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![self.kind];
        key.extend(self.public);
        let id = u32::from_be_bytes(self.id());
        write!(f, "{}+{id:08x}+{}", self.name, STANDARD.encode(key))
    }
}

impl fmt::Debug for NoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! note_key {
    ($key:ident, $kind:expr, $what:expr) => {
        impl $key {
            pub fn new(name: &str, public: [u8; KEY_BYTES]) -> Result<Self, KeyError> {
                NoteKey::new(name, $kind, public).map(Self)
            }

            pub fn as_note_key(&self) -> &NoteKey {
                &self.0
            }

            pub fn name(&self) -> &str {
                self.0.name()
            }
        }

        impl FromStr for $key {
            type Err = KeyError;

            /// From the text form `name+id+base64`.
            fn from_str(text: &str) -> Result<Self, KeyError> {
                NoteKey::parse(text, $kind, $what).map(Self)
            }
        }

        impl fmt::Display for $key {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

note_key!(LogKey, TYPE_ED25519, "a log's Ed25519 key");
note_key!(WitnessKey, TYPE_COSIGNATURE, "a witness' Ed25519 cosignature key");

impl<'a> Note<'a> {
    /// Splits a note, believing nothing.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, NoteError> {
        if bytes.len() > MAX_NOTE_BYTES {
            return Err(NoteError::TooBig { bytes: bytes.len() });
        }
        let whole = std::str::from_utf8(bytes).map_err(|_| NoteError::Malformed)?;
        if whole.bytes().any(|byte| byte < b' ' && byte != b'\n') {
            return Err(NoteError::Malformed);
        }
        let at = whole.rfind("\n\n").ok_or(NoteError::Malformed)? + 1;
        Ok(Self { text: &whole[..at], signatures: parse_lines(&whole[at + 1..])? })
    }

    /// The signatures that carry this key's name and id. More than one is one too many.
    pub(super) fn signatures_of(
        &self,
        key: &NoteKey,
    ) -> impl Iterator<Item = &NoteSignature<'a>> + use<'_, 'a> {
        let (name, id) = (key.name.clone(), key.id());
        self.signatures.iter().filter(move |line| line.name == name && line.key_id == id)
    }

    /// Whether `key` has signed the text as it is.
    pub fn verify(&self, key: &LogKey) -> Result<(), NoteError> {
        let mut lines = self.signatures_of(&key.0).peekable();
        if lines.peek().is_none() {
            return Err(NoteError::NotSigned);
        }
        if lines.all(|line| key.0.has_signed(self.text.as_bytes(), &line.signature)) {
            Ok(())
        } else {
            Err(NoteError::BadSignature)
        }
    }
}

/// Signature lines alone, as a witness answers them.
pub(super) fn parse_lines(lines: &str) -> Result<Vec<NoteSignature<'_>>, NoteError> {
    let lines = lines.strip_suffix('\n').ok_or(NoteError::Malformed)?;
    let mut signatures = Vec::new();
    for line in lines.split('\n') {
        let (name, encoded) = line
            .strip_prefix("\u{2014} ")
            .and_then(|rest| rest.split_once(' '))
            .ok_or(NoteError::Malformed)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| NoteError::Malformed)?;
        let (key_id, signature) = bytes.split_first_chunk::<4>().ok_or(NoteError::Malformed)?;
        let unnamed = name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '+');
        if unnamed || signature.is_empty() || signatures.len() == MAX_SIGNATURES {
            return Err(NoteError::Malformed);
        }
        signatures.push(NoteSignature { name, key_id: *key_id, signature: signature.to_vec() });
    }
    Ok(signatures)
}
