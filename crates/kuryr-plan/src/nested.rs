//! Nodes that are virtual machines: which Neutron port is the machine's, and what its pods are plugged as.
//!
//! ```text
//!   annotations, addresses, provider id of a Node ──Machine::read──▶ Machine ──question──▶ what to list of Neutron's ports
//!                                                                       └── parent ◀── ports, trunks ── Neutron
//! ```

use crate::{
    pairs::Used,
    vif::{VifError, describe},
};
use kuryr_model::{
    NESTED_ANNOTATION, NetworkId, PARENT_PORT_ANNOTATION, Parent, Plug, PortId, TrunkId, Vif,
    neutron::{Network, Port, Subnet, Trunk},
    vif::PlugDriver,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// What a node that is a virtual machine says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// How its pods are plugged: `vlan`, `macvlan` or `ipvlan`.
    pub driver: PlugDriver,
    /// The port that somebody says is its own.
    pub said: Option<PortId>,
    /// Nova's id of the machine.
    pub server: Option<String>,
    /// Its addresses, as kubelet or a cloud provider tells them.
    pub addresses: Vec<IpAddr>,
}

/// What a Node says of itself cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// There is no such kind of nested pod.
    #[error(
        "annotation {NESTED_ANNOTATION} is {0:?}; use vlan, macvlan or ipvlan, or none if the node is no virtual machine"
    )]
    Driver(String),
    /// That is no id.
    #[error("annotation {PARENT_PORT_ANNOTATION} is {0:?}, which is no id of a Neutron port")]
    Port(String),
}

/// What to ask Neutron for, to find a machine's port: the ports of a list with this filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// The port with this id.
    Id(PortId),
    /// The ports with this `device_id`.
    Device(String),
    /// The ports that have one of these addresses.
    Addresses(Vec<IpAddr>),
}

/// Why a machine's port is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParentError {
    /// There is nothing to find it by.
    #[error(
        "the node has neither addresses nor a provider id of OpenStack; set annotation {PARENT_PORT_ANNOTATION} to the id of its port"
    )]
    Nothing,
    /// No port fits.
    #[error(
        "Neutron shows no port with {0}; is the node a virtual machine of this cloud? Else set annotation {PARENT_PORT_ANNOTATION} to the id of its port"
    )]
    NoPort(String),
    /// The one that somebody says it is, is not there.
    #[error(
        "Neutron shows no port {0}, which annotation {PARENT_PORT_ANNOTATION} of the node names; set it to the id of the machine's port"
    )]
    NotThere(PortId),
    /// None of its ports is a trunk's parent.
    #[error("none of the node's ports ({}) is the parent of a trunk; make one: openstack network trunk create --parent-port {} NAME", list(.0), .0.first().map_or_else(String::new, ToString::to_string))]
    NoTrunk(Vec<PortId>),
    /// The pods of such a machine are on its own port's network, and there is no pod subnet.
    #[error(
        "pods of kind {} are on the network of the node's port {port}, and no pod subnet is on that ({network}); add one to [network] pod_subnets, or use kind vlan",
        .driver.as_str()
    )]
    NoSubnet {
        /// How its pods are plugged.
        driver: PlugDriver,
        /// Its port.
        port: PortId,
        /// The port's network.
        network: NetworkId,
    },
    /// Several ports fit.
    #[error("the node has several ports that could carry its pods ({}); set annotation {PARENT_PORT_ANNOTATION} to one of them", list(.0))]
    Several(Vec<PortId>),
}

fn list(ports: &[PortId]) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The port through which a machine reaches its network, and what its pods are on there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The port.
    pub parent: Parent,
    /// Its network.
    pub network: NetworkId,
    /// What its pods are.
    pub pods: Pods,
}

/// What the pods of a machine are in Neutron.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pods {
    /// Subports of this trunk.
    Subports(TrunkId),
    /// Addresses that the machine's port may use, each with an Ethernet address of its own (`macvlan`).
    Pairs,
    /// The same with the machine's Ethernet address (`ipvlan`).
    Addresses,
}

impl Machine {
    /// Reads what a Node says, where one that says nothing is plugged as `default`; `None` if it is no virtual machine whose pods
    /// are nested.
    ///
    /// # Errors
    /// It says something that cannot be.
    pub fn read(
        annotations: &BTreeMap<String, String>,
        default: Option<PlugDriver>,
        provider_id: Option<&str>,
        addresses: impl IntoIterator<Item = IpAddr>,
    ) -> Result<Option<Self>, MachineError> {
        let driver = match annotations.get(NESTED_ANNOTATION) {
            None => default,
            Some(kind) if kind == "none" => None,
            Some(kind) => Some(driver(kind).ok_or_else(|| MachineError::Driver(kind.clone()))?),
        };
        let Some(driver) = driver else { return Ok(None) };
        let said = annotations
            .get(PARENT_PORT_ANNOTATION)
            .map(|text| text.parse().map_err(|_| MachineError::Port(text.clone())))
            .transpose()?;
        let server = provider_id.and_then(server_of);
        Ok(Some(Self { driver, said, server, addresses: addresses.into_iter().collect() }))
    }

