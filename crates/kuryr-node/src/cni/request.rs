//! What the runtime asks, from the JSON that `kuryr-cni` sends to what a verb needs.

use super::{
    CniError, CniVersion, Code,
    args::{self, PodRef},
    result::PrevResult,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::HashSet, fmt, path::PathBuf};

/// The longest container id that fits, with the port's id, into a link's alias.
const MAX_CONTAINER_ID: usize = 200;

/// The body of `POST /cni`: the runtime's variables and the network configuration.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// `CNI_COMMAND`.
    pub command: String,
    /// `CNI_CONTAINERID`; like all that follow, empty where the runtime has not set it.
    #[serde(default)]
    pub container_id: String,
    /// `CNI_NETNS`.
    #[serde(default)]
    pub netns: String,
    /// `CNI_IFNAME`.
    #[serde(default)]
    pub ifname: String,
    /// `CNI_ARGS`.
    #[serde(default)]
    pub args: String,
    /// `CNI_PATH`; no other plugin is ever called, so it is not used.
    #[serde(default)]
    pub path: String,
    /// The network configuration.
    pub config: Value,
}

/// The parts of the network configuration that matter to us. Others are for the runtime or for other plugins.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NetworkConfig {
    name: Option<String>,
    prev_result: Option<Value>,
    ipam: Option<Value>,
}

/// What a runtime tells attachments of one network apart by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentId {
    /// The sandbox.
    #[serde(alias = "containerID")]
    pub container_id: String,
    /// The interface in it.
    pub ifname: String,
}

impl fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of container {}", self.ifname, self.container_id)
    }
}

/// A valid request.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The version that the runtime speaks.
    pub version: CniVersion,
    /// The network's name.
    pub network: String,
    /// What is to be done.
    pub verb: Verb,
}

/// The verbs and their parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Verb {
    /// Give a container its interfaces.
    Add {
        /// Which.
        id: AttachmentId,
        /// The container's network namespace.
        netns: PathBuf,
        /// The pod whose sandbox it is.
        pod: PodRef,
    },
    /// Take them away.
    Del {
        /// Which.
        id: AttachmentId,
    },
    /// Look whether they are as ADD has made them.
    Check {
        /// Which.
        id: AttachmentId,
        /// What ADD has answered.
        prev_result: PrevResult,
    },
    /// Take away all but these.
    Gc {
        /// Those that the runtime knows.
        valid: HashSet<AttachmentId>,
    },
    /// Say whether ADD would work.
    Status,
}

impl Request {
    /// The version that the configuration asks for, whether or not we speak it: errors are answered in it.
    #[must_use]
    pub fn cni_version(&self) -> &str {
        self.config["cniVersion"].as_str().unwrap_or(CniVersion::LATEST.as_str())
    }

    /// Checks the request.
    ///
    /// # Errors
    /// What is wrong with it, with the specification's code for that.
    pub fn validate(&self) -> Result<Call, CniError> {
        let version = CniVersion::negotiate(self.config["cniVersion"].as_str())?;
        if self.command == "DEL" {
            // What was added must go whatever has become of the configuration since.
            let network = self.config["name"].as_str().unwrap_or_default().to_owned();
            return Ok(Call { version, network, verb: Verb::Del { id: self.id()? } });
        }
        let config = NetworkConfig::deserialize(&self.config).map_err(|error| {
            CniError::new(Code::Decode, "cannot decode the network configuration").details(error.to_string())
        })?;
        if config.ipam.as_ref().is_some_and(|ipam| *ipam != Value::Object(serde_json::Map::new()) && !ipam.is_null()) {
            let message = "the network configuration has an \"ipam\" section; addresses come from Neutron, remove it";
            return Err(CniError::new(Code::UnsupportedField, message));
        }
        let verb = self.verb(version, &config)?;
        let network = config.name.filter(|name| !name.is_empty()).ok_or_else(|| {
            CniError::new(Code::Configuration, "the network configuration has no \"name\"; give the network one")
        })?;
        Ok(Call { version, network, verb })
    }

