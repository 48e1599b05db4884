//! The answer for a person.

use super::answer::{Answer, RuleRow, SideRow, SpanRow, WayRow};
use crate::words;
use std::{collections::BTreeMap, io::Write};

/// The most ends of ways that are named on one line.
const NAMED: usize = 4;

pub(crate) fn text(answer: &Answer, out: &mut dyn Write) -> anyhow::Result<()> {
    let Answer { from, to, .. } = answer;
    match (answer.protocol, answer.port_number) {
        (Some(protocol), Some(number)) => {
            let does = match answer.answer {
                "yes" => "reaches",
                "partly" => "reaches, by some ways only,",
                _ => "does not reach",
            };
            writeln!(out, "{}: {from} {does} {to} at {protocol} {number}", answer.answer)?;
        }
        (protocol, _) => {
            let what = if answer.open.is_empty() { "nothing".to_owned() } else { spans(&answer.open) };
            let of = protocol.map(|protocol| format!(" of {protocol}")).unwrap_or_default();
            let only = if answer.answer == "yes" { "all that is there" } else { "only" };
            match answer.answer {
                "no" => writeln!(out, "no: {from} reaches no port number{of} of {to}")?,
                word => writeln!(out, "{word}: {from} reaches {to} at {only}{of}: {what}")?,
            }
        }
    }
    for (sides, ways) in alike(&answer.ways) {
        writeln!(out)?;
        if ways.len() > 1 || ways.iter().any(|way| way.through.is_some()) {
            writeln!(out, "  {}", ends(&ways))?;
        }
        side(from, "sends", &sides.0, out)?;
        let ending =
            if ways.iter().all(|way| way.to == ways[0].to) { ways[0].to.clone() } else { "each of them".to_owned() };
        side(&ending, "receives", &sides.1, out)?;
    }
    if !answer.not_yet.is_empty() || !answer.notes.is_empty() {
        writeln!(out)?;
    }
    for line in &answer.not_yet {
        writeln!(out, "  but now: {line}")?;
    }
    for line in &answer.notes {
        writeln!(out, "  note: {line}")?;
    }
    Ok(())
}

/// Ways of which both ends are told with the same words, in the order of the first of each.
fn alike(ways: &[WayRow]) -> Vec<((SideRow, SideRow), Vec<&WayRow>)> {
    let mut order: Vec<((SideRow, SideRow), Vec<&WayRow>)> = Vec::new();
    let mut at: BTreeMap<(SideRow, SideRow), usize> = BTreeMap::new();
    for way in ways {
        let sides = (way.sends.clone(), way.receives.clone());
        let index = *at.entry(sides.clone()).or_insert_with(|| {
            order.push((sides, Vec::new()));
            order.len() - 1
        });
        order[index].1.push(way);
    }
    order
}

fn ends(ways: &[&WayRow]) -> String {
    let one = |way: &&WayRow| {
        let address = way.to_address.map(|address| address.to_string()).filter(|address| *address != way.to);
        let address = address.map(|address| format!(" ({address})")).unwrap_or_default();
        let through = way.through.as_ref().map(|through| format!("through {through} ")).unwrap_or_default();
        format!("{through}to {}{address} at {}", way.to, way.port_number)
    };
    let mut named: Vec<String> = ways.iter().take(NAMED).map(one).collect();
    if ways.len() > NAMED {
        named.push(format!("{} more", ways.len() - NAMED));
    }
    words::list(named, "and")
}

fn side(who: &str, verb: &str, side: &SideRow, out: &mut dyn Write) -> anyhow::Result<()> {
    let mark = if side.passes { "✓" } else { "✗" };
    writeln!(out, "  {mark} {who} {verb}: {}", side.why)?;
    // Of one that passes only what allows it matters.
    for rule in side.rules.iter().filter(|rule| rule.allows || !side.passes) {
        writeln!(out, "      {} {}: {}{}", rule.policy, rule.at, rule.means, lacks(rule))?;
    }
    if !side.passes {
        let silent = side.isolated_by.iter().filter(|name| side.rules.iter().all(|rule| rule.policy != **name));
        for name in silent {
            writeln!(out, "      {name} has no rule: it allows nothing")?;
        }
    }
    Ok(())
}

fn lacks(rule: &RuleRow) -> &'static str {
    match (rule.peers, rule.ports) {
        (true, true) => "",
        (true, false) => " (not this port number)",
        (false, true) => " (not the other end)",
        (false, false) => " (neither the other end nor this port number)",
    }
}

/// `TCP 1-79 and 81-65535`, by protocols.
fn spans(open: &[SpanRow]) -> String {
    let mut protocols: Vec<&str> = open.iter().map(|span| span.protocol).collect();
    protocols.dedup();
    let of = |protocol: &&str| {
        let mine = open.iter().filter(|span| span.protocol == *protocol).map(|span| {
            let some = if span.answer == "partly" { " (by some ways only)" } else { "" };
            match (span.first, span.last) {
                (1, u16::MAX) => format!("all{some}"),
                (first, last) if first == last => format!("{first}{some}"),
                (first, last) => format!("{first}-{last}{some}"),
            }
        });
        format!("{protocol} {}", words::list(mine, "and"))
    };
    protocols.iter().map(of).collect::<Vec<_>>().join("; ")
}
