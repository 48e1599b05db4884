//! The way from one world to another: an executor with a Neutron of a few lines, which is late, refuses, and loses answers.
//! At each moment nothing passes that neither world allows, and at the end all is as it should be.

mod executor;
mod neutron;
mod passes;

use crate::{
    compare::read,
    incremental,
    neutron::Cloud,
    random,
    spec::Cluster,
    worlds::{self, Dice},
};
use executor::Executor;
use kuryr_model::{ClusterId, SecurityGroupId, neutron::Direction};
use kuryr_plan::{
    enforce::Enforcer,
    policy::{Change, GroupKey, Settings, World, compile},
};
use neutron::Neutron;
use passes::{Passes, lasting, passes};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn cluster() -> ClusterId {
    "c1".into()
}

/// What each world allows that is made by taking over some of the changes in their order.
fn between(start: &World, changes: &[Change]) -> Vec<World> {
    (0..1usize << changes.len())
        .map(|some| {
            let mut world = start.clone();
            let taken = changes.iter().enumerate().filter(|(index, _)| some >> index & 1 == 1);
            taken.for_each(|(_, change)| world.apply(change.clone()));
            world
        })
        .collect()
}

fn run(bytes: &[u8], faults: bool, most: usize) -> Result<(), TestCaseError> {
    let fail = |text: String| TestCaseError::fail(text);
    let mut dice = Dice(bytes.iter());
    let settings: Settings = worlds::settings(&mut dice);
    let Cluster { world: start, policies } = worlds::cluster(&mut dice);
    let start = read(&Cluster { world: start, policies });

    let mut neutron = Neutron::default();
    let open: BTreeMap<GroupKey, SecurityGroupId> = [
        (GroupKey::IngressOpen, neutron.open(Direction::Ingress)),
        (GroupKey::EgressOpen, neutron.open(Direction::Egress)),
    ]
    .into();
    let enforcer = Enforcer::new(settings.clone(), open[&GroupKey::IngressOpen], open[&GroupKey::EgressOpen]);
    let changes_dice: Vec<u8> = dice.0.clone().copied().collect();
    let mut executor =
        Executor { enforcer, neutron, flights: Vec::new(), dice: &mut dice, faults: 0, held: Vec::new() };
    executor.enforcer.apply(start.changes().collect());
    let mut steps = 0;
    loop {
        executor.pods(&start);
        if !executor.advance() {
            break;
        }
        steps += 1;
        prop_assert!(steps < 20_000, "it never ends");
    }
    executor.arrived(&open, &compile(settings.clone(), &start)).map_err(|error| fail(format!("at first: {error}")))?;

    // Other choices than those of the way so far.
    let mut other = Dice(changes_dice.iter());
    let mut changes = Vec::new();
    let mut world = start.clone();
    for _ in 0..=other.below(most) {
        let mut change = incremental::change(&mut other, &world);
        // A port keeps its addresses.
        if let Change::Pod(pod) = &mut change
            && let Some(known) = world.pods.get(&pod.key).filter(|known| known.uid == pod.uid)
        {
            pod.addresses.clone_from(&known.addresses);
        }
        world.apply(change.clone());
        changes.push(change);
    }
    let worlds = between(&start, &changes);
    let pods = lasting(&worlds);
    // Of Services only those count that are the same in all worlds.
    let mut services = start.clone();
    services.services.retain(|key, service| worlds.iter().all(|world| world.services.get(key) == Some(service)));
    let cluster = Cluster { world: services, policies: vec![] };
    let allowed: BTreeSet<Passes> = worlds
        .iter()
        .flat_map(|world| {
            let cloud = Cloud::new(&compile(settings.clone(), world), world.pods.values().filter(|pod| pod.counts()));
            passes(&cloud.unwrap(), &pods, &cluster)
        })
        .collect();
    let before = executor.neutron.clone();
    executor.neutron.updates.clear();
    executor.faults = if faults { 6 } else { 0 };
    executor.enforcer.apply(changes.clone());
    let mut steps = 0;
    loop {
        executor.pods(&world);
        if !executor.advance() {
            break;
        }
        steps += 1;
        prop_assert!(steps < 20_000, "it never ends");
        let now = passes(&executor.neutron.cloud(&world), &pods, &cluster);
        let wider: Vec<&Passes> = now.difference(&allowed).collect();
        prop_assert!(wider.is_empty(), "after {steps} steps {wider:#?} pass\n{changes:#?}\n{start:#?}");
    }
    executor
        .arrived(&open, &compile(settings, &world))
        .map_err(|error| fail(format!("{error}\n{changes:#?}\n{start:#?}")))?;
    prop_assert!(executor.enforcer.is_settled());
    if !faults {
        // Rules of the same content are the same rules still.
        for (id, group) in &before.groups {
            let Some(after) = executor.neutron.groups.get(id) else { continue };
            for rule in &group.rules {
                let twin = after.rules.iter().find(|other| other.allows == rule.allows);
                prop_assert!(twin.is_none_or(|twin| twin.id == rule.id), "a rule was made anew");
            }
        }
        let one = matches!(&changes[..], [Change::Pod(_) | Change::Policy(_) | Change::PolicyGone(_)]);
        let often = executor.neutron.updates.values().any(|updates| *updates > 1);
        prop_assert!(!(one && often && matches!(changes[0], Change::Pod(_))), "a port was changed twice {changes:#?}");
    }
    Ok(())
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 300..1200)
}

#[test]
fn one_change_is_brought_about_without_a_moment_that_is_wider_than_both_worlds() {
    random::runner(10).run(&bytes(), |bytes| run(&bytes, false, 1)).unwrap();
}

#[test]
fn several_changes_at_once_are_never_wider_than_some_world_between() {
    random::runner(10).run(&bytes(), |bytes| run(&bytes, false, 3)).unwrap();
}

#[test]
fn failures_and_lost_answers_make_nothing_wider_and_all_is_right_in_the_end() {
    random::runner(10).run(&bytes(), |bytes| run(&bytes, true, 2)).unwrap();
}
