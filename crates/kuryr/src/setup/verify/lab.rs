//! The ports of the test, plugged, and the groups that they carry.

use super::probe::{self, Outcome, Probe, Servers};
use anyhow::{Context as _, ensure};
use futures::future::{join_all, try_join_all};
use kuryr_model::{
    AddressGroupId, DEVICE_OWNER, PortId, SecurityGroupId, SecurityGroupRuleId, Vif,
    neutron::{Direction, EtherType, Network, Port, RuleContent, Subnet},
};
use kuryr_node::{
    netns::Anonymous,
    plug::{PlugConfig, Plugger, Sandbox},
};
use kuryr_openstack::{
    Filter, Network as Neutron,
    network::{
        NewPort, PortUpdate,
        security_groups::{NewRule, NewSecurityGroup},
    },
};
use kuryr_plan::vif::vif;
use std::{net::IpAddr, time::Duration};
use tokio::time::Instant;

/// Whose the host ends are.
const SANDBOX: &str = "kuryr-verify";
const INTERFACE: &str = "eth0";
/// How long the data plane may take to have a new port.
const PLUG: Duration = Duration::from_secs(60);

/// The ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Server = 0,
    Member = 1,
    Other = 2,
}

/// The groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// What the server lets in.
    Into = 0,
    /// What the member lets out.
    Out = 1,
    /// Lets everything out, and is carried by the other.
    Free = 2,
    /// Has no rules: rules name it.
    Peers = 3,
}

const ROLES: [(Role, &[Group]); 3] =
    [(Role::Server, &[Group::Into]), (Role::Member, &[Group::Out]), (Role::Other, &[Group::Free])];
const GROUPS: usize = 4;

#[derive(Debug)]
struct Plugged {
    port: PortId,
    addresses: Vec<IpAddr>,
    vif: Vif,
    netns: Anonymous,
}

/// All that is made for the test.
pub(super) struct Lab {
    neutron: Neutron,
    name: String,
    plugger: Plugger,
    groups: Vec<SecurityGroupId>,
    rules: Vec<(Group, SecurityGroupRuleId)>,
    plugged: Vec<Plugged>,
    servers: Option<Servers>,
}

