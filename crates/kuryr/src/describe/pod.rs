//! `kuryr describe pod`

use crate::output::Output;
use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, ResourceExt, api::ListParams};
use kuryr_model::{
    KuryrPort, MacAddress, NetworkId, ObjectKey, PortId, Purpose, SecurityGroupId, SegmentationId, TrunkId, Vif,
    kuryr_port::{AttachmentState, CONDITION_ALLOCATED},
    neutron::{AddressPair, Port, PortStatus, SecurityGroup, Trunk, TrunkStatus},
    vif::PlugDriver,
};
use kuryr_openstack::{Cloud, Filter};
use kuryr_plan::nested::pairs_of;
use serde::Serialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    net::IpAddr,
};

/// What was read of one pod.
struct Seen {
    key: ObjectKey,
    pod: Option<Pod>,
    held: Option<KuryrPort>,
    /// Its ports, and those of the machine that carries them.
    ports: BTreeMap<PortId, Port>,
    groups: BTreeMap<SecurityGroupId, SecurityGroup>,
    trunks: Vec<Trunk>,
    /// What ports of machines may use beside their own addresses.
    pairs: BTreeMap<PortId, Vec<AddressPair>>,
}

/// All that is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    pod: String,
    uid: String,
    node: String,
    phase: String,
    /// Why it has no port; or that it needs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    without_port: Option<String>,
    /// What the node says.
    #[serde(skip_serializing_if = "Option::is_none")]
    attachment: Option<AttachmentState>,
    interfaces: Vec<InterfaceRow>,
    /// Where Neutron differs from what the pod was given.
    differences: Vec<String>,
    notes: Vec<String>,
    /// It has what it should have, or is to have nothing.
    right: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct InterfaceRow {
    name: String,
    port_id: PortId,
    /// As Neutron has it; absent: it is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<PortStatus>,
    /// It is one of a pool.
    pooled: bool,
    network_id: NetworkId,
    mac: MacAddress,
    mtu: u32,
    addresses: Vec<String>,
    driver: PlugDriver,
    #[serde(skip_serializing_if = "Option::is_none")]
    machine: Option<MachineRow>,
    groups: Vec<String>,
}

/// The port of the virtual machine that the node is, and what the pod is on it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MachineRow {
    parent_port_id: PortId,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_status: Option<PortStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vlan: Option<SegmentationId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trunk_id: Option<TrunkId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trunk_status: Option<TrunkStatus>,
}

/// Prints one pod's ports. True: all is as it should be.
pub(super) async fn describe(
    key: &ObjectKey,
    output: Output,
    cloud: &Cloud,
    client: &Client,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let description = description(&look(key, cloud, client).await?);
    output.print(&description, text, out)?;
    Ok(description.right)
}

