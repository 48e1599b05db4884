//! The plan against a model of Neutron that does what each step says.

use super::{
    super::{order, teardown},
    *,
};
use kuryr_model::neutron::{ExternalGateway, PortStatus, SecurityGroupRule, VifDetails};
use uuid::Uuid;

fn cluster() -> ClusterId {
    "c1".into()
}

fn desired(prefixes: &[&str]) -> Desired {
    let prefixes = prefixes.iter().map(|cidr| Prefix::Cidr(cidr.parse().unwrap())).collect();
    Desired {
        cluster: cluster(),
        name: "kuryr-pods".into(),
        mtu: None,
        prefixes,
        services: vec![],
        router: RouterWish::Own { external: None },
    }
}

#[derive(Default)]
struct Neutron {
    found: Found,
    next: u128,
    log: Vec<String>,
}

impl Neutron {
    fn id(&mut self) -> Uuid {
        self.next += 1;
        Uuid::from_u128(self.next)
    }

    fn rule(&mut self, group: SecurityGroupId, allows: RuleContent) -> SecurityGroupRule {
        SecurityGroupRule { id: SecurityGroupRuleId(self.id()), security_group_id: group, allows }
    }

    fn apply(&mut self, step: &Step) {
        self.log.push(step.to_string());
        match step.clone() {
            Step::CreateNetwork { name, mtu, base } => {
                let id = NetworkId(self.id());
                let services = base == Base::Services;
                let found = &mut self.found;
                let networks = if services { &mut found.service_networks } else { &mut found.networks };
                networks.push(Network {
                    id,
                    name,
                    mtu: mtu.unwrap_or(1442),
                    tags: vec![],
                    project_id: None,
                    external: false,
                });
            }
            Step::SetMtu(_, mtu) => self.found.networks[0].mtu = mtu,
            Step::CreateSubnet { network, name, prefix, base } => {
                let id = SubnetId(self.id());
                let (cidr, subnetpool_id) = match prefix {
                    Prefix::Cidr(cidr) => (cidr, None),
                    Prefix::Pool { pool, .. } => ("10.99.0.0/24".parse().unwrap(), Some(pool)),
                };
                let found = &mut self.found;
                let services = base == Base::Services;
                let subnets = if services { &mut found.service_subnets } else { &mut found.subnets };
                subnets.push(Subnet {
                    id,
                    network_id: network,
                    name,
                    cidr,
                    gateway_ip: None,
                    host_routes: vec![],
                    subnetpool_id,
                    tags: vec![],
                });
            }
            Step::CreateRouter { name, external } => {
                let id = RouterId(self.id());
                let external_gateway_info = external.map(|network_id| ExternalGateway { network_id });
                self.found.routers.push(Router { id, name, external_gateway_info, tags: vec![] });
            }
            Step::SetGateway(_, network_id) => {
                self.found.routers[0].external_gateway_info = Some(ExternalGateway { network_id });
            }
            Step::AddInterface(interface) => self.found.interfaces.push(interface),
            Step::CreateGroup(base) => {
                let id = SecurityGroupId(self.id());
                let rules = [EtherType::IPv4, EtherType::IPv6]
                    .map(|family| self.rule(id, RuleContent::everything(Direction::Egress, family)));
                let name = group_name(base).to_owned();
                self.found.groups.push((base, SecurityGroup { id, name, rules: rules.into(), tags: vec![] }));
            }
            Step::AddRules(id, rules) => {
                let rules: Vec<_> = rules.into_iter().map(|rule| self.rule(id, rule)).collect();
                let (_, group) = self.found.groups.iter_mut().find(|(_, group)| group.id == id).unwrap();
                group.rules.extend(rules);
            }
            Step::DeleteRule(_, id) => {
                for (_, group) in &mut self.found.groups {
                    group.rules.retain(|rule| rule.id != id);
                }
            }
            Step::Tag(object, base) => {
                let found = &mut self.found;
                let tags = match object {
                    Tagged::Network(id) => {
                        let mut all = found.networks.iter_mut().chain(&mut found.service_networks);
                        &mut all.find(|network| network.id == id).unwrap().tags
                    }
                    Tagged::Subnet(id) => {
                        let mut all = found.subnets.iter_mut().chain(&mut found.service_subnets);
                        &mut all.find(|subnet| subnet.id == id).unwrap().tags
                    }
                    Tagged::Router(id) => &mut found.routers.iter_mut().find(|r| r.id == id).unwrap().tags,
                    Tagged::SecurityGroup(id) => &mut found.groups.iter_mut().find(|(_, g)| g.id == id).unwrap().1.tags,
                    other => panic!("{other:?}"),
                };
                *tags = mark(&cluster(), base).tags();
            }
            Step::RemoveInterface(interface) => self.found.interfaces.retain(|there| *there != interface),
            Step::DeleteRouter(id) => {
                let ours: Vec<_> = self.found.interfaces.iter().filter(|i| i.router == id).collect();
                assert!(ours.is_empty(), "a router with interfaces cannot be deleted");
                self.found.routers.retain(|router| router.id != id);
            }
            Step::DeleteSubnet(id) => {
                assert!(self.found.interfaces.iter().all(|interface| interface.subnet != id));
                self.found.subnets.retain(|subnet| subnet.id != id);
                self.found.service_subnets.retain(|subnet| subnet.id != id);
            }
            Step::DeleteNetwork(id) => {
                assert!(self.found.all_subnets().all(|subnet| subnet.network_id != id));
                self.found.networks.retain(|network| network.id != id);
                self.found.service_networks.retain(|network| network.id != id);
            }
            Step::DeleteGroup(id) => self.found.groups.retain(|(_, group)| group.id != id),
        }
    }

