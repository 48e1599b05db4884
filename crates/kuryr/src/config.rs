//! The configuration file: one TOML file for all of Kuryr's processes. Every setting has a default, unknown settings
//! are refused, and every error names the setting and the fix. docs/operating.md lists them all.

use crate::cloud::CloudArgs;
use jiff::SignedDuration;
use kuryr_controller::{ControllerConfig, PoolsConfig, ServiceClass, ServicesConfig};
use kuryr_model::{ClusterId, mark::valid_cluster_id, vif::PlugDriver};
use kuryr_node::{DaemonConfig, config::NodePorts};
use kuryr_plan::{nested, pool::Settings};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where the configuration is looked for if no file is named.
pub(crate) const DEFAULT_PATH: &str = "/etc/kuryr/kuryr.toml";

/// What the daemon itself takes, with the time that plugging may need on top.
const LONGEST_ADD_TIMEOUT: Duration = Duration::from_secs(70);

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) cluster: Cluster,
    pub(crate) openstack: CloudArgs,
    pub(crate) network: Network,
    pub(crate) services: Services,
    pub(crate) controller: Controller,
    pub(crate) pools: Pools,
    pub(crate) daemon: Daemon,
}

/// `[cluster]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Cluster {
    /// Tells two clusters on one cloud apart; by default the UID of the namespace kube-system.
    pub(crate) id: Option<String>,
}

/// `[network]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Network {
    /// Names or ids of the subnets for pods, in the order in which they are tried; by default those that `kuryr setup` made.
    pub(crate) pod_subnets: Vec<String>,
    /// How pods are plugged on nodes that do not say it themselves, where nodes are virtual machines.
    pub(crate) nested: Option<String>,
}

impl Network {
    /// How pods are plugged on nodes that do not say it themselves.
    pub(crate) fn nested_driver(&self) -> Option<PlugDriver> {
        self.nested.as_deref().and_then(nested::driver)
    }
}

/// `[services]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Services {
    /// Whether Services get load balancers; by default if the cloud has Octavia and a service subnet.
    pub(crate) enabled: Option<bool>,
    /// Names or ids of the subnets of cluster IPs; by default those that `kuryr setup` made.
    pub(crate) subnets: Vec<String>,
    /// Octavia's provider; by default its own choice.
    pub(crate) provider: Option<String>,
    /// The network of floating IPs; by default the external network, if there is only one.
    pub(crate) floating_network: Option<String>,
    /// The class of Services that are Kuryr's, beside those without one.
    pub(crate) load_balancer_class: String,
    /// What the annotation `loadbalancer.openstack.org/class` may name.
    pub(crate) classes: BTreeMap<String, Class>,
}

/// `[services.classes.NAME]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Class {
    floating_network: Option<String>,
    floating_subnet: Option<String>,
    network: Option<String>,
    subnet: Option<String>,
    member_subnet: Option<String>,
}

impl Default for Services {
    fn default() -> Self {
        let defaults = ServicesConfig::default();
        Self {
            enabled: defaults.enabled,
            subnets: defaults.subnets,
            provider: defaults.provider,
            floating_network: defaults.floating_network,
            load_balancer_class: defaults.load_balancer_class,
            classes: BTreeMap::new(),
        }
    }
}

impl Services {
    /// What the controller itself is told.
    pub(crate) fn to_config(&self) -> ServicesConfig {
        let class = |class: Class| ServiceClass {
            floating_network: class.floating_network,
            floating_subnet: class.floating_subnet,
            network: class.network,
            subnet: class.subnet,
            member_subnet: class.member_subnet,
        };
        ServicesConfig {
            enabled: self.enabled,
            subnets: self.subnets.clone(),
            provider: self.provider.clone(),
            floating_network: self.floating_network.clone(),
            load_balancer_class: self.load_balancer_class.clone(),
            classes: self.classes.iter().map(|(name, value)| (name.clone(), class(value.clone()))).collect(),
        }
    }
}

/// `[controller]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Controller {
    pub(crate) listen: SocketAddr,
    pub(crate) lease_namespace: String,
    pub(crate) lease_name: String,
    #[serde(deserialize_with = "duration")]
    pub(crate) lease_duration: Duration,
    #[serde(deserialize_with = "duration")]
    pub(crate) node_cooldown: Duration,
    #[serde(deserialize_with = "duration")]
    pub(crate) prune_interval: Duration,
    pub(crate) bulk_size: usize,
    pub(crate) bulk_requests: usize,
}

