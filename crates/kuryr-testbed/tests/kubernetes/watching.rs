//! Watches, reflectors and what happens to them when the server goes away.

use std::sync::Arc;

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams, WatchEvent, WatchParams},
    runtime::{WatchStreamExt as _, reflector, watcher},
};
use kuryr_testbed::kubernetes::ApiServerConfig;
use serde_json::json;

use super::*;

fn told<K: kube::ResourceExt>(event: &WatchEvent<K>) -> String {
    match event {
        WatchEvent::Added(object) => format!("+{}", object.name_any()),
        WatchEvent::Modified(object) => format!("~{}", object.name_any()),
        WatchEvent::Deleted(object) => format!("-{}", object.name_any()),
        WatchEvent::Bookmark(mark) => format!("@{}", mark.metadata.resource_version),
        WatchEvent::Error(status) => format!("!{}", status.code),
    }
}

async fn take<K: kube::ResourceExt>(
    stream: &mut (impl Stream<Item = kube::Result<WatchEvent<K>>> + Unpin),
    count: usize,
) -> Vec<String> {
    let events: Vec<_> = soon("a watch event", stream.take(count).try_collect()).await.unwrap();
    events.iter().map(told).collect()
}

#[tokio::test]
async fn a_watch_tells_what_enters_changes_and_leaves_the_selection() {
    let (_server, client) = cluster();
    let maps = config_maps(&client);
    let mut labelled = config_map("a", "k", "1");
    labelled.labels_mut().insert("app".into(), "x".into());
    create(&maps, &labelled).await;
    let parameters = WatchParams::default().labels("app=x");
    let mut events = Box::pin(maps.watch(&parameters, "0").await.unwrap());
    assert_eq!(take(&mut events, 1).await, ["+a"]);
    create(&maps, &config_map("b", "k", "1")).await;
    let label = |value: &str| Patch::Merge(json!({ "metadata": { "labels": { "app": value } } }));
    let patch = PatchParams::default();
    maps.patch("b", &patch, &label("x")).await.unwrap();
    maps.patch("a", &patch, &Patch::Merge(json!({ "data": { "k": "2" } }))).await.unwrap();
    let left = maps.patch("a", &patch, &label("y")).await.unwrap();
    maps.delete("b", &DeleteParams::default()).await.unwrap();
    assert_eq!(take(&mut events, 2).await, ["+b", "~a"]);
    let gone = soon("a watch event", events.next()).await.unwrap().unwrap();
    let WatchEvent::Deleted(gone) = gone else { panic!("a left the selection") };
    assert_eq!(gone.labels()["app"], "x");
    assert_eq!(gone.resource_version(), left.resource_version());
    assert_eq!(take(&mut events, 1).await, ["-b"]);
}

#[tokio::test]
async fn a_watch_ends_in_time_with_a_bookmark() {
    let (server, client) = cluster();
    let mut events = Box::pin(pods(&client).watch(&WatchParams::default().timeout(1), "0").await.unwrap());
    assert_eq!(take(&mut events, 5).await, [format!("@{}", server.revision())]);
}

#[tokio::test]
async fn a_version_outside_the_window_has_expired() {
    let server = ApiServer::with_config(ApiServerConfig { history: 3, ..ApiServerConfig::default() });
    let maps = config_maps(&server.client("test"));
    let first = create(&maps, &config_map("a", "k", "0")).await.resource_version().unwrap();
    for value in 1..6 {
        let change = Patch::Merge(json!({ "data": { "k": value.to_string() } }));
        maps.patch("a", &PatchParams::default(), &change).await.unwrap();
    }
    let mut events = Box::pin(maps.watch(&WatchParams::default(), &first).await.unwrap());
    assert_eq!(take(&mut events, 5).await, ["!410"]);
}

#[tokio::test]
async fn a_streaming_list_begins_with_what_exists() {
    let (_server, client) = cluster();
    let maps = config_maps(&client);
    create(&maps, &config_map("a", "k", "1")).await;
    let stream = watcher(maps.clone(), watcher::Config::default().streaming_lists());
    let mut stream = std::pin::pin!(stream);
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(match soon("an event", stream.next()).await.unwrap().unwrap() {
            watcher::Event::Init => "init".to_owned(),
            watcher::Event::InitApply(map) => map.name_any(),
            watcher::Event::InitDone => "done".to_owned(),
            other => format!("{other:?}"),
        });
    }
    assert_eq!(seen, ["init", "a", "done"]);
}