async fn look(key: &ObjectKey, cloud: &Cloud, client: &Client) -> anyhow::Result<Seen> {
    // Listed: who may run this may not need to read single ones.
    let (all, namespace) = (ListParams::default(), &*key.namespace);
    let pods = Api::<Pod>::namespaced(client.clone(), namespace).list(&all).await.context("pods cannot be listed")?;
    let held = Api::<KuryrPort>::namespaced(client.clone(), namespace).list(&all).await;
    let held = held.context("KuryrPorts cannot be listed (are the definitions applied? kuryr crds --apply)")?;
    let pod = pods.items.into_iter().find(|pod| pod.name_any() == key.name);
    let held = held.items.into_iter().find(|held| held.key() == *key);
    anyhow::ensure!(pod.is_some() || held.is_some(), "there is no pod {key}");

    let vifs: Vec<&Vif> = held.iter().flat_map(|held| &held.spec.vifs).collect();
    let parents = |shares: bool| {
        let parents = vifs.iter().filter(move |vif| vif.plug.driver.shares_port() == shares);
        parents.filter_map(|vif| vif.plug.parent).map(|parent| parent.port_id).collect::<BTreeSet<PortId>>()
    };
    let (trunked, sharing) = (parents(false), parents(true));
    let network = cloud.network();
    let parents = trunked.iter().chain(&sharing).copied();
    let ids: BTreeSet<PortId> = vifs.iter().map(|vif| vif.port_id).chain(parents).collect();
    let ports = if ids.is_empty() {
        Vec::new()
    } else {
        network.ports().list(&Filter::new().any("id", ids)).await.context("ports cannot be listed")?
    };
    let groups: BTreeSet<SecurityGroupId> =
        ports.iter().flat_map(|port| port.security_groups.iter().copied()).collect();
    let groups = if groups.is_empty() {
        Vec::new()
    } else {
        let some = Filter::new().any("id", groups);
        network.security_groups().list(&some).await.context("security groups cannot be listed")?
    };
    let trunks = if trunked.is_empty() {
        Vec::new()
    } else {
        network.trunks().list(&Filter::new().any("port_id", trunked)).await.context("trunks cannot be listed")?
    };
    let mut pairs = BTreeMap::new();
    for parent in sharing {
        match network.address_pairs(parent).await {
            Ok(there) => drop(pairs.insert(parent, there.pairs)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error).with_context(|| format!("port {parent} cannot be read")),
        }
    }
    Ok(Seen {
        key: key.clone(),
        pod,
        held,
        ports: ports.into_iter().map(|port| (port.id, port)).collect(),
        groups: groups.into_iter().map(|group| (group.id, group)).collect(),
        trunks,
        pairs,
    })
}

fn description(seen: &Seen) -> Description {
    let Seen { key, pod, held, .. } = seen;
    let spec = pod.as_ref().and_then(|pod| pod.spec.as_ref());
    let status = pod.as_ref().and_then(|pod| pod.status.as_ref());
    let phase = status.and_then(|status| status.phase.clone());
    let vifs = held.as_ref().map(|held| &*held.spec.vifs).unwrap_or_default();
    let needs_none = if spec.is_some_and(|spec| spec.host_network == Some(true)) {
        Some("it uses the network of its node")
    } else if vifs.is_empty() && phase.as_deref().is_some_and(|phase| matches!(phase, "Succeeded" | "Failed")) {
        Some("it is completed")
    } else {
        None
    };
    let without_port = needs_none.map(str::to_owned).or_else(|| vifs.is_empty().then(|| why_none(seen)));
    let mut differences: Vec<String> = vifs.iter().flat_map(|vif| differences(seen, vif)).collect();
    let uid = pod.as_ref().and_then(ResourceExt::uid);
    if let (Some(held), Some(uid)) = (held, &uid)
        && held.spec.pod_uid.as_str() != uid
    {
        differences
            .push(format!("the ports are those of an earlier pod of this name ({})", held.spec.pod_uid.as_str()));
    }
    let node = held.as_ref().map(|held| held.spec.node_name.clone());
    let notes = vifs
        .iter()
        .filter(|vif| vif.plug.driver.shares_port())
        .map(|vif| format!("{} shares the port of its machine: no NetworkPolicy holds for the pod", vif.interface));
    Description {
        pod: key.to_string(),
        uid: uid.or_else(|| held.as_ref().map(|held| held.spec.pod_uid.to_string())).unwrap_or_default(),
        node: node.or_else(|| spec.and_then(|spec| spec.node_name.clone())).unwrap_or_default(),
        phase: phase.unwrap_or_else(|| if pod.is_some() { "Unknown" } else { "gone" }.to_owned()),
        attachment: held.as_ref().and_then(KuryrPort::attachment_state),
        interfaces: vifs.iter().map(|vif| interface(seen, vif)).collect(),
        notes: notes.collect(),
        right: differences.is_empty() && (needs_none.is_some() || without_port.is_none()),
        without_port,
        differences,
    }
}

/// Why a pod has no port yet.
fn why_none(seen: &Seen) -> String {
    let Some(held) = &seen.held else { return "it has no KuryrPort yet".to_owned() };
    match held.unallocated_reason() {
        Some(condition) => format!("{}: {}", condition.reason, condition.message),
        None => format!("its KuryrPort has none, and no condition {CONDITION_ALLOCATED} says why"),
    }
}

