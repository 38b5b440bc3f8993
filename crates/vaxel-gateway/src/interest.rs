//! What clients watch: single resources, and tasks. It says what links ask their servers to tell, and who
//! hears of it. However many clients watch one, a server is asked once.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, OnceLock},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{broadcast, watch},
    time::timeout,
};
use vaxel_core::id::{Id, Service};

/// Updates that one stream may be behind. One that is further behind is told that everything it
/// watches may have changed.
const UPDATES: usize = 1_024;

/// Longest that a client waits until its server knows what it watches. A change that comes before that
/// is missed; a server that is slower than this must not hold up the client.
const TAKE_NOTE: Duration = Duration::from_secs(2);

/// What was told by servers, for every stream; there once somebody listens.
type Updates = OnceLock<broadcast::Sender<Update>>;

/// The interests in all services.
#[derive(Default)]
pub(crate) struct Interests {
    by_service: Mutex<HashMap<Id<Service>, Arc<Interest>>>,
    updates: Arc<Updates>,
}

/// What can be watched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// A resource, by its service's own URI.
    Resource(Arc<str>),
    /// A task, which is of one instance, by the server's own id.
    Task { instance: u64, id: Arc<str> },
}

impl Subject {
    /// Whether it is for this instance to tell of it: resources are for all of them.
    fn is_told_by(&self, instance: u64) -> bool {
        match self {
            Self::Resource(_) => true,
            Self::Task { instance: of, .. } => *of == instance,
        }
    }

    const fn is_task(&self) -> bool {
        matches!(self, Self::Task { .. })
    }

    fn own(&self) -> &str {
        match self {
            Self::Resource(own) | Self::Task { id: own, .. } => own,
        }
    }
}

/// What is said of something that is watched.
#[derive(Debug, Clone)]
pub(crate) struct Update {
    service: Id<Service>,
    subject: Subject,
    pub(crate) news: News,
}

/// What has happened.
#[derive(Debug, Clone)]
pub(crate) enum News {
    /// A resource has changed.
    Changed,
    /// A task stands so.
    Stands {
        /// `params` of the server's notification.
        params: Arc<str>,
        /// Nothing will follow.
        is_over: bool,
    },
    /// The server does not tell of a task any more, or may have done so in vain.
    Lost,
}

/// What clients watch of one service. Links come and go; this stays.
pub(crate) struct Interest {
    service: Id<Service>,
    /// Made when it is first needed: of most services nothing is ever watched.
    watching: OnceLock<Box<Watching>>,
    updates: Arc<Updates>,
}

/// Who watches what of a service, and what its servers know of that.
#[derive(Default)]
struct Watching {
    /// How many watch each subject.
    wanted: watch::Sender<BTreeMap<Subject, u32>>,
    /// What the server of each instance that is listened to has taken note of.
    noted: watch::Sender<HashMap<u64, Noted>>,
}

/// What a server has answered to a request to tell.
#[derive(Clone, Default)]
struct Noted {
    asked: BTreeSet<Subject>,
    /// The tasks of these that it does not tell of.
    declined: BTreeSet<Subject>,
}

impl Noted {
    fn tells(&self, subject: &Subject) -> bool {
        self.asked.contains(subject) && !self.declined.contains(subject)
    }
}

/// One client watches one subject, until this is dropped.
pub(crate) struct Watched {
    interest: Arc<Interest>,
    subject: Subject,
    /// What the client calls it.
    known_as: Arc<str>,
}

impl Interests {
    pub(crate) fn of(&self, service: Id<Service>) -> Arc<Interest> {
        let mut all = self.by_service.lock();
        let interest = all.entry(service).or_insert_with(|| {
            Arc::new(Interest {
                service,
                watching: OnceLock::new(),
                updates: Arc::clone(&self.updates),
            })
        });
        Arc::clone(interest)
    }

    /// Whether anybody watches anything of a service.
    pub(crate) fn is_watched(&self, service: Id<Service>) -> bool {
        let all = self.by_service.lock();
        let interest = all.get(&service);
        let watching = interest.and_then(|interest| interest.watching.get());
        watching.is_some_and(|watching| !watching.wanted.borrow().is_empty())
    }