#[tokio::test]
async fn a_reflector_survives_a_restart_of_the_server() {
    let server = ApiServer::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let handle = server.serve(listener).unwrap();
    let client = kuryr_testbed::kubernetes::client(&handle.url(), "reflector/1").unwrap();
    let inside = config_maps(&server.client("test"));
    create(&inside, &config_map("before", "k", "1")).await;

    let (store, writer) = reflector::store();
    let stream = watcher(config_maps(&client), watcher::Config::default()).default_backoff().reflect(writer);
    let (seen, mut changes) = tokio::sync::watch::channel(());
    let task = tokio::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        while stream.next().await.is_some() {
            seen.send_replace(());
        }
    });
    let holds = async |changes: &mut tokio::sync::watch::Receiver<()>, wanted: &[&str]| loop {
        let mut names: Vec<_> = store.state().iter().map(|map: &Arc<_>| map.name_any()).collect();
        names.sort();
        if names == wanted {
            break;
        }
        changes.changed().await.unwrap();
    };
    soon("the first list", holds(&mut changes, &["before"])).await;
    handle.suspend().await;
    assert!(tokio::net::TcpStream::connect(handle.address()).await.is_err(), "it must refuse while it is away");
    create(&inside, &config_map("meanwhile", "k", "1")).await;
    inside.delete("before", &DeleteParams::default()).await.unwrap();
    handle.resume().await;
    soon("the second list", holds(&mut changes, &["meanwhile"])).await;
    create(&inside, &config_map("after", "k", "1")).await;
    soon("a live event", holds(&mut changes, &["after", "meanwhile"])).await;
    let agent = server.calls().count(|call| call.user_agent == "reflector/1" && call.verb == "watch");
    assert!(agent >= 2, "{:?}", server.calls().snapshot());
    task.abort();
}

#[tokio::test]
async fn a_dropped_server_refuses() {
    let server = ApiServer::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let handle = server.serve(listener).unwrap();
    let client = kuryr_testbed::kubernetes::client(&handle.url(), "test").unwrap();
    let mut events = Box::pin(pods(&client).watch(&WatchParams::default(), "0").await.unwrap());
    drop(handle);
    let end = soon("the end of the watch", events.next()).await;
    assert!(end.is_none_or(|event| event.is_err()));
    assert!(pods(&client).get("a").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_pods_are_fine() {
    let (server, client) = cluster();
    let pods = pods(&client);
    let begun = std::time::Instant::now();
    for index in 0..10_000 {
        create(&pods, &pod(&format!("p{index}"))).await;
    }
    let created = begun.elapsed();
    let revision = server.revision().to_string();
    let mut events = Box::pin(pods.watch(&WatchParams::default(), &revision).await.unwrap());
    let mut latencies = Vec::new();
    for index in 0..200 {
        let change = Patch::Strategic(json!({ "status": { "phase": "Running" } }));
        let name = format!("p{index}");
        pods.patch_status(&name, &PatchParams::default(), &change).await.unwrap();
        let answered = std::time::Instant::now();
        assert_eq!(take(&mut events, 1).await, [format!("~{name}")]);
        latencies.push(answered.elapsed());
    }
    latencies.sort();
    let begun = std::time::Instant::now();
    let (mut token, mut total) = (None, 0);
    loop {
        let mut parameters = kube::api::ListParams::default().limit(500);
        parameters.continue_token = token;
        let page = pods.list(&parameters).await.unwrap();
        total += page.items.len();
        token = page.metadata.continue_.filter(|token| !token.is_empty());
        if token.is_none() {
            break;
        }
    }
    assert_eq!(total, 10_000);
    println!(
        "created in {created:?}, listed in {:?}, watch p50 {:?} p99 {:?}",
        begun.elapsed(),
        latencies[100],
        latencies[198]
    );
    assert!(latencies[100].as_millis() < 20, "a typical event took {:?}", latencies[100]);
}