    /// Plans and applies to the end, or until `steps` steps were taken.
    fn converge(&mut self, desired: &Desired, mut steps: usize) {
        for _ in 0..10 {
            let plan = plan(desired, &self.found).unwrap();
            if plan.is_empty() {
                return;
            }
            // Those of a wave in the worst order.
            for step in order::waves(&plan).into_iter().flat_map(|wave| wave.into_iter().rev()) {
                if steps == 0 {
                    return;
                }
                steps -= 1;
                self.apply(step);
            }
        }
        panic!("no end: {:#?}", self.log);
    }
}

#[test]
fn an_empty_cloud_gets_everything_once() {
    let mut neutron = Neutron::default();
    neutron.converge(&desired(&["10.128.0.0/16", "fd00:10::/64"]), usize::MAX);
    let found = &neutron.found;
    assert_eq!((found.networks.len(), found.subnets.len(), found.routers.len(), found.groups.len()), (1, 2, 1, 2));
    assert_eq!(found.interfaces.len(), 2);
    assert_eq!(
        found.subnets.iter().map(|subnet| subnet.name.as_str()).collect::<Vec<_>>(),
        ["kuryr-pods-1", "kuryr-pods-2"]
    );
    for (base, group) in &found.groups {
        let mut allows: Vec<_> = group.rules.iter().map(|rule| rule.allows.clone()).collect();
        allows.sort();
        assert_eq!(allows, rules(*base), "{base:?}");
    }
    let tags = found.networks.iter().map(|n| &n.tags).chain(found.subnets.iter().map(|s| &s.tags));
    assert!(tags.into_iter().all(|tags| *tags == ["kuryr:c1", "kuryr:base:pods"]));
}

#[test]
fn a_run_cut_off_after_any_step_is_completed_by_the_next() {
    let desired = desired(&["10.128.0.0/16", "fd00:10::/64"]);
    let mut whole = Neutron::default();
    whole.converge(&desired, usize::MAX);
    for steps in 0..whole.log.len() {
        let mut neutron = Neutron::default();
        neutron.converge(&desired, steps);
        neutron.converge(&desired, usize::MAX);
        assert_eq!(neutron.log.len(), whole.log.len(), "after {steps} steps: {:#?}", neutron.log);
    }
}

fn with_services(services: &[&str]) -> Desired {
    let services = services.iter().map(|cidr| cidr.parse().unwrap()).collect();
    Desired { services, ..desired(&["10.128.0.0/16"]) }
}

