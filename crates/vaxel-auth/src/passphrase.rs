//! Sealing what is as long as it likes with a passphrase: backups.
//!
//! The passphrase becomes a key by Argon2id (RFC 9106) under random salt, so that every sealed stream has a key of
//! its own. It is cut into chunks, each sealed with AES-256-GCM under its number and whether it is the last
//! one: a chunk that is changed, moved, left out or added does not open, nor does a stream without its end.

use std::io::{self, BufRead, ErrorKind, Read, Write};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    constant_time,
};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{failure::Error, random};

/// Bytes of a chunk before it is sealed.
const CHUNK: usize = 64 << 10;
const TAG: usize = 16;
const KEY: usize = 32;
/// Bytes behind the key by which a wrong passphrase is known.
const CHECK: usize = 16;
/// Fewest characters of a passphrase.
const LEAST: usize = 8;
/// What is believed of a recipe that somebody else wrote: 1 GiB, 16 passes, 16 lanes.
const MOST: (u32, u32, u32) = (1 << 20, 16, 16);

/// How a passphrase becomes a key; stands in clear beside what is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// `argon2id`
    kdf: String,
    /// Memory, KiB.
    memory: u32,
    /// Passes over it.
    passes: u32,
    /// Lanes in it.
    lanes: u32,
    /// Random, base64.
    salt: String,
    /// What is derived beside the key, base64.
    check: String,
}

/// The key of one sealed stream.
#[derive(Clone)]
pub struct StreamKey(Zeroizing<[u8; KEY]>);

impl Recipe {
    /// A new recipe, and the key that it makes of `passphrase`. Takes a tenth of a second and 64 MiB.
    ///
    /// # Errors
    /// [`Error::ShortPassphrase`].
    pub fn invent(passphrase: &str) -> Result<(Self, StreamKey), Error> {
        if passphrase.chars().count() < LEAST {
            return Err(Error::ShortPassphrase { least: LEAST });
        }
        let salt = random::bytes::<16>();
        // The second choice of RFC 9106, for machines of any size.
        let mut recipe = Self {
            kdf: "argon2id".to_owned(),
            memory: 64 << 10,
            passes: 3,
            lanes: 4,
            salt: STANDARD_NO_PAD.encode(salt),
            check: String::new(),
        };
        let derived = recipe.derive(passphrase)?;
        recipe.check = STANDARD_NO_PAD.encode(&derived[KEY..]);
        Ok((recipe, StreamKey::new(&derived)))
    }

    /// The key that this recipe makes of `passphrase`.
    ///
    /// # Errors
    /// [`Error::WrongPassphrase`]; [`Error::BadRecipe`] when it is none, or asks for more than a machine
    /// should give.
    pub fn follow(&self, passphrase: &str) -> Result<StreamKey, Error> {
        let derived = self.derive(passphrase)?;
        let expected = STANDARD_NO_PAD.decode(&self.check);
        let expected = expected.map_err(|_| Error::BadRecipe)?;
        constant_time::verify_slices_are_equal(&derived[KEY..], &expected)
            .map_err(|_| Error::WrongPassphrase)?;
        Ok(StreamKey::new(&derived))
    }

    fn derive(&self, passphrase: &str) -> Result<Zeroizing<[u8; KEY + CHECK]>, Error> {
        let (memory, passes, lanes) = MOST;
        let salt = STANDARD_NO_PAD.decode(&self.salt);
        let salt = salt.map_err(|_| Error::BadRecipe)?;
        let is_known = self.kdf == "argon2id"
            && self.memory <= memory
            && self.passes <= passes
            && self.lanes <= lanes;
        if !is_known {
            return Err(Error::BadRecipe);
        }
        let params = argon2::Params::new(self.memory, self.passes, self.lanes, Some(KEY + CHECK));
        let params = params.map_err(|_| Error::BadRecipe)?;
        let argon =
            argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let mut derived = Zeroizing::new([0; KEY + CHECK]);
        argon
            .hash_password_into(passphrase.as_bytes(), &salt, &mut *derived)
            .map_err(|_| Error::BadRecipe)?;
        Ok(derived)
    }
}

