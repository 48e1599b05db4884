//! Driver `ovs`: the host end joins an Open vSwitch bridge.

use super::{
    Mismatch, PlugError,
    check::Findings,
    mark::{HostEnd, HostEndKind, Owner, host_end_name},
};
use crate::ovsdb::{
    Client, Error,
    ports::{self, ATTACHED_MAC, Forwarder, IFACE_ID, MARK},
};
use kuryr_model::Vif;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;
use uuid::Uuid;

/// How long unplugging and looking wait for a database that is away: longer than a restart of `ovsdb-server` takes.
const PATIENCE: Duration = Duration::from_secs(3);

/// The name by which Open vSwitch calls its datapath that does not use the kernel.
const USERSPACE: &str = "netdev";

pub(super) fn patience() -> Instant {
    Instant::now() + PATIENCE
}

fn bridge_of(vif: &Vif) -> &str {
    vif.plug.bridge.as_deref().unwrap_or_default()
}

fn no_bridge(vif: &Vif) -> PlugError {
    PlugError::NoBridge {
        bridge: bridge_of(vif).to_owned(),
        fix: "Neutron's agent or ovn-controller makes it: see whether it runs on this node",
    }
}

fn failed(doing: String) -> impl FnOnce(Error) -> PlugError {
    move |source| PlugError::Ovsdb { doing, source }
}

/// Makes sure that the bridge exists. Whether it is one whose senders must fill in their checksums.
pub(super) async fn needs_checksums(client: &Client, vif: &Vif, deadline: Instant) -> Result<bool, PlugError> {
    let userspace =
        |cache: &crate::ovsdb::Cache| cache.bridge(bridge_of(vif)).map(|bridge| bridge.datapath_type == USERSPACE);
    let found = client.look(deadline, userspace).await.map_err(failed(format!("find bridge {}", bridge_of(vif))))?;
    found.ok_or_else(|| no_bridge(vif))
}

/// Puts the host end into the bridge; the row of its Interface, and who will make it work.
pub(super) async fn join(
    client: &Client,
    vif: &Vif,
    owner: &Owner,
    deadline: Instant,
) -> Result<(Uuid, Forwarder), PlugError> {
    let (id, mac) = (vif.port_id.to_string(), vif.mac.to_string());
    let marks = [(IFACE_ID, &*id), (ATTACHED_MAC, &*mac), ("iface-status", "active"), (MARK, &*owner.container_id)];
    let name = host_end_name(vif.port_id);
    match ports::add(client, deadline, bridge_of(vif), &name, &marks).await {
        Ok(joined) => Ok(joined),
        Err(Error::NoBridge(_)) => Err(no_bridge(vif)),
        Err(error) => Err(failed(format!("add {name} to {}", bridge_of(vif)))(error)),
    }
}

/// Waits until the switch forwards for the host end.
pub(super) async fn ready(
    client: &Client,
    vif: &Vif,
    (row, forwarder): (Uuid, Forwarder),
    deadline: Instant,
) -> Result<(), PlugError> {
    let name = host_end_name(vif.port_id);
    let signal = match forwarder {
        Forwarder::Ovn => {
            "ovn-installed from ovn-controller; is it running, and is the port bound to this node's host name?"
        }
        Forwarder::Agent => {
            "a VLAN from Neutron's Open vSwitch agent; is it running, and is the port bound to this node's host name? (Of OVN \
             nothing is said in external_ids of Open vSwitch)"
        }
    };
    match ports::wait_ready(client, deadline, (row, &name), forwarder).await {
        Err(Error::Deadline(waited)) => {
            Err(PlugError::Unready { port: vif.port_id, waited, signal: signal.to_owned() })
        }
        Err(Error::Interface { interface, reason }) => Err(PlugError::Refused { interface, reason }),
        done => done.map_err(failed(format!("see {name} work"))),
    }
}

fn is_of(owner: &Owner) -> impl Fn(&BTreeMap<String, String>) -> bool {
    let id = owner.port_id.to_string();
    let container = owner.container_id.clone();
    move |ids| ids.get(IFACE_ID) == Some(&id) && ids.get(MARK) == Some(&container)
}

/// Takes the host end of `owner` out of its bridge. Success if it is in none, and if the database stays away: then there
/// is nobody to forward for it, and what is left in the file is found by [`list`] when the database is back.
pub(super) async fn leave(client: &Client, name: &str, owner: &Owner) -> Result<(), PlugError> {
    match ports::delete(client, patience(), name, is_of(owner)).await {
        Err(error) if error.is_away() => {
            tracing::warn!(port = %owner.port_id, %error, "an OVS port is left to garbage collection");
            Ok(())
        }
        done => done.map_err(failed(format!("remove {name}"))),
    }
}

/// The OVS ports that carry our mark.
pub(super) async fn list(client: &Client) -> Result<Vec<HostEnd>, PlugError> {
    let found = ports::list(client, patience()).await.map_err(failed("list ports".into()))?;
    let ends = found.into_iter().filter_map(|port| {
        let owner = Owner { port_id: port.iface_id.parse().ok()?, container_id: port.container_id };
        Some(HostEnd { kind: HostEndKind::OvsPort, name: port.name, owner })
    });
    Ok(ends.collect())
}

/// Compares the OVS port with `vif`.
pub(super) async fn check(client: &Client, vif: &Vif, owner: &Owner) -> Vec<Mismatch> {
    let mut findings = Findings::default();
    let name = host_end_name(vif.port_id);
    let there = client
        .look(patience(), |cache| {
            let bridge = cache.bridge_of(&name).map(|bridge| bridge.name.clone());
            (bridge, cache.interface(&name).cloned())
        })
        .await;
    match there {
        Err(error) => findings.failed("Open vSwitch", &failed("look at ports".into())(error)),
        Ok((Some(bridge), Some(interface))) => {
            findings.same(&format!("bridge of {name}"), &bridge_of(vif), &bridge);
            for (key, expected) in [(IFACE_ID, &owner.port_id.to_string()), (MARK, &owner.container_id)] {
                let found = interface.external_ids.get(key).map_or("nothing", |value| value);
                findings.same(&format!("{key} of {name}"), expected, &found);
            }
            findings.same(&format!("error of {name}"), &"nothing", &interface.error.as_deref().unwrap_or("nothing"));
        }
        Ok(_) => findings.missing(&format!("OVS port {name}"), bridge_of(vif)),
    }
    findings.0
}
