//! Rules as text for `nft`: pure.

use super::ruleset::{Bound, Choice, Key, Ruleset, Target};
use kuryr_plan::service::{At, Family, Transport};
use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, SocketAddr},
};

/// The name of our table, of family `inet`. Nobody else's is ever touched.
pub const TABLE: &str = "kuryr_node_ports";

/// The parts that never change, and sets without elements.
const TEMPLATE: &str = include_str!("table.nft");

/// What is in the table: nft's names and texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    /// Elements of sets and maps, with what a map makes of them; those without elements are left out.
    pub(super) sets: BTreeMap<String, BTreeMap<String, String>>,
    /// The chains of choices and those of endpoints that keep their clients, with their rules. A chain goes to later ones only.
    pub(super) chains: BTreeMap<String, Vec<String>>,
    /// Sets of clients, which the kernel fills: how they are made.
    pub(super) clients: BTreeMap<String, String>,
}

/// Takes the table away; that it is not there is no error.
#[must_use]
pub fn remove() -> String {
    format!("table inet {TABLE}\ndelete table inet {TABLE}\n")
}

/// Makes the table anew, in place of whatever has its name.
#[must_use]
pub fn fresh(ruleset: &Ruleset) -> String {
    format!("{}{TEMPLATE}{}", remove(), changes(&Ruleset::default(), ruleset))
}

/// Makes `new` of a table that was made for `old`; empty if nothing is to be done.
#[must_use]
pub fn changes(old: &Ruleset, new: &Ruleset) -> String {
    let (old, new) = (Table::of(old), Table::of(new));
    let mut script = Script::default();
    for (name, kind) in new.clients.iter().filter(|(name, _)| !old.clients.contains_key(*name)) {
        script.line(format_args!("add set inet {TABLE} {name} {kind}"));
    }
    // Those that others go to are there first, and go last.
    for (name, rules) in new.chains.iter().filter(|(name, _)| !old.chains.contains_key(*name)).rev() {
        script.line(format_args!("add chain inet {TABLE} {name}"));
        for rule in rules {
            script.line(format_args!("add rule inet {TABLE} {name} {rule}"));
        }
    }
    let nothing = BTreeMap::new();
    for (name, elements) in &old.sets {
        let kept = new.sets.get(name).unwrap_or(&nothing);
        script.elements("delete", name, elements.iter().filter(|(key, value)| kept.get(*key) != Some(*value)));
    }
    for (name, elements) in &new.sets {
        let before = old.sets.get(name).unwrap_or(&nothing);
        script.elements("add", name, elements.iter().filter(|(key, value)| before.get(*key) != Some(*value)));
    }
    for name in old.chains.keys().filter(|name| !new.chains.contains_key(*name)) {
        script.line(format_args!("flush chain inet {TABLE} {name}"));
        script.line(format_args!("delete chain inet {TABLE} {name}"));
    }
    for name in old.clients.keys().filter(|name| !new.clients.contains_key(*name)) {
        script.line(format_args!("delete set inet {TABLE} {name}"));
    }
    script.0
}

/// How many rules each chain of the template has.
pub(super) fn template_chains() -> BTreeMap<String, usize> {
    let mut chains = BTreeMap::new();
    for part in TEMPLATE.split("\tchain ").skip(1) {
        let Some((name, rest)) = part.split_once(" {\n") else { continue };
        let body = rest.split_once("\t}\n").map_or(rest, |(body, _)| body);
        chains.insert(name.to_owned(), body.lines().filter(|line| !line.trim_start().starts_with("type ")).count());
    }
    chains
}

impl Table {
    pub(super) fn of(ruleset: &Ruleset) -> Self {
        let mut table = Self::default();
        for (key, (ip, number)) in &ruleset.anyone {
            table.add(&set("", key), element(key), format!("{ip} . {number}"));
        }
        for (key, choice) in &ruleset.outside {
            let verdict =
                if choice.to.is_empty() { "drop".to_owned() } else { format!("goto {}", table.choice(choice)) };
            table.add(&set("outside-", key), element(key), verdict);
        }
        for (ip, transport, number) in &ruleset.masked {
            let element = format!("{ip} . {} . {number}", protocol(*transport));
            table.add(&format!("masked{}", version(*ip)), element, String::new());
        }
        table
    }

