//! Turns credentials into a principal and seals what must not be read; decides nothing about
//! resources.
//!
//! Pure but for [`root`] and [`seal::RootKey::load_or_create`], which touch the files of the root key, and [`private`],
//! which writes such files. Absent on purpose:
//! sockets, the store, and what a principal may do.

pub mod key; // API keys: who asks
pub mod ring; // all of them, for who looks them up
pub mod random;
pub mod digest; // what is kept of a random secret
pub mod fingerprint; // what a long text is recognised by
pub mod password; // what people know
pub mod jwt; // what they get for it, or bring from elsewhere
pub mod jwks; // keys that sign that
pub mod foreign; // who else may sign
pub mod bearer; // the same on the way of every request
pub mod visitor; // those of another issuer there
pub mod identity; // what a service is told of its callers
pub mod oauth; // how clients get them for their users
pub mod token; // until when credentials of others hold
pub mod private; // files that nobody else may read
pub mod seal; // values that nobody else may read or change
pub mod root; // the key that all of that hangs on: where it is kept, how it is replaced
pub mod stamp; // the chain of the audit
pub mod passphrase; // what is sealed for people, not for this installation
pub mod web; // which browsers may ask at all

mod failure;

pub use failure::Error;