    /// The service is gone; who still watches it hears nothing more.
    pub(crate) fn forget(&self, service: Id<Service>) {
        self.by_service.lock().remove(&service);
    }

    pub(crate) fn updates(&self) -> broadcast::Receiver<Update> {
        let updates = self.updates.get_or_init(|| broadcast::Sender::new(UPDATES));
        updates.subscribe()
    }
}

impl Interest {
    fn watching(&self) -> &Watching {
        self.watching.get_or_init(Box::default)
    }

    /// A client watches the resource `uri`, which it knows as `known_as`.
    pub(crate) fn watch(self: &Arc<Self>, uri: &str, known_as: &str) -> Watched {
        let known_as: Arc<str> = known_as.into();
        let uri = if *uri == *known_as {
            Arc::clone(&known_as)
        } else {
            uri.into()
        };
        self.watch_subject(Subject::Resource(uri), known_as)
    }

    /// A client watches the task `id` of an instance, which it knows as `known_as`.
    pub(crate) fn watch_task(
        self: &Arc<Self>,
        (instance, id): (u64, &str),
        known_as: &str,
    ) -> Watched {
        let id = id.into();
        self.watch_subject(Subject::Task { instance, id }, known_as.into())
    }

    fn watch_subject(self: &Arc<Self>, subject: Subject, known_as: Arc<str>) -> Watched {
        self.watching().wanted.send_if_modified(|wanted| {
            let count = wanted.entry(subject.clone()).or_default();
            *count += 1;
            *count == 1
        });
        Watched {
            interest: Arc::clone(self),
            subject,
            known_as,
        }
    }

    /// What is watched of an instance, and word of when that changes, for its link, which listens to
    /// its server.
    pub(crate) fn wanted(self: &Arc<Self>, instance: u64) -> Wanted {
        self.watching()
            .noted
            .send_modify(|noted| drop(noted.insert(instance, Noted::default())));
        Wanted {
            watched: self.watching().wanted.subscribe(),
            interest: Arc::clone(self),
            instance,
            refused: BTreeSet::new(),
        }
    }

    /// Whose resources and tasks these are.
    pub(crate) const fn service(&self) -> Id<Service> {
        self.service
    }

    /// The server says that a resource has changed.
    pub(crate) fn updated(&self, uri: &str) {
        self.tell(Subject::Resource(uri.into()), News::Changed);
    }

    /// The server of an instance says how a task stands.
    pub(crate) fn stands(&self, (instance, id): (u64, &str), params: &str, is_over: bool) {
        let id = id.into();
        let subject = Subject::Task { instance, id };
        if self.watching().wanted.borrow().contains_key(&subject) {
            let params = params.into();
            self.tell(subject, News::Stands { params, is_over });
        }
    }

    /// Something may have been missed of what resources there are.
    pub(crate) fn all_updated(&self) {
        let watched = self.watching().wanted.borrow();
        let resources = watched.keys().filter(|subject| !subject.is_task());
        let resources: Vec<Subject> = resources.cloned().collect();
        drop(watched);
        for subject in resources {
            self.tell(subject, News::Changed);
        }
    }

    fn tell(&self, subject: Subject, news: News) {
        let Some(updates) = self.updates.get() else {
            return;
        };
        // Without streams nobody hears it.
        let _ = updates.send(Update {
            service: self.service,
            subject,
            news,
        });
    }
}

/// What is watched of one instance, as it changes, and what of that its server knows.
pub(crate) struct Wanted {
    watched: watch::Receiver<BTreeMap<Subject, u32>>,
    interest: Arc<Interest>,
    instance: u64,
    /// Tasks for whose sake the server may have refused to be listened to.
    refused: BTreeSet<Subject>,
}

impl Wanted {
    /// What the server is to be asked for.
    pub(crate) fn now(&mut self) -> BTreeSet<Subject> {
        let watched = self.watched.borrow_and_update();
        // Who watches it later may have more luck.
        self.refused.retain(|task| watched.contains_key(task));
        let is_ours = |subject: &&Subject| {
            subject.is_told_by(self.instance) && !self.refused.contains(*subject)
        };
        watched.keys().filter(is_ours).cloned().collect()
    }