impl StreamKey {
    fn new(derived: &[u8; KEY + CHECK]) -> Self {
        let mut key = Zeroizing::new([0; KEY]);
        key.copy_from_slice(&derived[..KEY]);
        Self(key)
    }

    fn aead(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, &*self.0).expect("the key has 32 bytes");
        LessSafeKey::new(key)
    }
}

impl std::fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StreamKey")
    }
}

/// The number of a chunk, never used twice with a key, and whether it is the last one.
fn nonce(number: u64, is_last: bool) -> Nonce {
    let mut nonce = [0; 12];
    nonce[3..11].copy_from_slice(&number.to_be_bytes());
    nonce[11] = u8::from(is_last);
    Nonce::assume_unique_for_key(nonce)
}

/// Seals what is written to it. Without [`SealedWriter::finish`] the stream has no end and does not open.
pub struct SealedWriter<W: Write> {
    to: W,
    key: LessSafeKey,
    associated: Vec<u8>,
    number: u64,
    chunk: Zeroizing<Vec<u8>>,
}

impl<W: Write> SealedWriter<W> {
    /// Seals to `to`. Only who says the same `associated` bytes opens it.
    pub fn new(to: W, key: &StreamKey, associated: &[u8]) -> Self {
        Self {
            to,
            key: key.aead(),
            associated: associated.to_vec(),
            number: 0,
            chunk: Zeroizing::new(Vec::with_capacity(CHUNK + TAG)),
        }
    }

    /// Seals the last chunk, which may be empty.
    ///
    /// # Errors
    /// Those of what it writes to.
    pub fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        Ok(self.to)
    }

    fn seal(&mut self, is_last: bool) -> io::Result<()> {
        let nonce = nonce(self.number, is_last);
        let aad = Aad::from(&self.associated[..]);
        let sealed = self
            .key
            .seal_in_place_append_tag(nonce, aad, &mut *self.chunk);
        sealed.map_err(|_| io::Error::other("a chunk could not be sealed"))?;
        self.number += 1;
        self.to.write_all(&self.chunk)?;
        self.chunk.clear();
        Ok(())
    }
}

impl<W: Write> Write for SealedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Not before there is more: the last chunk must be known as such.
        if self.chunk.len() == CHUNK {
            self.seal(false)?;
        }
        let taken = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Opens what a [`SealedWriter`] sealed. Gives out nothing that it has not checked; what was changed or cut
/// is an error of [`ErrorKind::InvalidData`].
pub struct SealedReader<R: BufRead> {
    from: R,
    key: LessSafeKey,
    associated: Vec<u8>,
    number: u64,
    chunk: Zeroizing<Vec<u8>>,
    /// How much of the chunk was read.
    read: usize,
    ended: bool,
}

impl<R: BufRead> SealedReader<R> {
    /// Opens from `from`, with the `associated` bytes that it was sealed with.
    pub fn new(from: R, key: &StreamKey, associated: &[u8]) -> Self {
        Self {
            from,
            key: key.aead(),
            associated: associated.to_vec(),
            number: 0,
            chunk: Zeroizing::new(Vec::with_capacity(CHUNK + TAG)),
            read: 0,
            ended: false,
        }
    }

    fn open(&mut self) -> io::Result<()> {
        self.chunk.clear();
        self.read = 0;
        let most = (CHUNK + TAG) as u64;
        self.from.by_ref().take(most).read_to_end(&mut self.chunk)?;
        self.ended = self.from.fill_buf()?.is_empty();
        let nonce = nonce(self.number, self.ended);
        let aad = Aad::from(&self.associated[..]);
        let opened = self.key.open_in_place(nonce, aad, &mut self.chunk);
        let Ok(length) = opened.map(|plain| plain.len()) else {
            self.chunk.clear();
            self.ended = true;
            let detail = "it was changed or cut short";
            return Err(io::Error::new(ErrorKind::InvalidData, detail));
        };
        self.number += 1;
        self.chunk.truncate(length);
        Ok(())
    }
}

impl<R: BufRead> Read for SealedReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.read == self.chunk.len() && !self.ended {
            self.open()?;
        }
        let rest = &self.chunk[self.read..];
        let taken = rest.len().min(out.len());
        out[..taken].copy_from_slice(&rest[..taken]);
        self.read += taken;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests;
