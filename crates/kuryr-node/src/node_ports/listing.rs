//! What `nft` says is in our table, compared with what should be: pure.

use super::{
    ruleset::Ruleset,
    script::{Table, template_chains},
};
use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

/// The answer of `nft -j -n list table`.
#[derive(Deserialize)]
struct Answer {
    nftables: Vec<Object>,
}

/// One object; those of other kinds than these are empty.
#[derive(Deserialize)]
struct Object {
    map: Option<Elements>,
    set: Option<Elements>,
    chain: Option<Chain>,
    rule: Option<Rule>,
}

#[derive(Deserialize)]
struct Elements {
    name: String,
    #[serde(default, deserialize_with = "elements")]
    elem: BTreeMap<String, String>,
    /// Seconds; only of sets of clients. (Of flags, nft's JSON does not tell all.)
    timeout: Option<Value>,
}

#[derive(Deserialize)]
struct Chain {
    name: String,
}

#[derive(Deserialize)]
struct Rule {
    chain: String,
}

/// What counts of a table: all elements, which chains there are with how many rules, and which sets of clients. What a choice
/// is, is in its chain's name; which clients there are, is the kernel's matter.
#[derive(Debug, Default, PartialEq, Eq)]
struct Contents {
    sets: BTreeMap<String, BTreeMap<String, String>>,
    chains: BTreeMap<String, usize>,
    clients: BTreeSet<String>,
}

/// Whether the table that `nft` lists as `answer` is the one for `ruleset`.
///
/// # Errors
/// The answer is not what `nft` answers.
pub fn is(answer: &[u8], ruleset: &Ruleset) -> Result<bool, serde_json::Error> {
    Ok(read(serde_json::from_slice(answer)?) == expected(ruleset))
}

fn expected(ruleset: &Ruleset) -> Contents {
    let table = Table::of(ruleset);
    let mut chains = template_chains();
    chains.extend(table.chains.into_iter().map(|(name, rules)| (name, rules.len())));
    Contents { sets: table.sets, chains, clients: table.clients.into_keys().collect() }
}

fn read(answer: Answer) -> Contents {
    let mut contents = Contents::default();
    for object in answer.nftables {
        for elements in [object.map, object.set].into_iter().flatten() {
            if elements.timeout.is_some() {
                contents.clients.insert(elements.name);
            } else if !elements.elem.is_empty() {
                contents.sets.insert(elements.name, elements.elem);
            }
        }
        if let Some(Chain { name }) = object.chain {
            contents.chains.entry(name).or_default();
        }
        if let Some(Rule { chain }) = object.rule {
            *contents.chains.entry(chain).or_default() += 1;
        }
    }
    contents
}

/// Reads elements one by one: as JSON, thousands of them would take many times the memory.
fn elements<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Elements;

    impl<'de> Visitor<'de> for Elements {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the elements of a set")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
            let mut read = BTreeMap::new();
            while let Some(value) = elements.next_element::<Value>()? {
                read.extend([element(&value)]);
            }
            Ok(read)
        }
    }

    deserializer.deserialize_seq(Elements)
}

/// An element of a set, or a map's with what it is made into, as they are written.
fn element(element: &Value) -> (String, String) {
    match element.as_array().map(Vec::as_slice) {
        Some([key, value]) => (words(key), words(value)),
        _ => (words(element), String::new()),
    }
}

fn words(value: &Value) -> String {
    if let Some(parts) = value["concat"].as_array() {
        return parts.iter().map(words).collect::<Vec<_>>().join(" . ");
    }
    if let Some(target) = value["goto"]["target"].as_str() {
        return format!("goto {target}");
    }
    if value.get("drop").is_some() {
        return "drop".to_owned();
    }
    match value.as_str() {
        // IPv6 addresses can be written in several ways.
        Some(text) => text.parse::<IpAddr>().map_or_else(|_| text.to_owned(), |ip| ip.to_string()),
        None => value.to_string(),
    }
}