impl Default for Controller {
    fn default() -> Self {
        let defaults = ControllerConfig::new(ClusterId::from(""), String::new());
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 9650)),
            lease_namespace: defaults.election.namespace,
            lease_name: defaults.election.name,
            lease_duration: defaults.election.lease_duration,
            node_cooldown: defaults.node_cooldown,
            prune_interval: defaults.prune_interval,
            bulk_size: defaults.bulk_size,
            bulk_requests: defaults.bulk_requests,
        }
    }
}

/// `[pools]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Pools {
    pub(crate) enabled: bool,
    pub(crate) floor: usize,
    pub(crate) ceiling: usize,
    pub(crate) budget: usize,
    #[serde(deserialize_with = "duration")]
    pub(crate) cooldown: Duration,
    #[serde(deserialize_with = "duration")]
    pub(crate) memory: Duration,
    #[serde(deserialize_with = "duration")]
    pub(crate) shrink_after: Duration,
    pub(crate) reserve: usize,
    pub(crate) port_names: bool,
}

impl Default for Pools {
    fn default() -> Self {
        let Settings { floor, ceiling, budget, cooldown, memory, shrink_after, reserve, .. } = Settings::default();
        Self { enabled: true, floor, ceiling, budget, cooldown, memory, shrink_after, reserve, port_names: false }
    }
}

impl Pools {
    /// A floor above the ceiling would silently be something else.
    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |setting, value: String, fix| Err(ConfigError::Value { section: "pools", setting, value, fix });
        if self.floor > self.ceiling {
            return wrong("floor", self.floor.to_string(), "use no more than [pools] ceiling, or raise that");
        }
        for (setting, value) in [("memory", self.memory), ("shrink_after", self.shrink_after)] {
            if value < Duration::from_secs(1) {
                return wrong(setting, format!("{value:?}"), "use 1s or more");
            }
        }
        Ok(())
    }

    /// What the controller itself is told.
    pub(crate) fn to_config(&self, bulk_size: usize) -> Option<PoolsConfig> {
        let Self { enabled, floor, ceiling, budget, cooldown, memory, shrink_after, reserve, port_names } = *self;
        let more = Settings { bulk_size, ..Settings::default() };
        let sizes = Settings { floor, ceiling, budget, cooldown, memory, shrink_after, reserve, ..more };
        enabled.then_some(PoolsConfig { sizes, names: port_names })
    }
}

/// `[daemon]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Daemon {
    pub(crate) listen: SocketAddr,
    pub(crate) socket: PathBuf,
    pub(crate) state_dir: PathBuf,
    pub(crate) ovsdb_socket: PathBuf,
    #[serde(deserialize_with = "duration")]
    pub(crate) add_timeout: Duration,
    /// Whether the node translates node ports and external addresses of Services.
    pub(crate) node_ports: bool,
    /// Whether STATUS fails while no further pod fits on the node.
    pub(crate) not_ready_when_full: bool,
    /// The interface of a virtual machine that carries the pods' ones; by default that of its port.
    pub(crate) nic: Option<String>,
}

impl Default for Daemon {
    fn default() -> Self {
        let defaults = DaemonConfig::new(String::new());
        Self {
            listen: defaults.http_address,
            socket: defaults.socket,
            state_dir: defaults.state_folder,
            ovsdb_socket: defaults.plug.ovsdb_socket,
            add_timeout: defaults.add_timeout,
            node_ports: defaults.node_ports == NodePorts::Keep,
            not_ready_when_full: defaults.not_ready_when_full,
            nic: defaults.plug.nic,
        }
    }
}

impl Daemon {
    /// What the daemon of a node itself is told.
    pub(crate) fn to_config(&self, node: String) -> DaemonConfig {
        let mut config = DaemonConfig::new(node);
        config.http_address = self.listen;
        config.socket.clone_from(&self.socket);
        config.state_folder.clone_from(&self.state_dir);
        config.plug.ovsdb_socket.clone_from(&self.ovsdb_socket);
        config.plug.nic.clone_from(&self.nic);
        config.add_timeout = self.add_timeout;
        config.node_ports = if self.node_ports { NodePorts::Keep } else { NodePorts::Remove };
        config.not_ready_when_full = self.not_ready_when_full;
        config
    }
}

