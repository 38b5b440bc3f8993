//! The calls of the last minutes, of services that are judged by them. Fed by the recorder, off the way
//! of the calls; the calls of all other services cost nothing here.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use parking_lot::Mutex;
use vaxel_core::{
    call::CallRecord,
    health::{
        spec::PerformanceLimits,
        traffic::{Figures, Traffic},
    },
    id::{Id, Service},
    time::Timestamp,
};

#[derive(Debug, Default)]
pub(crate) struct TrafficBook {
    books: Mutex<HashMap<Id<Service>, Traffic>>,
    /// How many there are, for whoever has nothing to write.
    count: AtomicUsize,
}

impl TrafficBook {
    /// From now on a service is judged by these limits.
    pub(crate) fn judge_by(&self, service: Id<Service>, limits: &PerformanceLimits) {
        let mut books = self.books.lock();
        if limits.of_calls() {
            let window = limits.window();
            let known = books.get(&service).is_some_and(|book| book.is_over(window));
            if !known {
                books.insert(service, Traffic::new(window));
            }
        } else {
            books.remove(&service);
        }
        self.count.store(books.len(), Relaxed);
    }

    /// A service is not judged any more.
    pub(crate) fn forget(&self, service: Id<Service>) {
        self.judge_by(service, &PerformanceLimits::default());
    }

    /// Takes note of calls that ended.
    pub(crate) fn note(&self, records: &[CallRecord]) {
        if self.count.load(Relaxed) == 0 {
            return;
        }
        let mut books = self.books.lock();
        for record in records.iter().filter(|record| record.door.is_usage()) {
            if let Some(book) = books.get_mut(&record.service) {
                let ended = record.at.plus(record.duration);
                book.note(record.outcome, record.duration, ended);
            }
        }
    }

    /// What the calls of a service came to.
    pub(crate) fn figures(&self, service: Id<Service>, now: Timestamp) -> Figures {
        let books = self.books.lock();
        books
            .get(&service)
            .map_or_else(Figures::default, |book| book.figures(now))
    }
}