    /// The chain that makes a choice.
    fn choice(&mut self, choice: &Choice) -> String {
        let name = named("choice", choice);
        let rules = match choice.bound {
            None => vec![spread(choice)],
            Some(bound) => self.keep(choice, bound),
        };
        self.chains.insert(name.clone(), rules);
        name
    }

    /// The rules of a choice that a client makes once: those whom an endpoint knows go there, others get one.
    fn keep(&mut self, choice: &Choice, bound: Bound) -> Vec<String> {
        let (protocol, ip) = (protocol(choice.transport), family(choice));
        let mut endpoints = Vec::with_capacity(choice.to.len());
        for endpoint in &choice.to {
            let of = (choice.transport, bound, endpoint);
            let (clients, chain) = (named("clients", of), named("endpoint", of));
            let kind = if ip == "ip" { "ipv4_addr" } else { "ipv6_addr" };
            let kind = format!("{{ type {kind}; flags dynamic,timeout; timeout {}s; }}", bound.seconds);
            let to = SocketAddr::from(*endpoint);
            let rule = format!("update @{clients} {{ {ip} saddr }} meta l4proto {protocol} dnat {ip} to {to}");
            self.clients.insert(clients.clone(), kind);
            self.chains.insert(chain.clone(), vec![rule]);
            endpoints.push((clients, chain));
        }
        let mut rules: Vec<String> =
            endpoints.iter().map(|(clients, chain)| format!("{ip} saddr @{clients} goto {chain}")).collect();
        let places = endpoints.iter().enumerate().map(|(place, (_, chain))| format!("{place} : goto {chain}"));
        let places: Vec<String> = places.collect();
        rules.push(format!("numgen random mod {} vmap {{ {} }}", places.len(), places.join(", ")));
        rules
    }

    fn add(&mut self, set: &str, key: String, value: String) {
        self.sets.entry(set.to_owned()).or_default().insert(key, value);
    }
}

fn set(prefix: &str, (at, _): &Key) -> String {
    match at {
        At::NodePort(family, _) => format!("{prefix}ports{}", if *family == Family::V4 { 4 } else { 6 }),
        At::External(ip, _) => format!("{prefix}externals{}", version(*ip)),
    }
}

fn element((at, transport): &Key) -> String {
    let protocol = protocol(*transport);
    match at {
        At::NodePort(_, number) => format!("{protocol} . {number}"),
        At::External(ip, number) => format!("{ip} . {protocol} . {number}"),
    }
}

fn version(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 4 } else { 6 }
}

/// The protocol's number: its name is known only where there is a file `/etc/protocols`.
pub(super) fn protocol(transport: Transport) -> u8 {
    match transport {
        Transport::Tcp => 6,
        Transport::Udp => 17,
        Transport::Sctp => 132,
    }
}

/// A name for what is about these things: the same things, the same name.
fn named(what: &str, things: impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    things.hash(&mut hasher);
    format!("{what}-{:016x}", hasher.finish())
}

fn family(choice: &Choice) -> &'static str {
    if choice.to.iter().any(|(ip, _)| ip.is_ipv6()) { "ip6" } else { "ip" }
}

/// The rule that gives each connection one of several places.
fn spread(choice: &Choice) -> String {
    let ip = family(choice);
    let place = |(place, (ip, number)): (usize, &Target)| format!("{place} : {ip} . {number}");
    let places: Vec<String> = choice.to.iter().enumerate().map(place).collect();
    let (protocol, count) = (protocol(choice.transport), places.len());
    let places = places.join(", ");
    format!("meta l4proto {protocol} dnat {ip} to numgen random mod {count} map {{ {places} }}")
}

#[derive(Default)]
struct Script(String);

impl Script {
    fn line(&mut self, line: fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{line}");
    }

    fn elements<'a>(&mut self, verb: &str, set: &str, elements: impl Iterator<Item = (&'a String, &'a String)>) {
        let text = |(key, value): (&String, &String)| {
            // A key is enough to delete by.
            if value.is_empty() || verb == "delete" { key.clone() } else { format!("{key} : {value}") }
        };
        let elements: Vec<String> = elements.map(text).collect();
        if !elements.is_empty() {
            self.line(format_args!("{verb} element inet {TABLE} {set} {{ {} }}", elements.join(", ")));
        }
    }
}
