//! What has our mark besides the ports of pods and the load balancers of Services: networks, subnets, routers, subnet pools and
//! floating IPs. Pure.
//!
//! What `kuryr setup` made is no stray as long as the configuration uses its network, or nothing else is configured in its place:
//! then setup is under way, or its output has not been put into the configuration yet. What carries our mark for a purpose that
//! Kuryr has no such object for was tagged by somebody else, so it is listed and left alone.

use super::compare::{Finding, Kind, Prunable, finding};
use kuryr_controller::survey::Survey;
use kuryr_model::{
    ClusterId, FloatingIpId, Mark, NetworkId, Purpose, RouterId, SubnetId,
    mark::Base,
    neutron::{FloatingIp, Network, Port, Router, Subnet, SubnetPool},
};
use kuryr_openstack::network::routers::INTERFACE_OWNERS;
use std::collections::BTreeSet;

/// What was found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marked {
    /// Those with our tag.
    pub(crate) networks: Vec<Network>,
    /// Those with our tag, and all others on [`Self::networks`].
    pub(crate) subnets: Vec<Subnet>,
    /// Those with our tag.
    pub(crate) routers: Vec<Router>,
    /// Those with our tag.
    pub(crate) subnet_pools: Vec<SubnetPool>,
    /// Those with our tag.
    pub(crate) floating_ips: Vec<FloatingIp>,
    /// All ports on [`Self::networks`], and all that [`Self::routers`] have.
    pub(crate) ports: Vec<Port>,
    /// The subnets that the configuration has for pods, and those for Services: as the controller finds them.
    pub(crate) pods: Vec<Subnet>,
    /// See [`Self::pods`].
    pub(crate) services: Vec<Subnet>,
}

/// Ports that Neutron itself keeps on a network and takes away with it: of DHCP and of OVN's metadata agents.
const NEUTRONS_OWN: [&str; 2] = ["network:dhcp", "network:distributed"];

const TAGGED: &str = "take the tags that begin with `kuryr:` off it, or delete it if nobody needs it";

impl Marked {
    fn configured(&self, base: Base) -> &[Subnet] {
        match base {
            Base::Services => &self.services,
            Base::Pods | Base::IngressOpen | Base::EgressOpen => &self.pods,
        }
    }

    fn uses(&self, subnet: SubnetId) -> bool {
        self.pods.iter().chain(&self.services).any(|used| used.id == subnet)
    }

    fn uses_network(&self, network: NetworkId) -> bool {
        self.pods.iter().chain(&self.services).any(|used| used.network_id == network)
    }

    fn subnets_of(&self, network: NetworkId) -> impl Iterator<Item = &Subnet> {
        self.subnets.iter().filter(move |subnet| subnet.network_id == network)
    }

    /// Whether a network is ours in all its parts, and nothing of anybody's is on it.
    pub(crate) fn unused_network(&self, cluster: &ClusterId, network: NetworkId) -> bool {
        let ours = |tags: &[String]| purpose(cluster, tags).is_some();
        let mut on = self.ports.iter().filter(|port| port.network_id == network);
        self.networks.iter().any(|found| found.id == network && ours(&found.tags))
            && self.subnets_of(network).all(|subnet| ours(&subnet.tags) && !self.uses(subnet.id))
            && on.all(|port| NEUTRONS_OWN.contains(&port.device_owner.as_str()))
    }

    /// Whether a router is ours and joins nothing.
    pub(crate) fn unused_router(&self, cluster: &ClusterId, router: RouterId) -> bool {
        self.routers.iter().any(|found| found.id == router && purpose(cluster, &found.tags).is_some())
            && self.joined(router).next().is_none()
    }

    /// The networks that a router joins.
    fn joined(&self, router: RouterId) -> impl Iterator<Item = NetworkId> {
        let id = router.to_string();
        let interface = move |port: &&Port| port.device_id == id && INTERFACE_OWNERS.contains(&&*port.device_owner);
        self.ports.iter().filter(interface).map(|port| port.network_id)
    }
}

