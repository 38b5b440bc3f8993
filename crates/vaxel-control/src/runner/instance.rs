//! One instance of a service: starts or reaches it, watches it, and tries again when it is lost.
//!
//! The loop never decides what is wanted: it runs until its token is cancelled, and reports what it
//! sees. Every wait in here ends with that token or with a deadline.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use vaxel_core::{
    catalog::Catalog,
    failure::{Failure, Issue},
    health::{
        check::{Finding, Kind},
        recovery::Attempts,
    },
    service::{EraChoice, ServiceResource, Source},
};
use vaxel_gateway::Link;
use vaxel_supervisor::{LogLine, ProcessHandle, Stream};

use super::{
    Context,
    attend::Attendant,
    crew::sentences,
    proof::{Gate, prove},
    report::{News, Report, Seat, Setback},
    target,
    watched::Watched,
};

/// A start that takes longer stops counting against the number of starts at once, so that a few
/// slow servers do not hold up the others.
const START_SHARE: Duration = Duration::from_secs(5);
/// How long the end of a process may take to follow the end of its standard output.
pub(super) const EXIT_FOLLOWS: Duration = Duration::from_millis(500);
/// Lines of standard error that explain an end.
const LAST_WORDS: usize = 5;
/// Longest polite end of a connection.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

pub(crate) struct Instance {
    pub(crate) context: Arc<Context>,
    pub(crate) resource: Arc<ServiceResource>,
    pub(crate) seat: Seat,
    pub(crate) reports: mpsc::Sender<Report>,
    pub(crate) stop: CancellationToken,
    pub(crate) watched: Watched,
    /// Whether it may serve without a proof.
    pub(super) gate: Gate,
    /// What was tried to mend the replica, whichever instance it was.
    pub(crate) attempts: Arc<Mutex<Attempts>>,
}

/// An instance that answered.
struct Open {
    link: Link,
    process: Option<ProcessHandle>,
    catalog: Arc<Catalog>,
}

/// Why there is no [`Open`], or no longer.
pub(super) enum End {
    /// It is not wanted any more.
    Stopped,
    /// It failed or was lost; `hopeless` when another try cannot do better.
    Lost { reason: String, hopeless: bool },
    /// It answered, and does not do what it should before it serves.
    Unfit { reason: String, issues: Vec<Issue> },
    /// It is to be made anew at once, since it does not do what it should.
    Renew { reason: String },
}

impl End {
    pub(super) fn lost(reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::Lost {
            reason,
            hopeless: false,
        }
    }
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::lost(failure.detail)
    }
}

/// Why a program did not become an instance.
struct Unopened {
    end: End,
    /// It ended by itself.
    exited: bool,
}

impl<E: Into<End>> From<E> for Unopened {
    fn from(end: E) -> Self {
        let end = end.into();
        Self { end, exited: false }
    }
}

impl Instance {
    /// Runs until the token is cancelled; then the instance is gone. After `failures` failures it
    /// waits before the first try.
    pub(crate) async fn run(self, mut failures: u32) {
        let mut restarts = 0;
        if failures > 0 && !self.pause(self.wait_after(failures)).await {
            return;
        }
        while !self.stop.is_cancelled() {
            self.tell(News::Starting { restarts }).await;
            let begun = self.context.clock.instant();
            // On the heap while it lasts: an instance that is open waits for hours, and there are many.
            let end = match Box::pin(self.open()).await {
                Ok(open) => self.attend(open).await,
                Err(end) => end,
            };
            let setback = match end {
                End::Stopped => return,
                End::Renew { reason } => {
                    tracing::warn!(
                        service.name = %self.resource.name, replica = self.seat.replica,
                        "an instance is made anew: {reason}"
                    );
                    restarts += 1;
                    continue;
                }
                End::Lost { reason, hopeless } => (reason, hopeless, Vec::new()),
                End::Unfit { reason, issues } => (reason, false, issues),
            };
            if begun.elapsed() >= self.context.config.process.backoff.reset_after {
                failures = 0;
            }
            failures = failures.saturating_add(1);
            restarts += 1;
            if !self.recover(setback, failures).await {
                return;
            }
        }
    }

    /// Reports the setback and waits for the next try; false when there is none.
    async fn recover(
        &self,
        (reason, hopeless, issues): (String, bool, Vec<Issue>),
        failures: u32,
    ) -> bool {
        let settings = &self.context.config.process;
        let hopeless =
            hopeless || settings.backoff.is_crash_loop(failures) || !settings.auto_restart;
        let wait = if hopeless {
            settings.backoff.max
        } else {
            self.wait_after(failures)
        };
        let next_start_at = settings
            .auto_restart
            .then(|| self.context.clock.now().plus(wait));
        tracing::warn!(
            service.name = %self.resource.name, replica = self.seat.replica, failures, hopeless,
            "an instance is not there: {reason}"
        );
        self.tell(News::Down(Setback {
            // It is tried again as soon as others are, and wrong from the first time.
            hopeless: hopeless || !issues.is_empty(),
            reason,
            issues,
            next_start_at,
        }))
        .await;
        if !settings.auto_restart {
            self.stop.cancelled().await;
            return false;
        }
        self.pause(wait).await
    }

