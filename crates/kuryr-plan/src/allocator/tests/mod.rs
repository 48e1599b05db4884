//! The supply by examples, and whole histories against a model of Neutron.

mod histories;
mod stories;

use super::*;
use std::collections::BTreeMap;

const BULK: usize = 20;

fn subnet(n: u8) -> SubnetId {
    format!("00000000-0000-0000-0000-0000000000{n:02x}").parse().unwrap()
}

fn choice(subnets: &[u8]) -> Choice {
    let network: NetworkId = "00000000-0000-0000-0000-0000000000ff".parse().unwrap();
    Choice { network, subnets: subnets.iter().map(|n| subnet(*n)).collect() }
}

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

/// A Neutron as strict as the real one, and as careless.
#[derive(Debug, Default)]
struct Neutron {
    sizes: BTreeMap<SubnetId, u64>,
    quota: usize,
    /// Owner and subnets of each port.
    ports: BTreeMap<u32, (u32, Vec<SubnetId>)>,
    made: u32,
    /// Addresses that were taken for bulks that then did not fit.
    lost: BTreeMap<SubnetId, u64>,
    /// How many ports each request was for.
    requests: Vec<usize>,
    /// Requests that are carried out when nobody waits for them any more.
    late: Vec<(Duration, Choice, Vec<u32>)>,
}

impl Neutron {
    fn new(sizes: &[(u8, u64)], quota: usize) -> Self {
        Self { sizes: sizes.iter().map(|(n, size)| (subnet(*n), *size)).collect(), quota, ..Self::default() }
    }

    fn free(&self, subnet: SubnetId) -> u64 {
        let used = self.ports.values().filter(|(_, subnets)| subnets.contains(&subnet)).count() as u64;
        self.sizes[&subnet] - used - self.lost.get(&subnet).copied().unwrap_or(0)
    }

    /// Nobody can have a port for such a pod.
    fn impossible(pod: u32) -> bool {
        pod % 13 == 7
    }

    fn create(&mut self, choice: &Choice, pods: &[u32]) -> Result<Vec<u32>, Refusal> {
        self.requests.push(pods.len());
        if pods.iter().any(|pod| Self::impossible(*pod)) {
            return Err(Refusal::Request);
        }
        if self.ports.len() + pods.len() > self.quota {
            return Err(Refusal::Quota);
        }
        for id in &choice.subnets {
            let free = self.free(*id);
            if free < pods.len() as u64 {
                *self.lost.entry(*id).or_default() += free;
                return Err(Refusal::Exhausted);
            }
        }
        let port = |pod: &u32| {
            self.made += 1;
            self.ports.insert(self.made, (*pod, choice.subnets.clone()));
            self.made
        };
        Ok(pods.iter().map(port).collect())
    }

    fn of(&self, pod: u32) -> Vec<u32> {
        self.ports.iter().filter(|(_, (owner, _))| *owner == pod).map(|(port, _)| *port).collect()
    }
}

/// Takes a batch to its end without faults: those that have a port now, and those that have none.
fn drive(supply: &mut Supply, neutron: &mut Neutron, pods: Vec<u32>, now: Duration) -> (Vec<u32>, Vec<u32>) {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let mut batch = Batch::new(pods);
    while let Some(next) = supply.next(&mut batch, now) {
        match next {
            Next::Count(network) => {
                let question = supply.question();
                let free = neutron.sizes.keys().map(|id| (*id, neutron.free(*id))).collect();
                supply.counted(&mut batch, network, &question, Counted::Free(free), now);
            }
            Next::Short(_, pods) => without.extend(pods),
            Next::Create(ask, pods) => match neutron.create(&ask.choice, &pods) {
                Ok(_) => {
                    supply.made(&ask);
                    with.extend(pods);
                }
                Err(refusal) => without.extend(supply.refused(&mut batch, &ask, pods, refusal, now)),
            },
        }
    }
    (with, without)
}
