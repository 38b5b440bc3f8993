//! Sealing: what leaves this process or lies on a disk, readable and changeable by nobody else.
//!
//! One root key per installation; from it one data key per purpose (HKDF-SHA256, RFC
//! 5869); with that, AES-256-GCM-SIV (RFC 8452) under a random nonce. The purpose and a context
//! (whose value it is, say) are authenticated with the value, so that a sealed value that is moved
//! somewhere else does not open. GCM-SIV because sealing happens in many processes over many years:
//! should a nonce ever repeat, it reveals only that the same value was sealed twice.
//!
//! A sealed value says which key it was made with. While the root key is being replaced
//! ([`crate::root`]) the new one seals, and both open.

use std::{
    fmt, fs,
    io::{ErrorKind, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, Nonce, RandomizedNonceKey},
    hkdf,
};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use vaxel_core::secret::Secret;
use zeroize::Zeroizing;

use crate::{
    failure::Error,
    private::{self, Draft},
    random,
};

/// Bytes of the root key and of data keys.
const KEY: usize = 32;
/// First byte of a sealed value: this layout.
const VERSION: u8 = 1;
/// Bytes of the key id that follows.
const KEY_ID: usize = 4;
const HEADER: usize = 1 + KEY_ID;
const NONCE: usize = 12;
const TAG: usize = 16;
/// Separates our keys from those that another program may derive from the same root.
const SALT: &[u8] = b"vaxel seal 1";

/// The root of all data keys of an installation.
#[derive(Clone)]
pub struct RootKey(Zeroizing<[u8; KEY]>);

impl RootKey {
    /// Reads the root key, or makes one when there is no such file.
    ///
    /// A new file appears with all its bytes and mode 0600 or not at all, and never replaces one
    /// that another process made at the same moment: that one is read then. Its folder must exist.
    ///
    /// # Errors
    /// [`Error::RootKeyExposed`] when others can read it, [`Error::RootKeyDamaged`] when it is not 32
    /// bytes long, [`Error::RootKeyFile`] when the file system refuses.
    pub fn load_or_create(path: &Path) -> Result<Self, Error> {
        if let Some(key) = Self::load(path)? {
            return Ok(key);
        }
        create(path).map_err(|reason| file_error(path, "created", reason))?;
        let vanished = || file_error(path, "read", ErrorKind::NotFound.into());
        Self::load(path)?.ok_or_else(vanished)
    }

    /// A new root key, which is kept nowhere yet.
    pub fn ephemeral() -> Self {
        Self(Zeroizing::new(random::bytes()))
    }

    /// The key that a text stands for: 32 bytes as 64 hexadecimal digits, or in base64.
    ///
    /// # Errors
    /// [`Error::RootKeyText`].
    pub fn from_text(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let bytes = Zeroizing::new(if text.len() == 2 * KEY {
            from_hex(text).unwrap_or_default()
        } else {
            let text = text.trim_end_matches('=');
            let decoded = STANDARD_NO_PAD.decode(text);
            let decoded = decoded.or_else(|_| URL_SAFE_NO_PAD.decode(text));
            decoded.unwrap_or_default()
        });
        Self::from_bytes(&bytes).ok_or(Error::RootKeyText)
    }

    /// The key that these bytes are, when there are 32.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; KEY] = bytes.try_into().ok()?;
        Some(Self(Zeroizing::new(*bytes)))
    }

    /// The key itself, for who keeps it.
    pub(crate) fn bytes(&self) -> &[u8; KEY] {
        &self.0
    }

    /// What it is recognised by: 16 hexadecimal digits, from which nobody learns the key.
    pub fn id(&self) -> String {
        let mut id = [0; 8];
        derive(self, &[b"root id"], &mut id);
        format!("{:016x}", u64::from_be_bytes(id))
    }

    /// The key in a file; `None` when there is no such file.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>, Error> {
        let failed = |reason| file_error(path, "read", reason);
        let mut file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(Error::RootKeyExposed {
                path: path.to_owned(),
                mode,
            });
        }
        // One byte more than a key has, to notice a longer file.
        let mut bytes = Zeroizing::new([0; KEY + 1]);
        let mut length = 0;
        while length < bytes.len() {
            match file.read(&mut bytes[length..]).map_err(failed)? {
                0 => break,
                read => length += read,
            }
        }
        let key = bytes[..length]
            .first_chunk::<KEY>()
            .filter(|_| length == KEY);
        let damaged = || Error::RootKeyDamaged {
            path: path.to_owned(),
        };
        key.map(|key| Some(Self(Zeroizing::new(*key))))
            .ok_or_else(damaged)
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey")
    }
}

