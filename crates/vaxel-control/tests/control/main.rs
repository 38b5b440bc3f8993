//! The control plane with a real store, a real data plane and real processes.

mod home; // read this first

mod changes;
mod keys;
mod running;
mod values;
