//! What is to be done next for one pod and its `KuryrPort`, which share a name.
//!
//! ```text
//!             pod bound                    pod gone, completed or another
//!   (none) ──Allocate──▶ KuryrPort ──Delete──▶ KuryrPort deleting ──Release──▶ (none)
//!                        without VIFs ─Fill┘     └─AwaitNode until its node says Released or is long gone
//! ```

use kuryr_model::{KuryrPort, ObjectKey, PodUid, kuryr_port::AttachmentState};
use std::time::Duration;

/// What matters of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Its UID.
    pub uid: PodUid,
    /// The node that it is bound to, if it is.
    pub node: Option<String>,
    /// It uses its node's network.
    pub host_network: bool,
    /// All its containers have ended for good.
    pub completed: bool,
    /// It is being deleted.
    pub deleting: bool,
}

impl Pod {
    /// Whether a pod that has no ports should get some.
    #[must_use]
    pub fn wants_ports(&self) -> bool {
        self.keeps_ports() && self.node.is_some() && !self.deleting
    }

    /// Whether a pod that has ports still needs them: one that is being deleted does, until its sandbox is gone.
    #[must_use]
    pub fn keeps_ports(&self) -> bool {
        !self.host_network && !self.completed
    }

    /// Whether a port that is in no `KuryrPort` may be this pod's: it lacks ports, and one may be on its way to it. `port` is the
    /// `KuryrPort` of its name.
    #[must_use]
    pub fn lacks_ports(&self, port: Option<&KuryrPort>) -> bool {
        let own = port.filter(|port| port.spec.pod_uid == self.uid);
        self.keeps_ports()
            && self.node.is_some()
            && own.is_none_or(|port| port.spec.vifs.is_empty() && !port.deleting())
    }
}

/// What is known of the node of a `KuryrPort`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// There is a Node object: its daemon will say when it has released the ports.
    Present,
    /// The Node object has been gone, or the node out of service, for this long: no daemon will say anything.
    Gone(Duration),
}

/// The key of the taint by which an administrator declares that a node is shut down and will not come back by itself, so that what
/// was on it may be used elsewhere (Kubernetes, "Non-graceful node shutdown").
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Whether a node with taints of these keys is out of service. One that is ready is not, whatever it is tainted with:
/// Kubernetes leaves its pods alone, too.
pub fn out_of_service<'a>(ready: bool, mut taints: impl Iterator<Item = &'a str>) -> bool {
    !ready && taints.any(|key| key == OUT_OF_SERVICE)
}

/// The next step for one key. Each step changes what is observed, so that the following call gives the one after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// All is as it should be.
    Settled,
    /// Get ports for the pod and write them into a new `KuryrPort`.
    Allocate,
    /// Get ports for the pod and write them into its `KuryrPort`, which has none yet.
    Fill,
    /// Say on the `KuryrPort` that it has ports: it still says that they could not be had.
    Confirm,
    /// Delete the `KuryrPort`: its pod is gone, completed, or another one has its name.
    Delete,
    /// Nothing on the node can use the ports any more: delete them in Neutron, then drop the finalizer.
    Release,
    /// The node has not said yet that it has released the ports.
    AwaitNode {
        /// Look again after this time, when there is nobody left who could say it.
        again: Option<Duration>,
        /// A new pod of the same name waits for it.
        blocks: bool,
    },
}