    /// What to ask Neutron for. What is said counts; then Nova's id, which is certain; then addresses, which other networks may have, too.
    ///
    /// # Errors
    /// There is nothing to find it by.
    pub fn question(&self) -> Result<Question, ParentError> {
        match (&self.said, &self.server) {
            (Some(port), _) => Ok(Question::Id(*port)),
            (None, Some(server)) => Ok(Question::Device(server.clone())),
            (None, None) if self.addresses.is_empty() => Err(ParentError::Nothing),
            (None, None) => Ok(Question::Addresses(self.addresses.clone())),
        }
    }

    /// The machine's port among those that Neutron has shown for the question, with the trunks of which they are parents.
    ///
    /// # Errors
    /// There is none, or not only one.
    pub fn parent(&self, ports: &[Port], trunks: &[Trunk]) -> Result<Found, ParentError> {
        let trunk_of = |port: &Port| trunks.iter().find(|trunk| trunk.port_id == port.id).map(|trunk| trunk.id);
        let has_address = |port: &&Port| port.fixed_ips.iter().any(|fixed| self.addresses.contains(&fixed.ip_address));
        let mut fitting: Vec<&Port> = ports.iter().filter(|port| self.fits(port)).collect();
        if fitting.is_empty() {
            return Err(self.said.map_or_else(|| ParentError::NoPort(self.known_by()), ParentError::NotThere));
        }
        if self.driver == PlugDriver::Vlan {
            let all: Vec<PortId> = fitting.iter().map(|port| port.id).collect();
            fitting.retain(|port| trunk_of(port).is_some());
            if fitting.is_empty() {
                return Err(ParentError::NoTrunk(all));
            }
        }
        // A machine with several: the one by which Kubernetes knows it.
        if fitting.len() > 1 && fitting.iter().any(has_address) {
            fitting.retain(has_address);
        }
        match *fitting {
            [port] => {
                let pods = match (self.driver, trunk_of(port)) {
                    (PlugDriver::Macvlan, _) => Pods::Pairs,
                    (PlugDriver::Ipvlan, _) => Pods::Addresses,
                    (_, Some(trunk)) => Pods::Subports(trunk),
                    (_, None) => return Err(ParentError::NoTrunk(vec![port.id])),
                };
                let parent = Parent { port_id: port.id, mac: port.mac_address };
                Ok(Found { parent, network: port.network_id, pods })
            }
            _ => Err(ParentError::Several(fitting.iter().map(|port| port.id).collect())),
        }
    }

    /// Whether a port is an answer to the question: Neutron's filters may let through more.
    fn fits(&self, port: &Port) -> bool {
        match (&self.said, &self.server) {
            (Some(said), _) => port.id == *said,
            (None, Some(server)) => port.device_id == *server,
            // A reserved address, or another pod's, is no machine's.
            (None, None) => {
                !port.device_owner.starts_with("network:")
                    && port.device_owner != "trunk:subport"
                    && port.fixed_ips.iter().any(|fixed| self.addresses.contains(&fixed.ip_address))
            }
        }
    }

    fn known_by(&self) -> String {
        match &self.server {
            Some(server) => format!("the device {server}"),
            None => {
                let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
                format!("the address {}", addresses.join(" or "))
            }
        }
    }
}

/// The driver of that name, if it is one of nested pods.
#[must_use]
pub fn driver(name: &str) -> Option<PlugDriver> {
    [PlugDriver::Vlan, PlugDriver::Macvlan, PlugDriver::Ipvlan].into_iter().find(|driver| driver.as_str() == name)
}

/// Nova's id in a Node's provider id: `openstack:///<id>`, or `openstack://<region>/<id>`.
fn server_of(provider_id: &str) -> Option<String> {
    let (_, id) = provider_id.strip_prefix("openstack://")?.rsplit_once('/')?;
    (!id.is_empty()).then(|| id.to_owned())
}

/// The VIF named `interface` for the port of a pod on a machine. A subport's id is to be added when the port is on its trunk.
///
/// # Errors
/// [`VifError`] if the port has no usable address. How it is bound does not matter: the machine's port is.
pub fn nested_vif(
    interface: &str,
    port: &Port,
    network: &Network,
    subnets: &[Subnet],
    found: &Found,
) -> Result<Vif, VifError> {
    let driver = match found.pods {
        Pods::Subports(_) => PlugDriver::Vlan,
        Pods::Pairs => PlugDriver::Macvlan,
        Pods::Addresses => PlugDriver::Ipvlan,
    };
    let plug = Plug { driver, bridge: None, parent: Some(found.parent), vlan: None };
    let mut vif = describe(interface, port, network, subnets, plug)?;
    if found.pods == Pods::Addresses {
        vif.mac = found.parent.mac;
    }
    Ok(vif)
}

