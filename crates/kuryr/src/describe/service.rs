//! `kuryr describe service`

use crate::output::Output;
use anyhow::{Context as _, bail};
use kube::Client;
use kuryr_controller::{
    ControllerConfig, policy_survey,
    survey::{Surveyed, survey},
};
use kuryr_model::{
    FloatingIpId, KuryrLoadBalancer, ListenerId, ListenerPoolId, LoadBalancerId, ObjectKey, PortId, Problem, ServiceUid,
};
use kuryr_openstack::Cloud;
use kuryr_plan::service::{Kind, ListenerKey, Members, Place, Role, Tree, summary, summary::TreeSummary};
use serde::Serialize;
use std::{collections::BTreeMap, io::Write, net::IpAddr};

/// All that is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    service: String,
    uid: ServiceUid,
    #[serde(rename = "type")]
    kind: &'static str,
    cluster_ips: Vec<IpAddr>,
    /// What the `KuryrLoadBalancer` says.
    state: String,
    ready: String,
    load_balancers: Vec<TreeRow>,
    #[serde(skip_serializing_if = "Option::is_none")]
    floating_ip: Option<FloatingRow>,
    problems: Vec<Problem>,
    /// The steps that are left from what is there to what should be there.
    left_to_do: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TreeRow {
    role: &'static str,
    id: Option<LoadBalancerId>,
    shared: bool,
    provider: String,
    provisioning_status: Option<&'static str>,
    operating_status: Option<&'static str>,
    vips: Vec<IpAddr>,
    vip_port_id: Option<PortId>,
    listeners: Vec<ListenerRow>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ListenerRow {
    key: String,
    id: Option<ListenerId>,
    pool_id: Option<ListenerPoolId>,
    members: Vec<MemberRow>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct MemberRow {
    address: IpAddr,
    port_number: u16,
    name: String,
    /// As Kubernetes wants it; absent: it should not be there.
    wanted_weight: Option<u16>,
    /// As Octavia has it; absent: it is not there.
    weight: Option<u16>,
    operating_status: Option<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FloatingRow {
    id: FloatingIpId,
    address: IpAddr,
    port_id: Option<PortId>,
}

/// Prints one Service. True: it is as it should be.
pub(super) async fn describe(
    key: &ObjectKey,
    output: Output,
    config: &ControllerConfig,
    cloud: &Cloud,
    client: &Client,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let mut survey = survey(config, cloud, client, Some(key)).await?;
    policy_survey::limit_listeners(client, &mut survey).await?;
    if let Some(why) = survey.off {
        bail!("Services get no load balancers: {why}");
    }
    let surveyed = survey.services.remove(key).with_context(|| format!("there is no Service {key}"))?;
    let description = description(&surveyed, survey.held.get(key));
    output.print(&description, text, out)?;
    Ok(description.left_to_do.is_empty() && description.ready.starts_with("True"))
}

fn description(surveyed: &Surveyed, held: Option<&KuryrLoadBalancer>) -> Description {
    let Surveyed { service, desired, observed, .. } = surveyed;
    let status = held.and_then(|held| held.status.clone()).unwrap_or_default();
    let ready = held.and_then(KuryrLoadBalancer::ready).map(|c| format!("{} {} {}", c.status, c.reason, c.message));
    let summary = summary(desired, observed);
    let nothing = desired.nothing.map(|nothing| format!("True, it needs no load balancer: {nothing:?}"));
    Description {
        service: service.key.to_string(),
        uid: service.uid.clone(),
        kind: match service.kind {
            Kind::ClusterIp => "ClusterIP",
            Kind::NodePort => "NodePort",
            Kind::LoadBalancer => "LoadBalancer",
            Kind::ExternalName => "ExternalName",
        },
        cluster_ips: service.cluster_ips.clone(),
        state: status.state.map(|state| state.as_str().to_owned()).unwrap_or_default(),
        ready: ready
            .or(nothing)
            .unwrap_or_else(|| "False, it has no KuryrLoadBalancer yet".to_owned())
            .trim_end()
            .to_owned(),
        load_balancers: summary.trees.iter().map(|tree| tree_row(tree, surveyed)).collect(),
        floating_ip: summary.floating.map(|ip| FloatingRow { id: ip.id, address: ip.address, port_id: ip.port }),
        problems: status.problems,
        left_to_do: surveyed.plan().steps.iter().map(ToString::to_string).collect(),
    }
}

fn tree_row(tree: &TreeSummary, surveyed: &Surveyed) -> TreeRow {
    let wanted = surveyed.desired.trees.iter().find(|wanted| Some(wanted.role) == tree.role);
    let listeners = tree.listeners.iter().map(|listener| ListenerRow {
        key: listener.key.to_string(),
        id: listener.id,
        pool_id: listener.pool,
        members: members(wanted, listener.key, listener.pool, surveyed),
    });
    TreeRow {
        role: match tree.role {
            Some(Role::Cluster) => "cluster IP",
            Some(Role::SecondFamily) => "second cluster IP",
            Some(Role::External) => "external",
            None => "unwanted",
        },
        id: tree.id,
        shared: wanted.is_some_and(|wanted| matches!(wanted.place, Place::Existing(_))),
        provider: tree.provider.clone(),
        provisioning_status: tree.state.map(|(provisioning, _)| provisioning.as_str()),
        operating_status: tree.state.map(|(_, operating)| operating.as_str()),
        vips: tree.vips.clone(),
        vip_port_id: tree.vip_port,
        listeners: listeners.collect(),
    }
}

/// The members that Kubernetes wants and those that Octavia has, side by side.
fn members(
    wanted: Option<&Tree>,
    key: ListenerKey,
    pool: Option<ListenerPoolId>,
    surveyed: &Surveyed,
) -> Vec<MemberRow> {
    let listener = wanted.and_then(|tree| tree.listeners.iter().find(|listener| listener.key == key));
    let mut rows: BTreeMap<(IpAddr, u16), MemberRow> = BTreeMap::new();
    let row = |address, port_number, name: &str| MemberRow {
        address,
        port_number,
        name: name.to_owned(),
        wanted_weight: None,
        weight: None,
        operating_status: None,
    };
    for member in listener.iter().flat_map(|listener| &listener.pool.members) {
        let row =
            rows.entry((member.address, member.port)).or_insert_with(|| row(member.address, member.port, &member.name));
        row.wanted_weight = Some(member.weight);
    }
    let pools = surveyed.observed.trees.iter().flat_map(|tree| &tree.pools);
    if let Some(Members::Known(known)) =
        pools.into_iter().find(|there| Some(there.pool.id) == pool).map(|there| &there.members)
    {
        for member in known {
            let (address, port) = (member.address, member.protocol_port);
            let row = rows.entry((address, port)).or_insert_with(|| row(address, port, &member.name));
            (row.weight, row.operating_status) = (Some(member.weight), Some(member.operating_status.as_str()));
        }
    }
    rows.into_values().collect()
}

fn or_none<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "(none)".to_owned(), |value| value.to_string())
}

fn list(ips: &[IpAddr]) -> String {
    ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn text(description: &Description, out: &mut dyn Write) -> anyhow::Result<()> {
    let Description { service, uid, kind, cluster_ips, state, ready, .. } = description;
    writeln!(out, "Service {service}  {kind} {}  UID {uid}", list(cluster_ips))?;
    writeln!(out, "  state {}, ready: {ready}", if state.is_empty() { "(none)" } else { state })?;
    for tree in &description.load_balancers {
        let TreeRow { role, id, provider, vips, vip_port_id, shared, .. } = tree;
        let shared = if *shared { ", of somebody else" } else { "" };
        let states =
            [tree.provisioning_status, tree.operating_status].into_iter().flatten().collect::<Vec<_>>().join("/");
        writeln!(out, "  load balancer {}  ({role}{shared}) {provider} {states}", or_none(*id))?;
        writeln!(out, "    VIP {}  port {}", list(vips), or_none(*vip_port_id))?;
        for ListenerRow { key, id, pool_id, members } in &tree.listeners {
            writeln!(out, "    {key}  listener {}  listener pool {}", or_none(*id), or_none(*pool_id))?;
            for member in members {
                writeln!(out, "      {}", member_text(member))?;
            }
        }
    }
    if let Some(FloatingRow { id, address, port_id }) = &description.floating_ip {
        writeln!(out, "  floating IP {address}  {id}  port {}", or_none(*port_id))?;
    }
    for Problem { reason, message } in &description.problems {
        writeln!(out, "  {reason}: {message}")?;
    }
    for step in &description.left_to_do {
        writeln!(out, "  left to do: {step}")?;
    }
    Ok(())
}

fn member_text(member: &MemberRow) -> String {
    let MemberRow { address, port_number, name, wanted_weight, weight, operating_status } = member;
    let at = std::net::SocketAddr::from((*address, *port_number));
    let state = match (wanted_weight, weight) {
        (Some(wanted), Some(weight)) if wanted == weight => format!("weight {weight}"),
        (Some(wanted), Some(weight)) => format!("weight {weight} instead of {wanted}"),
        (Some(_), None) => "MISSING in Octavia".to_owned(),
        (None, _) => "STRAY: no endpoint of the Service".to_owned(),
    };
    [at.to_string(), name.clone(), state, operating_status.unwrap_or_default().to_owned()]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(wanted_weight: Option<u16>, weight: Option<u16>) -> MemberRow {
        MemberRow {
            address: "10.0.0.5".parse().unwrap(),
            port_number: 8080,
            name: "default/web-0".into(),
            wanted_weight,
            weight,
            operating_status: None,
        }
    }

    #[test]
    fn a_member_shows_where_kubernetes_and_octavia_differ() {
        for (wanted, there, text) in [
            (Some(1), Some(1), "10.0.0.5:8080  default/web-0  weight 1"),
            (Some(0), Some(1), "10.0.0.5:8080  default/web-0  weight 1 instead of 0"),
            (Some(1), None, "10.0.0.5:8080  default/web-0  MISSING in Octavia"),
            (None, Some(1), "10.0.0.5:8080  default/web-0  STRAY: no endpoint of the Service"),
        ] {
            assert_eq!(member_text(&member(wanted, there)), text);
        }
    }

    #[test]
    fn a_service_is_told_from_its_addresses_to_its_members() {
        let description = Description {
            service: "default/web".into(),
            uid: "u".into(),
            kind: "LoadBalancer",
            cluster_ips: vec!["10.96.0.9".parse().unwrap()],
            state: "Active".into(),
            ready: "True Active".into(),
            load_balancers: vec![TreeRow {
                role: "cluster IP",
                id: None,
                shared: false,
                provider: "ovn".into(),
                provisioning_status: Some("ACTIVE"),
                operating_status: Some("ONLINE"),
                vips: vec!["10.96.0.9".parse().unwrap()],
                vip_port_id: None,
                listeners: vec![ListenerRow {
                    key: "TCP:80".into(),
                    id: None,
                    pool_id: None,
                    members: vec![member(Some(1), Some(1))],
                }],
            }],
            floating_ip: None,
            problems: vec![Problem { reason: "NoEffect".into(), message: "timeouts".into() }],
            left_to_do: vec!["wait".into()],
        };
        let mut out = Vec::new();
        text(&description, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "Service default/web  LoadBalancer 10.96.0.9  UID u\n  state Active, ready: True Active\n  load balancer \
             (none)  (cluster IP) ovn ACTIVE/ONLINE\n    VIP 10.96.0.9  port (none)\n    TCP:80  listener (none)  \
             listener pool (none)\n      10.0.0.5:8080  default/web-0  weight 1\n  NoEffect: timeouts\n  left to do: \
             wait\n"
        );
    }
}
