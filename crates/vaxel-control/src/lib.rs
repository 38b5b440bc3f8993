//! Every change goes through [`Control::submit`].
//!
//! Authorize, validate, write, signal: a change is one named transaction of the store, and what runs
//! follows it. Reconcilers compare what is stored with what is seen and act; queries answer from the
//! store and from what is seen. What is absent on purpose: HTTP, MCP on a wire, SQL.
mod control; // read these first: the handle, and what can be asked of it
mod change;
mod query;
mod event;
mod config;

mod service; // one file per resource: its changes and queries
mod dependency;
mod lease;
mod revision;
mod template;
mod key;
mod root_key; // what all sealed values hang on

mod user;
mod addresses; // how often those that ask did
mod password;
mod sign_in;
mod signing; // the keys of tokens
mod oauth; // clients that get tokens for their users
mod upstream_oauth; // tokens that services of others want to be shown
mod role;
mod grant;
mod policy;
mod access;
mod toolset;
mod bundle;
mod tool;
mod call;
mod usage;
mod server;
mod health;
mod seal;

mod rights; // what everyone may do, gathered
mod start; // from stored to running
mod plan;
mod reconcile;
mod runner;
mod status;
mod definitions;
mod journal;
mod transitions;
mod feed; // every change, for whoever follows

mod audit; // who did what, held together
mod backup; // everything that is stored, in one file
mod archive; // what is thrown away in time
mod bodies; // what records keep of calls, sealed
mod recorder; // facts on their way to the store
mod sessions; // what clients set, on its way there and back
mod metrics;
mod demo;

pub use access::{AccessEntry, AccessQuery, Explanation, Subject, Whoami};
pub use audit::{AuditExport, AuditVerdict, expect_another_audit, open_audit_key};
pub use backup::{Backup, BackupContents, BackupFile, BackupHead, DataFile, KeptService, VALUES};
pub use bundle::{Plan, Step};
pub use change::{Change, KeyDraft, KeyRef, KeyRotation, Outcome, ServiceRef, Terms, ToolsetRef};
pub use config::{
    AuditConfig, Config, FeedConfig, HealthConfig, IssuerConfig, OauthConfig, ProcessConfig,
    RecordsConfig, ServerFacts, TokensConfig,
};
pub use control::{Control, Deps, STOP_REST, Started};
pub use dependency::DependencyMap;
pub use event::Event;
pub use feed::{FeedEvent, FeedItem, FeedPage, FeedQuery, FeedReader};
pub use grant::{GrantChange, GrantEntry};
pub use health::{Checked, HealthHistory, HealthReport};
pub use key::{NewKey, place_of as key_file};
pub use lease::Heartbeat;
pub use oauth::{
    Asked, Authorization, Browser, Client, DeviceStarted, Impossible, OauthError, Presented,
    Registered, RegisteredClient, Stopped, Tokens, Waiting,
};
pub use password::PasswordChange;
pub use policy::PolicyChange;
pub use query::{
    CallFilter, CallTotals, List, Observed, Offer, OfferKind, Offers, Page, RecordFacts,
    ServerStatus, ServiceFilter, ServiceSort, SortKey, Stats, StoreFacts, ToolInput, ToolQuery,
    ToolTarget,
};
pub use revision::{Diff, Revision, RevisionRef};
pub use role::{RoleChange, RoleEntry};
pub use root_key::{Progress, RootKeyReport};
pub use sign_in::{Credentials, Origin, SignedIn};
pub use signing::SigningKey;
pub use status::Totals;
pub use template::{TemplateEntry, Written};
pub use toolset::ObservedToolset;
pub use upstream_oauth::{AuthorizationState, CALLBACK_PATH, CLIENT_PATH, CONNECT_PATH, Leaving};
pub use usage::{Usage, UsageQuery};
pub use user::UserChange;
pub use vaxel_auth::jwt::Refused as TokenRefused;
pub use vaxel_gateway::{ShownOf, ToolReply};
pub use vaxel_store::{AuditQuery, CallRow, EarlierSecret, Grain, KeyRow, SignInRow, UsageSum};
pub use vaxel_supervisor::{LogLine, Logs, Stream as LogStream};
