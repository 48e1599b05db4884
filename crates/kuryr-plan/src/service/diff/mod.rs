//! The steps from what is there to what has to be there.
//!
//! ```text
//!   Desired, Observed ──matching──▶ pairs ──trees──▶ make, rebuild, fail over, delete load balancers
//!                                     │  └─listeners─▶ within a load balancer that is ACTIVE
//!                                     └──floating──▶ the floating IP, once there is a VIP port that it can lead to
//! ```

mod floating;
mod listeners;
mod trees;

use super::{
    matching::pairs,
    observed::Observed,
    problem::{Effect, Problem, Reason},
    step::Step,
    wanted::Desired,
};

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps that can be said now, in order. Those that need an id that does not exist yet come with a later plan.
    /// [`Step::Wait`]s are last, one for each load balancer that Octavia is at work on.
    pub steps: Vec<Step>,
    /// What stands in the way of what is desired, beside [`Desired::problems`]; sorted.
    pub problems: Vec<Problem>,
}

impl Plan {
    /// Nothing is to be done, and nothing to be waited for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

/// When a step's turn is. What reaches pods that are gone, or clients that it must not reach, is put right before all else,
/// then what is missing and needs but one step; what is not wanted goes before the rest comes, since a quota may have room
/// for only one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    Restrict,
    Members,
    Attach,
    Remove,
    Build,
    Expose,
    Wait,
}

/// A plan in the making.
struct Planner<'a> {
    desired: &'a Desired,
    steps: Vec<(Turn, Step)>,
    problems: Vec<Problem>,
}

impl Planner<'_> {
    fn step(&mut self, turn: Turn, step: Step) {
        self.steps.push((turn, step));
    }

    fn problem(&mut self, reason: Reason, about: &str, effect: Effect, message: String) {
        self.problems.push(Problem::new(reason, about, effect, message));
    }
}

/// The steps from `observed` to `desired`. To be asked again after each of them: the first one changes what is there.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed) -> Plan {
    let pairs = pairs(desired, observed);
    let mut planner = Planner { desired, steps: Vec::new(), problems: Vec::new() };
    for (tree, there) in &pairs.wanted {
        planner.tree(tree, *there);
    }
    for there in &pairs.leftover {
        planner.leftover(there);
    }
    planner.floating(&pairs, observed);
    let Planner { mut steps, mut problems, .. } = planner;
    steps.sort_by_key(|(turn, _)| *turn);
    problems.sort();
    problems.dedup();
    Plan { steps: steps.into_iter().map(|(_, step)| step).collect(), problems }
}

#[cfg(test)]
#[path = "../diff_tests/mod.rs"]
pub(super) mod tests;