/// The next step for a pod and the `KuryrPort` of its name. `node` is that of the `KuryrPort`; when it has been gone or
/// out of service for `cooldown`, its ports count as released.
#[must_use]
pub fn step(pod: Option<&Pod>, port: Option<&KuryrPort>, node: Node, cooldown: Duration) -> Step {
    let Some(port) = port else {
        return if pod.is_some_and(Pod::wants_ports) { Step::Allocate } else { Step::Settled };
    };
    if port.deleting() {
        let blocks = pod.is_some_and(|pod| pod.wants_ports() && pod.uid != port.spec.pod_uid);
        return match (port.attachment_state(), node) {
            (Some(AttachmentState::Released), _) => Step::Release,
            (_, Node::Gone(since)) if since >= cooldown => Step::Release,
            (_, Node::Gone(since)) => Step::AwaitNode { again: Some(cooldown.saturating_sub(since)), blocks },
            (_, Node::Present) => Step::AwaitNode { again: None, blocks },
        };
    }
    match pod {
        Some(pod) if pod.uid == port.spec.pod_uid && pod.keeps_ports() => {
            match (port.spec.vifs.is_empty(), port.unallocated_reason()) {
                (true, _) if pod.wants_ports() => Step::Fill,
                (false, Some(_)) => Step::Confirm,
                _ => Step::Settled,
            }
        }
        _ => Step::Delete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kuryr_model::{KuryrPortStatus, kuryr_port::Attachment};
    use proptest::prelude::*;

    const COOLDOWN: Duration = Duration::from_secs(60);

    fn pod(uid: &str) -> Pod {
        fixtures::pod(&ObjectKey::new("default", "web-0"), &uid.into())
    }

    fn port(pod_uid: &str) -> KuryrPort {
        fixtures::kuryr_port(
            &ObjectKey::new("default", "web-0"),
            &pod_uid.into(),
            "aaaaaaaa-bbbb-cccc-dddd-0000000000ff".parse().unwrap(),
        )
    }

    fn deleting(mut port: KuryrPort, state: Option<AttachmentState>) -> KuryrPort {
        let now: Time = serde_json::from_str("\"2026-01-01T00:00:00Z\"").unwrap();
        port.metadata.deletion_timestamp = Some(now.clone());
        let attachment = state.map(|state| Attachment { state, container_id: None, since: now });
        port.status = Some(KuryrPortStatus { attachment, conditions: vec![] });
        port
    }

    fn next(pod: Option<&Pod>, port: Option<&KuryrPort>) -> Step {
        step(pod, port, Node::Present, COOLDOWN)
    }

    #[test]
    fn a_bound_pod_gets_ports_and_an_unbound_one_waits_for_the_scheduler() {
        assert_eq!(next(Some(&pod("a")), None), Step::Allocate);
        assert_eq!(next(Some(&Pod { node: None, ..pod("a") }), None), Step::Settled);
    }

    #[test]
    fn a_host_network_pod_is_left_alone() {
        assert_eq!(next(Some(&Pod { host_network: true, ..pod("a") }), None), Step::Settled);
    }

    #[test]
    fn a_pod_that_is_already_being_deleted_gets_nothing_new_but_keeps_what_it_has() {
        let going = Pod { deleting: true, ..pod("a") };
        assert_eq!(next(Some(&going), None), Step::Settled);
        assert_eq!(next(Some(&going), Some(&port("a"))), Step::Settled);
    }

    #[test]
    fn a_completed_pod_gives_its_port_back() {
        assert_eq!(next(Some(&Pod { completed: true, ..pod("a") }), Some(&port("a"))), Step::Delete);
    }

    #[test]
    fn a_pod_recreated_under_its_name_waits_until_the_node_has_released_the_old_ports() {
        let new = pod("b");
        assert_eq!(next(Some(&new), Some(&port("a"))), Step::Delete);
        let attached = deleting(port("a"), Some(AttachmentState::Attached));
        assert_eq!(next(Some(&new), Some(&attached)), Step::AwaitNode { again: None, blocks: true });
        assert_eq!(next(Some(&new), Some(&deleting(port("a"), Some(AttachmentState::Released)))), Step::Release);
        assert_eq!(next(Some(&new), None), Step::Allocate);
    }

    #[test]
    fn a_node_that_is_gone_releases_after_the_cooldown() {
        let port = deleting(port("a"), Some(AttachmentState::Attached));
        let at = |seconds| step(None, Some(&port), Node::Gone(Duration::from_secs(seconds)), COOLDOWN);
        assert_eq!(at(59), Step::AwaitNode { again: Some(Duration::from_secs(1)), blocks: false });
        assert_eq!(at(60), Step::Release);
    }

    #[test]
    fn a_node_is_out_of_service_if_it_is_said_so_and_does_not_say_otherwise_itself() {
        let taints = ["node.kubernetes.io/unreachable", OUT_OF_SERVICE];
        assert!(out_of_service(false, taints.into_iter()));
        assert!(!out_of_service(true, taints.into_iter()));
        assert!(!out_of_service(false, taints[..1].iter().copied()));
    }

    #[test]
    fn a_kuryr_port_without_vifs_is_filled_and_then_says_so() {
        let mut unallocated: KuryrPort = port("a");
        unallocated.status = serde_json::from_value(serde_json::json!({"conditions": [{
            "type": "Allocated", "status": "False", "reason": "SubnetsFull", "message": "full",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]}))
        .unwrap();
        let vifs = std::mem::take(&mut unallocated.spec.vifs);
        assert_eq!(next(Some(&pod("a")), Some(&unallocated)), Step::Fill);
        unallocated.spec.vifs = vifs;
        assert_eq!(next(Some(&pod("a")), Some(&unallocated)), Step::Confirm);
        assert_eq!(next(Some(&pod("b")), Some(&unallocated)), Step::Delete);
        assert_eq!(next(Some(&pod("a")), Some(&port("a"))), Step::Settled);
    }

    #[test]
    fn a_pod_that_is_being_deleted_may_be_about_to_get_a_port_still() {
        let going = Pod { deleting: true, ..pod("a") };
        let mut empty = port("a");
        empty.spec.vifs.clear();
        assert!(going.lacks_ports(None) && going.lacks_ports(Some(&empty)) && going.lacks_ports(Some(&port("b"))));
        assert!(!going.lacks_ports(Some(&port("a"))) && !Pod { node: None, ..going }.lacks_ports(None));
    }

    proptest! {
        /// Ports are only given up when the node has said so or is gone, whatever else is the case.
        #[test]
        fn ports_are_never_released_under_a_living_sandbox(
            pod_there: bool, same_uid: bool, completed: bool, host_network: bool, pod_deleting: bool,
            port_deleting: bool, state in prop_oneof![Just(None), Just(Some(AttachmentState::Attached)), Just(Some(AttachmentState::Released))],
            gone_for in prop_oneof![Just(None), (0u64..200).prop_map(Some)],
        ) {
            let pod = Pod { completed, host_network, deleting: pod_deleting, ..pod(if same_uid { "a" } else { "b" }) };
            let port = if port_deleting { deleting(port("a"), state) } else { port("a") };
            let node = gone_for.map_or(Node::Present, |seconds| Node::Gone(Duration::from_secs(seconds)));
            let step = step(pod_there.then_some(&pod), Some(&port), node, COOLDOWN);
            if step == Step::Release {
                let said = state == Some(AttachmentState::Released);
                let gone = gone_for.is_some_and(|seconds| seconds >= 60);
                prop_assert!(port_deleting && (said || gone));
            }
        }
    }
}
