//! The whole daemon on its real sockets, with a scripted API server and a plugger that only remembers.

use super::{api_server::api_server, harness::Daemon, *};
use crate::testing::{self, FakePlugs, kuryr_port, uid};
use kuryr_model::kuryr_port::AttachmentState;
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_pod_goes_from_assigned_to_attached_to_released() {
    let folder = tempfile::tempdir().unwrap();
    let (api, client) = api_server().await;
    api.put(&kuryr_port("web-1", 1));
    let daemon = Daemon::start(folder.path(), client, Arc::<FakePlugs>::default()).await;
    let (status, result) = daemon.cni("ADD", "a", 1).await;
    assert_eq!((status, &result["ips"][0]["address"]), (200, &"10.1.0.1/16".into()), "{result}");
    let written = &api.written(1).await[0]["status"]["attachment"];
    assert_eq!((&written["state"], &written["containerId"]), (&"Attached".into(), &"a".into()));

    api.delete("web-1");
    assert_eq!(daemon.cni("DEL", "a", 1).await, (200, "".into()));
    let written = api.written(2).await;
    assert_eq!(written[1]["status"]["attachment"]["state"], "Released");
    assert_eq!(api.port("web-1").attachment_state(), Some(AttachmentState::Released));
    assert_eq!(daemon.cni("ADD", "b", 1).await.1["code"], 3, "no new sandbox for a pod whose port is released");
    assert_eq!(api.selectors.lock().unwrap()[0], "spec.nodeName=node-1");
    daemon.stop().await;
    assert_eq!(api.written(0).await.len(), 2, "each state is written once");
}

#[tokio::test]
async fn a_pod_that_never_started_is_released_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (api, client) = api_server().await;
    let mut port = kuryr_port("web-1", 1);
    testing::delete(&mut port);
    api.put(&port);
    let daemon = Daemon::start(folder.path(), client, Arc::<FakePlugs>::default()).await;
    assert_eq!(api.written(1).await[0]["status"]["attachment"]["state"], "Released");
    daemon.stop().await;
}

#[tokio::test]
async fn a_port_that_is_plugged_is_not_released_even_if_all_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let (api, client) = api_server().await;
    let plugs = Arc::new(FakePlugs::default());
    plugs.plugged.lock().unwrap().insert(testing::host_end("a", 1));
    for n in 1..=2 {
        api.put(&kuryr_port(&format!("web-{n}"), n));
        api.delete(&format!("web-{n}"));
    }
    let daemon = Daemon::start(folder.path(), client, plugs).await;
    let second = api.written(1).await;
    assert_eq!(second[0]["metadata"]["resourceVersion"], "4", "only web-2 is released");
    assert_eq!(daemon.cni("DEL", "a", 1).await.0, 200);
    assert_eq!(api.written(2).await[1]["status"]["attachment"]["state"], "Released");
    assert_eq!(api.port("web-1").attachment_state(), Some(AttachmentState::Released));
    daemon.stop().await;
}

#[tokio::test]
async fn a_status_survives_conflicts_errors_and_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (api, client) = api_server().await;
    api.put(&kuryr_port("web-1", 1));
    api.faults.lock().unwrap().push(500);
    let plugs = Arc::new(FakePlugs::default());
    let daemon = Daemon::start(folder.path(), client.clone(), Arc::clone(&plugs)).await;
    daemon.ready().await;
    // The daemon's version is old by the time it writes: it writes again when the watch has brought the new one.
    api.faults.lock().unwrap().push(409);
    assert_eq!(daemon.cni("ADD", "a", 1).await.0, 200);
    let mut port = api.port("web-1");
    port.metadata.labels = Some([("x".into(), "y".into())].into());
    api.put(&port);
    assert_eq!(api.written(1).await[0]["status"]["attachment"]["containerId"], "a");
    daemon.stop().await;

    // DEL by a fresh daemon, while its KuryrPort is deleted.
    api.delete("web-1");
    let daemon = Daemon::start(folder.path(), client, Arc::clone(&plugs)).await;
    let (status, report) = daemon.get("/attachments").await;
    assert_eq!((status, &report["attachments"][0]["containerId"]), (200, &"a".into()), "{report}");
    assert_eq!(daemon.cni("DEL", "a", 1).await.0, 200);
    assert_eq!(plugs.plugged(), []);
    assert_eq!(api.written(2).await[1]["status"]["attachment"]["state"], "Released");
    daemon.stop().await;
}

