//! Calls a CNI plugin the way container runtimes do: environment, configuration on stdin, result on stdout.

use std::{io, path::PathBuf, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, process::Command};

/// What a plugin is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CniVerb {
    /// Attach a container.
    Add,
    /// Detach it.
    Del,
    /// See whether it is attached as it should be.
    Check,
    /// Remove what belongs to no known attachment.
    Gc,
    /// Say whether an ADD could be served.
    Status,
    /// Say which versions are spoken.
    Version,
}

impl CniVerb {
    fn command(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }
}

/// Why a plugin call failed.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    /// The plugin could not be executed or talked to.
    #[error("cannot execute the CNI plugin {}", plugin.display())]
    Execute {
        /// The program.
        plugin: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The plugin took too long and was killed.
    #[error("the CNI plugin did not answer {command} within {seconds} s")]
    Timeout {
        /// The verb.
        command: &'static str,
        /// The limit.
        seconds: u64,
    },
    /// The plugin said that it failed.
    #[error("{command} failed (code {code}): {message}{}{details}", if details.is_empty() { "" } else { "; " })]
    Failed {
        /// The verb.
        command: &'static str,
        /// CNI error code; 0 if the plugin gave none.
        code: u64,
        /// For people.
        message: String,
        /// More of it.
        details: String,
    },
    /// The plugin's result is not JSON.
    #[error("the CNI plugin answered {command} with something that is not JSON")]
    Result {
        /// The verb.
        command: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// One attachment of a container.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Attachment {
    pub(crate) container_id: String,
    pub(crate) netns: PathBuf,
    pub(crate) interface: String,
    /// `CNI_ARGS`
    pub(crate) args: String,
}

/// The plugins of a node.
#[derive(Clone, Debug)]
pub(crate) struct Cni {
    /// The plugin.
    pub(crate) plugin: PathBuf,
    /// A network configuration list, or a single plugin's configuration.
    pub(crate) conf: Value,
    /// More environment for the plugin.
    pub(crate) env: Vec<(String, String)>,
    pub(crate) timeout: Duration,
}

impl Cni {
    /// The configuration of each plugin, with the name and version of the list: the highest of `cniVersions`, as runtimes with CNI
    /// 1.1.0 choose, who know them all. Older ones know `cniVersion` alone.
    fn plugins(&self) -> Vec<Value> {
        let Some(plugins) = self.conf["plugins"].as_array() else { return vec![self.conf.clone()] };
        let versions = self.conf["cniVersions"].as_array();
        let version = versions.and_then(|versions| versions.iter().max_by_key(|version| version.as_str()));
        let merge = |plugin: &Value| {
            let mut plugin = plugin.clone();
            plugin["name"] = self.conf["name"].clone();
            plugin["cniVersion"] = version.unwrap_or(&self.conf["cniVersion"]).clone();
            plugin
        };
        plugins.iter().map(merge).collect()
    }

    /// The program for a plugin's `type`: one beside ours, else ours.
    fn program(&self, plugin: &Value) -> PathBuf {
        let kind = plugin["type"].as_str().unwrap_or_default();
        let beside = self.plugin.with_file_name(kind);
        if !kind.is_empty() && beside.is_file() { beside } else { self.plugin.clone() }
    }

    /// Whether this version hands the result of ADD to DEL.
    fn passes_result(&self) -> bool {
        !matches!(self.conf["cniVersion"].as_str().unwrap_or_default(), "" | "0.1.0" | "0.2.0" | "0.3.0" | "0.3.1")
    }

    /// Calls every plugin in turn (DEL: in reverse) and returns the last result, null if there is none.
    ///
    /// `previous` is the result of ADD, `valid` the attachments that GC leaves alone.
    pub(crate) async fn call(
        &self,
        verb: CniVerb,
        attachment: Option<&Attachment>,
        previous: Option<&Value>,
        valid: &[Attachment],
    ) -> Result<Value, CniError> {
        let mut plugins = self.plugins();
        if verb == CniVerb::Del {
            plugins.reverse();
        }
        let mut result = match verb {
            CniVerb::Del if !self.passes_result() => None,
            _ => previous.cloned(),
        };
        for mut conf in plugins {
            if let Some(result) = &result {
                conf["prevResult"] = result.clone();
            }
            if verb == CniVerb::Gc {
                let valid = valid.iter().map(|a| json!({ "containerID": a.container_id, "ifname": a.interface }));
                conf["cni.dev/valid-attachments"] = valid.collect();
            }
            let answer = self.execute(verb, attachment, &conf).await?;
            if matches!(verb, CniVerb::Add | CniVerb::Version) {
                result = Some(answer);
            }
        }
        Ok(result.unwrap_or_default())
    }

    async fn execute(&self, verb: CniVerb, attachment: Option<&Attachment>, conf: &Value) -> Result<Value, CniError> {
        let plugin = self.program(conf);
        let failed = |source| CniError::Execute { plugin: plugin.clone(), source };
        let mut command = Command::new(&plugin);
        command.env("CNI_COMMAND", verb.command());
        command.env("CNI_PATH", self.plugin.parent().unwrap_or(&self.plugin));
        command.envs(self.env.iter().map(|(key, value)| (key, value)));
        if let Some(attachment) = attachment {
            command.env("CNI_CONTAINERID", &attachment.container_id);
            command.env("CNI_NETNS", &attachment.netns);
            command.env("CNI_IFNAME", &attachment.interface);
            command.env("CNI_ARGS", &attachment.args);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(conf.to_string().as_bytes()).await {
                // A plugin may answer without reading.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(failed(error)),
                _ => {}
            }
        }
        let seconds = self.timeout.as_secs();
        let command = verb.command();
        let output = tokio::time::timeout(self.timeout, child.wait_with_output())
            .await
            .map_err(|_| CniError::Timeout { command, seconds })?
            .map_err(failed)?;
        let text = output.stdout.trim_ascii();
        if !output.status.success() {
            let error: Value = serde_json::from_slice(text).unwrap_or_default();
            let said = |field: &str| error[field].as_str().unwrap_or_default().to_owned();
            let mut message = said("msg");
            if message.is_empty() {
                message = format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
            }
            let code = error["code"].as_u64().unwrap_or_default();
            return Err(CniError::Failed { command, code, message, details: said("details") });
        }
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(text).map_err(|source| CniError::Result { command, source })
    }
}

/// The pod's addresses in the result of ADD, without prefix lengths.
pub(crate) fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().into_iter().flatten().filter_map(|ip| ip["address"].as_str());
    ips.map(|address| address.split('/').next().unwrap_or_default().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_get_name_and_version_of_their_list() {
        let conf =
            json!({ "cniVersion": "1.0.0", "name": "kuryr", "plugins": [{ "type": "kuryr-cni", "socket": "/s" }] });
        let cni = Cni { plugin: "/bin/false".into(), conf, env: Vec::new(), timeout: Duration::from_secs(1) };
        assert_eq!(
            cni.plugins(),
            [json!({ "cniVersion": "1.0.0", "name": "kuryr", "type": "kuryr-cni", "socket": "/s" })]
        );
        assert!(cni.passes_result());
    }

    #[test]
    fn addresses_come_without_prefix_length() {
        let result = json!({ "ips": [{ "address": "10.0.0.5/24" }, { "address": "fd00::5/64" }] });
        assert_eq!(addresses(&result), ["10.0.0.5", "fd00::5"]);
    }
}