    /// Resolves when there may be something else to watch.
    pub(crate) async fn changed(&mut self) {
        if self.watched.changed().await.is_err() {
            // Its service is gone, and with it whoever asks.
            std::future::pending::<()>().await;
        }
    }

    /// Resolves when there is something to watch.
    pub(crate) async fn any(&mut self) {
        while self.now().is_empty() {
            self.changed().await;
        }
    }

    /// The server has taken note of what it was asked for, and tells of these tasks of it.
    pub(crate) fn noted(&self, asked: &BTreeSet<Subject>, tasks: &[Box<str>]) {
        let is_declined =
            |one: &&Subject| one.is_task() && !tasks.iter().any(|id| **id == *one.own());
        let declined: BTreeSet<Subject> = asked.iter().filter(is_declined).cloned().collect();
        self.note(&Noted {
            asked: asked | &self.refused,
            declined: &declined | &self.refused,
        });
    }

    /// The server refused what it was asked for. That may have been for the sake of one task, so it is
    /// asked from now on without those that it has not agreed to tell of, or without all; false when
    /// there were none.
    pub(crate) fn refuse(&mut self, asked: &BTreeSet<Subject>) -> bool {
        let tasks = asked.iter().filter(|one| one.is_task());
        let (agreed, new): (Vec<&Subject>, Vec<&Subject>) = {
            let noted = self.interest.watching().noted.borrow();
            let noted = noted.get(&self.instance);
            tasks.partition(|task| noted.is_some_and(|noted| noted.tells(task)))
        };
        let refused = if new.is_empty() { agreed } else { new };
        let is_any = !refused.is_empty();
        self.refused.extend(refused.into_iter().cloned());
        let mut noted = self.last();
        noted.asked.extend(self.refused.iter().cloned());
        noted.declined.extend(self.refused.iter().cloned());
        self.note(&noted);
        is_any
    }

    /// The server is not heard for a while. What its tasks come to meanwhile is missed.
    pub(crate) fn lost(&self) {
        let mut noted = self.last();
        noted.asked.retain(|subject| !subject.is_task());
        self.note(&noted);
    }

    /// What the server took note of last.
    fn last(&self) -> Noted {
        let noted = self.interest.watching().noted.borrow();
        noted.get(&self.instance).cloned().unwrap_or_default()
    }

    /// Who heard of a task that is not told of any more learns it, and so does one who began to watch it
    /// a moment too late to be asked for.
    fn note(&self, what: &Noted) {
        let mut before = Noted::default();
        self.interest.watching().noted.send_modify(|noted| {
            let noted = noted.entry(self.instance).or_default();
            before = std::mem::replace(noted, what.clone());
        });
        let told = before.asked.iter().filter(|one| one.is_task());
        let told = told.filter(|task| before.tells(task));
        for task in told.filter(|task| !what.tells(task)) {
            self.interest.tell(task.clone(), News::Lost);
        }
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.lost();
        self.interest
            .watching()
            .noted
            .send_modify(|noted| drop(noted.remove(&self.instance)));
    }
}

impl Watched {
    /// Whether an update is about this.
    pub(crate) fn is(&self, update: &Update) -> bool {
        self.interest.service == update.service && self.subject == update.subject
    }

    /// What its service calls it.
    pub(crate) fn uri(&self) -> &str {
        self.subject.own()
    }

    /// What its client calls it.
    pub(crate) fn known_as(&self) -> &str {
        &self.known_as
    }

    /// Waits until every server that is listened to knows of this, or no longer than is bearable.
    pub(crate) fn noted(&self) -> impl Future<Output = ()> + Send + use<> {
        let subject = self.subject.clone();
        let mut noted = self.interest.watching().noted.subscribe();
        async move {
            let known =
                noted.wait_for(|noted| noted.values().all(|one| one.asked.contains(&subject)));
            // A server that is late tells of later changes.
            let _ = timeout(TAKE_NOTE, known).await;
        }
    }

