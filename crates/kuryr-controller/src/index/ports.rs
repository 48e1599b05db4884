//! The `KuryrPort`s, and the ports that they have.

use crate::lean::OddPort;
use kuryr_model::{KuryrPort, ObjectKey, PortId};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// The `KuryrPort`s by their keys.
#[derive(Default)]
pub(super) struct Ports {
    readable: HashMap<ObjectKey, Arc<KuryrPort>>,
    /// Those that cannot be read. No key is in both.
    odd: HashMap<ObjectKey, Arc<OddPort>>,
    /// How many of them have each port: one, unless somebody has copied one.
    held: HashMap<PortId, usize>,
}

impl Ports {
    pub(super) fn get(&self, key: &ObjectKey) -> Option<&Arc<KuryrPort>> {
        self.readable.get(key)
    }

    pub(super) fn odd(&self, key: &ObjectKey) -> Option<&Arc<OddPort>> {
        self.odd.get(key)
    }

    /// Those that can be read.
    pub(super) fn readable(&self) -> impl Iterator<Item = (&ObjectKey, &Arc<KuryrPort>)> {
        self.readable.iter()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.readable.keys().chain(self.odd.keys())
    }

    /// Every port that one of them has.
    pub(super) fn held(&self) -> HashSet<PortId> {
        self.held.keys().copied().collect()
    }

    /// Whether one of them has this port.
    pub(super) fn holds(&self, id: PortId) -> bool {
        self.held.contains_key(&id)
    }

    /// Takes one over in place of what has its key.
    pub(super) fn put(&mut self, port: KuryrPort) {
        let key = port.key();
        self.remove(&key);
        self.hold(port.port_ids());
        self.readable.insert(key, Arc::new(port));
    }

    /// The same for one that cannot be read.
    pub(super) fn put_odd(&mut self, odd: OddPort) {
        self.remove(&odd.key);
        self.hold(odd.ports.iter().copied());
        self.odd.insert(odd.key.clone(), Arc::new(odd));
    }

    pub(super) fn remove(&mut self, key: &ObjectKey) {
        if let Some(port) = self.readable.remove(key) {
            self.let_go(port.port_ids());
        }
        if let Some(odd) = self.odd.remove(key) {
            self.let_go(odd.ports.iter().copied());
        }
    }

    fn hold(&mut self, ids: impl Iterator<Item = PortId>) {
        for id in ids {
            *self.held.entry(id).or_default() += 1;
        }
    }

    fn let_go(&mut self, ids: impl Iterator<Item = PortId>) {
        for id in ids {
            if let Some(holders) = self.held.get_mut(&id) {
                *holders -= 1;
                if *holders == 0 {
                    self.held.remove(&id);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::{Index, tests::port};
    use proptest::prelude::*;
    use serde_json::json;

    fn id(number: u8) -> PortId {
        format!("00000000-0000-0000-0000-0000000000{number:02x}").parse().unwrap()
    }

    fn key(number: u8) -> ObjectKey {
        ObjectKey::new("a", format!("p{number}"))
    }

    /// What is heard of `KuryrPort`s.
    #[derive(Clone, Debug)]
    enum News {
        /// Its key, which object of that key it is, its version, its ports, and whether it can be read.
        Is(u8, u8, u8, Vec<u8>, bool),
        Gone(u8, Option<u8>),
        Listed(Vec<u8>),
    }

    fn news() -> impl Strategy<Value = News> {
        let (key, uid) = (0..4u8, 0..2u8);
        let ports = proptest::collection::vec(0..5u8, 0..3);
        prop_oneof![
            6 => (key.clone(), uid.clone(), 0..9u8, ports, any::<bool>())
                .prop_map(|(key, uid, version, ports, odd)| News::Is(key, uid, version, ports, odd)),
            2 => (key.clone(), proptest::option::of(uid)).prop_map(|(key, uid)| News::Gone(key, uid)),
            1 => proptest::collection::vec(key, 0..5).prop_map(News::Listed),
        ]
    }

    fn tell(index: &Index, news: News) {
        match news {
            News::Is(number, uid, version, ports, true) => {
                index.apply_odd(OddPort {
                    key: key(number),
                    uid: uid.to_string(),
                    resource_version: Some(version.to_string()),
                    finalizers: vec![],
                    deleting: false,
                    ports: ports.into_iter().map(id).collect(),
                    why: "spec".into(),
                });
            }
            News::Is(number, uid, version, ports, false) => {
                let mut port = port(&version.to_string(), &uid.to_string());
                port.metadata.name = Some(key(number).name);
                let vif = |number| {
                    json!({
                        "interface": "eth0", "portId": id(number), "networkId": id(99), "mac": "fa:16:3e:00:00:01",
                        "mtu": 1442, "addresses": [], "plug": {"driver": "ovs"},
                    })
                };
                port.spec.vifs = ports.into_iter().map(|port| serde_json::from_value(vif(port)).unwrap()).collect();
                index.apply_port(port);
            }
            News::Gone(number, uid) => index.remove_port(&key(number), uid.map(|uid| uid.to_string()).as_deref()),
            News::Listed(keys) => drop(index.retain_ports(&keys.into_iter().map(key).collect())),
        }
    }

    proptest! {
        #[test]
        fn a_port_is_held_as_long_as_a_kuryr_port_has_it(history in proptest::collection::vec(news(), 0..60)) {
            let index = Index::default();
            for news in history {
                tell(&index, news);
                let known = (0..4).map(|number| index.get(&key(number)));
                let has = known.flat_map(|known| {
                    let readable = known.port.iter().flat_map(|port| port.port_ids().collect::<Vec<_>>());
                    readable.chain(known.odd.iter().flat_map(|odd| odd.ports.clone())).collect::<Vec<_>>()
                });
                let has: HashSet<PortId> = has.collect();
                prop_assert_eq!(&index.held(), &has);
                for number in 0..5 {
                    prop_assert_eq!(index.holds(id(number)), has.contains(&id(number)));
                }
            }
        }
    }
}
