//! Pod sandboxes: what a node holds of a pod, remembered on disk so that a kubelet started anew finds it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cni::Attachment;

/// A pod's sandbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// The pod's uid.
    pub uid: String,
    /// `CNI_CONTAINERID`: 64 hexadecimal digits.
    pub container_id: String,
    /// File on which the network namespace is mounted; `None` for pods in the node's network.
    pub netns: Option<PathBuf>,
    /// The result of ADD, once it succeeded.
    pub result: Option<Value>,
    /// The process of the pod's container, while it runs.
    pub pid: Option<i32>,
    /// Seconds that the pod gets to end.
    pub grace: u64,
}

impl Sandbox {
    /// What a plugin is told about it; `None` for pods in the node's network.
    pub(crate) fn attachment(&self) -> Option<Attachment> {
        let netns = self.netns.clone()?;
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={};K8S_POD_UID={}",
            self.namespace, self.name, self.container_id, self.uid
        );
        Some(Attachment { container_id: self.container_id.clone(), netns, interface: "eth0".into(), args })
    }
}

/// A new container id.
pub(crate) fn new_container_id() -> String {
    (0..64).map(|_| char::from_digit(fastrand::u32(..16), 16).unwrap_or('0')).collect()
}

/// What can go wrong with the record of a sandbox.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the sandbox record {}", path.display())]
pub struct RecordError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The records of a node: one JSON file for each sandbox.
#[derive(Clone, Debug)]
pub(crate) struct Records(PathBuf);

impl Records {
    pub(crate) fn open(folder: &Path) -> Result<Self, RecordError> {
        fs::create_dir_all(folder).map_err(|source| RecordError {
            action: "create the folder of",
            path: folder.to_owned(),
            source,
        })?;
        Ok(Self(folder.to_owned()))
    }

    fn path(&self, container_id: &str) -> PathBuf {
        self.0.join(format!("{container_id}.json"))
    }

    /// Writes a record, whole or not at all.
    pub(crate) fn save(&self, sandbox: &Sandbox) -> Result<(), RecordError> {
        let path = self.path(&sandbox.container_id);
        let error = |source| RecordError { action: "write", path: path.clone(), source };
        let text = serde_json::to_vec(sandbox).map_err(|source| error(source.into()))?;
        let draft = path.with_extension("new");
        fs::write(&draft, text).and_then(|()| fs::rename(&draft, &path)).map_err(error)
    }

    pub(crate) fn remove(&self, container_id: &str) -> Result<(), RecordError> {
        let path = self.path(container_id);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(RecordError { action: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    /// Every record; one that cannot be read is reported and left.
    pub(crate) fn load(&self) -> Result<Vec<Sandbox>, RecordError> {
        let error = |source| RecordError { action: "list", path: self.0.clone(), source };
        let mut found = Vec::new();
        for file in fs::read_dir(&self.0).map_err(error)? {
            let path = file.map_err(error)?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match fs::read(&path).and_then(|text| Ok(serde_json::from_slice(&text)?)) {
                Ok(sandbox) => found.push(sandbox),
                Err(error) => tracing::warn!(%error, path = %path.display(), "cannot read a sandbox record"),
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::open(folder.path()).unwrap();
        let sandbox = Sandbox {
            namespace: "a".into(),
            name: "b".into(),
            uid: "u".into(),
            container_id: new_container_id(),
            netns: Some("/run/netns/x".into()),
            result: None,
            pid: None,
            grace: 30,
        };
        assert_eq!(sandbox.container_id.len(), 64);
        records.save(&sandbox).unwrap();
        assert_eq!(records.load().unwrap(), std::slice::from_ref(&sandbox));
        records.remove(&sandbox.container_id).unwrap();
        records.remove(&sandbox.container_id).unwrap();
        assert!(records.load().unwrap().is_empty());
    }
}