    /// Starts or reaches it, and waits for its first real answers.
    async fn open(&self) -> Result<Open, End> {
        let starts = Arc::clone(&self.context.starts);
        let permit = tokio::select! {
            () = self.stop.cancelled() => return Err(End::Stopped),
            permit = starts.acquire_owned() => permit.map_err(Failure::internal)?,
        };
        match &self.resource.spec.source {
            // On the heap from here: thousands wait for their permit at once when Vaxel starts.
            Source::Process(_) => Box::pin(sharing(permit, self.open_process())).await,
            Source::Mcp(_) | Source::Http(_) | Source::Builtin(_) => {
                let replica = self.seat.replica;
                let target = target::remote(&self.context, &self.resource, replica).await?;
                let open = self.connect(target, None);
                tokio::select! {
                    () = self.stop.cancelled() => Err(End::Stopped),
                    open = Box::pin(sharing(permit, open)) => open,
                }
            }
        }
    }

    /// Starts a program. One that ends when it is asked for its era (as servers do that insist on being
    /// initialized first) was only there to find that out: another one is started and not asked.
    async fn open_process(&self) -> Result<Open, End> {
        let Context { eras, clock, .. } = &*self.context;
        let era = eras.choice(&self.resource, clock.now());
        let opened = match self.open_child(era).await {
            Err(Unopened { exited: true, .. }) if era == EraChoice::Auto => {
                self.open_child(EraChoice::Legacy).await
            }
            opened => opened,
        };
        match opened {
            Ok(open) => {
                eras.learn(&self.resource, open.link.era(), clock.now());
                Ok(open)
            }
            Err(unopened) => {
                eras.forget(&self.resource);
                Err(unopened.end)
            }
        }
    }

    async fn open_child(&self, era: EraChoice) -> Result<Open, Unopened> {
        let order = target::order(&self.context, &self.resource, self.seat.replica).await?;
        // Not cancelled half-way: a process that nobody knows could not be stopped.
        let process = self
            .context
            .supervisor
            .spawn(order)
            .await
            .map_err(refused)?;
        let handle = process.handle.clone();
        self.tell(News::Spawned(handle.clone())).await;
        let spoken = (&*self.resource, era);
        let target = target::pipes(&self.context, spoken, self.seat.replica, process);
        let opened = tokio::select! {
            () = self.stop.cancelled() => Err(End::Stopped),
            opened = self.connect(target, Some(handle.clone())) => opened,
            exit = handle.exited() => Err(End::lost(exit.to_string())),
        };
        match opened {
            Ok(open) => Ok(open),
            Err(end) => {
                // The connection ends first when the process does; its exit explains more.
                let exit = timeout(EXIT_FOLLOWS, handle.exited()).await;
                handle.stop().await;
                let exited = exit.is_ok();
                let reason = match (end, exit) {
                    (End::Stopped, _) => return Err(End::Stopped.into()),
                    (_, Ok(exit)) => exit.to_string(),
                    (
                        End::Lost { reason, .. }
                        | End::Unfit { reason, .. }
                        | End::Renew { reason },
                        Err(_),
                    ) => reason,
                };
                let end = End::lost(self.with_last_words(&reason, Some(&handle)));
                Err(Unopened { end, exited })
            }
        }
    }

    async fn connect(
        &self,
        target: vaxel_gateway::ConnectTarget,
        process: Option<ProcessHandle>,
    ) -> Result<Open, End> {
        let within = self.context.config.process.start_timeout;
        let opened = timeout(within, async {
            let egress = self.context.egress(&self.resource);
            let link = self.context.gateway.connect_by(egress, target).await?;
            let (weight, identity) = target::place(&self.resource, self.seat.replica);
            let link = link.placed(weight, identity);
            let catalog = Arc::new(link.catalog().await?);
            Ok::<Open, Failure>(Open {
                link,
                process,
                catalog,
            })
        });
        match opened.await {
            Ok(Ok(open)) => Ok(open),
            Ok(Err(failure)) => Err(failure.into()),
            Err(_) => {
                let seconds = within.as_secs_f32();
                Err(End::lost(format!(
                    "No MCP answer came within {seconds} s of the start"
                )))
            }
        }
    }