fn interface(seen: &Seen, vif: &Vif) -> InterfaceRow {
    let port = seen.ports.get(&vif.port_id);
    let group = |id: &SecurityGroupId| {
        let name = seen.groups.get(id).map(|group| group.name.as_str()).filter(|name| !name.is_empty());
        name.map_or_else(|| id.to_string(), |name| format!("{name} ({id})"))
    };
    let pooled = |port: &Port| port.tags.iter().any(|tag| matches!(tag.parse(), Ok(Purpose::Pool)));
    InterfaceRow {
        name: vif.interface.clone(),
        port_id: vif.port_id,
        status: port.map(|port| port.status),
        pooled: port.is_some_and(pooled),
        network_id: vif.network_id,
        mac: vif.mac,
        mtu: vif.mtu,
        addresses: vif.addresses.iter().map(|address| format!("{}/{}", address.ip, address.prefix_length)).collect(),
        driver: vif.plug.driver,
        machine: vif.plug.parent.map(|parent| {
            let trunk = trunk(seen, vif);
            MachineRow {
                parent_port_id: parent.port_id,
                parent_status: seen.ports.get(&parent.port_id).map(|port| port.status),
                vlan: vif.plug.vlan,
                trunk_id: trunk.map(|trunk| trunk.id),
                trunk_status: trunk.map(|trunk| trunk.status),
            }
        }),
        groups: port.iter().flat_map(|port| &port.security_groups).map(group).collect(),
    }
}

fn trunk<'a>(seen: &'a Seen, vif: &Vif) -> Option<&'a Trunk> {
    let parent = vif.plug.parent?.port_id;
    let carried = !vif.plug.driver.shares_port();
    seen.trunks.iter().find(|trunk| carried && trunk.port_id == parent)
}

/// Where Neutron differs from what a pod's interface was made of.
fn differences(seen: &Seen, vif: &Vif) -> Vec<String> {
    let id = vif.port_id;
    let Some(port) = seen.ports.get(&id) else { return vec![format!("Neutron has no port {id}")] };
    let mut all = Vec::new();
    let there: BTreeSet<IpAddr> = port.fixed_ips.iter().map(|fixed| fixed.ip_address).collect();
    let own: BTreeSet<IpAddr> = vif.addresses.iter().map(|address| address.ip).collect();
    // With ipvlan it has the machine's Ethernet address.
    if there != own || port.mac_address != vif.mac && vif.plug.driver != PlugDriver::Ipvlan {
        let there: Vec<String> = there.iter().map(ToString::to_string).collect();
        all.push(format!("port {id} has {} with {} in Neutron", there.join(", "), port.mac_address));
    }
    let attached = seen.held.as_ref().and_then(KuryrPort::attachment_state) == Some(AttachmentState::Attached);
    if attached && port.status != PortStatus::Active && !vif.plug.driver.shares_port() {
        all.push(format!("port {id} is {}: its packets do not pass", word(port.status)));
    }
    if let Some(parent) = vif.plug.parent.map(|parent| parent.port_id) {
        all.extend(on_machine(seen, vif, parent));
    }
    all
}

