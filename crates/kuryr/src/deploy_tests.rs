//! Holds what is deployed against the code: a manifest that names an option, a file or a port number that there is not, fails here.

use crate::{Cli, Command, config::Config};
use clap::Parser as _;
use kuryr_node::{DaemonConfig, cni::CniVersion};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

const CONFLIST: &str = include_str!("../../../deploy/10-kuryr.conflist");
const SETTINGS: &str = include_str!("../../../deploy/kuryr.toml");
const KUSTOMIZATION: &str = include_str!("../../../deploy/kustomization.yaml");
const CONTROLLER: &str = include_str!("../../../deploy/controller.yaml");
const DAEMON: &str = include_str!("../../../deploy/daemon.yaml");
const RBAC: &str = include_str!("../../../deploy/rbac.yaml");

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// Its name, and all of a container of the pods that a manifest makes.
fn containers(manifest: &Value) -> Vec<(String, Value)> {
    let spec = &manifest["spec"]["template"]["spec"];
    let lists = [&spec["initContainers"], &spec["containers"]];
    let all = lists.into_iter().filter_map(Value::as_array).flatten();
    all.map(|container| (container["name"].as_str().unwrap().to_owned(), container.clone())).collect()
}

fn container(manifest: &Value, name: &str) -> Value {
    containers(manifest).into_iter().find(|(found, _)| found == name).unwrap().1
}

/// What `kuryr` is told in a container.
fn command(container: &Value) -> Cli {
    let line = container
        .get("command")
        .map_or_else(|| [vec!["kuryr".to_owned()], strings(&container["args"])].concat(), strings);
    Cli::try_parse_from(line).unwrap()
}

/// Where a container has its volumes.
fn mounts(container: &Value) -> BTreeSet<PathBuf> {
    container["volumeMounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| mount["mountPath"].as_str().unwrap().into())
        .collect()
}

#[test]
fn the_network_configuration_suits_every_runtime() {
    let conflist: Value = serde_json::from_str(CONFLIST).unwrap();
    // What a runtime that does not know the newest version, nor the list, can read.
    assert_eq!(conflist["cniVersion"], "1.0.0");
    assert_eq!(conflist["cniVersions"], json!(CniVersion::ALL.map(CniVersion::as_str)));
    assert_eq!(conflist["plugins"], json!([{ "type": "kuryr-cni" }]));
}

#[test]
fn the_settings_are_read_and_the_files_are_where_they_are_looked_for() {
    let settings: Config = toml::from_str(SETTINGS).unwrap();
    assert_eq!(settings.openstack.cloud.as_deref(), Some("kuryr"));
    let files = strings(&yaml(KUSTOMIZATION)["configMapGenerator"][0]["files"]);
    let folder = Path::new("/etc/kuryr");
    for manifest in [yaml(CONTROLLER), yaml(DAEMON)] {
        for (name, container) in containers(&manifest) {
            let cli = command(&container);
            let conflist = match &cli.command {
                Command::InstallCni(args) => Some(args.conflist.clone()),
                _ => None,
            };
            let named: Vec<PathBuf> = cli.config.into_iter().chain(conflist).collect();
            assert!(!named.is_empty(), "{name} has no configuration");
            let there = |path: &PathBuf| {
                path.parent() == Some(folder)
                    && files.iter().any(|file| path.ends_with(file))
                    && mounts(&container).contains(folder)
            };
            assert_eq!(named.iter().find(|path| !there(path)), None, "{name}");
        }
    }
}

#[test]
fn each_process_is_asked_on_its_own_port_number_and_has_the_folders_that_it_uses() {
    let defaults = Config::default();
    let controller = container(&yaml(CONTROLLER), "controller");
    let daemon = container(&yaml(DAEMON), "daemon");
    assert!(matches!(command(&controller).command, Command::Controller(_)));
    assert!(matches!(command(&daemon).command, Command::Daemon(_)));
    for (container, listen) in [(&controller, defaults.controller.listen), (&daemon, defaults.daemon.listen)] {
        assert_eq!(container["ports"][0]["containerPort"], listen.port());
        for (probe, path) in [("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")] {
            assert_eq!(container[probe]["httpGet"], json!({ "path": path, "port": "http" }));
        }
    }
    let paths = [&defaults.daemon.socket, &defaults.daemon.ovsdb_socket].map(|socket| socket.parent().unwrap());
    let mounted = mounts(&daemon);
    assert_eq!(paths.iter().chain([&&*defaults.daemon.state_dir]).find(|path| !mounted.contains(**path)), None);
    // Both places in which runtimes keep the namespaces of sandboxes.
    assert!(mounted.is_superset(&["/run/netns", "/var/run/netns"].map(PathBuf::from).into()));
}

#[test]
fn a_daemon_has_the_time_to_end_what_it_plugs() {
    let grace = yaml(DAEMON)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
    assert!(Duration::from_secs(grace) > DaemonConfig::new("n").longest_stop());
}

#[test]
fn every_volume_and_every_account_is_there() {
    for (manifest, account) in [(yaml(CONTROLLER), "kuryr-controller"), (yaml(DAEMON), "kuryr-daemon")] {
        let spec = &manifest["spec"]["template"]["spec"];
        assert_eq!(spec["serviceAccountName"], account);
        assert!(RBAC.contains(&format!("kind: ServiceAccount\nmetadata: {{name: {account}, namespace: kube-system}}")));
        let name = |object: &Value| object["name"].as_str().unwrap().to_owned();
        let volumes: BTreeSet<_> = spec["volumes"].as_array().unwrap().iter().map(name).collect();
        let used: BTreeSet<_> = containers(&manifest)
            .iter()
            .flat_map(|(_, container)| {
                container["volumeMounts"].as_array().unwrap().iter().map(name).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(volumes, used);
        assert!(containers(&manifest).iter().all(|(_, container)| container["image"] == "kuryr"));
    }
    assert_eq!(yaml(KUSTOMIZATION)["images"][0], json!({ "name": "kuryr", "newTag": env!("CARGO_PKG_VERSION") }));
}