impl Lab {
    /// Nothing is made yet.
    pub(super) fn new(neutron: Neutron, name: String, plug: PlugConfig) -> anyhow::Result<Self> {
        // The first thing that needs more than an ordinary user may do.
        Anonymous::new().context(
            "kuryr setup --verify sends packets from network namespaces: run it as root, on a node of the cluster",
        )?;
        let plugger = Plugger::new(plug);
        let (groups, rules, plugged) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { neutron, name, plugger, groups, rules, plugged, servers: None })
    }

    /// Makes groups and ports, and plugs them: afterwards the server lets nothing in, and the others everything out.
    pub(super) async fn build(&mut self, network: &Network, subnets: &[Subnet], host: &str) -> anyhow::Result<()> {
        let new = NewSecurityGroup { name: self.name.clone(), ..NewSecurityGroup::default() };
        for _ in 0..GROUPS {
            let group = self.neutron.security_groups().create(&new).await.context("no security group can be made")?;
            self.groups.push(group.id);
            for rule in group.rules {
                // Those that let everything out.
                self.neutron.security_groups().delete_rule(rule.id).await?;
            }
        }
        let ports = ROLES.map(|(_, groups)| NewPort {
            name: self.name.clone(),
            device_owner: DEVICE_OWNER.to_owned(),
            device_id: self.name.clone(),
            host_id: Some(host.to_owned()),
            fixed_ips: subnets.iter().map(|subnet| subnet.id.into()).collect(),
            security_groups: groups.iter().map(|group| self.id(*group)).collect(),
            ..NewPort::new(network.id)
        });
        let ports = self.neutron.ports().create_many(&ports).await.context("no ports can be made")?;
        ensure!(ports.len() == ROLES.len(), "Neutron made {} ports of {}", ports.len(), ROLES.len());
        let everything = subnets_families(subnets);
        let everything: Vec<RuleContent> =
            everything.iter().map(|family| RuleContent::everything(Direction::Egress, *family)).collect();
        for group in [Group::Out, Group::Free] {
            self.allow(group, &everything).await?;
        }
        for port in &ports {
            let plugged = self.plug(port, network, subnets).await;
            self.plugged.push(plugged.context("the node cannot plug the test's ports (--host names another node?)")?);
        }
        let server = self.at(Role::Server);
        self.servers =
            Some(Servers::start(server.netns.path(), &server.addresses).context("no server can be started")?);
        Ok(())
    }

    async fn plug(&self, port: &Port, network: &Network, subnets: &[Subnet]) -> anyhow::Result<Plugged> {
        let vif = vif(INTERFACE, port, network, subnets)?;
        let netns = Anonymous::new()?;
        let sandbox = Sandbox { container_id: SANDBOX.to_owned(), netns: netns.path().to_owned() };
        self.plugger.plug(&vif, &sandbox, Instant::now() + PLUG).await?;
        let addresses = vif.addresses.iter().map(|address| address.ip).collect();
        Ok(Plugged { port: port.id, addresses, vif, netns })
    }

    fn at(&self, role: Role) -> &Plugged {
        &self.plugged[role as usize]
    }

    fn id(&self, group: Group) -> SecurityGroupId {
        self.groups[group as usize]
    }

    /// The addresses of a port.
    pub(super) fn addresses(&self, role: Role) -> &[IpAddr] {
        &self.at(role).addresses
    }

    /// The families of addresses.
    pub(super) fn families(&self) -> Vec<EtherType> {
        self.addresses(Role::Server).iter().map(|address| family(*address)).collect()
    }

    /// Adds rules to a group.
    pub(super) async fn allow(&mut self, group: Group, rules: &[RuleContent]) -> anyhow::Result<()> {
        let id = self.id(group);
        let new: Vec<NewRule> =
            rules.iter().map(|allows| NewRule { security_group_id: id, allows: allows.clone() }).collect();
        let made = self.neutron.security_groups().create_rules(&new).await.context("no rules can be made")?;
        self.rules.extend(made.into_iter().map(|rule| (group, rule.id)));
        Ok(())
    }

    /// Adds a rule whose other side is an address group.
    pub(super) async fn admit(&mut self, rule: &RuleContent, addresses: AddressGroupId) -> anyhow::Result<()> {
        let made = self.neutron.address_groups().admit(self.id(Group::Into), rule, addresses).await?;
        self.rules.push((Group::Into, made.id));
        Ok(())
    }

    /// Takes all rules of a group away.
    pub(super) async fn forbid(&mut self, group: Group) -> anyhow::Result<()> {
        let (gone, kept) = std::mem::take(&mut self.rules).into_iter().partition(|(of, _)| *of == group);
        self.rules = kept;
        let gone: Vec<(Group, SecurityGroupRuleId)> = gone;
        let groups = self.neutron.security_groups();
        try_join_all(gone.iter().map(|(_, rule)| groups.delete_rule(*rule)))
            .await
            .context("a rule cannot be deleted")?;
        Ok(())
    }

    /// Gives a port other groups.
    pub(super) async fn carry(&self, role: Role, groups: &[Group]) -> anyhow::Result<()> {
        let ids = groups.iter().map(|group| self.id(*group)).collect();
        let change = PortUpdate { security_groups: Some(ids), ..PortUpdate::default() };
        self.neutron
            .ports()
            .update(self.at(role).port, &change, None)
            .await
            .context("a port's groups cannot be changed")?;
        Ok(())
    }

    /// The group, as rules name it.
    pub(super) fn named(&self, group: Group) -> SecurityGroupId {
        self.id(group)
    }

    /// Neutron, for what only one check needs.
    pub(super) fn neutron(&self) -> &Neutron {
        &self.neutron
    }

    /// What all that is made is named.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Tries once to get from a port to the server, at every family.
    pub(super) async fn try_once(&self, from: Role, probe: Probe) -> anyhow::Result<Vec<Outcome>> {
        let server = self.addresses(Role::Server);
        let tried = server.iter().map(|to| probe::send(self.at(from).netns.path(), *to, probe));
        try_join_all(tried).await
    }

    /// Opens connections from a port to the server, one of each family.
    pub(super) async fn connect(&self, from: Role, number: u16) -> anyhow::Result<Vec<std::net::TcpStream>> {
        let server = self.addresses(Role::Server);
        try_join_all(server.iter().map(|to| probe::connect(self.at(from).netns.path(), *to, number))).await
    }

    /// Removes all that carries the name, of this run and of earlier ones.
    pub(super) async fn clear(&mut self) -> anyhow::Result<()> {
        self.servers = None;
        let mut failed: Vec<String> = Vec::new();
        for Plugged { vif, netns, .. } in std::mem::take(&mut self.plugged) {
            let sandbox = Sandbox { container_id: SANDBOX.to_owned(), netns: netns.path().to_owned() };
            failed.extend(self.plugger.unplug(&vif, &sandbox).await.err().map(|error| error.to_string()));
        }
        // Of a run that was killed.
        for end in self.plugger.list().await.context("the node's interfaces cannot be listed")? {
            if end.owner.container_id == SANDBOX {
                failed.extend(self.plugger.remove(&end).await.err().map(|error| error.to_string()));
            }
        }
        let by_name = Filter::new().with("name", &self.name);
        let (ports, groups) = (self.neutron.ports(), self.neutron.security_groups());
        let told = |done: Vec<Result<(), kuryr_openstack::Error>>| {
            done.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect::<Vec<_>>()
        };
        let left = ports.list(&by_name).await?;
        failed.extend(told(join_all(left.iter().map(|port| ports.delete(port.id))).await));
        let left = groups.list(&by_name).await?;
        // Rules first: those that name another group would hold that.
        let rules = left.iter().flat_map(|group| &group.rules);
        failed.extend(told(join_all(rules.map(|rule| groups.delete_rule(rule.id))).await));
        failed.extend(told(join_all(left.iter().map(|group| groups.delete(group.id))).await));
        // A cloud without address groups has none of that name.
        for id in self.neutron.address_groups().named(&self.name).await.unwrap_or_default() {
            failed.extend(self.neutron.address_groups().delete(id).await.err().map(|error| error.to_string()));
        }
        self.groups.clear();
        self.rules.clear();
        ensure!(failed.is_empty(), "{}", failed.join("; "));
        Ok(())
    }
}

/// The family of an address.
pub(super) fn family(address: IpAddr) -> EtherType {
    if address.is_ipv4() { EtherType::IPv4 } else { EtherType::IPv6 }
}

fn subnets_families(subnets: &[Subnet]) -> Vec<EtherType> {
    subnets.iter().map(|subnet| family(subnet.cidr.addr())).collect()
}
