//! The management API over a real control plane: requests in, answers out.

mod home; // read this first

mod access;
mod answers;
mod pages;