#[tokio::test]
async fn an_add_in_vain_is_an_event_on_the_pod_and_a_malformed_kuryr_port_harms_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (api, client) = api_server().await;
    let mut malformed = serde_json::to_value(kuryr_port("web-1", 1)).unwrap();
    malformed["spec"]["vifs"][0]["mac"] = "not a MAC".into();
    api.put(&malformed);
    api.put(&kuryr_port("web-2", 2));
    let patience = |config: &mut DaemonConfig| config.add_timeout = Duration::from_millis(500);
    let daemon = Daemon::start_with(folder.path(), client, Arc::<FakePlugs>::default(), patience).await;
    daemon.ready().await;
    let (status, error) = daemon.cni("ADD", "a", 1).await;
    assert_eq!((status, &error["code"], &error["cniVersion"]), (500, &11.into(), &"1.0.0".into()));
    assert!(error["msg"].as_str().unwrap().contains("not a MAC"), "{error}");
    assert_eq!(daemon.cni("ADD", "b", 2).await.0, 200);
    let mut events = api.events.subscribe();
    let event = events.wait_for(|events| !events.is_empty()).await.unwrap()[0].clone();
    assert_eq!((&event["reason"], &event["regarding"]["name"]), (&"PortNotReady".into(), &"web-1".into()));
    assert_eq!(event["regarding"]["uid"], uid(1).as_str());
    daemon.stop().await;
}

#[tokio::test]
async fn requests_that_are_none_are_refused_and_health_says_nothing_secret() {
    let folder = tempfile::tempdir().unwrap();
    let (api, client) = api_server().await;
    let daemon = Daemon::start(folder.path(), client, Arc::<FakePlugs>::default()).await;
    daemon.ready().await;
    let (status, error) = daemon.post("/cni", "{\"command\":").await;
    assert_eq!((status, &error["code"]), (500, &6.into()));
    assert_eq!(daemon.get("/healthz").await, (200, "ok\n".into()));
    api.put(&kuryr_port("web-1", 1));
    daemon.cni("ADD", "a", 1).await;
    let (_, metrics) = daemon.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("kuryr_attachments 1\n") && metrics.contains("kuryr_watch_synced 1\n"), "{metrics}");
    assert!(!metrics.contains("web-1") && !metrics.contains("10.1.0.1"), "{metrics}");
    assert_eq!(daemon.post("/attachments/prune", "").await, (200, json!({ "problems": [] })));
    daemon.stop().await;
}

#[tokio::test]
async fn a_client_that_never_ends_its_request_does_not_keep_the_daemon_from_stopping() {
    let folder = tempfile::tempdir().unwrap();
    let (_api, client) = api_server().await;
    let patience = |config: &mut DaemonConfig| config.plug_timeout = Duration::from_millis(200);
    let daemon = Daemon::start_with(folder.path(), client, Arc::<FakePlugs>::default(), patience).await;
    let endless = daemon.begin("POST /cni HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{").await;
    // One after it is answered: then the first has been taken, too.
    assert_eq!(daemon.get("/attachments").await.0, 200);
    let begun = std::time::Instant::now();
    daemon.stop().await;
    let longest = DaemonConfig { plug_timeout: Duration::from_millis(200), ..DaemonConfig::new("n") }.longest_stop();
    assert!((longest..longest * 10).contains(&begun.elapsed()), "it stopped after {:?}", begun.elapsed());
    drop(endless);
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let (_api, client) = api_server().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = DaemonConfig::new("node-1");
    config.socket = folder.path().join("cni.sock");
    config.state_folder = folder.path().join("state");
    config.http_address = taken.local_addr().unwrap();
    let start = |config: DaemonConfig| run(config, client.clone(), CancellationToken::new());
    assert!(matches!(start(config.clone()).await, Err(DaemonError::Http { .. })));
    config.node_name.clear();
    assert!(matches!(start(config.clone()).await, Err(DaemonError::Config(_))));
    config.node_name.push('x');
    config.state_folder = "/proc/nothing".into();
    assert!(matches!(start(config).await, Err(DaemonError::State(_))));
}

#[tokio::test]
async fn a_full_node_is_not_ready_only_where_that_is_set() {
    let (api, client) = api_server().await;
    let say = |kind: &str, status: &str| {
        let condition = json!({ "type": kuryr_model::FULL_CONDITION, "status": status, "message": "remove pods" });
        let ready = json!({ "type": "Ready", "status": "True" });
        let status = json!({ "conditions": [ready, condition] });
        api.change(
            kind,
            json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "node-1" }, "status": status }),
        );
    };
    say("ADDED", "True");
    for set in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let change = |config: &mut crate::DaemonConfig| config.not_ready_when_full = set;
        let plugs = Arc::<FakePlugs>::default();
        let daemon = Daemon::start_with(folder.path(), client.clone(), plugs, change).await;
        daemon.ready().await;
        let request = json!({ "command": "STATUS", "config": { "cniVersion": "1.1.0", "name": "kuryr" } }).to_string();
        let becomes = async |code: Option<u64>| {
            let becomes = async {
                loop {
                    let (_, answer) = daemon.post("/cni", &request).await;
                    if answer["code"].as_u64() == code {
                        return answer;
                    }
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), becomes).await.expect("in time")
        };
        becomes(set.then_some(50)).await;
        if set {
            say("MODIFIED", "False");
            becomes(None).await;
            say("MODIFIED", "True");
            let answer = becomes(Some(50)).await;
            assert_eq!(answer["msg"], "node node-1 is full: remove pods");
        }
        daemon.stop().await;
    }
}
