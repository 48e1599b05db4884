//! Rules as text for `nft`: pure.

use super::ruleset::{Choice, Key, Ruleset, Target};
use kuryr_plan::service::{At, Family, Transport};
use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
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
    /// The chains of choices, which have one rule each.
    pub(super) choices: BTreeMap<String, String>,
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
    for (name, rule) in new.choices.iter().filter(|(name, _)| !old.choices.contains_key(*name)) {
        script.line(format_args!("add chain inet {TABLE} {name}"));
        script.line(format_args!("add rule inet {TABLE} {name} {rule}"));
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
    for name in old.choices.keys().filter(|name| !new.choices.contains_key(*name)) {
        script.line(format_args!("flush chain inet {TABLE} {name}"));
        script.line(format_args!("delete chain inet {TABLE} {name}"));
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
            let verdict = if choice.to.is_empty() {
                "drop".to_owned()
            } else {
                let name = chain(choice);
                let verdict = format!("goto {name}");
                table.choices.entry(name).or_insert_with(|| rule(choice));
                verdict
            };
            table.add(&set("outside-", key), element(key), verdict);
        }
        for (ip, transport, number) in &ruleset.masked {
            let element = format!("{ip} . {} . {number}", protocol(*transport));
            table.add(&format!("masked{}", version(*ip)), element, String::new());
        }
        table
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

/// The name of the chain that makes a choice: the same choice, the same name.
fn chain(choice: &Choice) -> String {
    let mut hasher = DefaultHasher::new();
    choice.hash(&mut hasher);
    format!("to-{:016x}", hasher.finish())
}

fn rule(choice: &Choice) -> String {
    let v6 = choice.to.iter().any(|(ip, _)| ip.is_ipv6());
    let ip = if v6 { "ip6" } else { "ip" };
    let which = if choice.sticky { format!("jhash {ip} saddr") } else { "numgen random".to_owned() };
    let place = |(place, (ip, number)): (usize, &Target)| format!("{place} : {ip} . {number}");
    let places: Vec<String> = choice.to.iter().enumerate().map(place).collect();
    let (protocol, count) = (protocol(choice.transport), places.len());
    format!("meta l4proto {protocol} dnat {ip} to {which} mod {count} map {{ {} }}", places.join(", "))
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
