//! What is to be done next for a Service and the `KuryrLoadBalancer` of its name: pure.
//!
//! ```text
//!            has something to serve                     gone, another one, or nothing to serve
//!   (none) ──Hold──▶ KuryrLoadBalancer ──Serve─┐  ──Drop──▶ KuryrLoadBalancer deleting ──Release──▶ (none)
//!                        ▲          └──────────┘                deleted by hand ─LetGo─▶ (none) ─Hold─▶ ...
//! ```

use kuryr_model::{KuryrLoadBalancer, ServiceUid};
use kuryr_plan::service::{Desired, Nothing};

/// The next step. Each changes what is observed, so that the following call gives the one after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing is wanted and nothing is held.
    Nothing,
    /// Make the `KuryrLoadBalancer`, before there is anything for it to hold.
    Hold,
    /// Bring load balancer and floating IP to what the Service asks for.
    Serve,
    /// Delete the `KuryrLoadBalancer`: its finalizer holds it.
    Drop,
    /// Delete what there is for this UID in the cloud, then let the `KuryrLoadBalancer` go.
    Release(ServiceUid),
    /// Somebody deleted the `KuryrLoadBalancer` of a Service that needs it: let it go, it is made anew.
    LetGo,
}

/// Whether a Service with these wishes has a `KuryrLoadBalancer`: also one that cannot be served, so that it says why.
fn is_held(desired: &Desired) -> bool {
    matches!(desired.nothing, None | Some(Nothing::NoVip))
}

/// The next step for a Service with these wishes (`None`: there is no Service) and the `KuryrLoadBalancer` of its name.
pub(crate) fn step(desired: Option<&Desired>, held: Option<&KuryrLoadBalancer>) -> Step {
    let desired = desired.filter(|desired| is_held(desired));
    match (desired, held) {
        (None, None) => Step::Nothing,
        (Some(_), None) => Step::Hold,
        (Some(desired), Some(held)) if held.spec.service_uid == desired.uid => {
            if held.deleting() {
                Step::LetGo
            } else {
                Step::Serve
            }
        }
        (_, Some(held)) if held.deleting() => Step::Release(held.spec.service_uid.clone()),
        (_, Some(_)) => Step::Drop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn held(uid: &str, deleting: bool) -> KuryrLoadBalancer {
        let deleted = deleting.then_some("2026-01-01T00:00:00Z");
        serde_json::from_value(json!({
            "apiVersion": "kuryr.openstack.org/v1", "kind": "KuryrLoadBalancer",
            "metadata": {"namespace": "a", "name": "web", "deletionTimestamp": deleted}, "spec": {"serviceUid": uid},
        }))
        .unwrap()
    }

    fn wishes(uid: &str, nothing: Option<Nothing>) -> Desired {
        Desired { nothing, ..Desired::gone("c1".into(), uid.into()) }
    }

    #[test]
    fn a_service_is_held_before_it_is_served() {
        assert_eq!(step(Some(&wishes("s", None)), None), Step::Hold);
        assert_eq!(step(Some(&wishes("s", None)), Some(&held("s", false))), Step::Serve);
    }

    #[test]
    fn a_service_without_anything_to_serve_leaves_nothing() {
        for nothing in [Nothing::Headless, Nothing::ExternalName, Nothing::NoPorts, Nothing::Gone] {
            let wishes = wishes("s", Some(nothing));
            assert_eq!(step(Some(&wishes), None), Step::Nothing);
            assert_eq!(step(Some(&wishes), Some(&held("s", false))), Step::Drop);
            assert_eq!(step(Some(&wishes), Some(&held("s", true))), Step::Release("s".into()));
        }
    }

    #[test]
    fn a_service_that_cannot_be_served_is_held_and_says_why() {
        let wishes = wishes("s", Some(Nothing::NoVip));
        assert_eq!(step(Some(&wishes), None), Step::Hold);
        assert_eq!(step(Some(&wishes), Some(&held("s", false))), Step::Serve);
    }

    #[test]
    fn one_recreated_under_its_name_waits_until_the_old_one_is_released() {
        let new = wishes("new", None);
        assert_eq!(step(Some(&new), Some(&held("old", false))), Step::Drop);
        assert_eq!(step(Some(&new), Some(&held("old", true))), Step::Release("old".into()));
        assert_eq!(step(None, Some(&held("old", true))), Step::Release("old".into()));
    }

    #[test]
    fn a_load_balancer_outlives_its_kuryr_load_balancer_if_the_service_needs_it() {
        assert_eq!(step(Some(&wishes("s", None)), Some(&held("s", true))), Step::LetGo);
    }
}