fn purpose(cluster: &ClusterId, tags: &[String]) -> Option<Purpose> {
    Mark::read(cluster, tags).map(|mark| mark.purpose)
}

/// Everything that is stray.
pub(super) fn strays(cluster: &ClusterId, marked: &Marked, survey: &Survey, findings: &mut Vec<Finding>) {
    for network in &marked.networks {
        findings.extend(stray_network(cluster, marked, network));
    }
    for subnet in &marked.subnets {
        findings.extend(stray_subnet(cluster, marked, subnet));
    }
    for router in &marked.routers {
        findings.extend(stray_router(cluster, marked, router));
    }
    for pool in marked.subnet_pools.iter().filter(|pool| purpose(cluster, &pool.tags).is_some()) {
        let what = format!("{} has the mark of this cluster, and Kuryr makes no subnet pools", label(&pool.name));
        findings.push(finding(Kind::Stray, "subnet pool", &pool.id, what, TAGGED));
    }
    let observed = survey.services.values().map(|surveyed| &surveyed.observed).chain(survey.strays.values());
    let known: BTreeSet<FloatingIpId> = observed.flat_map(|seen| seen.floating.iter().map(|ip| ip.id)).collect();
    for ip in marked.floating_ips.iter().filter(|ip| !known.contains(&ip.id)) {
        // While there is no Octavia, nobody has asked what Services have.
        let asked = survey.off.is_none();
        let what = match purpose(cluster, &ip.tags) {
            Some(Purpose::Service(uid)) if !asked => {
                format!("{} was made for a Service (UID {uid}), and Services are off", ip.floating_ip_address)
            }
            Some(Purpose::Service(_)) | None => continue,
            Some(other) => {
                format!("{} is tagged {other}, and Kuryr has no floating IPs for that", ip.floating_ip_address)
            }
        };
        findings.push(finding(Kind::Stray, "floating IP", &ip.id, what, TAGGED));
    }
}

fn label(name: &str) -> &str {
    if name.is_empty() { "it" } else { name }
}

/// The role of a network, a subnet or a router, or that it has none that there is.
fn role(purpose: &Purpose) -> Result<Base, String> {
    match purpose {
        Purpose::Base(base @ (Base::Pods | Base::Services)) => Ok(*base),
        other => Err(format!("is tagged {other}, and Kuryr has no such objects for that")),
    }
}

fn setting(base: Base) -> &'static str {
    if base == Base::Services { "[services] subnets" } else { "[network] pod_subnets" }
}

fn stray_network(cluster: &ClusterId, marked: &Marked, network: &Network) -> Option<Finding> {
    let (subject, name) = ("network", label(&network.name));
    let base = match role(&purpose(cluster, &network.tags)?) {
        Ok(base) => base,
        Err(why) => return Some(finding(Kind::Stray, subject, &network.id, format!("{name} {why}"), TAGGED)),
    };
    if marked.uses_network(network.id) || marked.configured(base).is_empty() {
        return None;
    }
    let what = format!("{name} was made by kuryr setup, and {} has no subnet of it", setting(base));
    if !marked.unused_network(cluster, network.id) {
        let fix = "name its subnets there, or delete what is on it; then: kuryr audit --fix";
        return Some(finding(Kind::Stray, subject, &network.id, what, fix));
    }
    let mut stray = finding(Kind::Stray, subject, &network.id, what, "prune it: kuryr audit --fix");
    stray.prune = Some(Prunable::Network(network.id));
    Some(stray)
}

