mod arbitrary;
mod floating;
mod holds;
mod objects;
mod octavia;
mod properties;
mod shared;
mod stories;
mod trouble;

pub(in crate::service) use self::octavia::Octavia;
use super::{Plan, plan};
use crate::service::{Desired, Endpoint, Observed, Provider, Service, desired, fixtures};
use properties::settle;

/// What `service` with pods at `endpoints` has to have, on Amphora.
fn want(service: &Service, endpoints: &[Endpoint]) -> Desired {
    desired(service, &fixtures::pods(endpoints), &fixtures::site(Provider::Amphora))
}

/// An Octavia in which that is so already.
pub(in crate::service) fn made(desired: &Desired) -> Octavia {
    let mut octavia = Octavia::new();
    settle(&mut octavia, desired);
    octavia
}

/// What is done, as a person reads it, without the waiting.
fn done(octavia: &mut Octavia, desired: &Desired) -> Vec<String> {
    let steps = settle(octavia, desired);
    let text = steps.iter().map(ToString::to_string);
    text.filter(|step| !step.starts_with("wait")).collect()
}

fn steps(desired: &Desired, there: &Observed) -> Vec<String> {
    let Plan { steps, .. } = plan(desired, there);
    steps.iter().map(ToString::to_string).collect()
}
