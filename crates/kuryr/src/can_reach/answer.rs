//! The answer: yes or no, and who decides it.

use super::{
    ends::{End, PortRef, To},
    neutron::Now,
    objects::Cluster,
};
use crate::words;
use kuryr_model::{ObjectKey, neutron::Direction};
use kuryr_plan::policy::{
    Answer as Short, Cause, NoAnswer, Place, Policy, Protocol, Side, Span, Verdict, Way, World, open, reach,
};
use serde::Serialize;
use std::{collections::BTreeMap, net::IpAddr};

/// All that is said.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Answer {
    pub(crate) from: String,
    pub(crate) to: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port_number: Option<u16>,
    /// `yes`, `partly` or `no`, as the policies decide.
    pub(crate) answer: &'static str,
    /// Without a port number: those that are open.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) open: Vec<SpanRow>,
    /// Each way that a connection may take.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ways: Vec<WayRow>,
    /// Where Neutron does something else at this moment than the policies decide.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) not_yet: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<String>,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SpanRow {
    pub(crate) protocol: &'static str,
    pub(crate) first: u16,
    pub(crate) last: u16,
    pub(crate) answer: &'static str,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WayRow {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from_address: Option<IpAddr>,
    /// The address, protocol and port number of the Service on the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) through: Option<String>,
    /// Whom it ends at: a pod, or an address.
    pub(crate) to: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to_address: Option<IpAddr>,
    pub(crate) port_number: u16,
    pub(crate) passes: bool,
    pub(crate) sends: SideRow,
    pub(crate) receives: SideRow,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SideRow {
    pub(crate) passes: bool,
    /// In words.
    pub(crate) why: String,
    /// The policies that isolate this end; none where policies do not apply.
    pub(crate) isolated_by: Vec<String>,
    /// The rules that were looked at.
    pub(crate) rules: Vec<RuleRow>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RuleRow {
    pub(crate) policy: String,
    /// Where it stands in the policy: `spec.ingress[0]`.
    pub(crate) at: String,
    pub(crate) means: String,
    pub(crate) allows: bool,
    /// Whether the other end is one of its peers.
    pub(crate) peers: bool,
    /// Whether the port number is one of its ports.
    pub(crate) ports: bool,
}

/// There is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error("{error}{hint}")]
    NoAnswer { error: NoAnswer, hint: String },
    #[error("Service {0} is headless or a name: it has no address of its own; ask for the pods behind it")]
    Headless(ObjectKey),
    #[error("{end} has no port named {name:?}{hint}")]
    NoName { end: String, name: String, hint: String },
    #[error("only pods and Services have names for port numbers, not {0}: give the number")]
    Nameless(String),
    #[error("{end} has a port named {name:?} for {first} and for {second}: say which, like :{name}/{second}")]
    Several { end: String, name: String, first: Protocol, second: Protocol },
}

/// What is asked, with every name looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) from: Place,
    pub(crate) to: Place,
    /// Without one: at which numbers.
    pub(crate) at: Option<(Protocol, u16)>,
    /// Of which protocol only, if no number is asked for.
    pub(crate) protocol: Option<Protocol>,
}

/// Looks names up.
pub(crate) fn question(cluster: &Cluster, from: &End, to: &To) -> Result<Question, AnswerError> {
    let target = place(&to.end);
    if let Place::Service(key) = &target
        && !cluster.world.services.contains_key(key)
        && cluster.service_ports.contains_key(key)
    {
        return Err(AnswerError::Headless(key.clone()));
    }
    let at = match &to.port {
        None => None,
        Some(PortRef::Number(number)) => Some((to.protocol.unwrap_or(Protocol::Tcp), *number)),
        Some(PortRef::Name(name)) => Some(named(cluster, to, name)?),
    };
    Ok(Question { from: place(from), to: target, at, protocol: to.protocol })
}

fn place(end: &End) -> Place {
    match end.clone() {
        End::Pod(key) => Place::Pod(key),
        End::Service(key) => Place::Service(key),
        End::Node(name) => Place::Node(name),
        End::Address(address) => Place::Address(address),
    }
}

