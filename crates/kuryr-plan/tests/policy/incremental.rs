//! However a world came about: what is compiled of it is the same, and each delta says what changed.

use crate::{compare::read, random, spec::Cluster, worlds};
use kuryr_plan::policy::{Change, Compiled, Compiler, Delta, GroupChange, PodChange, Policy, World, compile};
use proptest::prelude::*;
use worlds::Dice;

/// Does to groups and ports what a delta says, as an executor would.
fn carry_out(state: &mut Compiled, delta: Delta) -> Result<(), String> {
    for (key, change) in delta.groups {
        match change {
            GroupChange::Made(rules) => {
                if state.groups.insert(key.clone(), rules).is_some() {
                    return Err(format!("{key} was there already"));
                }
            }
            GroupChange::Changed { added, removed } => {
                let rules = state.groups.get_mut(&key).ok_or(format!("{key} is not there"))?;
                if added.is_empty() && removed.is_empty() {
                    return Err(format!("{key} has not changed"));
                }
                if !rules.is_disjoint(&added) || !rules.is_superset(&removed) {
                    return Err(format!("{key} had other rules"));
                }
                rules.retain(|rule| !removed.contains(rule));
                rules.extend(added);
            }
            GroupChange::Gone => drop(state.groups.remove(&key).ok_or(format!("{key} was not there"))?),
        }
    }
    for (uid, PodChange { before, now }) in delta.pods {
        let (before, now) = (before.map(|groups| (*groups).clone()), now.map(|groups| (*groups).clone()));
        if state.pods.get(&uid) != before.as_ref() || before == now {
            return Err(format!("{uid} has not changed, or from other groups"));
        }
        match now {
            Some(groups) => drop(state.pods.insert(uid, groups)),
            None => drop(state.pods.remove(&uid)),
        }
    }
    Ok(())
}

/// One random change of a world.
pub(crate) fn change(dice: &mut Dice, world: &World) -> Change {
    match dice.below(20) {
        0..=2 => {
            let index = dice.below(7);
            Change::Pod(worlds::pod(dice, index))
        }
        3..=7 => relabelled(dice, world),
        8 => gone(dice, world.pods.keys()).map_or_else(|| new_policy(dice, world), Change::PodGone),
        9..=11 => new_policy(dice, world),
        12 => gone(dice, world.policies.keys()).map_or_else(|| new_policy(dice, world), Change::PolicyGone),
        13..=14 => {
            let index = dice.below(3);
            Change::Service(worlds::service(dice, index, world))
        }
        15 => gone(dice, world.services.keys()).map_or_else(|| new_policy(dice, world), Change::ServiceGone),
        16 => {
            let (name, labels) = worlds::namespace(dice);
            Change::Namespace(name, labels)
        }
        17 => gone(dice, world.namespaces.keys()).map_or_else(|| new_policy(dice, world), Change::NamespaceGone),
        18 => {
            let index = dice.below(2);
            let (name, addresses) = worlds::node(dice, index);
            Change::Node(name, addresses)
        }
        _ => gone(dice, world.nodes.keys()).map_or_else(|| new_policy(dice, world), Change::NodeGone),
    }
}

fn new_policy(dice: &mut Dice, world: &World) -> Change {
    let index = dice.below(5);
    let plain = dice.below(2) == 1;
    let policy = if plain { worlds::plain_policy(dice, index, world) } else { worlds::policy(dice, index) };
    Change::Policy(Policy::read(&policy).unwrap())
}

/// One of the pods there are, with other labels, addresses or node.
pub(crate) fn relabelled(dice: &mut Dice, world: &World) -> Change {
    let Some(pod) = gone(dice, world.pods.keys()).and_then(|key| world.pods.get(&key)) else {
        return new_policy(dice, world);
    };
    let other = worlds::pod(dice, dice_index(&pod.key.name));
    let mut pod = pod.clone();
    match dice.below(4) {
        0 | 1 => pod.labels = other.labels,
        2 => pod.addresses = other.addresses,
        _ => pod.node = other.node,
    }
    Change::Pod(pod)
}

fn dice_index(name: &str) -> usize {
    name.trim_start_matches('p').parse().unwrap()
}

fn gone<'a, K: Clone + 'a>(dice: &mut Dice, mut keys: impl ExactSizeIterator<Item = &'a K>) -> Option<K> {
    let index = dice.below(keys.len().max(1));
    keys.nth(index).cloned()
}

/// What is in one and not in the other.
fn difference(found: &Compiled, fresh: &Compiled) -> String {
    let pods = |of: &Compiled, not: &Compiled| {
        let other = |(uid, groups): &(_, _)| not.pods.get(*uid) != Some(*groups);
        of.pods.iter().filter(other).map(|(uid, groups)| format!("\n{uid} {groups:?}")).collect::<String>()
    };
    let groups = |of: &Compiled, not: &Compiled| {
        let other = |(key, rules): &(_, _)| not.groups.get(*key) != Some(*rules);
        of.groups.iter().filter(other).map(|(key, rules)| format!("\n{key} {rules:?}")).collect::<String>()
    };
    let (mine, theirs) = (pods(found, fresh) + &groups(found, fresh), pods(fresh, found) + &groups(fresh, found));
    format!("{mine}\nshould be{theirs}\n")
}

#[test]
fn after_every_change_all_is_as_if_computed_from_nothing() {
    let world = |bytes: Vec<u8>| {
        let mut dice = Dice(bytes.iter());
        let settings = worlds::settings(&mut dice);
        let Cluster { world: mut start, policies } = worlds::cluster(&mut dice);
        start = read(&Cluster { world: start, policies });
        let mut compiler = Compiler::new(settings.clone());
        let mut carried_out = Compiled::default();
        carry_out(&mut carried_out, compiler.apply(start.changes())).map_err(TestCaseError::fail)?;
        let mut world = start;
        while dice.0.len() > 0 {
            let mut changes = Vec::new();
            for _ in 0..=dice.below(8).saturating_sub(5) {
                let change = change(&mut dice, &world);
                world.apply(change.clone());
                changes.push(change);
            }
            let context = || format!("after {changes:#?}\nto {world:#?}");
            let delta = compiler.apply(changes.clone());
            carry_out(&mut carried_out, delta)
                .map_err(|error| TestCaseError::fail(format!("{error} {}", context())))?;
            let fresh = compile(settings.clone(), &world);
            for (what, found) in [("held", &compiler.compiled()), ("carried out", &carried_out)] {
                prop_assert!(*found == fresh, "{what}: {} {}", difference(found, &fresh), context());
            }
            prop_assert!(compiler.apply(changes.clone()).is_empty(), "the same again {}", context());
        }
        Ok(())
    };
    random::runner(4).run(&proptest::collection::vec(any::<u8>(), 0..900), world).unwrap();
}
