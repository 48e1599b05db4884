//! Who finds a spare port does not stand in line behind those for whom ports are made.

use crate::{
    allocator::{Reply, Request, Shared},
    gather::Arrival,
};
use std::sync::Arc;
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender},
    time::Instant,
};

/// The most that are looked at together.
const MOST: usize = 256;

/// Hands spare ports out until nobody can ask any more; all others get into line. So do those that may have a port already: it is
/// looked for before they get another one.
pub(in crate::allocator) async fn first(
    shared: Arc<Shared>,
    mut arrivals: UnboundedReceiver<Arrival<(Request, Reply)>>,
    line: UnboundedSender<Arrival<(Request, Reply)>>,
) {
    let mut come = Vec::new();
    // What is there together shares one look at the index.
    while arrivals.recv_many(&mut come, MOST).await > 0 {
        let mut sure = Vec::new();
        for (pod, at) in come.drain(..) {
            if shared.state.lock().suspects.may_have_one(&pod.0.key, &pod.0.uid) {
                // Nobody receives any more: then everything ends.
                let _ = line.send((pod, at));
            } else {
                sure.push(pod);
            }
        }
        let (shared, line, at) = (shared.clone(), line.clone(), Instant::now());
        tokio::spawn(async move {
            for pod in shared.lend(sure).await {
                let _ = line.send((pod, at));
            }
        });
    }
}