#[test]
fn cluster_ips_get_a_network_of_their_own_behind_the_same_router() {
    let wish = with_services(&["10.96.0.0/16", "fd00:96::/112"]);
    let mut neutron = Neutron::default();
    neutron.converge(&wish, usize::MAX);
    let found = &neutron.found;
    assert_eq!((found.networks.len(), found.service_networks.len(), found.service_subnets.len()), (1, 1, 2));
    assert_eq!((found.routers.len(), found.interfaces.len()), (1, 3));
    let tags = found.service_networks.iter().map(|n| &n.tags).chain(found.service_subnets.iter().map(|s| &s.tags));
    assert!(tags.into_iter().all(|tags| *tags == ["kuryr:c1", "kuryr:base:services"]));
    assert_eq!(plan(&desired(&[]), found), Ok(vec![]), "without a wish those that are there are right");
    let whole = neutron.log.len();
    for steps in 0..whole {
        let mut neutron = Neutron::default();
        neutron.converge(&wish, steps);
        neutron.converge(&wish, usize::MAX);
        assert_eq!(neutron.log.len(), whole, "after {steps} steps: {:#?}", neutron.log);
    }
}

#[test]
fn cluster_ips_share_no_address_with_pods() {
    let mut neutron = Neutron::default();
    neutron.converge(&desired(&["10.128.0.0/16"]), usize::MAX);
    let error = |cidrs: &[&str]| plan(&with_services(cidrs), &neutron.found).unwrap_err().to_string();
    assert!(error(&["10.128.64.0/20"]).starts_with("--service-cidr 10.128.64.0/20 overlaps subnet"));
    assert!(error(&["10.96.0.0/12", "10.96.0.0/16"]).contains("overlap: give prefixes"));
}

#[test]
fn the_clouds_own_ports_keep_out_of_the_way_of_kubernetes() {
    for (cidr, gateway, pool) in [
        ("10.96.0.0/16", "10.96.255.254", Some(("10.96.0.32", "10.96.0.255"))),
        ("10.96.0.0/24", "10.96.0.254", Some(("10.96.0.8", "10.96.0.15"))),
        ("10.96.0.0/28", "10.96.0.14", None),
        ("fd00::/112", "fd00::ffff", Some(("fd00::20", "fd00::ff"))),
    ] {
        let cidr = cidr.parse().unwrap();
        assert_eq!(service_gateway(cidr), gateway.parse::<IpAddr>().unwrap());
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(service_pool(cidr), pool.map(|(first, last)| (ip(first), ip(last))), "{cidr}");
    }
}

#[test]
fn what_setup_made_is_removed_without_a_trace_from_any_state() {
    let desired = with_services(&["10.96.0.0/16"]);
    for steps in 0..30 {
        let mut neutron = Neutron::default();
        neutron.converge(&desired, steps);
        let plan = teardown::plan(&neutron.found).unwrap();
        for step in order::waves(&plan).into_iter().flat_map(|wave| wave.into_iter().rev()) {
            neutron.apply(step);
        }
        assert!(teardown::plan(&neutron.found).unwrap().is_empty());
    }
}

#[test]
fn nothing_is_removed_under_the_feet_of_pods() {
    let mut neutron = Neutron::default();
    neutron.converge(&desired(&["10.128.0.0/16"]), usize::MAX);
    for n in 0..12 {
        neutron.found.ports.push(Port {
            id: kuryr_model::PortId(Uuid::from_u128(n)),
            network_id: neutron.found.networks[0].id,
            mac_address: "fa:16:3e:00:00:01".parse().unwrap(),
            name: if n == 0 { "default/web".into() } else { String::new() },
            fixed_ips: vec![],
            security_groups: vec![],
            status: PortStatus::Active,
            device_owner: "compute:kuryr".into(),
            device_id: String::new(),
            tags: vec![],
            revision_number: 1,
            host_id: String::new(),
            vif_type: String::new(),
            vif_details: VifDetails::default(),
        });
    }
    let error = teardown::plan(&neutron.found).unwrap_err().to_string();
    assert!(error.starts_with("ports still use what is to be removed, 12 in all: default/web (00000000-"), "{error}");
    assert!(error.contains(", ...; delete the pods") && !error.contains("pools"), "{error}");
    // Spare ports are nobody's pods, and go in another way.
    for port in &mut neutron.found.ports {
        port.tags = vec!["kuryr:pool:ports".into()];
    }
    let error = teardown::plan(&neutron.found).unwrap_err().to_string();
    assert!(
        error.contains("; 12 are ports of pools: set [pools] enabled = false") && !error.contains("delete the pods"),
        "{error}"
    );
}