/// Reads `90s`, `5m`, `1h 30m`.
fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    use serde::de::Error;
    let text = deserializer.deserialize_str(Written)?;
    let parsed: SignedDuration =
        text.parse().map_err(|_| D::Error::custom(format!("{text:?} is not a duration like 90s, 5m or 1h 30m")))?;
    Duration::try_from(parsed).map_err(|_| D::Error::custom(format!("{text:?} is negative; a duration here is not")))
}

/// A duration as it is written. A mere number says no unit, and is told what it lacks.
struct Written;

impl serde::de::Visitor<'_> for Written {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration like \"90s\", \"5m\" or \"1h 30m\"")
    }

    fn visit_str<E>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }
}

/// The same, for a setting whose default is somewhere else.
pub(crate) fn some_duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("the configuration {path} cannot be read: {source}; name another file with --config")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the configuration {path} is wrong: {message}")]
    Parse { path: PathBuf, message: String },
    #[error("[{section}] {setting} = {value}: {fix}")]
    Value { section: &'static str, setting: &'static str, value: String, fix: &'static str },
}

impl Config {
    /// Reads the named file; without a name the default one, and if that is not there, all defaults.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self, ConfigError> {
        let (path, required) = path.map_or((Path::new(DEFAULT_PATH), false), |path| (path, true));
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !required => Ok(Self::default()),
            Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), message: one_line(&error, text) })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |section, setting, value: String, fix| Err(ConfigError::Value { section, setting, value, fix });
        if let Some(id) = self.cluster.id.as_deref().filter(|id| !valid_cluster_id(id)) {
            let fix = "use 1 to 54 letters, digits, '-', '_' or '.': it becomes part of a Neutron tag";
            return wrong("cluster", "id", format!("{id:?}"), fix);
        }
        if let Some(timeout) = self.openstack.request_timeout.filter(|timeout| *timeout < Duration::from_secs(1)) {
            return wrong("openstack", "request_timeout", format!("{timeout:?}"), "use 1s or more");
        }
        if let Some(kind) = self.network.nested.as_ref().filter(|kind| nested::driver(kind).is_none()) {
            let fix = "use vlan, macvlan or ipvlan, or leave it out where nodes are no virtual machines";
            return wrong("network", "nested", format!("{kind:?}"), fix);
        }
        let controller = &self.controller;
        if controller.lease_duration < Duration::from_secs(3) {
            return wrong("controller", "lease_duration", format!("{:?}", controller.lease_duration), "use 3s or more");
        }
        for (setting, value) in [("bulk_size", controller.bulk_size), ("bulk_requests", controller.bulk_requests)] {
            if value == 0 {
                return wrong("controller", setting, "0".to_owned(), "use 1 or more");
            }
        }
        self.pools.check()?;
        if self.daemon.add_timeout.is_zero() || self.daemon.add_timeout > LONGEST_ADD_TIMEOUT {
            let fix = "use 1s to 70s: with up to 30s for plugging the reason must be told before kubelet gives up, after two minutes";
            return wrong("daemon", "add_timeout", format!("{:?}", self.daemon.add_timeout), fix);
        }
        Ok(())
    }
}

impl Config {
    /// What the controller itself is told; those who compare need the same.
    pub(crate) fn controller_config(&self, cluster: ClusterId, identity: String) -> ControllerConfig {
        let mut config = self.controller.to_config(cluster, identity, self.network.pod_subnets.clone());
        config.services = self.services.to_config();
        config.nested = self.network.nested_driver();
        config.pools = self.pools.to_config(self.controller.bulk_size);
        config
    }
}

/// A TOML error without its picture of the file: line, then what is wrong.
fn one_line(error: &toml::de::Error, text: &str) -> String {
    let message = error.message().replace('\n', " ");
    match error.span() {
        Some(span) => format!("line {}: {message}", text[..span.start.min(text.len())].matches('\n').count() + 1),
        None => message,
    }
}

