//! Wires; what needs a test belongs elsewhere.
mod cli; // read this first: every command
mod output;

mod up; // the server
mod wire;
mod config;
mod paths;
mod root_key;
mod certificate;

mod stdio; // the bridge for clients that only speak stdio

use std::{process::ExitCode, time::Duration};

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long a thread for work that blocks waits for more of it. Each holds a stack and some heap.
const IDLE_THREAD: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    // The shim is started for every process: it comes before everything else and needs no runtime.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == "shim") {
        let socket = args.next().unwrap_or_default();
        return vaxel_supervisor::shim::main(&socket.to_string_lossy());
    }
    let cli = cli::Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("vaxel-control")
        .thread_keep_alive(IDLE_THREAD)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&anyhow::Error::new(error)),
    };
    let code = runtime.block_on(cli.run());
    runtime.shutdown_background();
    code
}