#[test]
fn later_wishes_change_what_is_there() {
    let mut neutron = Neutron::default();
    neutron.converge(&desired(&["10.128.0.0/16"]), usize::MAX);
    let external = NetworkId(Uuid::from_u128(999));
    let wish = Desired {
        mtu: Some(1400),
        router: RouterWish::Own { external: Some(external) },
        ..desired(&["10.129.0.0/16"])
    };
    neutron.log.clear();
    neutron.converge(&wish, usize::MAX);
    assert_eq!(neutron.found.networks[0].mtu, 1400);
    assert_eq!(neutron.found.routers[0].external_gateway_info.as_ref().unwrap().network_id, external);
    assert_eq!(neutron.found.subnets.len(), 2);
    assert_eq!(neutron.found.subnets[1].name, "kuryr-pods-2", "no name is given twice");
    assert_eq!(neutron.log.len(), 5, "{:#?}", neutron.log);
    // Without a wish for subnets those that are there are right.
    assert_eq!(plan(&desired(&[]), &neutron.found), Ok(vec![]));
}

#[test]
fn a_router_of_somebody_else_is_joined_and_not_tagged() {
    let router = RouterId(Uuid::from_u128(77));
    let wish = Desired { router: RouterWish::Existing(router), ..desired(&["10.128.0.0/16"]) };
    let mut neutron = Neutron::default();
    neutron.converge(&wish, usize::MAX);
    assert!(neutron.found.routers.is_empty());
    assert_eq!(neutron.found.interfaces[0].router, router);
    let steps = teardown::plan(&neutron.found).unwrap();
    assert!(!steps.contains(&Step::DeleteRouter(router)));
    assert!(matches!(steps[0], Step::RemoveInterface(_)));
}

#[test]
fn a_pool_gives_one_subnet() {
    let pool = SubnetPoolId(Uuid::from_u128(5));
    let wish = Desired { prefixes: vec![Prefix::Pool { pool, ipv6: false }], ..desired(&[]) };
    let mut neutron = Neutron::default();
    neutron.converge(&wish, usize::MAX);
    assert_eq!(neutron.found.subnets.len(), 1);
}

#[test]
fn rules_that_somebody_changed_are_put_right() {
    let mut neutron = Neutron::default();
    neutron.converge(&desired(&["10.128.0.0/16"]), usize::MAX);
    neutron.found.groups[0].1.rules.pop();
    neutron.found.groups[1].1.rules[0].allows.protocol = Some("tcp".into());
    neutron.log.clear();
    neutron.converge(&desired(&[]), usize::MAX);
    assert_eq!(neutron.log.len(), 3, "{:#?}", neutron.log);
}

#[test]
fn contradictions_are_a_persons_to_solve() {
    let error = |desired: &Desired, found: &Found| plan(desired, found).unwrap_err().to_string();
    assert!(error(&desired(&[]), &Found::default()).contains("--pod-cidr or --subnet-pool"));
    let twice = desired(&["10.0.0.0/8", "10.1.0.0/16"]);
    assert!(error(&twice, &Found::default()).contains("10.0.0.0/8 and 10.1.0.0/16 overlap"));

    let mut neutron = Neutron::default();
    neutron.converge(&desired(&["10.128.0.0/16"]), usize::MAX);
    let text = error(&desired(&["10.128.0.0/24"]), &neutron.found);
    assert!(text.starts_with("--pod-cidr 10.128.0.0/24 overlaps subnet ") && text.contains("10.128.0.0/16"), "{text}");
    let elsewhere = Desired { router: RouterWish::Existing(RouterId(Uuid::from_u128(77))), ..desired(&[]) };
    assert!(error(&elsewhere, &neutron.found).contains("is joined to router"));
    let second = Network { id: NetworkId(Uuid::from_u128(70)), ..neutron.found.networks[0].clone() };
    neutron.found.networks.push(second);
    assert!(error(&desired(&[]), &neutron.found).starts_with("2 networks carry the mark of this cluster"));
}
