//! From anything that may be there to anything that may be wanted.

use super::{
    arbitrary::{Case, case},
    holds::assert_holds,
    objects::key,
    octavia::Octavia,
};
use crate::service::{Desired, Place, Step, plan};
use kuryr_model::{ListenerId, LoadBalancerId, lb::Provisioning};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// More steps than any case can need: each object is made, changed and removed a few times at most.
const ENOUGH: usize = 400;

/// Carries out plans, one first step after the other, until one is empty; the steps that were done.
pub(crate) fn settle(octavia: &mut Octavia, desired: &Desired) -> Vec<Step> {
    let mut done: Vec<Step> = Vec::new();
    while let Some(step) = plan(desired, &octavia.there).steps.first().cloned() {
        octavia.apply(&step);
        done.push(step);
        let tail = done.len().saturating_sub(12);
        let text = || done[tail..].iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(done.len() < ENOUGH, "it never ends:\n{}", text());
    }
    done
}

/// Our listeners that are as wanted already, but for what can be changed in place: nothing may take them away. Those in a
/// load balancer that has to be made anew are not among them.
fn staying(octavia: &Octavia, desired: &Desired) -> BTreeSet<ListenerId> {
    let mut staying = BTreeSet::new();
    let doomed: BTreeSet<LoadBalancerId> = plan(desired, &octavia.there)
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::DeleteTree { load_balancer, .. } => Some(*load_balancer),
            _ => None,
        })
        .collect();
    for lb in &octavia.there.trees {
        let about = &lb.load_balancer;
        let stays = about.provisioning_status == Provisioning::Active && !doomed.contains(&about.id);
        for tree in &desired.trees {
            let is_it = match &tree.place {
                Place::Existing(id) => about.id == *id,
                _ => tree.addresses().any(|ip| about.addresses().any(|other| other == ip)),
            };
            let wanted = |listener: &&kuryr_model::lb::Listener| {
                listener.tags == tree.tags
                    && listener.provisioning_status == Provisioning::Active
                    && tree.listeners.iter().any(|w| w.key == key(listener) && w.protocol == listener.protocol)
            };
            if stays && is_it {
                staying.extend(lb.listeners.iter().filter(wanted).map(|listener| listener.id));
            }
        }
    }
    staying
}

/// Listeners that have a listener pool which can serve.
fn served(octavia: &Octavia) -> BTreeSet<ListenerId> {
    let mut served = BTreeSet::new();
    for lb in &octavia.there.trees {
        let pools: BTreeSet<_> = lb.pools.iter().map(|pool| pool.pool.id).collect();
        let has =
            |listener: &&kuryr_model::lb::Listener| listener.default_pool_id.is_some_and(|id| pools.contains(&id));
        served.extend(lb.listeners.iter().filter(has).map(|listener| listener.id));
    }
    served
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_leads_from_anything_to_what_is_wanted_and_then_is_empty(case in case()) {
        let Case { mut octavia, before, damages, after } = case;
        // What somebody made is there for as long as they like.
        if let Some(before) = &before {
            settle(&mut octavia, before);
        }
        for damage in damages {
            damage.strike(&mut octavia, &after);
        }
        let staying = staying(&octavia, &after);
        let served_before: BTreeSet<_> = served(&octavia).intersection(&staying).copied().collect();
        let mut steps = 0;
        while let Some(step) = plan(&after, &octavia.there).steps.first().cloned() {
            octavia.apply(&step);
            steps += 1;
            prop_assert!(steps < ENOUGH, "it never ends: {step}");
            let now = served(&octavia);
            prop_assert!(served_before.is_subset(&now), "what stays was not served after: {step}");
        }
        assert_holds(&after, &octavia.there);
    }

    #[test]
    fn a_plan_says_first_what_it_is_to_do_first_and_waits_last(case in case()) {
        let Case { mut octavia, before, damages, after } = case;
        if let Some(before) = &before {
            settle(&mut octavia, before);
        }
        for damage in damages {
            damage.strike(&mut octavia, &after);
        }
        let plan = plan(&after, &octavia.there);
        let waits: Vec<bool> = plan.steps.iter().map(|step| matches!(step, Step::Wait { .. })).collect();
        prop_assert!(waits.is_sorted(), "{:?}", plan.steps);
        // All of a plan may be done in order, if one waits in between: nothing in it contradicts the rest.
        for step in plan.steps.iter().filter(|step| !matches!(step, Step::Wait { .. })) {
            if let Some(id) = step.load_balancer() {
                if octavia.there.trees.iter().all(|tree| tree.load_balancer.id != id) {
                    continue;
                }
                let status = octavia.tree(id).load_balancer.provisioning_status;
                if status.is_pending() {
                    octavia.apply(&Step::Wait { load_balancer: id, status });
                }
            }
            octavia.apply(step);
        }
        settle(&mut octavia, &after);
        assert_holds(&after, &octavia.there);
    }
}
