//! Threads that live in a namespace as long as one piece of work takes.

use super::{Error, Namespace};
use std::{path::Path, thread};
use tokio::sync::oneshot;

const NAME: &str = "netns";

/// Runs `work` inside the namespace at `path`, on a thread of its own, and waits for it.
///
/// # Errors
/// The namespace is missing or cannot be entered, or the work panicked.
pub fn run<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let namespace = Namespace::open(path)?;
    thread::scope(|scope| {
        let entered = move || namespace.enter().map(|()| work());
        let thread = thread::Builder::new().name(NAME.into()).spawn_scoped(scope, entered).map_err(Error::Thread)?;
        thread.join().map_err(|_| Error::Panicked)?
    })
}

/// Runs `work` on a thread of its own, which may enter namespaces as it likes, and waits without holding up the caller's
/// runtime. The work is done to its end even if the future is dropped.
///
/// # Errors
/// No thread could be made, or the work panicked.
pub async fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    let (sender, receiver) = oneshot::channel();
    let body = move || {
        // Nobody may be waiting any more.
        let _ = sender.send(work());
    };
    thread::Builder::new().name(NAME.into()).spawn(body).map_err(Error::Thread)?;
    receiver.await.map_err(|_| Error::Panicked)
}
