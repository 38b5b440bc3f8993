//! Keeps processes as asked; knows no HTTP and no MCP.
//!
//! Every child is started through a *shim* (the same binary again, [`shim::main`]): a small process
//! that becomes the reaper of everything below it, sets limits and sandbox, and kills the whole tree
//! when its socket to us ends. So no descendant outlives Vaxel, however Vaxel ends.
//!
//! What is absent on purpose: restarts and back-off (they are decisions about a service, made by the
//! reconcilers), protocols, and the environment of this process (it comes in through [`Config`]).
mod supervisor; // read these first: what is offered
mod order;
mod process;
mod error;

mod driver; // the life of one process, seen from our side
mod launch;
mod wire;
pub mod shim; // the life of one process, seen from the shim

mod sandbox; // what a child may reach and use
mod cgroup;
mod census;
mod watch;
mod orphans;

mod logs; // what a child says on its standard error

pub use error::Error;
pub use logs::{LogLine, Logs, Stream};
pub use order::{Limits, Order};
pub use orphans::adopt_orphans;
pub use process::{Exit, Process, ProcessHandle, SandboxReport, Usage};
pub use supervisor::{Config, Supervisor};
