//! Makes spare ports.

use super::{NAME, Spares};
use crate::{
    allocator::{Shared, make::refusal},
    error::Reason,
};
use kuryr_model::{DEVICE_OWNER, Mark, PortId, Purpose, TrunkId, neutron::Port};
use kuryr_openstack::network::{NewFixedIp, NewPort};
use kuryr_plan::{
    allocator::{Ask, Batch, LATE, Next, Refusal as Refused, Shortage},
    pool::{Bulk, BulkId, Place, PoolKey, Refusal},
    subnets::Choice,
};
use std::time::Duration;

/// How long a pool stays empty when its node cannot plug what is made for it.
const UNFIT_FOR: Duration = Duration::from_secs(10 * 60);

/// What became of a bulk: its ports, or why there are none.
pub(super) type Answer = Result<Vec<(PoolKey, Port)>, Refusal>;

impl Shared {
    /// Makes the ports of a bulk. If some are made, why the others are not is left for the next one to find.
    pub(super) async fn refill(&self, bulk: Bulk) -> (BulkId, Answer) {
        let keys = bulk.parts.into_iter().flat_map(|(key, count)| std::iter::repeat_n(key, count));
        let mut batch = Batch::new(keys.collect());
        let (mut made, mut refused) = (Vec::new(), None);
        loop {
            let next = self.state.lock().supply.next(&mut batch, self.now());
            match next {
                None => break,
                Some(Next::Count(network)) => self.count(None, &mut batch, network).await,
                Some(Next::Create(ask, keys)) => match self.make_spare(&mut batch, ask, keys).await {
                    Ok(ports) => made.extend(ports),
                    Err(refusal) => refused = Some(refusal),
                },
                Some(Next::Short(Shortage::Quota, _)) => refused = Some(Refusal::Quota),
                Some(Next::Short(Shortage::Addresses, _)) => refused = Some(Refusal::Full),
            }
        }
        let answer = match refused {
            Some(refusal) if made.is_empty() => Err(refusal),
            _ => Ok(made),
        };
        (bulk.id, answer)
    }

    async fn make_spare(&self, batch: &mut Batch<PoolKey>, ask: Ask, keys: Vec<PoolKey>) -> Answer {
        let wanted: Vec<NewPort> = keys.iter().map(|key| self.new_spare(key, &ask.choice)).collect();
        self.metrics.bulk(keys.len());
        match self.cloud.network().background().ports().create_many(&wanted).await {
            Ok(ports) => {
                self.state.lock().supply.made(&ask);
                Ok(keys.into_iter().zip(ports).collect())
            }
            Err(error) => {
                tracing::info!(reason = %error, ports = keys.len(), "spare ports were not made");
                let refused = refusal(&error);
                if refused == Refused::Unknown {
                    self.look_soon(LATE);
                }
                let failed = self.state.lock().supply.refused(batch, &ask, keys, refused, self.now());
                match refused {
                    _ if failed.is_empty() => Ok(Vec::new()),
                    Refused::Quota => Err(Refusal::Quota),
                    Refused::Exhausted => Err(Refusal::Full),
                    Refused::Request | Refused::All | Refused::Unknown => Err(Refusal::Other),
                }
            }
        }
    }

    fn new_spare(&self, key: &PoolKey, choice: &Choice) -> NewPort {
        let mark = Mark { cluster: self.cluster.clone(), purpose: Purpose::Pool };
        NewPort {
            name: NAME.to_owned(),
            fixed_ips: choice.subnets.iter().map(|id| NewFixedIp::from(*id)).collect(),
            security_groups: self.plain(),
            // What is bound to a host comes to no trunk.
            host_id: match &key.place {
                Place::Host(host) => Some(host.clone()),
                Place::Trunk(_) => None,
            },
            device_owner: DEVICE_OWNER.to_owned(),
            tags: mark.tags(),
            ..NewPort::new(choice.network)
        }
    }

    /// Ports of a bulk arrived. A node on which they cannot be plugged gets none for some time.
    pub(super) fn arrived(&self, spares: &Spares, id: BulkId, answer: Answer) {
        let mut state = spares.state.lock();
        let now = self.now();
        let answer = answer.map(|made| {
            let (good, bad): (Vec<_>, Vec<_>) = made.into_iter().partition(|(key, port)| {
                let ours = Mark::read(&self.cluster, &port.tags).is_some_and(|mark| mark.purpose == Purpose::Pool);
                let there = match &key.place {
                    Place::Host(host) => port.host_id == *host,
                    Place::Trunk(_) => port.host_id.is_empty(),
                };
                let fits = self.plugged(port, state.machine_on(&key.place)).is_ok();
                // Whose machine is not known any more is closed by now.
                let fits = fits || !state.open.contains_key(&key.place);
                ours && there && self.is_plain(&port.security_groups) && fits
            });
            for (key, port) in bad {
                let reason = self
                    .plugged(&port, state.machine_on(&key.place))
                    .map_or_else(|error| error.reason(), |_| Reason::TagsDropped);
                if state.unfit.insert(key.clone(), now + UNFIT_FOR).is_none() {
                    tracing::warn!(
                        pool = %key, port = %port.id, reason = reason.as_str(),
                        "a spare port cannot be used: this pool stays empty for some time"
                    );
                }
                let drained = state.pools.drain(&key);
                state.delete.extend(drained);
                state.discard(port.id);
            }
            good
        });
        let on = |(key, port): &(PoolKey, Port)| match key.place {
            Place::Trunk(trunk) => Some((trunk, port.id)),
            Place::Host(_) => None,
        };
        let on: Vec<(TrunkId, PortId)> = answer.iter().flatten().filter_map(on).collect();
        let unneeded = state.pools.answered(id, answer, now);
        state.delete.extend(unneeded);
        for (trunk, id) in on {
            if state.pools.is_placing(id) {
                state.on.insert(id, trunk);
                state.to_place.push((trunk, id));
            }
        }
    }
}
