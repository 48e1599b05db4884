//! CNI CHECK: is what was plugged still there?

use super::{
    Mismatch, PlugError, Sandbox,
    error::chain,
    layout::Layout,
    mark::{Owner, host_end_name},
    pair,
};
use crate::{
    netlink::{
        Socket,
        link::{By, Link},
    },
    netns::Namespace,
};
use kuryr_model::{Vif, vif::PlugDriver};
use std::{fmt::Display, path::Path};

const NOTHING: &str = "nothing";

/// Compares links, addresses and routes with `vif`. Runs on a thread of its own.
pub(super) fn kernel(vif: &Vif, sandbox: &Sandbox, host_netns: Option<&Path>) -> Vec<Mismatch> {
    let mut found = Findings::default();
    let inside = Namespace::open(&sandbox.netns);
    if !vif.plug.driver.is_nested() {
        found.try_or(&format!("host end of port {}", vif.port_id), |found| {
            let mut host = pair::host(host_netns)?;
            host_end(vif, sandbox, &mut host, found)
        });
    }
    let netns = format!("namespace {}", sandbox.netns.display());
    found.try_or(&netns, |found| {
        inside?.enter()?;
        pod_end(vif, &Layout::of(vif)?, &mut Socket::open()?, found)
    });
    found.0
}

fn host_end(vif: &Vif, sandbox: &Sandbox, host: &mut Socket, found: &mut Findings) -> Result<(), PlugError> {
    let name = host_end_name(vif.port_id);
    let Some(link) = host.link(By::Name(&name))? else {
        found.missing(&format!("interface {name}"), "the pod's host end");
        return Ok(());
    };
    let owner = Owner { port_id: vif.port_id, container_id: sandbox.container_id.clone() };
    found.same(&format!("alias of {name}"), &owner.alias(), &link.alias);
    switched_on(&link, vif, found);
    if vif.plug.driver == PlugDriver::Bridge {
        let bridge = vif.plug.bridge.clone().unwrap_or_default();
        let master = link.master.map(|index| host.link(By::Index(index))).transpose()?.flatten();
        let joined = master.map_or_else(|| NOTHING.to_owned(), |bridge| bridge.name);
        found.same(&format!("bridge of {name}"), &bridge, &joined);
    }
    Ok(())
}

fn pod_end(vif: &Vif, layout: &Layout, inside: &mut Socket, found: &mut Findings) -> Result<(), PlugError> {
    let name = &vif.interface;
    let Some(link) = inside.link(By::Name(name))? else {
        found.missing(&format!("interface {name} of the pod"), "the pod's end");
        return Ok(());
    };
    switched_on(&link, vif, found);
    if vif.plug.driver.is_nested() {
        found.same(&format!("kind of {name}"), &vif.plug.driver.as_str(), &link.kind);
    }
    if let Some(vlan) = vif.plug.vlan {
        let there = link.vlan.map_or_else(|| NOTHING.to_owned(), |id| id.to_string());
        found.same(&format!("VLAN id of {name}"), &vlan, &there);
    }
    let mac = link.mac.map_or_else(|| NOTHING.to_owned(), |mac| mac.to_string());
    found.same(&format!("Ethernet address of {name}"), &vif.mac, &mac);
    let addresses = inside.addresses(link.index)?;
    for address in layout.addresses.iter().filter(|address| !addresses.contains(address)) {
        found.missing(&format!("address of {name}"), address);
    }
    let routes = inside.routes()?;
    for (destination, gateway) in &layout.routes {
        let there = routes
            .iter()
            .any(|route| route.destination == *destination && route.gateway == *gateway && route.link == link.index);
        if !there {
            let via = gateway.map_or_else(String::new, |gateway| format!(" via {gateway}"));
            found.missing(&format!("route over {name}"), format!("{destination}{via}"));
        }
    }
    Ok(())
}

fn switched_on(link: &Link, vif: &Vif, found: &mut Findings) {
    let name = &link.name;
    found.same(&format!("state of {name}"), &"on", &if link.up { "on" } else { "off" });
    found.same(&format!("MTU of {name}"), &vif.mtu, &link.mtu);
}

/// The differences so far.
#[derive(Default)]
pub(super) struct Findings(pub(super) Vec<Mismatch>);

impl Findings {
    pub(super) fn same(&mut self, what: &str, expected: &impl Display, found: &impl Display) {
        let (expected, found) = (expected.to_string(), found.to_string());
        if expected != found {
            self.0.push(Mismatch { what: what.to_owned(), expected, found });
        }
    }

    pub(super) fn missing(&mut self, what: &str, expected: impl Display) {
        self.same(what, &expected, &NOTHING);
    }

    fn try_or(&mut self, what: &str, look: impl FnOnce(&mut Self) -> Result<(), PlugError>) {
        if let Err(error) = look(self) {
            self.failed(what, &error);
        }
    }

    pub(super) fn failed(&mut self, what: &str, error: &PlugError) {
        self.same(what, &"an answer", &chain(error));
    }
}
