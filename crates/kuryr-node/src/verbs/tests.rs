//! The verbs against a plugger that only remembers, as stories.

use super::serve;
use crate::{
    attachments::Attachments,
    cni::{CniError, Code, Request},
    events::{About, Reason},
    node::Node,
    testing::{self, FakePlugs, apply, kuryr_port, node, uid},
};
use futures::FutureExt;
use kuryr_model::ObjectKey;
use serde_json::{Value, json};
use std::{pin::pin, sync::Arc, time::Duration};

/// A request about the sandbox `container` of pod number `n`, whose name is `web-<n>`.
fn request(command: &str, container: &str, n: u64) -> Request {
    Request {
        command: command.into(),
        container_id: container.into(),
        netns: "/proc/self/ns/net".into(),
        ifname: "eth0".into(),
        args: format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-{n};K8S_POD_UID={}", uid(n)),
        path: String::new(),
        config: json!({ "cniVersion": "1.1.0", "name": "kuryr", "type": "kuryr-cni" }),
    }
}

async fn run(
    node: &Arc<Node<Arc<FakePlugs>>>,
    command: &str,
    container: &str,
    n: u64,
) -> Result<Option<Value>, CniError> {
    serve(node, &request(command, container, n)).await
}

/// A node with the pods 1 to `pods`, whose ports are there.
fn with_pods(
    pods: u64,
) -> (tempfile::TempDir, Arc<Node<Arc<FakePlugs>>>, tokio::sync::mpsc::Receiver<crate::events::Event>) {
    let folder = tempfile::tempdir().unwrap();
    let (node, events) = node(folder.path());
    for n in 1..=pods {
        apply(&node, &kuryr_port(&format!("web-{n}"), n));
    }
    (folder, node, events)
}

#[tokio::test]
async fn a_pod_is_attached_checked_and_detached() {
    let (_folder, node, _events) = with_pods(1);
    let result = run(&node, "ADD", "a", 1).await.unwrap().unwrap();
    assert_eq!(result["ips"][0]["address"], "10.1.0.1/16");
    assert_eq!(result["interfaces"][1]["sandbox"], "/proc/self/ns/net");
    assert_eq!(node.plugs.plugged(), [(1, "a".into())]);

    let mut check = request("CHECK", "a", 1);
    check.config["prevResult"] = result.clone();
    assert_eq!(serve(&node, &check).await, Ok(None));
    check.config["prevResult"]["ips"] = json!([]);
    assert_eq!(serve(&node, &check).await.unwrap_err().code, Code::CheckFailed);
    check.config["prevResult"] = result;
    node.plugs.break_it("check", 1);
    let error = serve(&node, &check).await.unwrap_err();
    assert_eq!((error.code, error.details.as_str()), (Code::CheckFailed, "MTU of eth0: 1500 where 1442 was expected"));

    for _ in 0..2 {
        assert_eq!(run(&node, "DEL", "a", 1).await, Ok(None));
        assert_eq!((node.plugs.plugged(), node.attachments.count()), (vec![], 0));
    }
    assert_eq!(serve(&node, &check).await.unwrap_err().code, Code::UnknownContainer);
}

#[tokio::test]
async fn the_interface_has_the_name_that_the_runtime_wants() {
    let (_folder, node, _events) = with_pods(1);
    let mut add = request("ADD", "a", 1);
    add.ifname = "net7".into();
    let result = serve(&node, &add).await.unwrap().unwrap();
    assert_eq!(result["interfaces"][1]["name"], "net7");
    assert_eq!(run(&node, "ADD", "a", 1).await.unwrap_err().code, Code::Configuration, "the port is in net7 already");
    assert_eq!(node.plugs.plugged(), [(1, "a".into())]);
}