    fn verb(&self, version: CniVersion, config: &NetworkConfig) -> Result<Verb, CniError> {
        let since = |needed: CniVersion| {
            let message = format!("{} is not part of CNI {}", self.command, version.as_str());
            if version < needed { Err(CniError::new(Code::IncompatibleVersion, message)) } else { Ok(()) }
        };
        Ok(match self.command.as_str() {
            "ADD" => Verb::Add { id: self.id()?, netns: self.netns()?, pod: args::parse(&self.args)? },
            "CHECK" => {
                since(CniVersion::V0_4_0)?;
                self.netns()?;
                Verb::Check { id: self.id()?, prev_result: PrevResult::read(config.prev_result.as_ref())? }
            }
            "GC" => {
                since(CniVersion::V1_1_0)?;
                Verb::Gc { valid: valid_attachments(&self.config)? }
            }
            "STATUS" => since(CniVersion::V1_1_0).map(|()| Verb::Status)?,
            other => {
                let message = format!("CNI_COMMAND is {other:?}; it must be ADD, DEL, CHECK, GC or STATUS");
                return Err(environment(message));
            }
        })
    }

    fn id(&self) -> Result<AttachmentId, CniError> {
        let (container_id, ifname) = (&self.container_id, &self.ifname);
        if container_id.is_empty() {
            return Err(environment("CNI_CONTAINERID is missing"));
        }
        if !valid_container_id(container_id) {
            return Err(environment(format!("CNI_CONTAINERID is {container_id:?}, which is no container id")));
        }
        if ifname.is_empty() {
            return Err(environment("CNI_IFNAME is missing"));
        }
        if !valid_ifname(ifname) {
            return Err(environment(format!(
                "CNI_IFNAME is {ifname:?}, which Linux does not take as an interface's name"
            )));
        }
        Ok(AttachmentId { container_id: container_id.clone(), ifname: ifname.clone() })
    }

    fn netns(&self) -> Result<PathBuf, CniError> {
        let netns = PathBuf::from(&self.netns);
        match self.netns.as_str() {
            "" => Err(environment("CNI_NETNS is missing")),
            path if !netns.is_absolute() => {
                Err(environment(format!("CNI_NETNS is {path:?}, which is no absolute path")))
            }
            _ => Ok(netns),
        }
    }
}

/// Whether it is a container id by the specification, and short enough for our marks.
#[must_use]
pub fn valid_container_id(id: &str) -> bool {
    id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
        && id.len() <= MAX_CONTAINER_ID
}

/// Whether Linux takes it as the name of an interface.
#[must_use]
pub fn valid_ifname(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() < 16
        && name.chars().all(|c| c.is_ascii_graphic() && !"/:".contains(c))
}

/// The list that GC must have: without it, everything would have to go, which nobody means who forgets it. `null` is
/// how the reference library writes an empty list.
fn valid_attachments(config: &Value) -> Result<HashSet<AttachmentId>, CniError> {
    let name = "cni.dev/valid-attachments";
    match config.get(name) {
        None => Err(CniError::new(Code::Configuration, format!("GC needs {name:?} in the network configuration"))),
        Some(Value::Null) => Ok(HashSet::new()),
        Some(list) => HashSet::deserialize(list)
            .map_err(|error| CniError::new(Code::Decode, format!("cannot decode {name:?}")).details(error.to_string())),
    }
}

