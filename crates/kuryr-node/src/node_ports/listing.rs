//! What `nft` says is in our table, compared with what should be: pure.

use super::{
    ruleset::Ruleset,
    script::{Table, template_chains},
};
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, net::IpAddr};

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
    #[serde(default)]
    elem: Vec<Value>,
}

#[derive(Deserialize)]
struct Chain {
    name: String,
}

#[derive(Deserialize)]
struct Rule {
    chain: String,
}

/// What counts of a table: all elements, and which chains there are with how many rules. What a choice is, is in its
/// chain's name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Contents {
    sets: BTreeMap<String, BTreeMap<String, String>>,
    chains: BTreeMap<String, usize>,
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
    chains.extend(table.choices.into_keys().map(|name| (name, 1)));
    Contents { sets: table.sets, chains }
}

fn read(answer: Answer) -> Contents {
    let mut contents = Contents::default();
    for object in answer.nftables {
        for Elements { name, elem } in [object.map, object.set].into_iter().flatten() {
            if !elem.is_empty() {
                contents.sets.insert(name, elem.iter().map(element).collect());
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
