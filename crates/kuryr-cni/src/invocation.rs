//! What the runtime asks: environment and network configuration, checked as far as the request needs it.

use crate::{
    error::{CONFIGURATION, CniError, ENVIRONMENT},
    json::{self, Member},
};
use std::{env, path::PathBuf};

/// The versions of the CNI specification that the daemon speaks, oldest first.
pub(crate) const SUPPORTED_VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", LATEST_VERSION];

/// What is answered to who does not say which version it wants.
pub(crate) const LATEST_VERSION: &str = "1.1.0";

/// Where the daemon listens unless the network configuration says otherwise.
const DEFAULT_SOCKET: &str = "/run/kuryr/cni.sock";

/// The member of the network configuration that names another socket.
const SOCKET_MEMBER: &str = "kuryrSocket";

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Verb {
    pub(crate) fn from_environment() -> Result<Self, CniError> {
        let name = variable("CNI_COMMAND")?.unwrap_or_default();
        Self::from_name(&name).ok_or_else(|| {
            let problem = if name.is_empty() { "is missing".to_owned() } else { format!("is {name:?}") };
            let verbs = "ADD, DEL, CHECK, GC, STATUS or VERSION";
            CniError::new(ENVIRONMENT, format!("CNI_COMMAND {problem}; it must be {verbs}"))
        })
    }

    fn from_name(name: &str) -> Option<Self> {
        match name {
            "ADD" => Some(Self::Add),
            "DEL" => Some(Self::Del),
            "CHECK" => Some(Self::Check),
            "GC" => Some(Self::Gc),
            "STATUS" => Some(Self::Status),
            "VERSION" => Some(Self::Version),
            _ => None,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }

    /// The variables without which the verb means nothing.
    fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Self::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Self::Gc | Self::Status | Self::Version => &[],
        }
    }
}

/// One call of the executable.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) verb: Verb,
    /// `cniVersion` of the network configuration.
    pub(crate) cni_version: Option<String>,
    /// Where the daemon listens.
    pub(crate) socket: PathBuf,
    config: String,
}

impl Invocation {
    /// Reads the members of the network configuration that matter here.
    pub(crate) fn new(verb: Verb, config: String) -> Result<Self, CniError> {
        let members = json::top_level(&config, [SOCKET_MEMBER, "cniVersion"]);
        let [socket, cni_version] =
            members.map_err(|error| CniError::decode(format!("the network configuration on stdin is {error}")))?;
        let socket = match socket {
            None => DEFAULT_SOCKET.to_owned(),
            Some(Member::String(socket)) if !socket.is_empty() => socket,
            Some(_) => {
                let message =
                    format!("{SOCKET_MEMBER} must be the path of the daemon's socket, such as {DEFAULT_SOCKET:?}");
                return Err(CniError::new(CONFIGURATION, message));
            }
        };
        let cni_version = match cni_version {
            Some(Member::String(version)) => Some(version),
            _ => None,
        };
        Ok(Self { verb, cni_version, socket: socket.into(), config })
    }

    /// The body of the request: the runtime's words, and the network configuration as it came.
    pub(crate) fn to_request(&self) -> Result<String, CniError> {
        request(self.verb, &self.config, variable)
    }
}

fn request(
    verb: Verb,
    config: &str,
    variable: impl Fn(&str) -> Result<Option<String>, CniError>,
) -> Result<String, CniError> {
    let mut request = format!(r#"{{"command":"{}""#, verb.as_str());
    for (member, name) in [
        ("containerId", "CNI_CONTAINERID"),
        ("netns", "CNI_NETNS"),
        ("ifname", "CNI_IFNAME"),
        ("args", "CNI_ARGS"),
        ("path", "CNI_PATH"),
    ] {
        let value = variable(name)?.filter(|value| !value.is_empty());
        if value.is_none() && verb.needs().contains(&name) {
            let message = format!("{name} is missing; {} needs it from the container runtime", verb.as_str());
            return Err(CniError::new(ENVIRONMENT, message));
        }
        request.push_str(&format!(r#","{member}":{}"#, json::quote(value.as_deref().unwrap_or_default())));
    }
    request.push_str(r#","config":"#);
    request.push_str(config);
    request.push('}');
    Ok(request)
}

fn variable(name: &str) -> Result<Option<String>, CniError> {
    match env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(CniError::new(ENVIRONMENT, format!("{name} is not UTF-8"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_has_its_name_and_no_other() {
        for verb in [Verb::Add, Verb::Del, Verb::Check, Verb::Gc, Verb::Status, Verb::Version] {
            assert_eq!(Verb::from_name(verb.as_str()), Some(verb));
        }
        assert_eq!(Verb::from_name("add"), None);
    }

    #[test]
    fn the_request_carries_the_configuration_verbatim_and_quotes_the_rest() {
        let config = "{\"name\": \"kuryr\",\n \"prevResult\": {\"a\": [1e3]}}";
        let variable = |name: &str| Ok((name != "CNI_PATH").then(|| format!("{name}=\"x\"\\")));
        let body = request(Verb::Add, config, variable).unwrap();
        assert!(body.contains(config));
        let value: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(value["command"], "ADD");
        assert_eq!(value["containerId"], "CNI_CONTAINERID=\"x\"\\");
        assert_eq!(value["path"], "");
        assert_eq!(value["config"]["name"], "kuryr");
    }

    #[test]
    fn a_missing_variable_is_named() {
        let without = |missing: &'static str| move |name: &str| Ok((name != missing).then(|| "x".to_owned()));
        for (verb, missing) in [
            (Verb::Add, "CNI_NETNS"),
            (Verb::Check, "CNI_IFNAME"),
            (Verb::Del, "CNI_CONTAINERID"),
            (Verb::Del, "CNI_IFNAME"),
        ] {
            let error = request(verb, "{}", without(missing)).unwrap_err();
            assert_eq!(error.code, ENVIRONMENT);
            assert!(error.message.starts_with(missing), "{}", error.message);
        }
        assert!(request(Verb::Del, "{}", without("CNI_NETNS")).is_ok(), "DEL without namespace is fine");
        assert!(request(Verb::Gc, "{}", |_| Ok(None)).is_ok());
    }

    #[test]
    fn the_socket_is_the_configurations_or_the_default() {
        let socket = |config: &str| Invocation::new(Verb::Add, config.to_owned()).map(|invocation| invocation.socket);
        assert_eq!(socket("{}").unwrap(), PathBuf::from(DEFAULT_SOCKET));
        assert_eq!(socket(r#"{"kuryrSocket":"/a b"}"#).unwrap(), PathBuf::from("/a b"));
        for bad in [r#"{"kuryrSocket":""}"#, r#"{"kuryrSocket":null}"#, r#"{"kuryrSocket":["/a"]}"#] {
            let error = socket(bad).unwrap_err();
            assert_eq!(error.code, CONFIGURATION);
            assert!(error.message.contains("kuryrSocket"));
        }
        assert_eq!(socket("{").unwrap_err().message, "failed to decode content");
    }
}