impl Controller {
    /// What the controller itself is told.
    pub(crate) fn to_config(&self, cluster: ClusterId, identity: String, pod_subnets: Vec<String>) -> ControllerConfig {
        let mut config = ControllerConfig::new(cluster, identity);
        config.pod_subnets = pod_subnets;
        config.election.namespace.clone_from(&self.lease_namespace);
        config.election.name.clone_from(&self.lease_name);
        config.election.lease_duration = self.lease_duration;
        config.election.renew_deadline = self.lease_duration.mul_f64(2.0 / 3.0);
        config.election.retry_period = self.lease_duration.mul_f64(2.0 / 15.0);
        config.node_cooldown = self.node_cooldown;
        config.prune_interval = self.prune_interval;
        config.bulk_size = self.bulk_size;
        config.bulk_requests = self.bulk_requests;
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("kuryr.toml"), text)
    }

    #[test]
    fn an_empty_file_is_all_defaults() {
        let config = parse("").unwrap();
        assert_eq!(config.daemon.add_timeout, Duration::from_secs(60));
        assert_eq!(config.controller.listen.port(), 9650);
    }

    #[test]
    fn durations_are_written_for_people() {
        let config = parse("[controller]\nprune_interval = \"1h 30m\"").unwrap();
        assert_eq!(config.controller.prune_interval, Duration::from_secs(5400));
    }

    #[test]
    fn every_error_names_the_setting_in_one_line() {
        for (text, words) in [
            ("[controler]\n", "line 1: unknown field `controler`"),
            ("[network]\npod_subnet = 1\n", "line 2: unknown field `pod_subnet`"),
            ("[daemon]\nadd_timeout = \"soon\"\n", "\"soon\" is not a duration"),
            ("[daemon]\nadd_timeout = \"5m\"\n", "[daemon] add_timeout"),
            ("[openstack]\nrequest_timeout = \"0s\"\n", "[openstack] request_timeout"),
            ("[controller]\nbulk_size = 0\n", "[controller] bulk_size"),
            ("[cluster]\nid = \"a,b\"\n", "[cluster] id"),
            ("[pools]\nfloor = 60\n", "[pools] floor = 60: use no more than [pools] ceiling"),
            ("[pools]\nmemory = \"0s\"\n", "[pools] memory"),
            ("[pools]\ncooldown = 30\n", "line 2: invalid type: integer `30`, expected a duration like \"90s\""),
            ("[network]\nnested = \"tap\"\n", "[network] nested"),
            ("[controller]\nlisten = \"here\"\n", "line 2"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains('\n'), "{text:?} gave {error:?}");
        }
    }

    #[test]
    fn the_longest_add_timeout_is_one_that_the_daemon_takes() {
        let daemon = |add_timeout| DaemonConfig { add_timeout, ..DaemonConfig::new("n") };
        assert_eq!(daemon(LONGEST_ADD_TIMEOUT).check(), Ok(()));
        assert!(daemon(LONGEST_ADD_TIMEOUT + Duration::from_secs(1)).check().is_err());
    }

    #[test]
    fn a_daemon_is_told_every_one_of_its_settings() {
        let text = "[daemon]\nlisten = \"127.0.0.1:1\"\nsocket = \"/a\"\nstate_dir = \"/b\"\novsdb_socket = \"/c\"\nadd_timeout = \"7s\"\nnode_ports = false\nnot_ready_when_full = true\nnic = \"ens3\"";
        let told = parse(text).unwrap().daemon.to_config("n".into());
        let paths = [&told.socket, &told.state_folder, &told.plug.ovsdb_socket].map(|path| path.display().to_string());
        assert_eq!((told.http_address.port(), told.add_timeout.as_secs()), (1, 7));
        assert_eq!(paths, ["/a", "/b", "/c"]);
        assert_eq!((&*told.node_name, told.node_ports), ("n", NodePorts::Remove));
        assert_eq!((told.plug.nic.as_deref(), told.not_ready_when_full), (Some("ens3"), true));
    }

    #[test]
    fn the_leader_stops_before_another_may_take_over() {
        let config = parse("[controller]\nlease_duration = \"6s\"").unwrap();
        let election = config.controller.to_config("c".into(), "us".into(), vec![]).election;
        assert!(election.renew_deadline + election.retry_period < election.lease_duration);
    }
}