fn named(cluster: &Cluster, to: &To, name: &str) -> Result<(Protocol, u16), AnswerError> {
    let known: Vec<(String, Protocol, u16)> = match &to.end {
        End::Pod(key) => {
            let pod = cluster.world.pods.get(key);
            let pod = pod.ok_or_else(|| no_answer(cluster, NoAnswer::NoPod(key.clone())))?;
            pod.ports.iter().map(|port| (port.name.clone(), port.protocol, port.number)).collect()
        }
        End::Service(key) => {
            let ports = cluster.service_ports.get(key).cloned();
            ports.ok_or_else(|| no_answer(cluster, NoAnswer::NoService(key.clone())))?
        }
        other => return Err(AnswerError::Nameless(other.to_string())),
    };
    let wanted = |(own, protocol, _): &&(String, Protocol, u16)| {
        own == name && to.protocol.is_none_or(|wanted| wanted == *protocol)
    };
    let mut found = known.iter().filter(wanted);
    let Some((_, protocol, number)) = found.next() else {
        let names = known.iter().map(|(name, protocol, number)| format!("{name} ({protocol} {number})"));
        let names = words::list(names, "and");
        let hint = if names.is_empty() { "; it has none".to_owned() } else { format!("; it has {names}") };
        return Err(AnswerError::NoName { end: to.end.to_string(), name: name.to_owned(), hint });
    };
    // Of a pod's ports of one name and protocol the first counts; of two protocols it must be said.
    if let Some((_, second, _)) = found.find(|(_, other, _)| other != protocol) {
        let (end, name) = (to.end.to_string(), name.to_owned());
        return Err(AnswerError::Several { end, name, first: *protocol, second: *second });
    }
    Ok((*protocol, *number))
}

/// A thing that is not there, with what the person may have meant.
fn no_answer(cluster: &Cluster, error: NoAnswer) -> AnswerError {
    let hint = match &error {
        NoAnswer::NoPod(key) if cluster.service_ports.contains_key(key) => {
            format!("; there is a Service of this name: svc/{key}")
        }
        NoAnswer::NoPod(key) => {
            let begins = |other: &&ObjectKey| other.namespace == key.namespace && other.name.starts_with(&*key.name);
            let near: Vec<String> = cluster.world.pods.keys().filter(begins).take(3).map(ToString::to_string).collect();
            if near.is_empty() { String::new() } else { format!("; there is {}", words::list(near, "and")) }
        }
        NoAnswer::NoPort(key, ..) => {
            let ports = cluster.service_ports.get(key).into_iter().flatten();
            let ports = words::list(ports.map(|(_, protocol, number)| format!("{number}/{protocol}")), "and");
            if ports.is_empty() { String::new() } else { format!("; it has {ports}") }
        }
        NoAnswer::NoService(key) if cluster.world.pods.contains_key(key) => {
            format!("; there is a pod of this name: {key}")
        }
        _ => String::new(),
    };
    AnswerError::NoAnswer { error, hint }
}

/// The ways that are asked for, if a port number is.
pub(crate) fn verdict(cluster: &Cluster, question: &Question) -> Result<Option<Verdict>, AnswerError> {
    let Some((protocol, number)) = question.at else { return Ok(None) };
    let verdict = reach(&cluster.world, &question.from, &question.to, protocol, number);
    Ok(Some(verdict.map_err(|error| no_answer(cluster, error))?))
}

/// The whole answer. `now`: what Neutron does with each way, if it was asked.
pub(crate) fn answer(
    cluster: &Cluster,
    question: &Question,
    verdict: Option<&Verdict>,
    now: &[Now],
) -> Result<Answer, AnswerError> {
    let mut spans = Vec::new();
    if verdict.is_none() {
        let all = open(&cluster.world, &question.from, &question.to).map_err(|error| no_answer(cluster, error))?;
        spans.extend(all.into_iter().filter(|span| question.protocol.is_none_or(|wanted| wanted == span.protocol)));
    }
    let short = match verdict {
        Some(verdict) => verdict.answer(),
        None => union(&spans),
    };
    let mut notes = notes(cluster, question);
    if let Some(Verdict { ways }) = verdict
        && ways.is_empty()
    {
        notes.push(match &question.to {
            Place::Service(_) => {
                "nothing answers: the Service has no endpoint of the sender's address families".to_owned()
            }
            _ => "the two have no address family in common".to_owned(),
        });
    }
    let not_yet = verdict.map(|verdict| not_yet(&verdict.ways, now, cluster)).unwrap_or_default();
    Ok(Answer {
        from: told(&question.from, cluster),
        to: told(&question.to, cluster),
        protocol: question.at.map(|(protocol, _)| protocol).or(question.protocol).map(Protocol::as_kubernetes),
        port_number: question.at.map(|(_, number)| number),
        answer: word(short),
        open: spans.into_iter().filter(|span| span.answer != Short::No).map(span_row).collect(),
        ways: verdict.into_iter().flat_map(|verdict| &verdict.ways).map(|way| way_row(cluster, way)).collect(),
        not_yet,
        notes,
    })
}