/// A subnet goes with its network, so one of our own networks is not named itself.
fn stray_subnet(cluster: &ClusterId, marked: &Marked, subnet: &Subnet) -> Option<Finding> {
    let (subject, name) = ("subnet", label(&subnet.name));
    if let Err(why) = role(&purpose(cluster, &subnet.tags)?) {
        return Some(finding(Kind::Stray, subject, &subnet.id, format!("{name} {why}"), TAGGED));
    }
    let on_ours = marked.networks.iter().any(|network| network.id == subnet.network_id);
    if on_ours || marked.uses(subnet.id) {
        return None;
    }
    let what = format!("{name} {} has the mark of kuryr setup, and its network has not", subnet.cidr);
    Some(finding(Kind::Stray, subject, &subnet.id, what, TAGGED))
}

fn stray_router(cluster: &ClusterId, marked: &Marked, router: &Router) -> Option<Finding> {
    let (subject, name) = ("router", label(&router.name));
    if let Err(why) = role(&purpose(cluster, &router.tags)?) {
        return Some(finding(Kind::Stray, subject, &router.id, format!("{name} {why}"), TAGGED));
    }
    if marked.pods.is_empty() || marked.joined(router.id).any(|network| marked.uses_network(network)) {
        return None;
    }
    if !marked.unused_router(cluster, router.id) {
        let what =
            format!("{name} was made by kuryr setup, and joins only networks that the configuration does not name");
        let fix = "name their subnets there, or take its interfaces away; then: kuryr audit --fix";
        return Some(finding(Kind::Stray, subject, &router.id, what, fix));
    }
    let what = format!("{name} was made by kuryr setup, and joins nothing");
    let mut stray = finding(Kind::Stray, subject, &router.id, what, "prune it: kuryr audit --fix");
    stray.prune = Some(Prunable::Router(router.id));
    Some(stray)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn id(n: u8) -> String {
        format!("00000000-0000-4000-8000-0000000000{n:02x}")
    }

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn tags(role: &str) -> Value {
        json!(["kuryr:c", format!("kuryr:{role}")])
    }

    fn network(n: u8, role: &str) -> Network {
        read(json!({"id": id(n), "name": format!("net-{n}"), "tags": tags(role)}))
    }

    fn subnet(n: u8, network: u8, tags: &Value) -> Subnet {
        read(
            json!({"id": id(n), "network_id": id(network), "name": "", "cidr": format!("10.{n}.0.0/16"), "tags": tags}),
        )
    }

    fn port(network: u8, subnet: u8, owner: &str, device: &str) -> Port {
        read(json!({
            "id": id(99), "network_id": id(network), "mac_address": "fa:16:3e:00:00:01", "device_owner": owner,
            "device_id": device, "fixed_ips": [{"subnet_id": id(subnet), "ip_address": "10.0.0.1"}],
        }))
    }

    /// What setup makes, in use: networks 1 and 2, subnets 11 and 12, router 21.
    fn set_up() -> Marked {
        let (pods, services) = (subnet(11, 1, &tags("base:pods")), subnet(12, 2, &tags("base:services")));
        Marked {
            networks: vec![network(1, "base:pods"), network(2, "base:services")],
            subnets: vec![pods.clone(), services.clone()],
            routers: vec![read(json!({"id": id(21), "name": "r", "tags": tags("base:pods")}))],
            ports: vec![
                port(1, 11, "network:router_interface", &id(21)),
                port(2, 12, "network:router_interface", &id(21)),
                port(1, 11, "compute:kuryr", "pod"),
            ],
            pods: vec![pods],
            services: vec![services],
            ..Marked::default()
        }
    }

    /// The findings after a change; `!` for those that can be pruned.
    fn found(change: impl FnOnce(&mut Marked)) -> Vec<String> {
        let mut marked = set_up();
        change(&mut marked);
        let mut findings = Vec::new();
        strays(&"c".into(), &marked, &Survey::default(), &mut findings);
        let show = |f: &Finding| {
            let pruned = if f.prune.is_some() { "!" } else { "" };
            format!("{} {} {}{pruned}", f.kind.as_str(), f.subject, &f.id[f.id.len() - 2..])
        };
        findings.iter().map(show).collect()
    }

    /// An earlier network of setup's: 3 with subnet 13.
    fn earlier(marked: &mut Marked) {
        marked.networks.push(network(3, "base:pods"));
        marked.subnets.push(subnet(13, 3, &tags("base:pods")));
    }

    #[test]
    fn what_setup_made_and_the_configuration_uses_is_in_order() {
        assert_eq!(found(|_| {}), [""; 0]);
    }

    #[test]
    fn before_anything_is_configured_nothing_of_setup_is_stray() {
        let begun = |marked: &mut Marked| (marked.pods, marked.services, marked.ports) = Default::default();
        assert_eq!(found(begun), [""; 0]);
    }

    #[test]
    fn a_network_that_nothing_names_is_stray_and_goes_if_nothing_is_on_it() {
        assert_eq!(found(earlier), ["stray network 03!"]);
        let with = |owner: &'static str| {
            found(move |marked| {
                earlier(marked);
                marked.ports.push(port(3, 13, owner, "x"));
            })
        };
        assert_eq!(with("network:dhcp"), ["stray network 03!"]);
        for owner in ["compute:nova", "", "network:router_interface", "network:floatingip"] {
            assert_eq!(with(owner), ["stray network 03"], "{owner:?}");
        }
    }

    #[test]
    fn what_somebody_else_made_on_our_network_keeps_it() {
        let theirs = |marked: &mut Marked| {
            earlier(marked);
            marked.subnets.push(subnet(14, 3, &json!(["mine"])));
        };
        assert_eq!(found(theirs), ["stray network 03"]);
    }

    #[test]
    fn a_subnet_beside_those_that_are_used_may_be_put_to_use_later() {
        assert_eq!(found(|m| m.subnets.push(subnet(15, 1, &tags("base:pods")))), [""; 0]);
        assert_eq!(found(|m| m.subnets.push(subnet(15, 1, &json!([])))), [""; 0], "not ours");
        assert_eq!(
            found(|m| m.subnets.push(subnet(15, 9, &tags("base:pods")))),
            ["stray subnet 0f"],
            "on another's network"
        );
    }

    #[test]
    fn a_router_that_joins_nothing_goes_and_one_that_joins_something_else_is_told() {
        assert_eq!(found(|m| m.ports.clear()), ["stray router 15!"]);
        let elsewhere = |marked: &mut Marked| {
            marked.ports.clear();
            marked.ports.push(port(7, 17, "network:router_interface", &id(21)));
        };
        assert_eq!(found(elsewhere), ["stray router 15"]);
    }

    #[test]
    fn what_kuryr_never_makes_is_told_and_left_alone() {
        let odd = |marked: &mut Marked| {
            marked.networks.push(network(4, "pod:u"));
            marked.networks.push(network(5, "teleport:newer"));
            marked
                .subnet_pools
                .push(read(json!({"id": id(6), "prefixes": [], "tags": tags("base:pods"), "default_prefixlen": "24"})));
            for (n, role) in [(7, "pod:u"), (8, "service:s")] {
                marked.floating_ips.push(read(json!({
                    "id": id(n), "floating_network_id": id(90), "floating_ip_address": "203.0.113.1", "tags": tags(role)})));
            }
        };
        assert_eq!(found(odd), ["stray network 04", "stray subnet pool 06", "stray floating IP 07"]);
    }

    #[test]
    fn floating_ips_of_services_are_told_of_where_nobody_looks_at_services() {
        let ip = json!({
            "id": id(8), "floating_network_id": id(90), "floating_ip_address": "203.0.113.1", "tags": tags("service:s")});
        let marked = Marked { floating_ips: vec![read(ip)], ..set_up() };
        let mut findings = Vec::new();
        strays(&"c".into(), &marked, &Survey { off: Some("no Octavia".into()), ..Survey::default() }, &mut findings);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].what.contains("Services are off") && findings[0].prune.is_none());
    }
}
