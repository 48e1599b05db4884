//! Driver `tap`: the host end is routed to.
//!
//! Whoever serves such ports on the node (Felix for Calico, the embedded data plane's agent) adds a route to each of the
//! VIF's addresses over the host end. That is the only sign it gives on the node, and without it no packet reaches the pod.

use super::{PlugError, mark::host_end_name, pair};
use crate::{
    netlink::{
        route::Route,
        route_monitor::{RouteEvent, RouteMonitor, RouteSubscription},
    },
    netns,
};
use ipnet::IpNet;
use kuryr_model::{PortId, Vif};
use std::{collections::BTreeSet, path::Path};
use tokio::time::{Instant, timeout_at};

/// The routes that a plugged host end still lacks.
#[derive(Debug)]
struct Lacking {
    port: PortId,
    /// Index of the host end.
    link: u32,
    all: BTreeSet<IpNet>,
    missing: BTreeSet<IpNet>,
}

impl Lacking {
    fn new(vif: &Vif, link: u32) -> Self {
        let all: BTreeSet<IpNet> = vif.addresses.iter().map(|address| address.ip.into()).collect();
        Self { port: vif.port_id, link, missing: all.clone(), all }
    }

    fn take_in(&mut self, event: &RouteEvent) {
        match event {
            RouteEvent::Added(route) if route.link == self.link => {
                self.missing.remove(&route.destination);
            }
            // To the same destination over another link: that has taken ours's place.
            RouteEvent::Added(Route { destination, .. }) | RouteEvent::Removed(Route { destination, .. }) => {
                self.missing.extend(self.all.get(destination));
            }
            RouteEvent::Lost => {}
        }
    }

    /// Begins anew from a whole list.
    fn replace(&mut self, routes: &[Route]) {
        let there = |net: &IpNet| routes.iter().any(|route| route.link == self.link && route.destination == *net);
        self.missing = self.all.iter().filter(|net| !there(net)).copied().collect();
    }

    /// What is waited for and who gives it, as it follows "waited for".
    fn signal(&self) -> String {
        let addresses: Vec<_> = self.missing.iter().map(|net| net.addr().to_string()).collect();
        let (name, addresses) = (host_end_name(self.port), addresses.join(" and "));
        format!(
            "a route to {addresses} over {name} from the agent of the node's data plane; does it run, and is the port bound to this node's host name?"
        )
    }
}

/// Waits until the node's data plane leads to the host end, whose index is `link`. The subscription is older than the link.
pub(super) async fn ready(
    vif: &Vif,
    link: u32,
    subscription: RouteSubscription,
    host_netns: Option<&Path>,
    deadline: Instant,
) -> Result<(), PlugError> {
    let start = Instant::now();
    let mut monitor = RouteMonitor::new(subscription)?;
    let mut lacking = Lacking::new(vif, link);
    while !lacking.missing.is_empty() {
        let Ok(events) = timeout_at(deadline, monitor.next()).await else {
            let (port, signal) = (vif.port_id, lacking.signal());
            return Err(PlugError::Unready { port, waited: start.elapsed(), signal });
        };
        let events = events?;
        if events.contains(&RouteEvent::Lost) {
            let host_netns = host_netns.map(Path::to_owned);
            let routes = netns::spawn(move || pair::host(host_netns.as_deref())?.routes().map_err(PlugError::from));
            lacking.replace(&routes.await??);
        } else {
            events.iter().for_each(|event| lacking.take_in(event));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn to(destination: &str, link: u32) -> Route {
        Route::on(destination.parse().unwrap(), link)
    }

    /// What is missing of a VIF with the addresses 10.1.0.1 and fd00::1 after these events.
    fn missing(events: &[RouteEvent]) -> Vec<String> {
        let mut lacking = Lacking::new(&testing::vif(1), 7);
        events.iter().for_each(|event| lacking.take_in(event));
        lacking.missing.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_address_needs_its_own_route_over_the_host_end() {
        use RouteEvent::{Added, Removed};
        let (four, six) = (to("10.1.0.1/32", 7), to("fd00::1/128", 7));
        assert_eq!(missing(&[]), ["10.1.0.1/32", "fd00::1/128"]);
        assert_eq!(missing(&[Added(four)]), ["fd00::1/128"]);
        assert_eq!(missing(&[Added(six), Added(four), Added(four)]), [""; 0]);
        // Those of others, wider ones, and those that somebody took back do not count.
        let others = [Added(to("10.1.0.1/32", 8)), Added(to("10.1.0.0/24", 7)), Added(to("10.1.0.2/32", 7))];
        assert_eq!(missing(&others), ["10.1.0.1/32", "fd00::1/128"]);
        assert_eq!(missing(&[Added(four), Added(six), Removed(six)]), ["fd00::1/128"]);
        assert_eq!(missing(&[Added(four), Added(six), Removed(to("10.9.9.9/32", 9))]), [""; 0]);
        assert_eq!(missing(&[Added(four), Added(six), Added(to("10.1.0.1/32", 8))]), ["10.1.0.1/32"]);
    }

    #[test]
    fn after_lost_events_a_list_counts() {
        let mut lacking = Lacking::new(&testing::vif(1), 7);
        lacking.take_in(&RouteEvent::Added(to("10.1.0.1/32", 7)));
        lacking.replace(&[to("fd00::1/128", 7), to("10.1.0.1/32", 8)]);
        assert!(lacking.signal().starts_with("a route to 10.1.0.1 over tap"), "{}", lacking.signal());
    }
}