fn union(spans: &[Span]) -> Short {
    let all = |wanted: Short| !spans.is_empty() && spans.iter().all(|span| span.answer == wanted);
    match (all(Short::Yes), spans.is_empty() || all(Short::No)) {
        (true, _) => Short::Yes,
        (_, true) => Short::No,
        _ => Short::Partly,
    }
}

fn word(short: Short) -> &'static str {
    match short {
        Short::Yes => "yes",
        Short::Partly => "partly",
        Short::No => "no",
    }
}

fn told(place: &Place, cluster: &Cluster) -> String {
    match place {
        Place::Pod(key) if cluster.templates.contains(key) => format!("a pod of {key}"),
        Place::Pod(key) => format!("pod {key}"),
        Place::Service(key) => format!("Service {key}"),
        Place::Node(name) => format!("node {name}"),
        Place::Address(address) => match pod_at(&cluster.world, *address) {
            Some(key) => format!("{address} (pod {key})"),
            None => address.to_string(),
        },
    }
}

fn pod_at(world: &World, address: IpAddr) -> Option<&ObjectKey> {
    let found = world.pods.values().find(|pod| pod.counts() && pod.addresses.contains(&address));
    found.map(|pod| &pod.key)
}

fn span_row(span: Span) -> SpanRow {
    let Span { protocol, first, last, answer } = span;
    SpanRow { protocol: protocol.as_kubernetes(), first, last, answer: word(answer) }
}

fn way_row(cluster: &Cluster, way: &Way) -> WayRow {
    let shown = |address: Option<IpAddr>| address.filter(|address| !cluster.made_up.contains(address));
    let made_up = |vip: IpAddr| cluster.made_up.contains(&vip);
    let through = way.through.map(|listener| {
        if made_up(listener.vip) { format!("{}/{}", listener.number, listener.protocol) } else { listener.to_string() }
    });
    let address = || way.to.map_or_else(|| "an address that is not known yet".to_owned(), |to| to.to_string());
    WayRow {
        from_address: shown(way.from),
        through,
        to: way.pod.as_ref().map_or_else(address, ToString::to_string),
        to_address: shown(way.to),
        port_number: way.number,
        passes: way.passes(),
        sends: side_row(cluster, way, Direction::Egress),
        receives: side_row(cluster, way, Direction::Ingress),
    }
}

fn side_row(cluster: &Cluster, way: &Way, direction: Direction) -> SideRow {
    let side = if direction == Direction::Egress { &way.sends } else { &way.receives };
    let looks = way.looks(&cluster.world, direction);
    let row = |look: &kuryr_plan::policy::Look| RuleRow {
        policy: look.cause.policy.to_string(),
        at: format!("spec.{}[{}]", words::field(direction), look.cause.rule),
        means: means(&cluster.world, &look.cause),
        allows: look.peers && look.ports,
        peers: look.peers,
        ports: look.ports,
    };
    let own = if direction == Direction::Egress { &way.sender } else { &way.pod };
    let isolated_by = match (side, own) {
        (Side::Allowed(_) | Side::Refused(_) | Side::OthersRefused, Some(own)) => {
            isolating(&cluster.world, own, direction)
        }
        _ => Vec::new(),
    };
    let verb = words::field(direction);
    let why = match side {
        Side::Outside => "policies do not apply to it: it is no pod with a network of its own".to_owned(),
        Side::Itself => "a pod always reaches itself".to_owned(),
        Side::OwnNode => "a pod and its own node always reach each other".to_owned(),
        Side::Open => format!("no policy isolates it for {verb}"),
        Side::Allowed(causes) if causes.len() == 1 => "a rule allows it".to_owned(),
        Side::Allowed(causes) => format!("{} rules allow it", causes.len()),
        Side::Refused(_) => format!("isolated for {verb}, and no rule allows it"),
        Side::OthersRefused => {
            "it may not send to every endpoint of the Service, and so not to the Service at all".to_owned()
        }
    };
    SideRow { passes: side.passes(), why, isolated_by, rules: looks.iter().map(row).collect() }
}

fn isolating(world: &World, pod: &ObjectKey, direction: Direction) -> Vec<String> {
    let Some(pod) = world.pods.get(pod) else { return Vec::new() };
    let isolates = |policy: &&Policy| {
        let rules = if direction == Direction::Egress { &policy.egress } else { &policy.ingress };
        policy.key.namespace == pod.key.namespace && rules.is_some() && policy.pods.matches(&pod.labels)
    };
    world.policies.values().filter(isolates).map(|policy| policy.key.to_string()).collect()
}

