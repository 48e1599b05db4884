//! Rules as text for `nft`, and the difference between two sets of them.

use super::ruleset::{Balancing, Match, Remote, Ruleset, Service, Set, Statement, Verdict, View, names};
use ipnet::IpNet;
use kuryr_model::MacAddress;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write},
    net::{IpAddr, Ipv4Addr},
};

const TABLE: &str = "inet cloud";

/// Makes flows fall alike in every place and every run.
const SEED: &str = "seed 0x6b757279";

const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;

/// The parts of a node's table that never change, replacing a whole table that may be there: hooks, and the order of
/// checks.
#[must_use]
pub fn initial() -> String {
    concat!(include_str!("table.nft"), include_str!("node.nft")).to_owned()
}

/// The same for the core, which has no ports, but is where connections from outside are translated.
#[must_use]
pub fn initial_core() -> String {
    concat!(include_str!("table.nft"), include_str!("core.nft")).to_owned()
}

/// What `nft` must be told to make `new` of `old` (which is [`Ruleset::empty`] after [`initial`]); empty if nothing.
#[must_use]
pub fn changes(old: &Ruleset, new: &Ruleset) -> String {
    let mut script = Script::default();
    for (name, set) in new.sets.iter().filter(|(name, _)| !old.sets.contains_key(*name)) {
        script.line(format_args!("add set {TABLE} {name} {{ type {}; {}}}", set.kind(), set.flags()));
    }
    for name in new.chains.keys().filter(|name| !old.chains.contains_key(*name)) {
        script.line(format_args!("add chain {TABLE} {name}"));
    }
    // What leads to a chain goes before the chain, and comes after it.
    for (key, _) in old.maps.iter().filter(|(key, verdict)| new.maps.get(*key) != Some(verdict)) {
        script.line(format_args!("delete element {TABLE} {} {{ \"{}\" }}", key.0.as_str(), key.1));
    }
    script.balancing("delete", &new.balancing, &old.balancing);
    script.floating("delete", &new.floating, &old.floating);
    script.chains(&old.chains, &new.chains);
    for name in old.sets.keys().filter(|name| !new.sets.contains_key(*name)) {
        script.line(format_args!("delete set {TABLE} {name}"));
    }
    let nothing = BTreeSet::new();
    for (name, set) in &new.sets {
        let before = old.sets.get(name).map_or(&nothing, |set| &set.elements);
        script.elements("delete", name, before.difference(&set.elements).map(short));
        script.elements("add", name, set.elements.difference(before).map(short));
    }
    script.families("delete", names::SOURCES, old.sources.difference(&new.sources).map(source));
    script.families("add", names::SOURCES, new.sources.difference(&old.sources).map(source));
    script.balancing("add", &old.balancing, &new.balancing);
    script.floating("add", &old.floating, &new.floating);
    for (key, verdict) in new.maps.iter().filter(|(key, verdict)| old.maps.get(*key) != Some(verdict)) {
        script.line(format_args!("add element {TABLE} {} {{ \"{}\" : {verdict} }}", key.0.as_str(), key.1));
    }
    script.0
}

#[derive(Default)]
struct Script(String);

impl Script {
    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{line}");
    }

    fn elements(&mut self, verb: &str, set: &str, elements: impl Iterator<Item = String>) {
        let elements: Vec<String> = elements.collect();
        if !elements.is_empty() {
            self.line(format_args!("{verb} element {TABLE} {set} {{ {} }}", elements.join(", ")));
        }
    }

    /// Elements of a set, or map, that each family has one of; `true` is IPv6.
    fn families(&mut self, verb: &str, name: &str, elements: impl Iterator<Item = (bool, String)>) {
        let (v6, v4): (Vec<_>, Vec<_>) = elements.partition(|(v6, _)| *v6);
        for (v6, elements) in [(false, v4), (true, v6)] {
            self.elements(verb, &names::of(name, v6), elements.into_iter().map(|(_, text)| text));
        }
    }

    fn chains(&mut self, old: &BTreeMap<String, Vec<Statement>>, new: &BTreeMap<String, Vec<Statement>>) {
        for (name, statements) in new {
            let before = old.get(name);
            if before == Some(statements) {
                continue;
            }
            if before.is_some() {
                self.line(format_args!("flush chain {TABLE} {name}"));
            }
            for statement in statements {
                self.line(format_args!("add rule {TABLE} {name} {statement}"));
            }
        }
        for verb in ["flush", "delete"] {
            for name in old.keys().filter(|name| !new.contains_key(*name)) {
                self.line(format_args!("{verb} chain {TABLE} {name}"));
            }
        }
    }

    /// Deletes, or adds, what `these` has and `others` has not.
    fn balancing(&mut self, verb: &str, others: &Balancing, these: &Balancing) {
        if others == these {
            return;
        }
        let add = verb == "add";
        let to = |key: String, value: &dyn fmt::Display| if add { format!("{key} : {value}") } else { key };
        let chains = |name, others, these| {
            let own = own(others, these);
            let text = own.map(|(service, chain): (&Service, &String)| {
                (service.ip.is_ipv6(), to(service.to_string(), &format_args!("goto {chain}")))
            });
            (name, text.collect::<Vec<_>>())
        };
        for (name, elements) in
            [chains("services", &others.services, &these.services), chains("clients", &others.clients, &these.clients)]
        {
            self.families(verb, name, elements.into_iter());
        }
        let nobody = Vec::new();
        let mut backends = Vec::new();
        for (service, slots) in own(&others.backends, &these.backends) {
            let others = others.backends.get(service).unwrap_or(&nobody);
            for (slot, member) in slots.iter().enumerate().filter(|(slot, member)| others.get(*slot) != Some(*member)) {
                let member = format_args!("{} . {}", member.ip(), member.port());
                backends.push((service.ip.is_ipv6(), to(format!("{service} . {slot:#x}"), &member)));
            }
        }
        self.families(verb, "backends", backends.into_iter());
        let refused = these.refused.difference(&others.refused);
        self.families(verb, "refused", refused.map(|service| (service.ip.is_ipv6(), service.to_string())));
        let proxies = own(&others.proxies, &these.proxies);
        self.families(verb, "proxies", proxies.map(|(vip, seen)| (vip.is_ipv6(), to(vip.to_string(), seen))));
        let loops = these.loops.difference(&others.loops);
        self.families(verb, "loops", loops.map(|ip| (ip.is_ipv6(), format!("{ip} . {ip}"))));
    }

    /// The same for floating IPs.
    fn floating(&mut self, verb: &str, others: &BTreeMap<Ipv4Addr, Ipv4Addr>, these: &BTreeMap<Ipv4Addr, Ipv4Addr>) {
        let changed: Vec<(&Ipv4Addr, &Ipv4Addr)> = own(others, these).collect();
        let to = |key, value| if verb == "add" { format!("{key} : {value}") } else { format!("{key}") };
        self.elements(verb, "inward4", changed.iter().map(|(floating, fixed)| to(floating, fixed)));
        self.elements(verb, "outward4", changed.iter().map(|(floating, fixed)| to(fixed, floating)));
        self.elements(verb, "floating4", changed.iter().map(|(floating, fixed)| format!("{floating} . {fixed}")));
    }
}

