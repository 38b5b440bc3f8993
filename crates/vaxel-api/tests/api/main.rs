//! The management API over a real control plane: requests in, answers out.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests end the test that they cannot help"
)]

mod home; // read this first
mod logging_in; // and this for OAuth

mod access;
mod answers;
mod bundles;
mod escalation;
mod everyone;
mod feed;
mod owners;
mod pages;
mod people;
mod revisions;
mod oauth;
mod oauth_attacks;
mod oauth_page_attacks;
mod sign_ins;
mod templates;
mod toolsets;
mod versions;
