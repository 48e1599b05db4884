//! Looks for the ports of pods: those who ask at about the same time share a request.

use super::Shared;
use crate::{
    error::PodError,
    gather::{Arrival, Limits, gather},
};
use kuryr_model::{PodUid, neutron::Port};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::{mpsc::UnboundedReceiver, oneshot};

/// The most pods in one request: each is 47 characters of its address, of which servers take 8,000 at least.
const MOST: usize = 50;

/// Who wants to know the ports of a pod.
pub(super) struct Look {
    pub(super) uid: PodUid,
    pub(super) reply: oneshot::Sender<Result<Vec<Port>, PodError>>,
}

/// Answers until nobody can ask any more.
pub(super) async fn answer(shared: Arc<Shared>, looks: UnboundedReceiver<Arrival<Look>>, linger: Duration) {
    let limits = Limits { bulk_size: MOST, bulk_requests: 1, burst: linger };
    let serve = move |batch: Vec<Look>| {
        let shared = shared.clone();
        async move {
            let uids: Vec<PodUid> = batch.iter().map(|look| look.uid.clone()).collect();
            match shared.find(&uids, true).await {
                Ok(ports) => {
                    let mut of: HashMap<PodUid, Vec<Port>> = HashMap::new();
                    for port in ports {
                        if let Some(owner) = shared.owner(&port) {
                            of.entry(owner).or_default().push(port);
                        }
                    }
                    for Look { uid, reply } in batch {
                        let _ = reply.send(Ok(of.get(&uid).cloned().unwrap_or_default()));
                    }
                }
                Err(error) => {
                    for Look { reply, .. } in batch {
                        let _ = reply.send(Err(error.clone()));
                    }
                }
            }
        }
    };
    gather(looks, limits, serve).await;
}
