//! Random work against a model: whoever lists and watches ends with what is there.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, ListParams, Patch, PatchParams, WatchEvent, WatchParams},
};
use serde_json::json;

use super::*;

/// Name → value of `data.v`, of the objects with `color`.
type Cache = BTreeMap<String, String>;

fn value(map: &ConfigMap) -> String {
    map.data.as_ref().unwrap()["v"].clone()
}

/// Lists in pages, then watches up to and including the version `end` has when it is told.
async fn follow(maps: Api<ConfigMap>, color: &str, page: u32, end: tokio::sync::oneshot::Receiver<u64>) -> Cache {
    let selector = format!("color={color}");
    let mut cache = Cache::new();
    let mut parameters = ListParams::default().labels(&selector).limit(page);
    let mut revision = loop {
        let list = maps.list(&parameters).await.unwrap();
        cache.extend(list.items.iter().map(|map| (map.name_any(), value(map))));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters.continue_token = Some(token),
            None => break list.metadata.resource_version.unwrap(),
        }
    };
    let mut events = Box::pin(maps.watch(&WatchParams::default().labels(&selector), &revision).await.unwrap());
    let mut end = Box::pin(end);
    let mut last = None;
    while last.is_none_or(|last| revision.parse::<u64>().unwrap() < last) {
        tokio::select! {
            told = &mut end, if last.is_none() => last = Some(told.unwrap()),
            event = events.next() => {
                let (map, kept) = match event.unwrap().unwrap() {
                    WatchEvent::Added(map) => {
                        assert!(!cache.contains_key(&map.name_any()), "added twice");
                        (map, true)
                    }
                    WatchEvent::Modified(map) => {
                        assert!(cache.contains_key(&map.name_any()), "modified before it was added");
                        (map, true)
                    }
                    WatchEvent::Deleted(map) => {
                        assert!(cache.contains_key(&map.name_any()), "deleted before it was added");
                        (map, false)
                    }
                    WatchEvent::Bookmark(_) => continue,
                    WatchEvent::Error(status) => panic!("{status:?}"),
                };
                let now = map.resource_version().unwrap();
                assert!(now.parse::<u64>().unwrap() > revision.parse::<u64>().unwrap(), "versions only grow");
                revision = now;
                assert!(!kept || map.labels()["color"] == color);
                if kept { cache.insert(map.name_any(), value(&map)) } else { cache.remove(&map.name_any()) };
            }
        }
    }
    cache
}

async fn random_change(
    maps: &Api<ConfigMap>,
    model: &mut BTreeMap<String, (String, String)>,
    random: &mut fastrand::Rng,
) {
    let name = format!("m{}", random.u8(..12));
    let color = if random.bool() { "red" } else { "blue" }.to_owned();
    let v = random.u8(..3).to_string();
    let exists = model.contains_key(&name);
    match random.u8(..4) {
        0 => {
            let deleted = maps.delete(&name, &DeleteParams::default()).await;
            assert_eq!(deleted.is_ok(), exists);
            model.remove(&name);
        }
        1 if exists => {
            maps.patch(&name, &PatchParams::default(), &Patch::Merge(json!({ "data": { "v": v } }))).await.unwrap();
            model.get_mut(&name).unwrap().1 = v;
        }
        _ => {
            let map = json!({ "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": name, "labels": { "color": color } }, "data": { "v": v } });
            maps.patch(&name, &PatchParams::apply("model").force(), &Patch::Apply(map)).await.unwrap();
            model.insert(name, (color, v));
        }
    }
}

#[tokio::test]
async fn list_and_watch_lead_to_what_is_there() {
    for seed in 0..8 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (server, client) = cluster();
        let maps = config_maps(&client);
        let mut model = BTreeMap::new();
        let mut followers = Vec::new();
        for step in 0..150 {
            random_change(&maps, &mut model, &mut random).await;
            if step % 15 == 0 {
                let color = if random.bool() { "red" } else { "blue" };
                let page = random.u32(1..4);
                let (told, end) = tokio::sync::oneshot::channel();
                let follower = tokio::spawn(follow(config_maps(&server.client("follower")), color, page, end));
                followers.push((color, told, follower));
            }
            tokio::task::yield_now().await;
        }
        // A last change in each color, so that every follower sees the end come.
        let mut ends = BTreeMap::new();
        for color in ["red", "blue"] {
            let name = format!("end-{color}");
            let map = json!({ "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": name, "labels": { "color": color } }, "data": { "v": "end" } });
            let end = maps.patch(&name, &PatchParams::apply("model"), &Patch::Apply(map)).await.unwrap();
            ends.insert(color, end.resource_version().unwrap().parse::<u64>().unwrap());
            model.insert(name, (color.to_owned(), "end".to_owned()));
        }
        for (color, told, follower) in followers {
            told.send(ends[color]).unwrap();
            let cache = soon("a follower", follower).await.unwrap();
            let wanted: Cache =
                model.iter().filter(|(_, (c, _))| c == color).map(|(name, (_, v))| (name.clone(), v.clone())).collect();
            assert_eq!(cache, wanted, "seed {seed}");
        }
    }
}