pub(crate) fn file_error(path: &Path, action: &'static str, reason: std::io::Error) -> Error {
    Error::RootKeyFile {
        path: path.to_owned(),
        action,
        reason,
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks_exact(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.map(byte).collect()
}

fn create(path: &Path) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", random::token(8)));
    let draft = Draft(PathBuf::from(name));
    private::write(&draft.0, RootKey::ephemeral().bytes())?;
    // Linking, unlike renaming, fails when the name is taken.
    match fs::hard_link(&draft.0, path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    drop(draft);
    private::sync_folder(path)
}

/// Seals and opens values of one purpose.
pub struct Sealer(Arc<Shared>);

/// What a sealer is made of: also its root keys hold it, to put another key into it.
pub(crate) struct Shared {
    keys: ArcSwap<DataKeys>,
    purpose: Box<str>,
}

/// The key that seals, and those that only open.
struct DataKeys {
    current: Arc<DataKey>,
    earlier: Vec<Arc<DataKey>>,
}

impl Shared {
    /// From now on what `root` comes to seals; what sealed until now opens.
    pub(crate) fn follow(&self, root: &RootKey) {
        let before = self.keys.load();
        let next = DataKey::derive(root, &self.purpose);
        let known = std::iter::once(&before.current).chain(&before.earlier);
        let earlier = known.filter(|key| key.header != next.header);
        self.keys.store(Arc::new(DataKeys {
            earlier: earlier.map(Arc::clone).collect(),
            current: Arc::new(next),
        }));
    }
}

/// The key of one purpose, and what values begin with that were sealed with it.
struct DataKey {
    key: RandomizedNonceKey,
    header: [u8; HEADER],
}

impl DataKey {
    fn derive(root: &RootKey, purpose: &str) -> Self {
        let mut key = Zeroizing::new([0; KEY]);
        derive(root, &[b"key:", purpose.as_bytes()], &mut *key);
        let mut header = [VERSION; HEADER];
        derive(root, &[b"id:", purpose.as_bytes()], &mut header[1..]);
        Self {
            key: RandomizedNonceKey::new(&AES_256_GCM_SIV, &*key).expect("the key has 32 bytes"),
            header,
        }
    }
}

impl Sealer {
    /// The sealer of `purpose`, such as `service environment`. Values of one purpose do not open
    /// under another.
    pub fn new(root: &RootKey, purpose: &str) -> Self {
        Self::with(root, &[], purpose)
    }

    /// The sealer of `purpose` under a key that is kept sealed itself, such as [`Sealer::new_key`] makes.
    ///
    /// # Errors
    /// [`Error::OtherKey`] when it has not 32 bytes.
    pub fn of_key(key: &Secret<Vec<u8>>, purpose: &str) -> Result<Self, Error> {
        let key = RootKey::from_bytes(key.expose()).ok_or(Error::OtherKey)?;
        Ok(Self::new(&key, purpose))
    }

    /// A random key for [`Sealer::of_key`].
    pub fn new_key() -> Secret<Vec<u8>> {
        Secret::new(RootKey::ephemeral().bytes().to_vec())
    }

    /// Whether bytes may be a sealed value: no text begins as one does.
    pub fn is_sealed(bytes: &[u8]) -> bool {
        bytes.first() == Some(&VERSION)
    }

    /// The same, which also opens what `earlier` keys sealed.
    pub(crate) fn with(root: &RootKey, earlier: &[RootKey], purpose: &str) -> Self {
        let derive = |root| Arc::new(DataKey::derive(root, purpose));
        Self(Arc::new(Shared {
            keys: ArcSwap::from_pointee(DataKeys {
                current: derive(root),
                earlier: earlier.iter().map(derive).collect(),
            }),
            purpose: purpose.into(),
        }))
    }

    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// Whether a sealed value should be sealed anew, before the earlier key is thrown away.
    pub fn is_outdated(&self, sealed: &[u8]) -> bool {
        let keys = self.0.keys.load();
        let mut earlier = keys.earlier.iter();
        earlier.any(|key| sealed.starts_with(&key.header))
    }

    /// A sealed value as it is to be stored from now on, when an earlier key sealed it; `None`: it may stay as it is.
    ///
    /// # Errors
    /// As [`Sealer::open`]: it would not open with the earlier key either.
    pub fn renewed(&self, context: &[u8], sealed: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        if !self.is_outdated(sealed) {
            return Ok(None);
        }
        let plain = self.open(context, sealed)?;
        Ok(Some(self.seal(context, plain.expose())))
    }

    /// The same of what [`Sealer::seal_text`] made.
    ///
    /// # Errors
    /// As [`Sealer::open_text`].
    pub fn renewed_text(&self, context: &[u8], sealed: &str) -> Result<Option<String>, Error> {
        let bytes = URL_SAFE_NO_PAD.decode(sealed);
        let renewed = self.renewed(context, &bytes.map_err(|_| Error::Unsealable)?)?;
        Ok(renewed.map(|sealed| URL_SAFE_NO_PAD.encode(sealed)))
    }

    /// Seals `plain`. Only [`Sealer::open`] with the same context opens it. 33 bytes longer than
    /// `plain`; sealing the same value twice gives two different results.
    pub fn seal(&self, context: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut body = Vec::with_capacity(plain.len() + TAG);
        body.extend_from_slice(plain);
        let keys = self.0.keys.load();
        let DataKey { key, header } = &*keys.current;
        let aad = Aad::from(self.associated(*header, context));
        let nonce = key
            .seal_in_place_append_tag(aad, &mut body)
            .expect("sealing fails only for values of many gigabytes");
        [&header[..], nonce.as_ref(), &body].concat()
    }

    /// Opens what [`Sealer::seal`] made with the same context.
    ///
    /// # Errors
    /// [`Error::OtherKey`] when it was sealed with another root key or for another purpose,
    /// [`Error::Unsealable`] in every other case, without saying which.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Secret<Vec<u8>>, Error> {
        let (header, rest) = sealed
            .split_first_chunk::<HEADER>()
            .ok_or(Error::Unsealable)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE>().ok_or(Error::Unsealable)?;
        if header[0] != VERSION || body.len() < TAG {
            return Err(Error::Unsealable);
        }
        let keys = self.0.keys.load();
        let mut known = std::iter::once(&keys.current).chain(&keys.earlier);
        let key = known.find(|key| key.header == *header);
        let DataKey { key, header } = &**key.ok_or(Error::OtherKey)?;
        let aad = Aad::from(self.associated(*header, context));
        let mut body = Zeroizing::new(body.to_vec());
        let length = key
            .open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut body)
            .map_err(|_| Error::Unsealable)?
            .len();
        body.truncate(length);
        Ok(Secret::new(std::mem::take(&mut *body)))
    }

    /// As [`Sealer::seal`], as text of letters, digits, `-` and `_` (RFC 4648 §5).
    pub fn seal_text(&self, context: &[u8], plain: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(self.seal(context, plain))
    }

    /// Opens what [`Sealer::seal_text`] made with the same context.
    ///
    /// # Errors
    /// As [`Sealer::open`]; text that is not base64url is [`Error::Unsealable`].
    pub fn open_text(&self, context: &[u8], sealed: &str) -> Result<Secret<Vec<u8>>, Error> {
        let sealed = URL_SAFE_NO_PAD
            .decode(sealed)
            .map_err(|_| Error::Unsealable)?;
        self.open(context, &sealed)
    }

    /// What is authenticated beside the value. The length keeps purpose and context apart.
    fn associated(&self, header: [u8; HEADER], context: &[u8]) -> Vec<u8> {
        let purpose = self.0.purpose.as_bytes();
        let length = (purpose.len() as u64).to_be_bytes();
        [&header[..], &length, purpose, context].concat()
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({})", self.0.purpose)
    }
}

fn derive(root: &RootKey, purpose: &[&[u8]], out: &mut [u8]) {
    let root = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(&*root.0);
    root.expand(purpose, Length(out.len()))
        .and_then(|derived| derived.fill(out))
        .expect("HKDF gives up to 8160 bytes");
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests;