/// What `these` has and `others` has not, or has otherwise.
fn own<'a, K: Ord, V: PartialEq>(
    others: &'a BTreeMap<K, V>,
    these: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    these.iter().filter(|(key, value)| others.get(*key) != Some(*value))
}

fn source((end, mac, ip): &(String, MacAddress, IpAddr)) -> (bool, String) {
    (ip.is_ipv6(), format!("\"{end}\" . {mac} . {ip}"))
}

/// A prefix of full length without it.
fn short(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.trunc().to_string() }
}

impl Set {
    fn kind(&self) -> &'static str {
        if self.v6 { "ipv6_addr" } else { "ipv4_addr" }
    }

    fn flags(&self) -> &'static str {
        if self.prefixes { "flags interval; " } else { "" }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} . {} . {}", self.ip, self.protocol, self.number)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

fn ip(v6: bool) -> &'static str {
    if v6 { "ip6" } else { "ip" }
}

fn is_v6(net: &IpNet) -> bool {
    net.addr().is_ipv6()
}

/// The address that a view is of, in the words that connection tracking has for it.
fn address(view: View, v6: bool) -> String {
    let ip = ip(v6);
    match view {
        View::Asked => format!("ct original {ip} daddr"),
        View::Answering => format!("ct reply {ip} saddr"),
        View::Asking => format!("ct reply {ip} daddr"),
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Allow(matched) => write!(f, "{matched}accept"),
            Self::Source(mac, net) => write!(f, "ether saddr {mac} {} saddr {} accept", ip(is_v6(net)), short(net)),
            Self::Client(net) => write!(f, "{} saddr {} accept", ip(is_v6(net)), short(net)),
            Self::Join(view, from, to) => {
                let (v6, destination) = (is_v6(from), address(*view, is_v6(from)));
                write!(f, "ct original {} saddr {} {destination} {} return", ip(v6), short(from), short(to))
            }
            Self::Outbound { view, v6 } | Self::Inbound { view, v6 } => {
                let (outside, subnets) = (names::of(names::OUTSIDE, *v6), names::of(names::SUBNETS, *v6));
                let (source, destination) = (format!("ct original {} saddr", ip(*v6)), address(*view, *v6));
                let out = matches!(self, Self::Outbound { .. });
                let (inner, outer) = if out { (source, destination) } else { (destination, source) };
                write!(f, "{inner} @{outside} {outer} != @{subnets} return")
            }
            Self::Spread { v6, slots, sticky } => {
                let ip = ip(*v6);
                let flow = if *sticky { "" } else { &format!(" . {ip} daddr . th sport . th dport") };
                write!(f, "meta mark set jhash {ip} saddr{flow} mod {slots} {SEED} goto balance")
            }
            Self::Drop => f.write_str("drop"),
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "meta nfproto {} ", if self.v6 { "ipv6" } else { "ipv4" })?;
        let other = address(self.view, self.v6);
        match &self.remote {
            Remote::Any => {}
            Remote::Net(net) => write!(f, "{other} {} ", short(net))?,
            Remote::Set(name) => write!(f, "{other} @{name} ")?,
        }
        if let Some(protocol) = self.protocol {
            write!(f, "meta l4proto {protocol} ")?;
        }
        // The number that the receiver is asked at is a load balancer's no more. Answers to ICMP are of another type.
        let icmp = matches!(self.protocol, Some(ICMP | ICMP_V6));
        let number = if self.view == View::Asked || icmp { "ct original proto-dst" } else { "ct reply proto-src" };
        match self.ports {
            Some((low, high)) if low == high => write!(f, "{number} {low} "),
            Some((low, high)) => write!(f, "{number} {low}-{high} "),
            None => Ok(()),
        }
    }
}
