//! The end of calls that hang when Vaxel stops: before what is left is cut off, each still gets an
//! answer.
//!
//! A call only looks at a flag whenever it is woken. Who drives calls is woken when the flag is raised.

use std::{
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::Poll,
};

use tokio_util::sync::CancellationToken;
use vaxel_core::failure::{Failure, Kind};

/// Whether calls in flight have to end.
#[derive(Default)]
pub(crate) struct Cut {
    flag: AtomicBool,
    drivers: CancellationToken,
}

impl Cut {
    /// Ends all calls in flight.
    pub(crate) fn now(&self) {
        self.flag.store(true, Ordering::Release);
        self.drivers.cancel();
    }

    /// Drives work in which there may be calls.
    pub(crate) async fn drive<T>(&self, mut work: Pin<&mut impl Future<Output = T>>) -> T {
        tokio::select! {
            biased;
            done = &mut work => done,
            () = self.drivers.cancelled() => work.await,
        }
    }

    /// A part of a call: when calls have to end, it fails.
    pub(crate) async fn unless<T>(
        &self,
        mut work: Pin<&mut impl Future<Output = Result<T, Failure>>>,
    ) -> Result<T, Failure> {
        std::future::poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Pending if self.flag.load(Ordering::Acquire) => Poll::Ready(Err(stopped())),
            polled => polled,
        })
        .await
    }
}

fn stopped() -> Failure {
    Failure::new(
        Kind::UpstreamLost,
        "Vaxel is being stopped, and the service has not answered before; whether the call had an \
         effect is not known",
    )
}