#[tokio::test]
async fn a_repeated_add_answers_the_same_if_all_is_in_order_and_repairs_it_if_not() {
    let (_folder, node, _events) = with_pods(1);
    let first = run(&node, "ADD", "a", 1).await.unwrap();
    assert_eq!(run(&node, "ADD", "a", 1).await.unwrap(), first);
    let log = || {
        node.plugs
            .log
            .lock()
            .unwrap()
            .drain(..)
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(log(), ["plug", "check"]);
    node.plugs.break_it("check", 1);
    assert_eq!(run(&node, "ADD", "a", 1).await.unwrap(), first);
    assert_eq!(log(), ["check", "unplug", "plug"]);
}

#[tokio::test]
async fn a_new_sandbox_of_a_pod_takes_over_from_the_stale_one() {
    let (_folder, node, _events) = with_pods(2);
    run(&node, "ADD", "other", 2).await.unwrap();
    run(&node, "ADD", "old", 1).await.unwrap();
    run(&node, "ADD", "new", 1).await.unwrap();
    assert_eq!(node.plugs.plugged(), [(1, "new".into()), (2, "other".into())]);
    assert_eq!(run(&node, "DEL", "old", 1).await, Ok(None), "its late DEL");
    assert_eq!(node.plugs.plugged().len(), 2);
    node.plugs.break_it("unplug", 1);
    let error = run(&node, "ADD", "newer", 1).await.unwrap_err();
    assert_eq!(error.code, Code::UnplugFailed);
    assert!(error.message.contains("new"), "{error}");
}

#[tokio::test]
async fn a_failed_plug_leaves_nothing_and_tells_the_pod() {
    let (_folder, node, mut events) = with_pods(1);
    node.plugs.break_it("plug", 1);
    let error = run(&node, "ADD", "a", 1).await.unwrap_err();
    assert_eq!(error.code, Code::PlugFailed);
    assert!(error.details.contains("told to"), "{error:?}");
    assert_eq!((node.plugs.plugged(), node.attachments.count()), (vec![], 0));
    let event = events.recv().await.unwrap();
    let pod = ObjectKey::new("shop", "web-1");
    assert_eq!((event.reason, event.about), (Reason::PlugFailed, About::Pod(pod.clone(), Some(uid(1)))));
    assert!(event.note.contains("told to"), "{}", event.note);
    assert!(!node.ports.get(&pod).unwrap().1, "the claim is given back");
}

#[tokio::test]
async fn of_two_vifs_both_are_taken_back_if_the_second_fails() {
    let (_folder, node, _events) = with_pods(0);
    let mut port = kuryr_port("web-1", 1);
    let mut second = testing::vif(2);
    second.interface = "net1".into();
    port.spec.vifs.push(second);
    apply(&node, &port);
    node.plugs.break_it("plug", 2);
    run(&node, "ADD", "a", 1).await.unwrap_err();
    assert_eq!((node.plugs.plugged(), node.attachments.count()), (vec![], 0));
    node.plugs.repair();
    let result = run(&node, "ADD", "a", 1).await.unwrap().unwrap();
    assert_eq!(result["interfaces"].as_array().unwrap().len(), 4);
    port.spec.vifs[1].interface = "eth0".into();
    apply(&node, &port);
    assert_eq!(run(&node, "ADD", "b", 1).await.unwrap_err().code, Code::PlugFailed, "two VIFs for eth0");
}

#[tokio::test]
async fn del_that_cannot_unplug_can_be_repeated() {
    let (_folder, node, _events) = with_pods(1);
    run(&node, "ADD", "a", 1).await.unwrap();
    node.plugs.break_it("unplug", 1);
    assert_eq!(run(&node, "DEL", "a", 1).await.unwrap_err().code, Code::UnplugFailed);
    assert_eq!(node.attachments.count(), 1);
    node.plugs.repair();
    assert_eq!(run(&node, "DEL", "a", 1).await, Ok(None));
    assert_eq!((node.plugs.plugged(), node.attachments.count()), (vec![], 0));
}

#[tokio::test]
async fn del_after_a_lost_file_goes_by_the_mark() {
    let (_folder, node, _events) = with_pods(2);
    run(&node, "ADD", "a", 1).await.unwrap();
    run(&node, "ADD", "b", 2).await.unwrap();
    node.attachments.remove(&node.attachments.all()[0].id).await.unwrap();
    assert_eq!(run(&node, "DEL", "a", 1).await, Ok(None));
    assert_eq!(node.plugs.plugged(), [(2, "b".into())]);
}

#[tokio::test]
async fn a_daemon_killed_at_any_point_of_an_add_leaves_what_del_finds() {
    // Killed before the plug, half-way, and after it: the file is there each time.
    for plugged in [false, true] {
        let (folder, node, _events) = with_pods(1);
        node.plugs.gate.forget_permits(10_000);
        {
            let request = request("ADD", "a", 1);
            let mut add = pin!(serve(&node, &request));
            while node.attachments.count() == 0 {
                assert!(add.as_mut().now_or_never().is_none());
                tokio::task::yield_now().await;
            }
        }
        let (restarted, _events) = testing::node(folder.path());
        if plugged {
            restarted.plugs.plugged.lock().unwrap().insert(testing::host_end("a", 1));
        }
        assert_eq!(restarted.attachments.count(), 1);
        assert_eq!(run(&restarted, "DEL", "a", 1).await, Ok(None), "without KuryrPort");
        assert_eq!((restarted.plugs.plugged(), restarted.attachments.count()), (vec![], 0));
        assert_eq!(Attachments::load(folder.path().join("attachments")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_runtime_that_hangs_up_while_the_add_waits_frees_the_container() {
    let (_folder, node, _events) = with_pods(0);
    let add = request("ADD", "a", 1);
    let mut waiting = Box::pin(serve(&node, &add));
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(waiting);
    assert_eq!(run(&node, "DEL", "a", 1).await, Ok(None));
    apply(&node, &kuryr_port("web-1", 1));
    run(&node, "ADD", "a", 1).await.unwrap();
}

#[tokio::test]
async fn a_runtime_that_hangs_up_while_it_plugs_leaves_a_whole_attachment() {
    let (_folder, node, _events) = with_pods(1);
    node.plugs.gate.forget_permits(10_000);
    let add = request("ADD", "a", 1);
    let mut plugging = Box::pin(serve(&node, &add));
    while node.attachments.count() == 0 {
        assert!(plugging.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    // It is there already, and whoever looks meanwhile misses nothing.
    assert_eq!(node.report().await.unwrap().findings, []);
    drop(plugging);
    node.plugs.gate.add_permits(1);
    node.tasks.close();
    node.tasks.wait().await;
    assert_eq!(node.plugs.plugged(), [(1, "a".into())]);
    assert!(node.attachments.of_pod(&uid(1)).1.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_add_waits_for_its_port_and_says_why_it_waited_in_vain() {
    let (_folder, node, mut events) = with_pods(0);
    let mut full = kuryr_port("web-1", 1);
    full.spec.vifs.clear();
    testing::unallocated(&mut full, "subnet pods-a has no free address");
    apply(&node, &full);
    let started = tokio::time::Instant::now();
    let error = run(&node, "ADD", "a", 1).await.unwrap_err();
    assert_eq!(started.elapsed().as_secs(), 60);
    assert_eq!(error.code, Code::TryAgain);
    assert_eq!(error.message, "pod shop/web-1 has no port after 60 s: subnet pods-a has no free address");
    let event = events.recv().await.unwrap();
    assert_eq!((event.reason, event.note), (Reason::PortNotReady, error.message));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_fails_its_add_at_once_and_is_told_nothing() {
    let (_folder, node, events) = with_pods(0);
    let mut port = kuryr_port("web-1", 1);
    testing::delete(&mut port);
    apply(&node, &port);
    let started = tokio::time::Instant::now();
    assert_eq!(run(&node, "ADD", "a", 1).await.unwrap_err().code, Code::UnknownContainer);
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert!(events.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_deleted_before_it_has_a_kuryr_port_fails_its_add_soon() {
    let mut someone_else = testing::known_pod(7);
    someone_else["metadata"]["name"] = "web-1".into();
    let cases = [(vec![], "pod shop/web-1 was deleted"), (vec![someone_else], "another pod has its name")];
    for (pods, words) in cases {
        let folder = tempfile::tempdir().unwrap();
        let (node, events) = testing::node_with(folder.path(), testing::pods_api(pods).0);
        let started = tokio::time::Instant::now();
        let error = run(&node, "ADD", "a", 1).await.unwrap_err();
        assert_eq!((error.code, started.elapsed().as_secs()), (Code::UnknownContainer, 2));
        assert!(error.message.contains(words), "{error}");
        assert!(events.is_empty(), "there is no pod to be told");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stopping_daemon_sends_waiting_adds_away() {
    let (_folder, node, _events) = with_pods(0);
    let add = request("ADD", "a", 1);
    let mut waiting = pin!(serve(&node, &add));
    assert!(waiting.as_mut().now_or_never().is_none());
    node.stopping.cancel();
    assert_eq!(waiting.await.unwrap_err().code, Code::TryAgain);
}

#[tokio::test(start_paused = true)]
async fn a_plug_that_is_never_ready_ends_and_leaves_nothing() {
    let (_folder, node, _events) = with_pods(1);
    node.plugs.gate.forget_permits(10_000);
    let error = run(&node, "ADD", "a", 1).await.unwrap_err();
    assert_eq!(error.code, Code::TryAgain);
    assert!(error.details.contains("the gate"), "{error:?}");
    assert_eq!(node.attachments.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_pods_are_attached_at_once() {
    let (_folder, node, _events) = with_pods(50);
    let adds: Vec<_> = (1..=100)
        .map(|n| {
            tokio::spawn({
                let node = Arc::clone(&node);
                async move { run(&node, "ADD", &format!("c{n}"), n).await }
            })
        })
        .collect();
    // Half of the ports come while their ADDs wait.
    for n in 51..=100 {
        apply(&node, &kuryr_port(&format!("web-{n}"), n));
    }
    for add in adds {
        add.await.unwrap().unwrap();
    }
    assert_eq!((node.plugs.plugged().len(), node.attachments.count()), (100, 100));
}

#[tokio::test]
async fn gc_keeps_what_is_valid_and_what_is_another_networks() {
    let (_folder, node, _events) = with_pods(3);
    for n in 1..=3 {
        let mut add = request("ADD", &format!("c{n}"), n);
        if n == 3 {
            add.config["name"] = "other".into();
        }
        serve(&node, &add).await.unwrap();
    }
    for (container, n) in [("stray", 4), ("known", 5)] {
        node.plugs.plugged.lock().unwrap().insert(testing::host_end(container, n));
    }
    let mut gc = request("GC", "", 0);
    let valid = |container: &str| json!({ "containerID": container, "ifname": "eth0" });
    gc.config["cni.dev/valid-attachments"] = json!([valid("c1"), valid("known")]);
    assert_eq!(serve(&node, &gc).await, Ok(None));
    assert_eq!(node.plugs.plugged(), [(1, "c1".into()), (3, "c3".into()), (5, "known".into())]);
    assert_eq!(node.attachments.count(), 2);

    node.plugs.break_it("unplug", 1);
    gc.config["cni.dev/valid-attachments"] = json!([]);
    let error = serve(&node, &gc).await.unwrap_err();
    assert_eq!(error.code, Code::UnplugFailed);
    assert!(error.details.contains("shop/web-1"), "{error:?}");
    assert_eq!(node.plugs.plugged(), [(1, "c1".into()), (3, "c3".into())], "the rest is done");
}

#[tokio::test]
async fn status_says_whether_an_add_would_work() {
    let (_folder, node, _events) = with_pods(1);
    assert_eq!(run(&node, "STATUS", "", 1).await, Ok(None));
    let mut port = kuryr_port("web-1", 1);
    port.spec.vifs[0].plug.driver = kuryr_model::vif::PlugDriver::Ovs;
    apply(&node, &port);
    let error = run(&node, "STATUS", "", 1).await.unwrap_err();
    assert_eq!(error.code, Code::LimitedConnectivity);
    assert!(error.message.contains("no-ovsdb.sock"), "{error}");
    let _listener = tokio::net::UnixListener::bind(&node.ovsdb_socket).unwrap();
    assert_eq!(run(&node, "STATUS", "", 1).await, Ok(None));
    node.full.set(Some("all is in use; remove pods".to_owned()));
    let error = run(&node, "STATUS", "", 1).await.unwrap_err();
    assert_eq!((error.code, &*error.message), (Code::NotAvailable, "node node-1 is full: all is in use; remove pods"));
}

#[tokio::test]
async fn sandboxes_that_are_gone_are_unplugged_at_start() {
    let (folder, node, _events) = with_pods(2);
    run(&node, "ADD", "a", 1).await.unwrap();
    let mut gone = testing::attachment("b", 2);
    gone.netns = folder.path().join("cni-1");
    node.attachments.insert(gone.into()).await.unwrap();
    node.plugs.plugged.lock().unwrap().insert(testing::host_end("b", 2));
    let report = node.report().await.unwrap();
    assert_eq!((report.attachments.len(), report.findings.len()), (2, 1), "{:?}", report.findings);
    assert_eq!(node.clean_gone().await, Vec::<String>::new());
    assert_eq!(node.plugs.plugged(), [(1, "a".into())]);
    assert_eq!(node.report().await.unwrap().findings, []);
}

#[tokio::test]
async fn a_pod_whose_kuryr_port_is_deleted_is_looked_at_when_its_last_sandbox_is_detached() {
    let (_folder, node, _events) = with_pods(1);
    run(&node, "ADD", "a", 1).await.unwrap();
    let key = ObjectKey::new("shop", "web-1");
    while let Some(key) = node.ports.changed.take().now_or_never() {
        node.ports.changed.done(&key);
    }
    run(&node, "DEL", "a", 1).await.unwrap();
    assert_eq!(node.ports.changed.take().now_or_never(), Some(key));
    assert!(!node.attachments.of_pod(&uid(1)).0);
}
