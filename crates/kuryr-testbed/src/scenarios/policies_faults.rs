//! Neutron misbehaves, the controller is killed, or what was made for policies is changed behind its back. What is asked each
//! time: what a policy forbids stays forbidden throughout, what it allows works when the fault is over, nothing is left.

use super::{
    policies::{comes, goes, pod_of, server},
    policies_grid::Grid,
};
use crate::{
    cloud::{Fault, FaultId, Service},
    dataplane::probe::{Guards, Transport},
    world::{Backend, World, pods::PATIENCE},
};
use anyhow::{Context, ensure};
use http::Method;
use kube::api::{Patch, PatchParams};
use kuryr_model::{
    PortId, SecurityGroupId, SecurityGroupRuleId,
    neutron::{Direction, EtherType, RuleContent},
};
use kuryr_openstack::network::{PortUpdate, security_groups::NewRule};
use serde_json::{Value, json};
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use tokio::time::timeout;
use uuid::Uuid;

/// Time between two looks at everything, for stories that wait for one.
const LOOKS: &str = "prune_interval = \"2s\"";

/// A call that policies need.
type Step = (Method, &'static str);

const MAKE_GROUP: Step = (Method::POST, "/v2.0/security-groups");
const TAG_GROUP: Step = (Method::PUT, "/v2.0/security-groups/*/tags");
const MAKE_RULES: Step = (Method::POST, "/v2.0/security-group-rules");
const CHANGE_PORT: Step = (Method::PUT, "/v2.0/ports/*");
const DELETE_RULE: Step = (Method::DELETE, "/v2.0/security-group-rules/*");
const DELETE_GROUP: Step = (Method::DELETE, "/v2.0/security-groups/*");

/// What people do, each with the calls that it takes.
#[derive(Clone, Copy, Debug)]
enum Act {
    Create,
    Replace,
    Relabel,
    Delete,
}

const ACTS: [(Act, &[Step]); 4] = [
    (Act::Create, &[MAKE_GROUP, TAG_GROUP, MAKE_RULES, CHANGE_PORT]),
    (Act::Replace, &[MAKE_RULES, DELETE_RULE]),
    (Act::Relabel, &[CHANGE_PORT]),
    (Act::Delete, &[CHANGE_PORT, DELETE_GROUP]),
];

/// A server that a policy guards; a friend that it lets in, another one that it does later, and one that it never does and that
/// knocks all the time.
struct Cast {
    _server: Backend,
    target: SocketAddr,
    friend: PathBuf,
    other: PathBuf,
    guards: Guards,
    never: PathBuf,
}

impl Cast {
    async fn new(world: &World) -> anyhow::Result<Self> {
        let ((server, target), (_, friend), (_, other), (_, never)) =
            tokio::try_join!(server(world), pod_of(world, "friend"), pod_of(world, "other"), pod_of(world, "never"))?;
        Ok(Self { _server: server, target, friend, other, never, guards: Guards::default() })
    }

    fn spec(peers: &[&str], ports: &Value) -> Value {
        let peer = |app: &&str| json!({"podSelector": {"matchLabels": {"app": app}}});
        let peers: Vec<Value> = peers.iter().map(peer).collect();
        json!({
            "podSelector": {"matchLabels": {"app": "server"}},
            "ingress": [{"from": peers, "ports": ports}],
        })
    }

    async fn act(&self, world: &World, act: Act) -> anyhow::Result<()> {
        let policies = world.policies();
        match act {
            Act::Create => drop(policies.create("guard", &Self::spec(&["friend"], &json!([{"port": 80}]))).await?),
            Act::Replace => {
                let ports = json!([{"port": 80, "endPort": 90}, {"port": 7000, "protocol": "UDP"}]);
                drop(policies.replace("guard", &Self::spec(&["friend", "later"], &ports)).await?);
            }
            Act::Relabel => {
                for (pod, app) in [("friend", "nobody"), ("other", "later")] {
                    self.label(world, pod, app).await?;
                }
            }
            Act::Delete => policies.delete("guard").await?,
        }
        Ok(())
    }

    async fn label(&self, world: &World, pod: &str, app: &str) -> anyhow::Result<()> {
        let patch = Patch::Merge(json!({"metadata": {"labels": {"app": app}}}));
        world.pods().api().patch(pod, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// What holds after an act is seen.
    async fn holds(&mut self, world: &World, act: Act) -> anyhow::Result<()> {
        let seen = match act {
            Act::Create | Act::Replace => {
                comes(&self.friend, self.target).await.context("who is let in")?;
                goes(&self.other, self.target).await.context("who is not let in")?;
                goes(&self.never, self.target).await.context("who is never let in")
            }
            Act::Relabel => {
                comes(&self.other, self.target).await.context("who is let in now")?;
                goes(&self.friend, self.target).await.context("who is not let in any more")
            }
            Act::Delete => {
                for netns in [&self.friend, &self.other, &self.never] {
                    comes(netns, self.target).await.context("everybody, without a policy")?;
                }
                self.label(world, "friend", "friend").await?;
                self.label(world, "other", "other").await
            }
        };
        seen.with_context(|| format!("after {act:?}"))?;
        if matches!(act, Act::Create) {
            self.guards = Guards::default();
            self.guards.post(&self.never, self.target, "who is never let in").await?;
        }
        Ok(())
    }

    /// Nothing may have got through until now; with the next act, something may.
    fn guarded(&mut self, next: Act) -> anyhow::Result<()> {
        if matches!(next, Act::Delete) {
            let through = std::mem::take(&mut self.guards).through();
            ensure!(through.is_empty(), "it got through: {through:?}");
        }
        Ok(())
    }
}

/// Each act, while each of the calls that it takes goes wrong for a few times.
async fn live_despite(world: &World, fault: impl Fn() -> Fault) -> anyhow::Result<()> {
    let mut cast = Cast::new(world).await?;
    let faults = world.inside()?.cloud.faults().clone();
    let rounds = ACTS.iter().map(|(_, steps)| steps.len()).max().unwrap_or_default();
    for round in 0..rounds {
        for (act, steps) in ACTS {
            // Each call that the act takes, in one of the rounds.
            let (method, path) = &steps[round % steps.len()];
            let id = faults.add(fault().service(Service::Network).on(method.clone(), path));
            cast.guarded(act)?;
            cast.act(world, act).await?;
            struck(world, id, 1).await.with_context(|| format!("{act:?}: {method} {path}"))?;
            let held = cast.holds(world, act).await;
            held.with_context(|| format!("{method} {path} went wrong {} times", faults.hits(id)))?;
            faults.remove(id);
        }
    }
    Ok(())
}

async fn struck(world: &World, id: FaultId, hits: usize) -> anyhow::Result<()> {
    let faults = world.inside()?.cloud.faults().clone();
    timeout(PATIENCE, faults.wait_for_hits(id, hits)).await.context("the fault never struck")
}

pub(super) async fn neutron_answers_500_to_policies(world: &mut World) -> anyhow::Result<()> {
    live_despite(world, || Fault::internal_error().times(3)).await
}

pub(super) async fn neutron_drops_connections_of_policies(world: &mut World) -> anyhow::Result<()> {
    live_despite(world, || Fault::drop_connection().times(2)).await
}

pub(super) async fn the_answers_to_policies_are_lost(world: &mut World) -> anyhow::Result<()> {
    live_despite(world, || Fault::lose_answer().times(2)).await
}

pub(super) async fn the_controller_is_killed_during_each_step_of_a_policy(world: &mut World) -> anyhow::Result<()> {
    let mut cast = Cast::new(world).await?;
    let faults = world.inside()?.cloud.faults().clone();
    let rounds = ACTS.iter().map(|(_, steps)| steps.len()).max().unwrap_or_default();
    // Before the call's work, and after it.
    let kinds = [("before", Fault::delay(Duration::from_secs(2))), ("after", Fault::lose_answer())];
    for ((when, fault), round) in kinds.iter().flat_map(|kind| (0..rounds).map(move |round| (kind, round))) {
        for (act, steps) in ACTS {
            cast.guarded(act)?;
            // No call twice, where an act takes fewer than another.
            if let Some((method, path)) = steps.get(round) {
                let id = faults.add(fault.clone().service(Service::Network).on(method.clone(), path).times(1));
                cast.act(world, act).await?;
                struck(world, id, 1).await.with_context(|| format!("{act:?}: {method} {path}"))?;
                world.kuryr.kill_controllers().await?;
                faults.remove(id);
                world.kuryr.start_controller().await?;
                world.leader_elected().await?;
                let held = cast.holds(world, act).await;
                held.with_context(|| format!("killed {when} {method} {path}"))?;
            } else {
                cast.act(world, act).await?;
                cast.holds(world, act).await?;
            }
        }
    }
    Ok(())
}

/// A policy is made while the quota leaves it no room: its pods are closed, and it says why; others work; it heals.
async fn quota(world: &World, kind: &str, free: u64) -> anyhow::Result<()> {
    let mut cast = Cast::new(world).await?;
    let inside = world.inside()?;
    inside.leave_free(&world.cloud, kind, free).await?;
    cast.act(world, Act::Create).await?;
    world.policies().waits_with("guard", "QuotaExceeded").await?;
    world.told("guard", "QuotaExceeded").await?;
    for netns in [&cast.friend, &cast.other, &cast.never] {
        goes(netns, cast.target).await.context("a pod whose policy cannot be done")?;
    }
    // Others are left alone: these two have no policy.
    let other = world.backend("bystander", "bystander".to_owned(), &[80]).await?;
    comes(&cast.other, (other.address, 80).into()).await.context("another pod meanwhile")?;
    inside.set_quota(kind, -1)?;
    cast.holds(world, Act::Create).await?;
    world.policies().ready("guard").await.map(drop)
}

pub(super) async fn the_quota_of_security_groups_is_used_up(world: &mut World) -> anyhow::Result<()> {
    quota(world, "security_group", 0).await
}

pub(super) async fn the_quota_of_security_group_rules_is_used_up(world: &mut World) -> anyhow::Result<()> {
    quota(world, "security_group_rule", 0).await
}

/// The groups of Neutron that carry the mark of the cluster and are not those of `kuryr setup`.
fn made_for_policies(world: &World) -> anyhow::Result<Vec<Uuid>> {
    let snapshot = world.inside()?.cloud.snapshot();
    let owner = kuryr_model::mark::cluster_tag(&world.cluster);
    let ours = snapshot
        .security_groups
        .values()
        .filter(|group| group.tags.contains(&owner) && !group.tags.iter().any(|tag| tag.starts_with("kuryr:base:")));
    Ok(ours.map(|group| group.id).collect())
}

pub(super) async fn what_was_made_for_policies_is_changed_behind_our_back(world: &mut World) -> anyhow::Result<()> {
    world.use_controller_settings(LOOKS).await?;
    let mut cast = Cast::new(world).await?;
    cast.act(world, Act::Create).await?;
    cast.holds(world, Act::Create).await?;
    let cloud = world.inside()?.cloud.clone();
    let neutron = world.cloud.network();
    let port = world.port_of(&world.pods().running("server").await?).await?;

    // A rule goes: what it let in is let in again.
    let snapshot = cloud.snapshot();
    let groups = made_for_policies(world)?;
    let rules: Vec<Uuid> =
        groups.iter().flat_map(|id| &snapshot.security_groups[id].rules).map(|rule| rule.id).collect();
    ensure!(!rules.is_empty(), "no rules were made");
    for rule in &rules {
        neutron.security_groups().delete_rule(SecurityGroupRuleId(*rule)).await?;
    }
    let again = || {
        let made: anyhow::Result<Vec<Vec<Uuid>>> = groups.iter().map(|id| rules_of(world, *id)).collect();
        let made = made?.concat();
        Ok(made.len() == rules.len() && !made.iter().any(|rule| rules.contains(rule)))
    };
    becomes("the rules are not made again", again).await?;
    comes(&cast.friend, cast.target).await.context("after the rules were deleted")?;

    // A rule comes: what it lets in is not let in for long.
    let carried: Vec<SecurityGroupId> = port_groups(world, port.id.0)?;
    let policy = carried.iter().find(|id| groups.contains(&id.0)).context("the pod has no group of ours")?;
    cast.guarded(Act::Delete)?;
    let allows = RuleContent::everything(Direction::Ingress, EtherType::IPv4);
    let theirs = neutron.security_groups().create_rules(&[NewRule { security_group_id: *policy, allows }]).await?;
    let theirs: Vec<Uuid> = theirs.iter().map(|rule| rule.id.0).collect();
    let gone = || Ok(!rules_of(world, policy.0)?.iter().any(|rule| theirs.contains(rule)));
    becomes("somebody's rule stays", gone).await?;
    goes(&cast.never, cast.target).await.context("somebody's rule")?;

    // The pod's port gets other groups.
    let open = world.open_group().await?;
    for theirs in [vec![open], Vec::new()] {
        let change = PortUpdate { security_groups: Some(theirs.clone()), ..PortUpdate::default() };
        neutron.ports().update(port.id, &change, None).await?;
        let back = || Ok(port_groups(world, port.id.0)? == carried);
        becomes(&format!("the port keeps {theirs:?}, not {carried:?}"), back).await?;
        goes(&cast.never, cast.target).await.context("somebody's groups")?;
        comes(&cast.friend, cast.target).await.context("after somebody's groups")?;
    }

    // The groups go, all of them: nobody may have them then.
    let ports = cloud.ports().into_iter().filter(|port| port.security_groups.iter().any(|id| groups.contains(id)));
    for port in ports {
        let kept = port.security_groups.iter().filter(|id| !groups.contains(id));
        let kept = kept.map(|id| SecurityGroupId(*id)).collect();
        let change = PortUpdate { security_groups: Some(kept), ..PortUpdate::default() };
        neutron.ports().update(PortId(port.id), &change, None).await?;
    }
    for group in &groups {
        // Kuryr may have given it to a port again in between: then it stays, and that is well, too.
        let _ = neutron.security_groups().delete(SecurityGroupId(*group)).await;
    }
    comes(&cast.friend, cast.target).await.context("after the groups were deleted")?;
    goes(&cast.never, cast.target).await.context("after the groups were deleted")?;
    cast.act(world, Act::Delete).await?;
    cast.holds(world, Act::Delete).await
}

/// Waits until something is so in the cloud.
async fn becomes(otherwise: &str, so: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let changed = async {
        while !so()? {
            // Neutron tells nobody of changes.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, changed).await.with_context(|| otherwise.to_owned())?
}

/// The rules of a group; none if there is no such group.
fn rules_of(world: &World, group: Uuid) -> anyhow::Result<Vec<Uuid>> {
    let snapshot = world.inside()?.cloud.snapshot();
    let rules = snapshot.security_groups.get(&group).map(|group| group.rules.iter().map(|rule| rule.id).collect());
    Ok(rules.unwrap_or_default())
}

fn port_groups(world: &World, port: Uuid) -> anyhow::Result<Vec<SecurityGroupId>> {
    let port = world.inside()?.cloud.port(port).context("the port is gone")?;
    let mut groups: Vec<SecurityGroupId> = port.security_groups.iter().map(|id| SecurityGroupId(*id)).collect();
    groups.sort_unstable();
    Ok(groups)
}

pub(super) async fn address_groups_that_let_everyone_in_are_not_used(world: &mut World) -> anyhow::Result<()> {
    // The trap is there: whoever has a rule about an address group lets everyone in.
    let cloud = world.inside()?.cloud.clone();
    let vm = world.start_vm("vm").await?;
    let port = world.cloud.network().ports().get(vm.port).await?;
    let (_, netns) = pod_of(world, "pod").await?;
    let vm_ip = *vm.addresses.first().context("the VM has no address")?;
    let target = SocketAddr::new(vm_ip, 80);
    let server = crate::dataplane::probe::listen(&vm.netns, target).await?;
    let new =
        kuryr_openstack::network::security_groups::NewSecurityGroup { name: "theirs".into(), ..Default::default() };
    let theirs = world.cloud.network().security_groups().create(&new).await?;
    let groups = |groups: Vec<SecurityGroupId>| PortUpdate { security_groups: Some(groups), ..PortUpdate::default() };
    world.cloud.network().ports().update(vm.port, &groups(vec![theirs.id]), None).await?;
    goes(&netns, target).await.context("a group that lets nobody in")?;
    let somebody: [ipnet::IpNet; 1] = ["192.0.2.1/32".parse()?];
    ensure!(cloud.admit_address_group(theirs.id.0, &somebody), "Neutron refuses a rule about an address group");
    comes(&netns, target).await.context("who is not in the address group")?;
    drop(server);
    world.cloud.network().ports().update(vm.port, &groups(port.security_groups), None).await?;
    world.cloud.network().security_groups().delete(theirs.id).await?;
    world.stop_vm(vm).await?;

    // Kuryr does not step into it.
    cloud.calls().reset();
    let grid = Grid::new(world, &[Transport::Tcp]).await?;
    let spec = "podSelector: {}
policyTypes: [Ingress, Egress]
ingress:
- from:
  - ipBlock: {cidr: 0.0.0.0/0, except: ['{y/a}/32', '{z/b}/32']}
  ports: [{port: 80}]
- from: [{namespaceSelector: {matchLabels: {ns: z}}, podSelector: {matchLabels: {pod: a}}}]
egress:
- to: [{podSelector: {}}]";
    world.policies_of(&grid.namespace("x")).create("strict", &grid.spec(spec)?).await?;
    let allows = |ask: &super::policies_grid::Ask<'_>| {
        let into = !ask.to(&["x/*"]) || (ask.tcp(80) && !ask.from(&["y/a", "z/b"])) || ask.from(&["z/a"]);
        into && (!ask.from(&["x/*"]) || ask.to(&["x/*"]))
    };
    grid.expect(allows).await?;
    let asked = cloud.calls().filter(|call| call.template.contains("address-groups"));
    ensure!(asked.is_empty(), "address groups were asked for: {asked:?}");
    Ok(())
}
