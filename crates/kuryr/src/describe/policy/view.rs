//! A policy as Kubernetes means it, and as Neutron has it: pure.

use crate::{can_reach::Cluster, words};
use kuryr_model::{
    ClusterId, KuryrNetworkPolicy, Mark, ObjectKey, PodUid, PortId, Purpose, SecurityGroupId, SecurityGroupRuleId,
    mark::Base,
    neutron::{Direction, EtherType, Port, RuleContent, SecurityGroup},
};
use kuryr_plan::policy::{Compiler, GroupKey, Report, Rule, digest_in};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) cluster: &'a ClusterId,
    pub(super) objects: &'a Cluster,
    pub(super) held: Option<&'a KuryrNetworkPolicy>,
    /// The ports of the pods that the policy isolates.
    pub(super) ports: &'a [Port],
    /// All security groups of the cluster.
    pub(super) groups: &'a [SecurityGroup],
}

/// All that is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct View {
    pub(super) policy: String,
    pub(super) uid: String,
    /// Whom it isolates, and how.
    pub(super) isolates: String,
    /// What it allows, in words, each with its place in the object.
    pub(super) allows: Vec<Allowed>,
    pub(super) pods: Vec<PodRow>,
    pub(super) groups: Vec<GroupRow>,
    pub(super) peers: Vec<PeerRow>,
    /// What the `KuryrNetworkPolicy` says: status, reason and message.
    pub(super) ready: String,
    pub(super) problems: Vec<String>,
    /// Where Neutron is not as it should be.
    pub(super) differences: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Allowed {
    pub(super) at: String,
    pub(super) means: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodRow {
    pub(super) pod: String,
    pub(super) port_ids: Vec<PortId>,
    /// Groups that its ports should carry and do not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) lacks: Vec<String>,
    /// Groups of policies that its ports carry and should not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) too_many: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GroupRow {
    pub(super) name: String,
    pub(super) id: Option<SecurityGroupId>,
    pub(super) rules: Vec<RuleRow>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RuleRow {
    pub(super) id: Option<SecurityGroupRuleId>,
    pub(super) rule: String,
    pub(super) state: RuleState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum RuleState {
    AsItShouldBe,
    Missing,
    Stray,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PeerRow {
    pub(super) peers: String,
    pub(super) pods: usize,
    pub(super) id: Option<SecurityGroupId>,
}

/// Security groups by what they are for.
struct Made<'a> {
    by_key: BTreeMap<String, &'a SecurityGroup>,
    open: BTreeMap<Base, SecurityGroupId>,
}

impl<'a> Made<'a> {
    fn new(seen: &Seen<'a>) -> Self {
        let (mut by_key, mut open) = (BTreeMap::new(), BTreeMap::new());
        for group in seen.groups {
            match Mark::read(seen.cluster, &group.tags).map(|mark| mark.purpose) {
                Some(Purpose::Group(digest)) => drop(by_key.insert(digest.to_string(), group)),
                Some(Purpose::Base(base)) => drop(open.insert(base, group.id)),
                Some(_) => {}
                // Not tagged yet.
                None => by_key.extend(digest_in(&group.name).map(|digest| (digest.to_string(), group))),
            }
        }
        Self { by_key, open }
    }

    fn of(&self, key: &GroupKey) -> Option<&'a SecurityGroup> {
        self.by_key.get(&key.digest().to_string()).copied()
    }

    fn id(&self, key: &GroupKey) -> Option<SecurityGroupId> {
        match key {
            GroupKey::IngressOpen => self.open.get(&Base::IngressOpen).copied(),
            GroupKey::EgressOpen => self.open.get(&Base::EgressOpen).copied(),
            key => self.of(key).map(|group| group.id),
        }
    }

    /// What a group is for, for people.
    fn name(&self, id: SecurityGroupId) -> String {
        let group = self.by_key.values().find(|group| group.id == id);
        group.map_or_else(|| id.to_string(), |group| short(&group.name).to_owned())
    }
}

/// A group's name without the digest.
fn short(name: &str) -> &str {
    name.rsplit_once(" #").map_or(name, |(readable, _)| readable)
}

/// What there is to say of a policy. `None`: there is no such policy.
pub(super) fn view(key: &ObjectKey, compiler: &Compiler, report: &Report, seen: &Seen<'_>) -> Option<View> {
    let world = &seen.objects.world;
    let policy = world.policies.get(key)?;
    let made = Made::new(seen);
    let directions = [(Direction::Ingress, &policy.ingress), (Direction::Egress, &policy.egress)];
    let isolated = directions.iter().filter(|(_, rules)| rules.is_some()).map(|(it, _)| words::field(*it).to_owned());
    let allows = directions.iter().flat_map(|(direction, rules)| {
        rules.iter().flatten().enumerate().map(|(index, rule)| Allowed {
            at: format!("spec.{}[{index}]", words::field(*direction)),
            means: words::rule(*direction, rule),
        })
    });
    let mut differences = Vec::new();
    let name = |group: &GroupKey| match group {
        GroupKey::IngressOpen | GroupKey::EgressOpen => format!("kuryr-{group}"),
        _ => group.readable(|uid| compiler.policy(uid).cloned()),
    };
    let mut groups = Vec::new();
    for group in &report.groups {
        // One that no pod carries need not be there.
        let Some(wanted) = compiler.rules(group) else { continue };
        let there = made.of(group);
        if there.is_none() {
            differences.push(format!("security group {:?} is not made", name(group)));
        }
        let rules = rules(wanted, there, &made, &name);
        let count = |state| rules.iter().filter(|rule| rule.state == state).count();
        for (state, what) in [(RuleState::Missing, "lacks"), (RuleState::Stray, "has, and should not have,")] {
            if there.is_some() && count(state) > 0 {
                differences.push(format!("security group {:?} {what} {} rules", name(group), count(state)));
            }
        }
        groups.push(GroupRow { name: name(group), id: there.map(|group| group.id), rules });
    }
    let mut pods = Vec::new();
    for pod in &report.pods {
        let row = pod_row(pod, world.pods.get(pod).map(|pod| &pod.uid), compiler, &made, seen, &name);
        if !row.lacks.is_empty() {
            differences.push(format!("pod {pod} lacks {}", words::list(row.lacks.iter().cloned(), "and")));
        }
        if !row.too_many.is_empty() {
            let many = words::list(row.too_many.iter().cloned(), "and");
            differences.push(format!("pod {pod} has, and should not have, {many}"));
        }
        pods.push(row);
    }
    let peers = report.peers.iter().map(|(peers, count)| PeerRow {
        peers: name(peers).trim_start_matches("peers ").to_owned(),
        pods: *count,
        id: made.id(peers),
    });
    let isolated = words::list(isolated, "and");
    let isolates = if isolated.is_empty() { "nothing".to_owned() } else { isolated };
    Some(View {
        policy: key.to_string(),
        uid: policy.uid.to_string(),
        isolates: format!("{} in namespace {}, for {isolates}", words::which_pods(&policy.pods), key.namespace),
        allows: allows.collect(),
        pods,
        groups,
        peers: peers.collect(),
        ready: ready(seen.held),
        problems: problems(seen.held, policy, report),
        differences,
    })
}

fn ready(held: Option<&KuryrNetworkPolicy>) -> String {
    match held.map(KuryrNetworkPolicy::ready) {
        None => "False, it has no KuryrNetworkPolicy yet".to_owned(),
        Some(None) => "False, nothing was said of it yet".to_owned(),
        Some(Some(ready)) => format!("{} {} {}", ready.status, ready.reason, ready.message).trim_end().to_owned(),
    }
}

/// What the controller has said, and what can be seen without it.
fn problems(held: Option<&KuryrNetworkPolicy>, policy: &kuryr_plan::policy::Policy, report: &Report) -> Vec<String> {
    let said = held.and_then(|held| held.status.as_ref()).map(|status| &status.problems);
    let mut all: Vec<String> =
        said.into_iter().flatten().map(|problem| format!("{}: {}", problem.reason, problem.message)).collect();
    let mut seen: Vec<String> = policy.problems.iter().map(ToString::to_string).collect();
    seen.extend(report.nameless.iter().map(|name| format!("no pod has the port {name} that a rule names")));
    seen.retain(|problem| !all.iter().any(|said| said.contains(problem)));
    // Told once, in the controller's words, where it has some.
    if all.is_empty() {
        all = seen;
    }
    all
}

fn pod_row(
    pod: &ObjectKey,
    uid: Option<&PodUid>,
    compiler: &Compiler,
    made: &Made<'_>,
    seen: &Seen<'_>,
    name: &impl Fn(&GroupKey) -> String,
) -> PodRow {
    let port_ids = seen.objects.ports.get(pod).cloned().unwrap_or_default();
    let wanted = uid.and_then(|uid| compiler.groups(uid)).map(|groups| (**groups).clone()).unwrap_or_default();
    let wanted_ids: BTreeSet<SecurityGroupId> = wanted.iter().filter_map(|key| made.id(key)).collect();
    let (mut lacks, mut too_many) = (BTreeSet::new(), BTreeSet::new());
    for port in seen.ports.iter().filter(|port| port_ids.contains(&port.id)) {
        let carried: BTreeSet<SecurityGroupId> = port.security_groups.iter().copied().collect();
        lacks.extend(wanted.iter().filter(|key| made.id(key).is_none_or(|id| !carried.contains(&id))).map(name));
        for open in [GroupKey::IngressOpen, GroupKey::EgressOpen] {
            if made.id(&open).is_some_and(|id| carried.contains(&id)) && !wanted.contains(&open) {
                too_many.insert(name(&open));
            }
        }
        let others = made.by_key.values().map(|group| group.id);
        let strays = others.filter(|id| carried.contains(id) && !wanted_ids.contains(id));
        too_many.extend(strays.map(|id| made.name(id)));
    }
    let (lacks, too_many) = (lacks.into_iter().collect(), too_many.into_iter().collect());
    PodRow { pod: pod.to_string(), port_ids, lacks, too_many }
}

/// The rules that a group should have and those that it has, side by side.
fn rules(
    wanted: &BTreeSet<Rule>,
    there: Option<&SecurityGroup>,
    made: &Made<'_>,
    name: &impl Fn(&GroupKey) -> String,
) -> Vec<RuleRow> {
    let mut left: BTreeMap<&RuleContent, SecurityGroupRuleId> =
        there.into_iter().flat_map(|group| &group.rules).map(|rule| (&rule.allows, rule.id)).collect();
    let mut rows = Vec::new();
    for rule in wanted {
        let id = rule.content(|key| made.id(key)).and_then(|content| left.remove(&content));
        let state = if id.is_some() { RuleState::AsItShouldBe } else { RuleState::Missing };
        let text = match &rule.remote {
            kuryr_plan::policy::Remote::Group(key) => {
                let way = if rule.direction == Direction::Ingress { "from" } else { "to" };
                let bare = Rule { remote: kuryr_plan::policy::Remote::Anywhere, ..rule.clone() };
                format!("{bare} {way} {}", name(key))
            }
            _ => rule.to_string(),
        };
        rows.push(RuleRow { id, rule: text, state });
    }
    let stray = left.into_iter().map(|(content, id)| RuleRow {
        id: Some(id),
        rule: content_text(content, made),
        state: RuleState::Stray,
    });
    rows.extend(stray);
    rows
}

/// A rule of Neutron's in the same form as one of the plan's.
fn content_text(rule: &RuleContent, made: &Made<'_>) -> String {
    let (way, side) = match rule.direction {
        Direction::Ingress => ("in", "from"),
        Direction::Egress => ("out", "to"),
    };
    let family = match rule.ethertype {
        EtherType::IPv4 => "IPv4",
        EtherType::IPv6 => "IPv6",
    };
    let mut text = format!("{way} {family}");
    text.extend(rule.protocol.iter().map(|protocol| format!(" {protocol}")));
    match (rule.port_range_min, rule.port_range_max) {
        (Some(first), Some(last)) if first == last => text += &format!(" {first}"),
        (Some(first), Some(last)) => text += &format!(" {first}-{last}"),
        _ => {}
    }
    text.extend(rule.remote_ip_prefix.iter().map(|prefix| format!(" {side} {prefix}")));
    text.extend(rule.remote_group_id.iter().map(|id| format!(" {side} {}", made.name(*id))));
    text
}
