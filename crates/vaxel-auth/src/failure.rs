//! What can go wrong with keys and sealed values, by what the caller can do about it.

use std::{io, path::PathBuf};

use vaxel_core::failure::{Failure, Kind};

/// A root key that cannot be used, or a sealed value that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Other users of the machine can read the root key.
    #[error(
        "the root key {path} can be read by other users (mode {mode:04o}); run `chmod 600 {path}`",
        path = path.display()
    )]
    RootKeyExposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is not a root key.
    #[error(
        "the root key {path} is damaged: it must hold exactly 32 bytes; restore it from a backup \
         (without it, sealed values cannot be opened)",
        path = path.display()
    )]
    RootKeyDamaged {
        /// The file.
        path: PathBuf,
    },
    /// The file of the root key cannot be read or made.
    #[error("the root key {path} cannot be {action}: {reason}", path = path.display())]
    RootKeyFile {
        /// The file.
        path: PathBuf,
        /// `read` or `created`.
        action: &'static str,
        /// What the operating system said.
        reason: io::Error,
    },
    /// What was given as the root key is none.
    #[error("it is no root key: 32 bytes are needed, as 64 hexadecimal digits or in base64")]
    RootKeyText,
    /// The root key that was given did not seal what is stored.
    #[error(
        "the root key that was given ({given}) is not the one that sealed what is stored ({expected}): \
         give that one; `vaxel key rotate-root` puts another one in its place"
    )]
    RootKeyOther {
        /// What the given key is recognised by.
        given: String,
        /// The same of the one that is needed.
        expected: String,
    },
    /// There is no file with the root key, since it was kept somewhere else.
    #[error(
        "the root key ({expected}) is not given: it comes from {source_of}; to have it in a file from now on, \
         write its 32 bytes into {path} and run `chmod 600 {path}` (when nothing is left that it sealed, remove root.json)",
        path = path.display()
    )]
    RootKeyElsewhere {
        /// What the key is recognised by.
        expected: String,
        /// Where it came from.
        source_of: &'static str,
        /// Where the file would be.
        path: PathBuf,
    },
    /// What is said of the root key beside the database cannot be read.
    #[error("{path} is damaged: it says where the root key comes from; restore it from a backup", path = path.display())]
    RootNote {
        /// The file.
        path: PathBuf,
    },
    /// A root key is being replaced already.
    #[error("the root key is being replaced already: wait until that is done")]
    RootKeyReplacing,
    /// A new root key is missing, or given where it is made.
    #[error("{0}")]
    RootKeyWanted(&'static str),
    /// The sealed value was changed, cut short, or belongs somewhere else.
    #[error("a sealed value cannot be opened: it was changed, cut short or moved")]
    Unsealable,
    /// The sealed value was made with another root key, or for another purpose.
    #[error(
        "a sealed value cannot be opened: it was sealed with another key; restore the root key it was made with"
    )]
    OtherKey,
    /// A passphrase that is guessed too quickly.
    #[error("the passphrase must have at least {least} characters")]
    ShortPassphrase {
        /// So many.
        least: usize,
    },
    /// Not the passphrase that it was sealed with.
    #[error("the passphrase is wrong")]
    WrongPassphrase,
    /// What should say how a passphrase becomes a key does not.
    #[error(
        "how its key is made of a passphrase cannot be read: it was changed, or a newer Vaxel wrote it"
    )]
    BadRecipe,
    /// A key for tokens that cannot be made, read or used.
    #[error("a key that signs tokens cannot be made or used")]
    Unsignable,
    /// What should be a set of public keys.
    #[error("it is no set of public keys with one that can be used here")]
    BadKeySet,
    /// A secret for tokens that anybody could know or guess.
    #[error(
        "a secret that signs tokens has at least 32 bytes and is no public key; `openssl rand -base64 48` makes one"
    )]
    WeakSecret,
    /// What should say where an issuer has its keys.
    #[error("it does not say where the keys of that issuer are")]
    BadDiscovery,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Unsealable
            | Error::OtherKey
            | Error::ShortPassphrase { .. }
            | Error::WrongPassphrase
            | Error::BadRecipe
            | Error::RootKeyText
            | Error::RootKeyWanted(_)
            | Error::BadKeySet
            | Error::WeakSecret
            | Error::BadDiscovery => Self::new(Kind::Invalid, error.to_string()),
            Error::RootKeyReplacing => Self::new(Kind::Conflict, error.to_string()),
            Error::RootKeyExposed { .. }
            | Error::RootKeyOther { .. }
            | Error::RootKeyElsewhere { .. }
            | Error::RootNote { .. }
            | Error::RootKeyDamaged { .. }
            | Error::RootKeyFile { .. }
            | Error::Unsignable => Self::internal(error),
        }
    }
}
