//! The PKCS#11 module of a vendor, loaded at run time. Login, session and key handles are kept
//! until something fails; then the module is set up anew, once, before the failure is told.
//!
//! Never: takes a PIN from the command line, exports a private key, or sends a PIN again that the
//! token refused to this process (a token locks itself after a few; each start sends it once).

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashMap;

use aws_lc_rs::rand;
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use zeroize::Zeroizing;

use super::{DEADLINE, Device, Pkcs11Settings, Token, TokenFault};
use crate::datadir::read_line;

/// DER of the object identifier of P-256 (prime256v1).
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const POINT_BYTES: usize = 65;
const AES_KEY_BYTES: u64 = 32;
const GCM_NONCE_BYTES: usize = 12;
const GCM_TAG_BITS: u64 = 128;
/// Under which purpose a secret is wrapped.
const WRAP_AAD: &[u8] = b"myelin-ca seal key v1";
/// Handles that are remembered: the issuer's, the root's, and those of a renewal under way.
const MAX_HANDLES: usize = 16;
/// How the objects are called in the token, for whoever lists them.
const LABEL: &[u8] = b"myelin-ca";

/// Loads the module and enters the token.
pub fn open(settings: Pkcs11Settings) -> Result<Token, TokenFault> {
    let mut module = Module { settings, context: None, open: None, refused: None };
    module.session()?;
    Token::start(module, DEADLINE)
}

struct Module {
    settings: Pkcs11Settings,
    context: Option<Pkcs11>,
    open: Option<Open>,
    /// The PIN that the token refused, and why; it is not sent again.
    refused: Option<(Zeroizing<String>, &'static str)>,
}

struct Open {
    session: Session,
    handles: HashMap<Vec<u8>, ObjectHandle>,
}

impl Device for Module {
    fn make(&mut self, id: &[u8]) -> Result<Vec<u8>, TokenFault> {
        let named = [Attribute::Token(true), Attribute::Id(id.to_vec())];
        let public = [Attribute::Verify(true), Attribute::EcParams(P256.to_vec())];
        let private = [
            Attribute::Sign(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
        ];
        let label = [Attribute::Label(LABEL.to_vec())];
        let public = [&named[..], &public, &label].concat();
        let private = [&named[..], &private, &label].concat();
        self.with(|open| {
            let (public, _) =
                open.session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?;
            match open.session.get_attributes(public, &[AttributeType::EcPoint])?.pop() {
                Some(Attribute::EcPoint(point)) => Ok(point),
                _ => Err(Error::NotSupported),
            }
        })
        .and_then(|point| {
            // An OCTET STRING around the point, which some modules leave out.
            let bare = point.strip_prefix(&[0x04, 0x41]).unwrap_or(&point);
            if bare.len() == POINT_BYTES {
                Ok(bare.to_vec())
            } else {
                Err(TokenFault::Unavailable("it made no uncompressed P-256 key".to_owned()))
            }
        })
    }

    fn sign(&mut self, id: &[u8], digest: &[u8]) -> Result<Vec<u8>, TokenFault> {
        self.with(|open| match open.private_key(id)? {
            Some(key) => open.session.sign(&Mechanism::Ecdsa, key, digest).map(Some),
            None => Ok(None),
        })?
        .ok_or_else(|| TokenFault::KeyMissing(hex(id)))
    }

    fn forget(&mut self, id: &[u8]) -> Result<(), TokenFault> {
        self.with(|open| {
            open.handles.remove(id);
            for object in open.session.find_objects(&[Attribute::Id(id.to_vec())])? {
                open.session.destroy_object(object)?;
            }
            Ok(())
        })
    }

    fn wrap(&mut self, name: &str, plain: &[u8]) -> Result<Vec<u8>, TokenFault> {
        let mut nonce = [0; GCM_NONCE_BYTES];
        rand::fill(&mut nonce)
            .map_err(|_| TokenFault::Unavailable("no random bytes".to_owned()))?;
        let mut wrapped = nonce.to_vec();
        let sealed = self.with(|open| {
            let key = match open.secret_key(name)? {
                Some(key) => key,
                None => open.session.generate_key(&Mechanism::AesKeyGen, &wrapping_key(name))?,
            };
            let mut nonce = nonce;
            let params = GcmParams::new(&mut nonce, WRAP_AAD, GCM_TAG_BITS.into())?;
            open.session.encrypt(&Mechanism::AesGcm(params), key, plain)
        })?;
        wrapped.extend(sealed);
        Ok(wrapped)
    }

    fn unwrap(&mut self, name: &str, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, TokenFault> {
        let Some((nonce, sealed)) = wrapped.split_first_chunk::<GCM_NONCE_BYTES>() else {
            return Err(TokenFault::KeyMissing(format!("for these {} bytes", wrapped.len())));
        };
        self.with(|open| {
            let Some(key) = open.secret_key(name)? else { return Ok(None) };
            let mut nonce = *nonce;
            let params = GcmParams::new(&mut nonce, WRAP_AAD, GCM_TAG_BITS.into())?;
            open.session.decrypt(&Mechanism::AesGcm(params), key, sealed).map(Some)
        })?
        .map(Zeroizing::new)
        .ok_or_else(|| TokenFault::KeyMissing(format!("{name:?}")))
    }
}

impl Module {
    /// Does it; if that fails, sets the module up anew and does it once more.
    fn with<T>(&mut self, work: impl Fn(&mut Open) -> Result<T, Error>) -> Result<T, TokenFault> {
        if let Some(open) = &mut self.open {
            match work(open) {
                Ok(done) => return Ok(done),
                Err(error) => tracing::warn!(%error, "the PKCS#11 token failed; entering it anew"),
            }
            self.leave();
        }
        let done = work(self.session()?);
        done.map_err(|error| {
            self.leave();
            TokenFault::Unavailable(error.to_string())
        })
    }

    fn session(&mut self) -> Result<&mut Open, TokenFault> {
        if self.open.is_none() {
            let session = self.enter()?;
            self.open = Some(Open { session, handles: HashMap::new() });
        }
        Ok(self.open.as_mut().expect("it was just filled"))
    }

    fn enter(&mut self) -> Result<Session, TokenFault> {
        let pin = read_line(&self.settings.pin_file)
            .map_err(|error| TokenFault::Pin(error.to_string()))?;
        let pin_file = self.settings.pin_file.display().to_string();
        if let Some((refused, why)) = &self.refused
            && *refused == pin
        {
            return Err(refused_pin(&pin_file, why));
        }
        let context = self.context()?;
        let unusable = |error: Error| TokenFault::Unavailable(error.to_string());
        match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
            Err(error) => return Err(unusable(error)),
        }
        let entered = self.enter_token(&context, &pin);
        if let Some(why) = entered.as_ref().err().and_then(pin_fault) {
            self.refused = Some((pin, why));
            return Err(refused_pin(&pin_file, why));
        }
        entered.map_err(unusable)?.ok_or_else(|| {
            // A token that comes back is seen only by a module that is set up anew.
            let _ = context.finalize();
            let (label, module) = (&self.settings.token_label, self.settings.module.display());
            TokenFault::Unavailable(format!("{module} shows no token with the label {label:?}"))
        })
    }

    fn enter_token(&self, context: &Pkcs11, pin: &str) -> Result<Option<Session>, Error> {
        for slot in context.get_slots_with_initialized_token()? {
            if context.get_token_info(slot)?.label().trim_end() != self.settings.token_label {
                continue;
            }
            let session = context.open_rw_session(slot)?;
            match session.login(UserType::User, Some(&AuthPin::from(pin.to_owned()))) {
                Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
                Err(error) => return Err(error),
            }
            return Ok(Some(session));
        }
        Ok(None)
    }

    fn context(&mut self) -> Result<Pkcs11, TokenFault> {
        if self.context.is_none() {
            let module = &self.settings.module;
            let loaded = Pkcs11::new(module).map_err(|error| {
                TokenFault::Unavailable(format!("cannot load {}: {error}", module.display()))
            })?;
            self.context = Some(loaded);
        }
        Ok(self.context.clone().expect("it was just filled"))
    }

    /// Ends session and module, so that the next use begins anew.
    fn leave(&mut self) {
        self.open = None;
        if let Some(context) = self.context.clone() {
            let _ = context.finalize();
        }
    }
}

impl Open {
    fn private_key(&mut self, id: &[u8]) -> Result<Option<ObjectHandle>, Error> {
        if let Some(handle) = self.handles.get(id) {
            return Ok(Some(*handle));
        }
        let wanted = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Id(id.to_vec())];
        let found = self.session.find_objects(&wanted)?.pop();
        if self.handles.len() >= MAX_HANDLES {
            self.handles.clear();
        }
        self.handles.extend(found.map(|handle| (id.to_vec(), handle)));
        Ok(found)
    }