/// The same of what a pod is on the port of its machine.
fn on_machine(seen: &Seen, vif: &Vif, parent: PortId) -> Vec<String> {
    let Some(port) = seen.ports.get(&parent) else {
        return vec![format!("Neutron has no port {parent}, which was the machine's")];
    };
    let mut all = Vec::new();
    if port.status != PortStatus::Active {
        all.push(format!("port {parent} of the machine is {}", word(port.status)));
    }
    if vif.plug.driver.shares_port() {
        let pairs = seen.pairs.get(&parent).map(Vec::as_slice).unwrap_or_default();
        let there = |(ip, mac): &(IpAddr, MacAddress)| {
            pairs.iter().any(|pair| pair.ip() == Some(*ip) && pair.mac_address == *mac)
        };
        let missing = pairs_of(vif).into_iter().filter(|used| !there(used));
        all.extend(missing.map(|(ip, mac)| format!("port {parent} of the machine may not use {ip} with {mac}")));
        return all;
    }
    let Some(trunk) = trunk(seen, vif) else {
        all.push(format!("port {parent} of the machine is no trunk's parent: the pod is cut off"));
        return all;
    };
    if !trunk.admin_state_up {
        all.push(format!("trunk {} is switched off", trunk.id));
    }
    let there = trunk.sub_ports.iter().find(|subport| subport.port_id == vif.port_id);
    match (there.map(|there| there.segmentation_id), vif.plug.vlan.map(|id| u32::from(id.get()))) {
        (there, said) if there == said => {}
        (Some(there), _) => all.push(format!("port {} has VLAN id {there} on trunk {}", vif.port_id, trunk.id)),
        (None, _) => all.push(format!("port {} is not on trunk {}: the pod is cut off", vif.port_id, trunk.id)),
    }
    all
}

fn word(status: PortStatus) -> &'static str {
    match status {
        PortStatus::Active => "ACTIVE",
        PortStatus::Down => "DOWN",
        PortStatus::Build => "BUILD",
        PortStatus::Error => "ERROR",
        PortStatus::Unknown => "in no known state",
    }
}

fn trunk_word(status: TrunkStatus) -> &'static str {
    match status {
        TrunkStatus::Active => "ACTIVE",
        TrunkStatus::Down => "DOWN",
        TrunkStatus::Build => "BUILD",
        TrunkStatus::Degraded => "DEGRADED",
        TrunkStatus::Error => "ERROR",
        TrunkStatus::Unknown => "in no known state",
    }
}

fn text(description: &Description, out: &mut dyn Write) -> anyhow::Result<()> {
    let Description { pod, uid, node, phase, .. } = description;
    let on = if node.is_empty() { "on no node yet".to_owned() } else { format!("on node {node}") };
    writeln!(out, "Pod {pod}  {phase} {on}  UID {uid}")?;
    if let Some(why) = &description.without_port {
        writeln!(out, "  no port: {why}")?;
    }
    if !description.interfaces.is_empty() {
        let said = match description.attachment {
            Some(AttachmentState::Attached) => "attached",
            Some(AttachmentState::Released) => "released",
            None => "not attached yet",
        };
        writeln!(out, "  the node says: {said}")?;
    }
    for row in &description.interfaces {
        let status = row.status.map_or("MISSING", word);
        let pooled = if row.pooled { ", of a pool" } else { "" };
        writeln!(out, "  {}  port {}  {status}{pooled}", row.name, row.port_id)?;
        writeln!(out, "    {}  {}  MTU {}  network {}", row.addresses.join(", "), row.mac, row.mtu, row.network_id)?;
        writeln!(
            out,
            "    plugged as {}{}",
            row.driver.as_str(),
            row.machine.as_ref().map(on_parent).unwrap_or_default()
        )?;
        writeln!(
            out,
            "    security groups: {}",
            if row.groups.is_empty() { "(none)".to_owned() } else { row.groups.join(", ") }
        )?;
    }
    for line in &description.differences {
        writeln!(out, "  WRONG: {line}")?;
    }
    for line in &description.notes {
        writeln!(out, "  note: {line}")?;
    }
    Ok(())
}

fn on_parent(machine: &MachineRow) -> String {
    let MachineRow { parent_port_id, parent_status, vlan, trunk_id, trunk_status } = machine;
    let vlan = vlan.map(|id| format!(" {id}")).unwrap_or_default();
    let trunk = trunk_id.map(|id| {
        let status = trunk_status.map_or("", trunk_word);
        format!(" of trunk {id} {status}")
    });
    let parent = parent_status.map_or("MISSING", word);
    format!("{vlan}{}, machine's port {parent_port_id} {parent}", trunk.unwrap_or_default())
}

#[cfg(test)]
#[path = "pod_tests.rs"]
mod tests;
