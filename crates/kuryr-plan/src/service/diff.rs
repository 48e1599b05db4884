//! The steps from what is there to what has to be there.

use super::{desired::Desired, observed::Observed, problem::Problem, step::Step};

/// What to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps that can be said now, in order. Those that need an id that does not exist yet come with a later plan.
    /// [`Step::Wait`]s are last, one for each load balancer that Octavia is at work on.
    pub steps: Vec<Step>,
    /// What stands in the way of what is desired, beside [`Desired::problems`].
    pub problems: Vec<Problem>,
}

/// The steps from `observed` to `desired`. To be asked again after each of them: the first one changes what is there.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed) -> Plan {
    let _ = (desired, observed);
    Plan::default()
}
