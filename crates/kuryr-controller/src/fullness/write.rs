//! Writes on one Node.

use crate::lean::{LeanNode, NodeState};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use kuryr_model::{FULL_CONDITION, FULL_TAINT};
use kuryr_plan::fullness::Notice;
use serde_json::{Value, json};

/// How often it is read and written again because somebody else was faster.
const TRIES: usize = 5;

const EFFECT: &str = "NoSchedule";

/// Has a Node say what is `wanted` in place of what it said `before`; what it says then, or `None` if there is no such Node any more.
pub(super) async fn write(
    client: &Client,
    node: &str,
    before: &Notice,
    wanted: &Notice,
) -> Result<Option<NodeState>, kube::Error> {
    let mut state = None;
    // First what pods depend on.
    if before.tainted != wanted.tainted {
        match taint(client, node, wanted.tainted).await {
            Err(error) if is_gone(&error) => return Ok(None),
            written => state = written?,
        }
    }
    if before.condition != wanted.condition {
        let change = condition(before, wanted, Timestamp::now());
        let patch = Patch::Strategic(json!({"status": {"conditions": [change]}}));
        let nodes = Api::<LeanNode>::all(client.clone());
        match nodes.patch_status(node, &PatchParams::default(), &patch).await {
            Err(error) if is_gone(&error) => return Ok(None),
            written => state = written?.read().ok(),
        }
    }
    Ok(state)
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(answer) if answer.code == 404)
}

/// One element of a strategic merge patch, which leaves all other conditions alone.
fn condition(before: &Notice, wanted: &Notice, now: Timestamp) -> Value {
    let Some((full, words)) = &wanted.condition else {
        return json!({"type": FULL_CONDITION, "$patch": "delete"});
    };
    let (status, reason) = if *full { ("True", "NodeFull") } else { ("False", "RoomForPods") };
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut condition = json!({
        "type": FULL_CONDITION, "status": status, "reason": reason, "message": words, "lastHeartbeatTime": now,
    });
    if before.condition.as_ref().map(|(full, _)| full) != Some(full) {
        condition["lastTransitionTime"] = now.into();
    }
    condition
}

/// Taints are one list, which is replaced as of the version that was read, as Kubernetes' own controllers do it.
async fn taint(client: &Client, node: &str, wanted: bool) -> Result<Option<NodeState>, kube::Error> {
    let nodes = Api::<Node>::all(client.clone());
    let lean = Api::<LeanNode>::all(client.clone());
    for left in (0..TRIES).rev() {
        let there = nodes.get(node).await?;
        let Some(taints) = taints(there.spec.and_then(|spec| spec.taints).unwrap_or_default(), wanted) else { break };
        let version = there.metadata.resource_version;
        let patch = Patch::Merge(json!({"metadata": {"resourceVersion": version}, "spec": {"taints": taints}}));
        match lean.patch(node, &PatchParams::default(), &patch).await {
            Err(kube::Error::Api(answer)) if answer.code == 409 && left > 0 => {}
            written => return Ok(written?.read().ok()),
        }
    }
    Ok(None)
}

/// The taints that a Node is to have, if those that it has are others.
fn taints(mut there: Vec<Taint>, wanted: bool) -> Option<Vec<Taint>> {
    let ours = |taint: &Taint| taint.key == FULL_TAINT && taint.effect == EFFECT;
    if there.iter().any(ours) == wanted {
        return None;
    }
    there.retain(|taint| !ours(taint));
    if wanted {
        there.push(Taint { key: FULL_TAINT.to_owned(), effect: EFFECT.to_owned(), ..Taint::default() });
    }
    Some(there)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Answer, api_server};
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn notice(full: bool, words: &str) -> Notice {
        Notice { condition: Some((full, words.to_owned())), tainted: full }
    }

    fn theirs() -> Value {
        json!({"key": "dedicated", "value": "db", "effect": "NoExecute"})
    }

    #[test]
    fn the_time_of_a_condition_is_when_its_status_changed() {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let first = condition(&Notice::default(), &notice(true, "why"), now);
        assert_eq!((&first["status"], &first["reason"]), (&json!("True"), &json!("NodeFull")));
        assert_eq!(first["lastTransitionTime"], "2026-01-01T00:00:00Z");
        let more = condition(&notice(true, "why"), &notice(true, "other words"), now);
        assert_eq!((&more["message"], more.get("lastTransitionTime")), (&json!("other words"), None));
        let gone = condition(&notice(true, "why"), &Notice::default(), now);
        assert_eq!(gone, json!({"type": FULL_CONDITION, "$patch": "delete"}));
    }

    #[tokio::test]
    async fn of_taints_only_ours_is_changed_and_whoever_was_faster_is_not_undone() {
        let tries = AtomicUsize::new(0);
        let (client, mut requests) = api_server(move |request| {
            let second = tries.load(Ordering::SeqCst) > 0;
            let version = if second { "8" } else { "7" };
            let taints =
                if second { json!([theirs(), {"key": "new", "effect": "NoSchedule"}]) } else { json!([theirs()]) };
            let node = json!({"metadata": {"name": "vm", "resourceVersion": version}, "spec": {"taints": taints}});
            match (&*request.method, &*request.path) {
                ("GET", _) => Answer::ok(node),
                ("PATCH", "/api/v1/nodes/vm") if tries.fetch_add(1, Ordering::SeqCst) == 0 => {
                    Answer::error(409, "Conflict")
                }
                ("PATCH", "/api/v1/nodes/vm") => {
                    let mut node = node;
                    node["spec"]["taints"] = request.body["spec"]["taints"].clone();
                    Answer::ok(node)
                }
                ("PATCH", _) => Answer::ok(json!({
                    "metadata": {"name": "vm", "resourceVersion": "9"},
                    "spec": {"taints": [theirs(), {"key": FULL_TAINT, "effect": "NoSchedule"}]},
                    "status": {"conditions": request.body["status"]["conditions"]},
                })),
                _ => Answer::error(405, "MethodNotAllowed"),
            }
        });
        let state = write(&client, "vm", &Notice::default(), &notice(true, "why")).await.unwrap().unwrap();
        assert_eq!((state.notice, state.version), (notice(true, "why"), Some(9)));
        let mut asked = Vec::new();
        while let Ok(request) = requests.try_recv() {
            asked.push(request);
        }
        let paths: Vec<String> = asked.iter().map(|request| format!("{} {}", request.method, request.path)).collect();
        let (get, patch) = ("GET /api/v1/nodes/vm", "PATCH /api/v1/nodes/vm");
        assert_eq!(paths, [get, patch, get, patch, "PATCH /api/v1/nodes/vm/status"]);
        assert_eq!(asked[3].body["metadata"]["resourceVersion"], "8");
        let ours = json!({"key": FULL_TAINT, "effect": "NoSchedule"});
        assert_eq!(asked[3].body["spec"]["taints"], json!([theirs(), {"key": "new", "effect": "NoSchedule"}, ours]));
    }

    #[tokio::test]
    async fn a_node_that_is_gone_is_told_nothing() {
        let (client, _requests) = api_server(|_| Answer::error(404, "NotFound"));
        let told = write(&client, "vm", &Notice::default(), &notice(true, "why")).await.unwrap();
        assert_eq!(told, None);
    }
}
