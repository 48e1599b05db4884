//! What is done with a queue: one key after the other, several at once.

use crate::queue::{Outcome, Queue};
use std::{hash::Hash, sync::Arc, time::Duration};
use tokio::{sync::Semaphore, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

/// How long a controller that stops lets steps that are under way come to their end.
const DRAIN: Duration = Duration::from_secs(20);

/// Works on what comes out of a queue, on so many keys at once, until `stop` is cancelled and what was begun is done.
pub(crate) async fn work<K, F>(
    queue: &Arc<Queue<K>>,
    workers: usize,
    stop: &CancellationToken,
    mut handle: impl FnMut(K, Duration) -> F,
) where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    F: Future<Output = Outcome> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(workers));
    let mut running = JoinSet::new();
    loop {
        let next = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, queue.next().await)
        };
        let Some((slot, (key, waited))) = stop.run_until_cancelled(next).await else { break };
        while running.try_join_next().is_some() {}
        let (queue, step) = (queue.clone(), handle(key.clone(), waited));
        running.spawn(async move {
            let outcome = step.await;
            queue.done(&key, outcome);
            drop(slot);
        });
    }
    let begun = running.len();
    if timeout(DRAIN, async { while running.join_next().await.is_some() {} }).await.is_err() {
        tracing::warn!(begun, "some steps were cut off; the next controller ends them");
    }
}
