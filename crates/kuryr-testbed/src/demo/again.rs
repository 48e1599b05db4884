//! A pod that comes again under its name.

use super::show::Show;
use crate::world::{NewPod, World, addresses, pods::PATIENCE};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

pub(super) async fn same_name(show: &Show, world: &World) -> anyhow::Result<()> {
    show.chapter(
        "Again under the same name",
        "As a StatefulSet does: pod web-0 is deleted and at once recreated under its name. The new pod waits until the old one's \
         sandbox is unplugged, which its node says in the old KuryrPort, and then has a port of its own.",
    );
    let pods = world.pods();
    let old = show.wait("web-0 comes to run", world.run_pod(&NewPod::new("web-0"), "web-0")).await?;
    let old_port = world.port_of(&old).await?;
    let work = async {
        pods.delete("web-0").await?;
        pods.when("web-0", "gone", PATIENCE, |pod: Option<&Pod>| pod.is_none()).await?;
        world.run_pod(&NewPod::new("web-0"), "web-0").await
    };
    let new = show.wait("web-0 is deleted, recreated, and runs again", work).await?;
    let new_port = world.port_of(&new).await?;
    show.gap();
    let row = |which: &str, pod: &Pod, id: String| {
        let ips: Vec<String> = addresses(pod)?.iter().map(ToString::to_string).collect();
        anyhow::Ok(vec![which.to_owned(), pod.uid().unwrap_or_default(), id, ips.join(" ")])
    };
    let rows = [row("old", &old, old_port.id.to_string())?, row("new", &new, new_port.id.to_string())?];
    show.table(&["WEB-0", "POD UID", "PORT", "ADDRESS"], &rows);
    show.gap();
    let names = format!("{}/web-0", world.namespace());
    let left = world.inside()?.cloud.ports().into_iter().filter(|port| port.name == names).count();
    show.claim(
        old_port.id != new_port.id && Some(new_port.device_id) == new.uid() && left == 1,
        "the new pod has its own port, and the old one's is gone: not shared, not lost",
    )
}