    /// Sees whether an instance that answered may serve, and watches it until it is lost or not wanted.
    async fn attend(&self, open: Open) -> End {
        let Open {
            link,
            process,
            catalog,
        } = open;
        self.answered();
        let attendant = Attendant {
            instance: self,
            link: &link,
            process: process.as_ref(),
        };
        let end = match self.prove(&link, &catalog).await {
            Ok(()) => self.serve(&attendant, catalog).await,
            Err(End::Unfit { reason, issues }) => {
                let reason = self.with_last_words(&reason, process.as_ref());
                End::Unfit { reason, issues }
            }
            Err(end) => end,
        };
        // A peer that does not take part in the polite end is left after a while.
        let _ = timeout(CLOSE_WITHIN, link.close()).await;
        drop(link);
        if let Some(process) = process {
            process.stop().await;
        }
        end
    }

    /// Whether it may serve.
    async fn prove(&self, link: &Link, catalog: &Arc<Catalog>) -> Result<(), End> {
        let proved = tokio::select! {
            () = self.stop.cancelled() => return Err(End::Stopped),
            // On the heap while it lasts.
            proved = Box::pin(prove(self, link, catalog)) => proved,
        };
        proved.map_err(|issues| End::Unfit {
            reason: sentences(&issues),
            issues,
        })
    }

    /// Has it serve until it is lost or not wanted any more.
    async fn serve(&self, attendant: &Attendant<'_>, catalog: Arc<Catalog>) -> End {
        let (link, process) = (attendant.link, attendant.process);
        self.tell(News::Up {
            link: link.clone(),
            catalog,
        })
        .await;
        match attendant.until_end().await {
            End::Lost { reason, hopeless } => {
                let reason = self.with_last_words(&reason, process);
                self.tell(News::Parted(reason.clone())).await;
                End::Lost { reason, hopeless }
            }
            End::Renew { reason } => {
                let reason = self.with_last_words(&reason, process);
                self.tell(News::Parted(reason.clone())).await;
                attendant.drain().await;
                End::Renew { reason }
            }
            end @ (End::Stopped | End::Unfit { .. }) => {
                attendant.drain().await;
                end
            }
        }
    }

    /// Takes note that it gave its first real answers.
    fn answered(&self) {
        let rules = self.context.config.rules(&self.watched.spec());
        let finding = Finding::pass("It answered when it was started");
        let when = (self.context.clock.now(), &self.context.clock);
        self.watched.note((Kind::Basic, finding), when, &rules);
    }

    /// `reason`, followed by what the process said last on its standard error.
    fn with_last_words(&self, reason: &str, process: Option<&ProcessHandle>) -> String {
        let Some(process) = process else {
            return reason.to_owned();
        };
        let logs = self.context.supervisor.logs(self.resource.name.as_str());
        let own = |line: &LogLine| {
            line.replica == self.seat.replica
                && line.stream != Stream::Vaxel
                && line.at >= process.started_at()
        };
        let said: Vec<String> = logs
            .tail(4 * LAST_WORDS)
            .into_iter()
            .filter(own)
            .map(|line| line.text)
            .collect();
        logs.append(Stream::Vaxel, self.seat.replica, reason);
        let last = &said[said.len().saturating_sub(LAST_WORDS)..];
        if last.is_empty() {
            return reason.to_owned();
        }
        format!("{reason}; it said: {}", last.join(" / "))
    }

    fn wait_after(&self, failures: u32) -> Duration {
        self.context.config.process.backoff.wait(failures, random())
    }

    /// Waits; false when the token was cancelled meanwhile.
    async fn pause(&self, wait: Duration) -> bool {
        tokio::select! {
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(wait) => true,
        }
    }

    pub(super) async fn tell(&self, news: News) {
        // The runner reads until every instance is gone; without it nobody needs to know.
        let _ = self
            .reports
            .send(Report {
                seat: self.seat,
                news: Box::new(news),
            })
            .await;
    }
}

/// Runs `start` while it holds a share of the starts at once, for a while at most.
async fn sharing<T>(permit: OwnedSemaphorePermit, start: impl Future<Output = T>) -> T {
    let mut start = std::pin::pin!(start);
    if let Ok(done) = timeout(START_SHARE, &mut start).await {
        return done;
    }
    drop(permit);
    start.await
}

pub(super) fn random() -> u32 {
    u32::from_ne_bytes(vaxel_auth::random::bytes())
}

/// A process that cannot be started as it is described will not start the next time either.
fn refused(error: vaxel_supervisor::Error) -> End {
    use vaxel_supervisor::Error::{BadCwd, BadOrder, Denied, Io, NotFound, ShuttingDown, Timeout};
    let hopeless = match &error {
        NotFound { .. } | Denied { .. } | BadCwd { .. } | BadOrder { .. } => true,
        Timeout { .. } | Io { .. } | ShuttingDown => false,
    };
    End::Lost {
        reason: Failure::from(error).detail.into_owned(),
        hopeless,
    }
}
