//! Compares what is remembered of this node with what is there. Pure: who calls it has looked.

use crate::{
    attachments::Attachment,
    cni::AttachmentId,
    plug::{HostEnd, HostEndKind},
};
use kuryr_model::{PodUid, PortId};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    sync::Arc,
};

/// What was seen on the node.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The attachments that are remembered; read after `ends`, so that an ADD or DEL in between makes no stray.
    pub attachments: &'a [Arc<Attachment>],
    /// Those whose ADD had ended before `ends` were read: of the others the ends need not be there yet.
    pub finished: &'a BTreeSet<AttachmentId>,
    /// The links and OVS ports that carry our mark.
    pub ends: &'a [HostEnd],
    /// Attachments whose sandbox is gone.
    pub gone: &'a BTreeSet<AttachmentId>,
    /// The pods that have a `KuryrPort` on this node; `None` while that is not known.
    pub pods: Option<&'a HashSet<PodUid>>,
}

/// A stray or missing thing on a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "finding", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Finding {
    /// A link of ours that belongs to no attachment.
    StrayLink {
        /// Its name.
        name: String,
        /// The port that it was for.
        port_id: PortId,
        /// The sandbox that it was for.
        container_id: String,
    },
    /// A port of an Open vSwitch bridge that is ours and belongs to no attachment.
    StrayOvsPort {
        /// Its name.
        name: String,
        /// The port that it was for.
        port_id: PortId,
        /// The sandbox that it was for.
        container_id: String,
    },
    /// A pod that should be plugged has no host end.
    MissingHostEnd {
        /// The pod, as `namespace/name`.
        pod: String,
        /// The port without host end.
        port_id: PortId,
        /// Its sandbox.
        container_id: String,
    },
    /// A pod's sandbox is gone, and nobody has said DEL.
    SandboxGone {
        /// The pod, as `namespace/name`.
        pod: String,
        /// Its sandbox.
        container_id: String,
    },
    /// A sandbox is plugged whose pod has no `KuryrPort` any more: its Neutron port may be another's by now.
    WithoutKuryrPort {
        /// The pod, as `namespace/name`.
        pod: String,
        /// Its UID.
        pod_uid: PodUid,
        /// Its sandbox.
        container_id: String,
    },
    /// Node ports and external addresses of Services are not translated as they should be, or not forwarded.
    NodePorts {
        /// Why, and what to do.
        problem: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StrayLink { name, port_id, .. } => write!(f, "link {name} of port {port_id} belongs to no sandbox"),
            Self::StrayOvsPort { name, port_id, .. } => {
                write!(f, "OVS port {name} of port {port_id} belongs to no sandbox")
            }
            Self::MissingHostEnd { pod, port_id, .. } => {
                write!(f, "pod {pod} is plugged, but port {port_id} has no host end")
            }
            Self::SandboxGone { pod, container_id } => {
                write!(f, "pod {pod} is plugged, but its sandbox {container_id} is gone")
            }
            Self::WithoutKuryrPort { pod, pod_uid, .. } => {
                write!(f, "pod {pod} ({pod_uid}) is plugged, but has no KuryrPort")
            }
            Self::NodePorts { problem } => write!(f, "node ports are not in order: {problem}"),
        }
    }
}

/// What `GET /attachments` answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// The node.
    pub node: String,
    /// What is plugged.
    pub attachments: Vec<Attachment>,
    /// What is stray or missing.
    pub findings: Vec<Finding>,
}

/// Everything that does not fit together, in a fixed order.
#[must_use]
pub fn audit(seen: &Seen<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = strays(seen.attachments, seen.ends).map(stray).collect();
    for attachment in seen.attachments {
        let pod = || attachment.pod().to_string();
        let container_id = || attachment.id.container_id.clone();
        if seen.gone.contains(&attachment.id) {
            // Nothing else is expected of it.
            findings.push(Finding::SandboxGone { pod: pod(), container_id: container_id() });
        } else if seen.finished.contains(&attachment.id) {
            // An interface of the virtual machine's has no end on the node.
            for vif in attachment.vifs.iter().filter(|vif| !vif.plug.driver.is_nested()) {
                if !seen.ends.iter().any(|end| belongs(end, attachment) && end.owner.port_id == vif.port_id) {
                    findings.push(Finding::MissingHostEnd {
                        pod: pod(),
                        port_id: vif.port_id,
                        container_id: container_id(),
                    });
                }
            }
        }
        if seen.pods.is_some_and(|pods| !pods.contains(&attachment.pod_uid)) {
            let pod_uid = attachment.pod_uid.clone();
            findings.push(Finding::WithoutKuryrPort { pod: pod(), pod_uid, container_id: container_id() });
        }
    }
    findings.sort();
    findings
}