fn environment(message: impl Into<String>) -> CniError {
    CniError::new(Code::Environment, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(command: &str, config: &Value) -> Request {
        serde_json::from_value(json!({
            "command": command, "containerId": "c0ffee", "netns": "/run/netns/x", "ifname": "eth0",
            "args": "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0", "path": "", "config": config,
        }))
        .unwrap()
    }

    fn config(version: &str) -> Value {
        json!({ "cniVersion": version, "name": "kuryr", "type": "kuryr-cni", "capabilities": { "x": true } })
    }

    fn id() -> AttachmentId {
        AttachmentId { container_id: "c0ffee".into(), ifname: "eth0".into() }
    }

    #[test]
    fn a_good_add_is_a_call() {
        let call = request("ADD", &config("1.0.0")).validate().unwrap();
        assert_eq!((call.version, call.network.as_str()), (CniVersion::V1_0_0, "kuryr"));
        let Verb::Add { id: read, netns, pod } = call.verb else { panic!("{call:?}") };
        assert_eq!((read, netns), (id(), "/run/netns/x".into()));
        assert_eq!(pod.key.to_string(), "shop/web-0");
    }

    #[test]
    fn verbs_come_with_their_versions() {
        for (verb, first) in [("CHECK", 1), ("GC", 3), ("STATUS", 3)] {
            for (index, version) in CniVersion::ALL.into_iter().enumerate() {
                let mut config = config(version.as_str());
                config["prevResult"] = json!({ "cniVersion": version, "ips": [] });
                config["cni.dev/valid-attachments"] = json!([]);
                let result = request(verb, &config).validate();
                assert_eq!(result.is_ok(), index >= first, "{verb} in {version:?}: {result:?}");
            }
        }
    }

    #[test]
    fn gc_reads_the_specifications_list_and_refuses_to_guess() {
        let mut with = config("1.1.0");
        with["cni.dev/valid-attachments"] = json!([{ "containerID": "c0ffee", "ifname": "eth0" }]);
        assert_eq!(request("GC", &with).validate().unwrap().verb, Verb::Gc { valid: [id()].into() });
        with["cni.dev/valid-attachments"] = Value::Null;
        assert_eq!(request("GC", &with).validate().unwrap().verb, Verb::Gc { valid: HashSet::new() });
        with["cni.dev/valid-attachments"] = json!([{ "containerID": 7 }]);
        assert_eq!(request("GC", &with).validate().unwrap_err().code, Code::Decode);
        assert_eq!(request("GC", &config("1.1.0")).validate().unwrap_err().code, Code::Configuration);
    }

    #[test]
    fn bad_requests_have_the_specifications_codes_and_name_the_thing() {
        let change = |change: fn(&mut Request)| {
            let mut request = request("ADD", &config("1.0.0"));
            change(&mut request);
            request.validate().unwrap_err()
        };
        let cases: [(CniError, Code, &str); 12] = [
            (change(|r| r.config["cniVersion"] = "0.2.0".into()), Code::IncompatibleVersion, "0.2.0"),
            (change(|r| r.config = json!({})), Code::IncompatibleVersion, "0.1.0"),
            (change(|r| r.config["ipam"] = json!({ "type": "host-local" })), Code::UnsupportedField, "ipam"),
            (change(|r| r.config["name"] = "".into()), Code::Configuration, "name"),
            (change(|r| r.config["name"] = 7.into()), Code::Decode, "network configuration"),
            (change(|r| r.command = "add".into()), Code::Environment, "CNI_COMMAND"),
            (change(|r| r.container_id.clear()), Code::Environment, "CNI_CONTAINERID"),
            (change(|r| r.container_id = "../../etc".into()), Code::Environment, "CNI_CONTAINERID"),
            (change(|r| r.ifname = "sixteen-letters-".into()), Code::Environment, "CNI_IFNAME"),
            (change(|r| r.ifname = "a/b".into()), Code::Environment, "CNI_IFNAME"),
            (change(|r| r.netns = "run/x".into()), Code::Environment, "CNI_NETNS"),
            (change(|r| r.args.clear()), Code::Environment, "K8S_POD_NAMESPACE"),
        ];
        for (error, code, words) in cases {
            assert_eq!(error.code, code, "{error}");
            assert!(error.message.contains(words), "{error}");
        }
    }

    #[test]
    fn del_needs_neither_namespace_nor_pod_nor_the_configuration_that_add_had() {
        let mut request = request("DEL", &config("0.3.1"));
        request.netns.clear();
        request.args.clear();
        assert_eq!(request.validate().unwrap().verb, Verb::Del { id: id() });
        for (key, odd) in [("name", Value::Null), ("name", json!(7)), ("ipam", json!({ "type": "host-local" }))] {
            let mut changed = request.clone();
            changed.config[key] = odd;
            assert_eq!(changed.validate().unwrap().verb, Verb::Del { id: id() }, "{}", changed.config);
        }
    }
}