/// What the machine's port must be allowed for a VIF that shares it; nothing for others.
#[must_use]
pub fn pairs_of(vif: &Vif) -> BTreeSet<Used> {
    match vif.plug.driver {
        PlugDriver::Macvlan | PlugDriver::Ipvlan => vif.addresses.iter().map(|address| (address.ip, vif.mac)).collect(),
        PlugDriver::Ovs | PlugDriver::Bridge | PlugDriver::Tap | PlugDriver::Vlan => BTreeSet::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kuryr_model::{
        MacAddress, SubnetId,
        neutron::{FixedIp, PortStatus, TrunkStatus, VifDetails},
    };
    use uuid::Uuid;

    fn port(n: u128, device: &str, address: &str) -> Port {
        Port {
            id: PortId(Uuid::from_u128(n)),
            network_id: NetworkId(Uuid::nil()),
            mac_address: MacAddress([2, 0, 0, 0, 0, u8::try_from(n).unwrap()]),
            name: String::new(),
            fixed_ips: vec![FixedIp { subnet_id: SubnetId(Uuid::nil()), ip_address: address.parse().unwrap() }],
            security_groups: vec![],
            status: PortStatus::Active,
            device_owner: "compute:nova".into(),
            device_id: device.into(),
            tags: vec![],
            revision_number: 1,
            host_id: String::new(),
            vif_type: String::new(),
            vif_details: VifDetails::default(),
        }
    }

    fn trunk(port: u128) -> Trunk {
        Trunk {
            id: TrunkId(Uuid::from_u128(port + 100)),
            name: String::new(),
            port_id: PortId(Uuid::from_u128(port)),
            status: TrunkStatus::Active,
            admin_state_up: true,
            sub_ports: vec![],
            tags: vec![],
        }
    }

    fn machine(annotations: &[(&str, &str)], provider: Option<&str>, addresses: &[&str]) -> Machine {
        let annotations = [&[(NESTED_ANNOTATION, "vlan")], annotations].concat();
        let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Machine::read(&annotations, None, provider, addresses.iter().map(|a| a.parse().unwrap())).unwrap().unwrap()
    }

    fn found(machine: &Machine, ports: &[Port], trunks: &[Trunk]) -> Result<u128, ParentError> {
        machine.parent(ports, trunks).map(|found| found.parent.port_id.0.as_u128())
    }

    #[test]
    fn a_node_is_a_machine_if_it_says_so() {
        assert_eq!(Machine::read(&BTreeMap::new(), None, Some("openstack:///x"), []), Ok(None));
        let said = |kind: &str| [(NESTED_ANNOTATION.to_owned(), kind.to_owned())].into();
        assert_eq!(Machine::read(&said("ipvlan"), None, None, []).unwrap().unwrap().driver, PlugDriver::Ipvlan);
        let all = Some(PlugDriver::Vlan);
        assert_eq!(Machine::read(&BTreeMap::new(), all, None, []).unwrap().unwrap().driver, PlugDriver::Vlan);
        assert_eq!(Machine::read(&said("none"), all, None, []), Ok(None));
        let wrong = Machine::read(&said("tap"), None, None, []).unwrap_err();
        assert!(wrong.to_string().contains("use vlan, macvlan or ipvlan"), "{wrong}");
        let mut bad: BTreeMap<String, String> = said("vlan");
        bad.insert(PARENT_PORT_ANNOTATION.to_owned(), "ens3".to_owned());
        assert!(matches!(Machine::read(&bad, None, None, []), Err(MachineError::Port(text)) if text == "ens3"));
    }

    #[test]
    fn it_is_found_by_what_is_said_then_by_its_server_then_by_its_address() {
        let id = Uuid::from_u128(2).to_string();
        for (machine, question) in [
            (
                machine(&[(PARENT_PORT_ANNOTATION, &id)], Some("openstack:///srv"), &["10.0.0.5"]),
                Question::Id(PortId(Uuid::from_u128(2))),
            ),
            (machine(&[], Some("openstack://RegionOne/srv"), &["10.0.0.5"]), Question::Device("srv".into())),
            (machine(&[], Some("openstack:///srv"), &[]), Question::Device("srv".into())),
            (machine(&[], Some("aws:///srv"), &["10.0.0.5"]), Question::Addresses(vec!["10.0.0.5".parse().unwrap()])),
        ] {
            assert_eq!(machine.question(), Ok(question));
        }
        assert_eq!(machine(&[], Some("openstack:///"), &[]).question(), Err(ParentError::Nothing));
    }

    #[test]
    fn of_several_ports_the_trunks_parent_is_meant_and_then_the_one_that_kubernetes_knows() {
        let ports = [port(1, "srv", "10.0.0.5"), port(2, "srv", "10.1.0.5"), port(3, "other", "10.0.0.5")];
        let by_server = machine(&[], Some("openstack:///srv"), &["10.1.0.5"]);
        assert_eq!(found(&by_server, &ports, &[trunk(1), trunk(3)]), Ok(1));
        assert_eq!(found(&by_server, &ports, &[trunk(1), trunk(2)]), Ok(2));
        let elsewhere = machine(&[], Some("openstack:///srv"), &["192.0.2.1"]);
        let both = vec![ports[0].id, ports[1].id];
        assert_eq!(found(&elsewhere, &ports, &[trunk(1), trunk(2)]), Err(ParentError::Several(both.clone())));
        assert_eq!(found(&elsewhere, &ports, &[trunk(3)]), Err(ParentError::NoTrunk(both)));
        let by_address = machine(&[], None, &["10.0.0.5"]);
        assert_eq!(found(&by_address, &ports, &[trunk(3)]), Ok(3));
        let shared = found(&by_address, &ports, &[trunk(1), trunk(3)]).unwrap_err();
        assert!(shared.to_string().contains("several ports"), "{shared}");
    }

    #[test]
    fn a_reserved_address_or_a_pods_is_no_machines() {
        let mut router = port(1, "r", "10.0.0.5");
        router.device_owner = "network:router_interface".into();
        let mut pod = port(2, "", "10.0.0.5");
        pod.device_owner = "trunk:subport".into();
        let error = found(&machine(&[], None, &["10.0.0.5"]), &[router, pod], &[trunk(1)]).unwrap_err();
        assert!(error.to_string().starts_with("Neutron shows no port with the address 10.0.0.5"), "{error}");
    }

    #[test]
    fn a_port_that_is_said_and_not_there_is_named_with_who_says_it() {
        let said = Uuid::from_u128(7).to_string();
        let machine = machine(&[(PARENT_PORT_ANNOTATION, &said)], Some("openstack:///srv"), &["10.0.0.5"]);
        let error = found(&machine, &[port(1, "srv", "10.0.0.5")], &[trunk(1)]).unwrap_err();
        assert_eq!(error, ParentError::NotThere(PortId(Uuid::from_u128(7))));
        assert!(error.to_string().contains(PARENT_PORT_ANNOTATION), "{error}");
    }

    #[test]
    fn only_vlan_needs_a_trunk() {
        let mut machine = machine(&[], None, &["10.0.0.5"]);
        let ports = [port(1, "srv", "10.0.0.5")];
        let error = found(&machine, &ports, &[]).unwrap_err();
        assert!(error.to_string().contains(&format!("--parent-port {}", ports[0].id)), "{error}");
        machine.driver = PlugDriver::Macvlan;
        let parent = Parent { port_id: ports[0].id, mac: ports[0].mac_address };
        let expected = Found { parent, network: ports[0].network_id, pods: Pods::Pairs };
        assert_eq!(machine.parent(&ports, &[]), Ok(expected));
    }

    #[test]
    fn a_pods_port_becomes_a_vif_however_it_is_bound() {
        let id = NetworkId(Uuid::nil());
        let subnet = serde_json::json!({
            "id": SubnetId(Uuid::nil()), "network_id": id, "name": "", "cidr": "10.0.0.0/24",
        });
        let subnets: Vec<Subnet> = vec![serde_json::from_value(subnet).unwrap()];
        let network: Network = serde_json::from_value(serde_json::json!({"id": id, "mtu": 1442})).unwrap();
        let parent = Parent { port_id: PortId(Uuid::from_u128(9)), mac: MacAddress([9; 6]) };
        let own = port(1, "pod", "10.0.0.5");
        let trunk = Pods::Subports(TrunkId(Uuid::from_u128(109)));
        for (pods, driver, mac) in [
            (trunk, PlugDriver::Vlan, own.mac_address),
            (Pods::Pairs, PlugDriver::Macvlan, own.mac_address),
            (Pods::Addresses, PlugDriver::Ipvlan, parent.mac),
        ] {
            let found = Found { parent, network: id, pods };
            let vif = nested_vif("eth0", &own, &network, &subnets, &found).unwrap();
            assert_eq!((vif.mac, vif.mtu, vif.addresses.len()), (mac, 1442, 1));
            assert_eq!(vif.plug, Plug { driver, bridge: None, parent: Some(parent), vlan: None });
            let pairs = if pods == trunk { [].into() } else { [("10.0.0.5".parse().unwrap(), mac)].into() };
            assert_eq!(pairs_of(&vif), pairs);
        }
    }
}