fn means(world: &World, cause: &Cause) -> String {
    let policy = world.policies.get(&cause.policy);
    let rules = policy.and_then(|policy| match cause.direction {
        Direction::Ingress => policy.ingress.as_ref(),
        Direction::Egress => policy.egress.as_ref(),
    });
    let rule = rules.and_then(|rules| rules.get(cause.rule));
    rule.map(|rule| words::rule(cause.direction, rule)).unwrap_or_default()
}

/// What is worth knowing about the two ends.
fn notes(cluster: &Cluster, question: &Question) -> Vec<String> {
    let world = &cluster.world;
    let mut notes = Vec::new();
    let mut namespaces = Vec::new();
    for place in [&question.from, &question.to] {
        let pod = match place {
            Place::Pod(key) => world.pods.get(key),
            Place::Address(address) => pod_at(world, *address).and_then(|key| world.pods.get(key)),
            _ => None,
        };
        namespaces.extend(pod.map(|pod| pod.key.namespace.clone()));
        if let Some(pod) = pod.filter(|pod| pod.host_network) {
            let node = pod.node.as_deref().unwrap_or("its node");
            notes.push(format!("pod {} uses the network of node {node}: policies see the node", pod.key));
        }
        if let Some(pod) = pod.filter(|pod| cluster.sharing.contains(&pod.key)) {
            notes.push(format!(
                "pod {} shares the port of its node, a virtual machine: no policy holds for it",
                pod.key
            ));
        }
        if let Place::Address(address) = place
            && let Some(service) = cluster.external.get(address)
        {
            notes.push(format!("{address} leads to Service {service} from outside; ask for svc/{service}"));
        }
        if let (Place::Pod(key), Some(pod)) = (place, pod)
            && pod.counts()
            && pod.addresses.iter().all(|address| cluster.made_up.contains(address))
            && blocks_matter(world)
        {
            notes.push(format!(
                "pod {key} has no address yet: rules about addresses (ipBlock) are taken not to mean it"
            ));
        }
    }
    namespaces.dedup();
    let policies = world.policies.values().filter(|policy| namespaces.contains(&policy.key.namespace));
    for policy in policies {
        notes.extend(policy.problems.iter().map(|problem| format!("policy {}: {problem}", policy.key)));
    }
    notes.extend(cluster.notes.iter().cloned());
    notes
}

fn blocks_matter(world: &World) -> bool {
    let rules = world.policies.values().flat_map(|policy| policy.ingress.iter().chain(&policy.egress).flatten());
    let mut peers = rules.flat_map(|rule| rule.peers.iter().flatten());
    peers.any(|peer| matches!(peer, kuryr_plan::policy::Peer::Block(_)))
}

/// Where Neutron does something else than the policies decide.
fn not_yet(ways: &[Way], now: &[Now], cluster: &Cluster) -> Vec<String> {
    let mut said: BTreeMap<String, ()> = BTreeMap::new();
    for (index, way) in ways.iter().enumerate() {
        let now = now.get(index).copied().unwrap_or_default();
        let ends = [
            (Direction::Egress, &way.sends, &way.sender, &now.sends),
            (Direction::Ingress, &way.receives, &way.pod, &now.receives),
        ];
        for (direction, side, pod, passes) in ends {
            let Some(pod) = pod else { continue };
            if cluster.sharing.contains(pod) {
                // What Neutron has of its port restricts nothing.
                if !side.passes() {
                    said.insert(format!("pod {pod} is not restricted: it shares the port of its node"), ());
                }
                continue;
            }
            let Some(passes) = passes else { continue };
            if side.passes() == *passes {
                continue;
            }
            let what = match (direction, *passes) {
                (Direction::Egress, true) => "Neutron still lets it out of",
                (Direction::Egress, false) => "Neutron does not let it out yet of",
                (Direction::Ingress, true) => "Neutron still lets it into",
                (Direction::Ingress, false) => "Neutron does not let it in yet to",
            };
            said.insert(format!("{what} pod {pod}{}", unapplied(cluster, pod, direction)), ());
        }
    }
    said.into_keys().collect()
}

/// The policies of a pod that are not applied, and why.
fn unapplied(cluster: &Cluster, pod: &ObjectKey, direction: Direction) -> String {
    let names = isolating(&cluster.world, pod, direction);
    let why = names.iter().filter_map(|name| {
        let key = name.parse::<ObjectKey>().ok()?;
        cluster.unapplied.get(&key).map(|why| format!("policy {name} is not applied: {why}"))
    });
    let why: Vec<String> = why.collect();
    if why.is_empty() { String::new() } else { format!(" ({})", why.join("; ")) }
}