    fn secret_key(&self, name: &str) -> Result<Option<ObjectHandle>, Error> {
        let wanted = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(KeyType::AES),
            Attribute::Label(name.as_bytes().to_vec()),
        ];
        Ok(self.session.find_objects(&wanted)?.pop())
    }
}

fn wrapping_key(name: &str) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::ValueLen(AES_KEY_BYTES.into()),
        Attribute::Label(name.as_bytes().to_vec()),
    ]
}

/// What is wrong with the PIN, if that is what the module says: each of these may count against it.
fn pin_fault(error: &Error) -> Option<&'static str> {
    let Error::Pkcs11(said, _) = error else { return None };
    match said {
        RvError::PinIncorrect => Some("is wrong"),
        RvError::PinLenRange | RvError::PinInvalid => {
            Some("is too short, too long or of other characters than this token takes")
        }
        RvError::PinExpired => Some("has expired; set a new one with the token's own tool"),
        RvError::PinLocked => {
            Some("is locked after too many wrong ones; unlock it with the SO PIN, then start again")
        }
        _ => None,
    }
}

fn refused_pin(pin_file: &str, why: &str) -> TokenFault {
    TokenFault::Pin(format!(
        "the one in {pin_file} {why}; this process does not send it again until that file changes, for a token locks itself after a few"
    ))
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    #[test]
    fn every_refusal_of_a_pin_is_told_from_a_token_that_is_away() {
        let fault = |said| pin_fault(&Error::Pkcs11(said, Function::Login));
        for said in [RvError::PinIncorrect, RvError::PinLenRange, RvError::PinInvalid] {
            assert!(fault(said).is_some(), "{said:?}");
        }
        assert!(fault(RvError::PinExpired).unwrap().contains("set a new one"));
        assert!(fault(RvError::PinLocked).unwrap().contains("SO PIN"));
        for said in [RvError::DeviceRemoved, RvError::TokenNotPresent, RvError::GeneralError] {
            assert!(fault(said).is_none(), "{said:?}");
        }
        assert!(pin_fault(&Error::NotSupported).is_none());
    }
}