    /// Waits until the server of this task has said whether it tells of it, or no longer than is
    /// bearable; whether it does.
    pub(crate) fn granted(&self) -> impl Future<Output = bool> + Send + use<> {
        let subject = self.subject.clone();
        let mut noted = self.interest.watching().noted.subscribe();
        async move {
            let Subject::Task { instance, .. } = &subject else {
                return true;
            };
            // One that is not listened to says nothing.
            let is_said = |noted: &HashMap<u64, Noted>| {
                let noted = noted.get(instance);
                noted.is_none_or(|noted| noted.asked.contains(&subject))
            };
            let said = timeout(TAKE_NOTE, noted.wait_for(is_said)).await;
            said.is_ok_and(|said| {
                let said = said.ok();
                let said = said.as_ref().and_then(|said| said.get(instance));
                said.is_some_and(|said| said.tells(&subject))
            })
        }
    }

    /// Whose resource or task it is.
    pub(crate) fn service(&self) -> Id<Service> {
        self.interest.service
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.interest.watching().wanted.send_if_modified(|wanted| {
            let Some(count) = wanted.get_mut(&self.subject) else {
                return false;
            };
            *count -= 1;
            let is_last = *count == 0;
            if is_last {
                wanted.remove(&self.subject);
            }
            is_last
        });
    }
}

#[cfg(test)]
mod tests {
    use vaxel_core::time::Clock;

    use super::*;

    #[test]
    fn a_resource_is_wanted_as_long_as_somebody_watches_it() {
        let interests = Interests::default();
        let interest = interests.of(Id::new(Clock::system().now()));
        let mut wanted = interest.wanted(1);
        let one = interest.watch("a", "a");
        let two = interest.watch("a", "a");
        assert_eq!(wanted.now().len(), 1);
        drop(one);
        assert!(!wanted.watched.has_changed().unwrap());
        drop(two);
        assert!(wanted.watched.has_changed().unwrap());
        assert!(wanted.now().is_empty());
    }

    #[test]
    fn an_update_reaches_who_watches_that_resource_of_that_service() {
        let interests = Interests::default();
        let now = Clock::system().now();
        let (here, there) = (interests.of(Id::new(now)), interests.of(Id::new(now)));
        let mut updates = interests.updates();
        let watched = here.watch("a", "a");
        there.updated("a");
        here.updated("b");
        here.updated("a");
        let heard: Vec<bool> = std::iter::from_fn(|| updates.try_recv().ok())
            .map(|update| watched.is(&update))
            .collect();
        assert_eq!(heard, [false, false, true]);
    }

    #[test]
    fn a_task_is_wanted_of_its_instance_alone() {
        let interests = Interests::default();
        let interest = interests.of(Id::new(Clock::system().now()));
        let (mut here, mut there) = (interest.wanted(1), interest.wanted(2));
        let _task = interest.watch_task((1, "t"), "sealed");
        let _resource = interest.watch("a", "a");
        assert_eq!((here.now().len(), there.now().len()), (2, 1));
    }

    #[tokio::test]
    async fn a_task_is_heard_of_when_its_server_says_so_and_until_it_does_not() {
        let interests = Interests::default();
        let interest = interests.of(Id::new(Clock::system().now()));
        let mut updates = interests.updates();
        let mut wanted = interest.wanted(1);
        let [one, two] = ["one", "two"].map(|id| interest.watch_task((1, id), id));
        let elsewhere = interest.watch_task((2, "one"), "elsewhere");
        assert!(!elsewhere.granted().await, "nobody listens to its instance");
        let asked = wanted.now();
        wanted.noted(&asked, &["one".into()]);
        assert!(one.granted().await && !two.granted().await);
        // What is refused costs first what is new, then everything.
        let three = interest.watch_task((1, "three"), "three");
        let asked = wanted.now();
        assert!(wanted.refuse(&asked));
        assert!(one.granted().await && !three.granted().await);
        assert_eq!(wanted.now().len(), 1);
        let asked = wanted.now();
        assert!(wanted.refuse(&asked));
        assert!(!one.granted().await && wanted.now().is_empty());
        assert!(!wanted.refuse(&BTreeSet::new()));
        let lost: Vec<Update> = std::iter::from_fn(|| updates.try_recv().ok()).collect();
        let is_lost = |task: &Watched| lost.iter().any(|update| task.is(update));
        // Who was promised nothing has lost nothing.
        assert!(is_lost(&one) && !is_lost(&two) && !is_lost(&three));
        assert!(!is_lost(&elsewhere));
    }
}
