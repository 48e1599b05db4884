//! Octavia's refusals. It gives its errors no names, only sentences, and within them come the sentences of Neutron, which
//! refused Octavia an address, and of the provider, which refused the work.
//!
//! Where an address is refused depends on who makes the port. Octavia itself (for `amphora`): Neutron's status, `Error
//! creating neutron port on network N due to S`. The OVN provider: 500, `Provider 'ovn' reports error: S`. In both S is
//! Neutron's sentence, and nothing was created.
//! Sources: octavia/common/exceptions.py, octavia/network/drivers/neutron, ovn_octavia_provider/driver.py,
//! neutron/ipam/exceptions.py, wsme/exc.py.

use super::{Class, Waits};
use crate::Refusal;
use http::Method;
use kuryr_model::lb::Provisioning;

/// What is to be done about a refusal; none: what is done about everybody's.
pub(super) fn class(method: &Method, refusal: &Refusal, later: Class) -> Option<Class> {
    let Refusal { status, message, .. } = refusal;
    let operator = |waits| Some(Class::Operator(waits));
    match status {
        400 | 409 | 500 if exhausted(message) => operator(Waits::Exhausted),
        400 | 409 | 500 if address_taken(message) || address_wrong(message) => Some(Class::Owner),
        400 | 403 | 409 | 413 | 500 if quota(message) => operator(Waits::Quota),
        // It lies in a page that somebody else took away meanwhile.
        400 if message.contains("pagination marker") => Some(Class::RetryNow),
        400 | 501 if unsupported(refusal) => Some(Class::Owner),
        400 if forbidden_here(message) => operator(Waits::Configuration),
        400 if wish(message) => Some(Class::Owner),
        404 if *method == Method::POST && parent(message) => Some(later),
        409 if duplicate(refusal) => Some(Class::RetryNow),
        // A proxy's limit for bodies, or for requests per time.
        413 => Some(if refusal.retry_after.is_some() { later } else { Class::Operator(Waits::Configuration) }),
        _ => None,
    }
}

/// The state that makes a load balancer refuse a change, where Octavia says it.
pub(super) fn immutable_state(refusal: &Refusal) -> Option<Provisioning> {
    let (state, _) = refusal.message.strip_prefix("Invalid state ")?.split_once(" of loadbalancer resource")?;
    serde_json::from_value(state.into()).ok()
}

/// Whether a load balancer, or what the change is about, is at work or broken.
pub(super) fn immutable(refusal: &Refusal) -> bool {
    refusal.status == 409
        && (refusal.message.contains("is immutable and cannot be updated") || immutable_state(refusal).is_some())
}

/// Whether the provider cannot do it, or this Octavia is too old to have heard of it.
pub(super) fn unsupported(refusal: &Refusal) -> bool {
    let message = &refusal.message;
    match refusal.status {
        // The other 501: "Provider 'x' was not found."
        501 => message.contains("does not support"),
        400 => {
            message.starts_with("Unknown attribute")
                || (message.starts_with("Invalid input for field/attribute")
                    && message.contains("Value should be one of"))
        }
        _ => false,
    }
}

/// Whether there is one already. "Already an entity with that specified id" is said of every clash in a tree.
pub(super) fn duplicate(refusal: &Refusal) -> bool {
    const SENTENCES: [&str; 4] = [
        "is already using",
        "already has a health monitor",
        "already has a default pool",
        "Already an entity with that specified id",
    ];
    refusal.status == 409 && any(&refusal.message, &SENTENCES)
}

/// Whether the address is another's.
pub(super) fn address_taken(message: &str) -> bool {
    message.contains("already allocated in subnet")
        || (message.contains("The IP address ") && message.contains(" is in use"))
}

/// Whether the address can be nobody's there.
fn address_wrong(message: &str) -> bool {
    any(
        message,
        &[
            "is not a valid IP for",
            "does not belong to subnet",
            "does not contain a subnet for VIP address",
            "Specified VIP address not found",
        ],
    )
}

fn exhausted(message: &str) -> bool {
    any(message, &["No more IP addresses available", "do not contain enough available IPs"])
}

fn quota(message: &str) -> bool {
    any(message, &["Quota has been met", "Quota exceeded for resources"])
}

/// What those who run the cloud, or Kuryr, set otherwise than it was asked for.
fn forbidden_here(message: &str) -> bool {
    any(
        message,
        &[
            "by this deployment's configuration",
            "not allowed by the configuration",
            "is not allowed in this deployment",
            "is not enabled",
            "is not compatible with provider",
            "Invalid flavor_id",
            "Invalid availability",
            "Missing project ID",
            // A subnet, network or port to have an address in.
            "not found.",
        ],
    )
}

/// What a Service asks for and no Octavia would do.
fn wish(message: &str) -> bool {
    any(
        message,
        &["Validation failure", "is not a valid option for", "Not a valid URLPath", "cannot have child objects"],
    )
}

/// Whether what is missing is what a new object was to be below.
fn parent(message: &str) -> bool {
    ["Load Balancer ", "Listener ", "Pool "].iter().any(|kind| message.starts_with(kind))
}

fn any(message: &str, sentences: &[&str]) -> bool {
    sentences.iter().any(|sentence| message.contains(sentence))
}

#[cfg(test)]
#[path = "octavia_tests.rs"]
mod tests;