/// The host ends that belong to no attachment.
pub fn strays<'a>(attachments: &'a [Arc<Attachment>], ends: &'a [HostEnd]) -> impl Iterator<Item = &'a HostEnd> {
    ends.iter().filter(|end| !attachments.iter().any(|attachment| belongs(end, attachment)))
}

fn belongs(end: &HostEnd, attachment: &Attachment) -> bool {
    end.owner.container_id == attachment.id.container_id && attachment.has_port(end.owner.port_id)
}

fn stray(end: &HostEnd) -> Finding {
    let (name, port_id, container_id) = (end.name.clone(), end.owner.port_id, end.owner.container_id.clone());
    match &end.kind {
        HostEndKind::Link => Finding::StrayLink { name, port_id, container_id },
        HostEndKind::Inside { netns } => {
            Finding::StrayLink { name: format!("{name} in {}", netns.display()), port_id, container_id }
        }
        HostEndKind::OvsPort => Finding::StrayOvsPort { name, port_id, container_id },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{attachment, host_end, uid};

    #[test]
    fn what_fits_together_is_not_mentioned() {
        let attachments = [Arc::new(attachment("a", 1)), Arc::new(attachment("b", 2))];
        let ends = [host_end("a", 1), host_end("b", 2)];
        let (pods, finished) = ([uid(1), uid(2)].into(), ids(&attachments));
        let gone = BTreeSet::new();
        let seen = Seen { attachments: &attachments, finished: &finished, ends: &ends, gone: &gone, pods: Some(&pods) };
        assert_eq!(audit(&seen), []);
        assert_eq!(audit(&Seen { pods: None, ..seen }), []);
    }

    #[test]
    fn a_pod_that_is_being_plugged_need_not_have_its_host_end() {
        let attachments = [Arc::new(attachment("a", 1))];
        let (gone, finished) = (BTreeSet::new(), ids(&attachments));
        let seen = Seen { attachments: &attachments, finished: &gone, ends: &[], gone: &gone, pods: None };
        assert_eq!(audit(&seen), []);
        assert_eq!(audit(&Seen { finished: &finished, ..seen }).len(), 1);
    }

    fn ids(attachments: &[Arc<Attachment>]) -> BTreeSet<AttachmentId> {
        attachments.iter().map(|attachment| attachment.id.clone()).collect()
    }

    #[test]
    fn every_kind_of_stray_and_missing_thing_is_found() {
        let attachments = [Arc::new(attachment("a", 1)), Arc::new(attachment("b", 2)), Arc::new(attachment("c", 3))];
        let mut ovs = host_end("x", 4);
        ovs.kind = HostEndKind::OvsPort;
        // Port 1 is in another sandbox than remembered: a stray and a missing end.
        let ends = [host_end("old", 1), ovs.clone(), host_end("c", 3)];
        let gone = [attachments[1].id.clone()].into();
        let (pods, finished) = ([uid(1), uid(2)].into(), ids(&attachments));
        let seen = Seen { attachments: &attachments, finished: &finished, ends: &ends, gone: &gone, pods: Some(&pods) };
        let port = |n: u64| attachment("", n).vifs[0].port_id;
        let findings = [
            Finding::StrayLink { name: ends[0].name.clone(), port_id: port(1), container_id: "old".into() },
            Finding::StrayOvsPort { name: ovs.name, port_id: port(4), container_id: "x".into() },
            Finding::MissingHostEnd { pod: "shop/web-1".into(), port_id: port(1), container_id: "a".into() },
            Finding::SandboxGone { pod: "shop/web-2".into(), container_id: "b".into() },
            Finding::WithoutKuryrPort { pod: "shop/web-3".into(), pod_uid: uid(3), container_id: "c".into() },
        ];
        assert_eq!(audit(&seen), findings);
        let json = serde_json::to_value(&findings[0]).unwrap();
        assert_eq!(json["finding"], "strayLink");
        assert_eq!(json["portId"], port(1).to_string());
    }
}
