//! Who waits for whom: requests for tokens of one holder follow each other, and those of one service leave room
//! for those of others. Whoever does not wait for an answer any more is left out before anything is begun.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use vaxel_core::{
    failure::{Failure, Kind},
    id::{Id, Service},
};
use vaxel_gateway::TokenRequest;

use super::{Asked, Begun};
use crate::control::Control;

/// Requests of the data plane that wait, of all services; further ones are refused as busy.
pub(crate) const WAITING: usize = 1_024;
/// Those of one service, with those that are worked on; further ones are refused as busy.
const WAITING_EACH: usize = 256;
/// Requests that are worked on at once, per service; others wait.
const AT_ONCE_EACH: usize = 16;
/// Holders and services that are remembered before those that nobody waits for are forgotten.
const MOST: usize = 4_096;
/// Longest wait for what is on its way when Vaxel ends.
const FINISH: Duration = Duration::from_secs(3);

/// Held while one request for a holder is worked on.
pub(super) type Turn = Arc<tokio::sync::Mutex<()>>;

/// Everyone's turns.
#[derive(Default)]
pub(super) struct Turns {
    holders: Mutex<HashMap<(Id<Service>, String), Turn>>,
    services: Mutex<HashMap<Id<Service>, Share>>,
}

/// The part of one service.
#[derive(Clone)]
struct Share {
    waiting: Arc<Semaphore>,
    working: Arc<Semaphore>,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            waiting: Arc::new(Semaphore::new(WAITING_EACH)),
            working: Arc::new(Semaphore::new(AT_ONCE_EACH)),
        }
    }
}

impl Share {
    fn is_unused(&self) -> bool {
        Arc::strong_count(&self.waiting) == 1 && Arc::strong_count(&self.working) == 1
    }
}

impl Turns {
    /// The turn of a holder.
    pub(super) fn of(&self, service: Id<Service>, holder: &str) -> Turn {
        let mut holders = self.holders.lock();
        if holders.len() >= MOST {
            holders.retain(|_, turn| Arc::strong_count(turn) > 1);
        }
        let turn = holders.entry((service, holder.to_owned())).or_default();
        Arc::clone(turn)
    }

    fn share(&self, service: Id<Service>) -> Share {
        let mut services = self.services.lock();
        if services.len() >= MOST {
            services.retain(|_, share| !share.is_unused());
        }
        services.entry(service).or_default().clone()
    }
}

/// What is held while a request is worked on.
pub(super) struct Place {
    _turn: OwnedMutexGuard<()>,
    working: Arc<Semaphore>,
}

impl Place {
    /// A place among the requests of its service that are worked on.
    pub(super) async fn at_work(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let place = Arc::clone(&self.working).acquire_owned().await;
        place.map_err(Failure::internal)
    }
}

/// Answers the data plane's requests for tokens until `stop`.
pub(crate) async fn serve(
    control: Control,
    mut queue: mpsc::Receiver<TokenRequest>,
    stop: CancellationToken,
) {
    let mut working = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = working.join_next() => {}
            request = queue.recv(), if working.len() < WAITING => {
                let Some(request) = request else { break };
                let share = control.inner.upstream_tokens.turns.share(request.service);
                match Arc::clone(&share.waiting).try_acquire_owned() {
                    Ok(waits) => {
                        working.spawn(control.clone().answer(request, waits));
                    }
                    // Who asked may not wait any more.
                    Err(_) => drop(request.answer.send(Err(busy()))),
                }
            }
        }
    }
    // What was got in exchange for a token that is good once has to be kept.
    let finishing = async { while working.join_next().await.is_some() {} };
    if tokio::time::timeout(FINISH, finishing).await.is_err() {
        tracing::warn!("requests for tokens of remote servers were broken off");
    }
}

impl Control {
    /// Works on one request, once it is its turn; not when nobody waits for the answer by then.
    async fn answer(self, request: TokenRequest, _waits: OwnedSemaphorePermit) {
        let TokenRequest {
            service,
            user,
            refused,
            mut answer,
        } = request;
        let asked = Asked {
            service,
            user,
            refused,
        };
        let begun = tokio::select! {
            biased;
            () = answer.closed() => return,
            begun = Box::pin(self.begun(&asked)) => begun,
        };
        let said = match begun {
            Ok(Begun::Known(bearer)) => Ok(bearer),
            Ok(Begun::Work(work)) => Box::pin(self.worked(&asked, *work)).await,
            Err(failure) => Err(failure),
        };
        // Who asked may not wait any more; what was got is kept.
        let _ = answer.send(said);
    }

    /// Waits for the turn of a holder.
    pub(super) async fn turn_of(&self, service: Id<Service>, holder: &str) -> Place {
        let turns = &self.inner.upstream_tokens.turns;
        let working = turns.share(service).working;
        Place {
            _turn: turns.of(service, holder).lock_owned().await,
            working,
        }
    }
}

fn busy() -> Failure {
    let detail = "Too many calls wait for a token of this service; try again in a moment";
    Failure::new(Kind::Busy, detail).retry_after(1)
}
