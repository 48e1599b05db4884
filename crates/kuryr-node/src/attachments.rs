//! What is plugged on this node, remembered on disk: one JSON file for each attachment.
//!
//! ```text
//!  ADD ─▶ insert (file, then memory) ─▶ plug ─▶ attached        start ─▶ load: files ─▶ memory
//!  DEL ─▶ unplug ─▶ remove (file, then memory)
//! ```
//!
//! Invariants: an attachment is on disk before anything is plugged for it and until all of it is unplugged, so that
//! DEL needs nothing else, whenever the daemon died. Files appear whole (written aside, then renamed). Nothing is synced to the disk:
//! a node that loses power loses its namespaces too, and what outlives them carries our mark.

use crate::cni::AttachmentId;
use kuryr_model::{ObjectKey, PodUid, PortId, Vif};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Separates container id and interface in a file's name: no container id has it.
const SEPARATOR: char = '@';
const SUFFIX: &str = ".json";

/// One sandbox with the VIFs of its pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// Sandbox and interface as the runtime names them.
    #[serde(flatten)]
    pub id: AttachmentId,
    /// The CNI network's name.
    pub network: String,
    /// Path of the sandbox's network namespace.
    pub netns: PathBuf,
    /// The pod's namespace.
    pub pod_namespace: String,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's UID as its `KuryrPort` has it.
    pub pod_uid: PodUid,
    /// What is plugged.
    pub vifs: Vec<Vif>,
    /// The boot of the node in which it was plugged: nothing in the kernel outlives it.
    pub boot_id: String,
    /// Since when.
    pub since: jiff::Timestamp,
}

impl Attachment {
    /// Namespace and name of the pod.
    #[must_use]
    pub fn pod(&self) -> ObjectKey {
        ObjectKey::new(self.pod_namespace.clone(), self.pod_name.clone())
    }

    /// Whether one of its VIFs is of this port.
    #[must_use]
    pub fn has_port(&self, port: PortId) -> bool {
        self.vifs.iter().any(|vif| vif.port_id == port)
    }
}

/// Why attachments could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder cannot be made or listed.
    #[error("cannot use {} to remember what is plugged; make it a folder that root can write, or set another state folder", .folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written or removed.
    #[error("cannot {doing} {}", .file.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file.
        file: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

#[derive(Clone, Debug)]
struct Entry {
    attachment: Arc<Attachment>,
    /// Whether ADD has ended well. What was loaded is taken for that: nobody waits for its ADD any more.
    attached: bool,
}

/// The attachments of this node.
#[derive(Debug)]
pub struct Attachments {
    folder: PathBuf,
    entries: Mutex<BTreeMap<AttachmentId, Entry>>,
}

impl Attachments {
    /// Reads what an earlier daemon has left in `folder`, which is made if need be. Files that cannot be understood are
    /// reported and set aside.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn load(folder: PathBuf) -> Result<Self, Error> {
        let error = |source| Error::Folder { folder: folder.clone(), source };
        fs::create_dir_all(&folder).map_err(error)?;
        // Finds out now, not in the first ADD, that nothing can be written.
        let probe = folder.join(".probe");
        fs::write(&probe, "").and_then(|()| fs::remove_file(&probe)).map_err(error)?;
        let mut entries = BTreeMap::new();
        for file in fs::read_dir(&folder).map_err(error)? {
            let path = file.map_err(error)?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                let _ = fs::remove_file(&path);
            }
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Ok(attachment) => {
                    entries.insert(attachment.id.clone(), Entry { attachment: attachment.into(), attached: true });
                }
                Err(problem) => set_aside(&path, &problem),
            }
        }
        Ok(Self { folder, entries: Mutex::new(entries) })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AttachmentId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The attachment of this id.
    #[must_use]
    pub fn get(&self, id: &AttachmentId) -> Option<Arc<Attachment>> {
        self.lock().get(id).map(|entry| Arc::clone(&entry.attachment))
    }

    /// All attachments, ordered by id.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Attachment>> {
        self.lock().values().map(|entry| Arc::clone(&entry.attachment)).collect()
    }

    /// The attachments whose ADD has ended well: all of them is plugged, until their DEL begins.
    #[must_use]
    pub fn finished(&self) -> BTreeSet<AttachmentId> {
        self.lock().iter().filter(|(_, entry)| entry.attached).map(|(id, _)| id.clone()).collect()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// What a pod's ports are in: whether they are in any sandbox at all, and the sandbox whose ADD has ended well.
    #[must_use]
    pub fn of_pod(&self, uid: &PodUid) -> (bool, Option<Arc<Attachment>>) {
        let entries = self.lock();
        let mut of_pod = entries.values().filter(|entry| entry.attachment.pod_uid == *uid).peekable();
        let any = of_pod.peek().is_some();
        let attached = of_pod.filter(|entry| entry.attached).max_by_key(|entry| entry.attachment.since);
        (any, attached.map(|entry| Arc::clone(&entry.attachment)))
    }

    /// Remembers an attachment whose VIFs are about to be plugged.
    ///
    /// # Errors
    /// The file could not be written; nothing is remembered.
    pub async fn insert(&self, attachment: Arc<Attachment>) -> Result<(), Error> {
        let path = self.path(&attachment.id);
        let written = Arc::clone(&attachment);
        blocking(move || write(&path, &written)).await?;
        self.lock().insert(attachment.id.clone(), Entry { attachment, attached: false });
        Ok(())
    }

    /// Notes that ADD has ended well.
    pub fn attached(&self, id: &AttachmentId) {
        if let Some(entry) = self.lock().get_mut(id) {
            entry.attached = true;
        }
    }

    /// Forgets an attachment of which nothing is left.
    ///
    /// # Errors
    /// The file could not be removed; the attachment is still remembered.
    pub async fn remove(&self, id: &AttachmentId) -> Result<(), Error> {
        let path = self.path(id);
        blocking(move || match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::File { doing: "remove", file: path, source })
            }
            _ => Ok(()),
        })
        .await?;
        self.lock().remove(id);
        Ok(())
    }

    fn path(&self, id: &AttachmentId) -> PathBuf {
        self.folder.join(file_name(id))
    }
}

fn file_name(id: &AttachmentId) -> String {
    format!("{}{SEPARATOR}{}{SUFFIX}", id.container_id, id.ifname)
}

/// Runs disk IO where it holds up nothing else.
async fn blocking(work: impl FnOnce() -> Result<(), Error> + Send + 'static) -> Result<(), Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(panicked) => match panicked.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is being torn down; the file is as it was.
            Err(_) => {
                Err(Error::File { doing: "use", file: PathBuf::new(), source: io::ErrorKind::Interrupted.into() })
            }
        },
    }
}

fn write(path: &Path, attachment: &Attachment) -> Result<(), Error> {
    let aside = path.with_extension("tmp");
    let result = serde_json::to_vec(attachment)
        .map_err(io::Error::from)
        .and_then(|json| fs::write(&aside, json))
        .and_then(|()| fs::rename(&aside, path));
    result.map_err(|source| {
        let _ = fs::remove_file(&aside);
        Error::File { doing: "write", file: path.to_owned(), source }
    })
}

fn read(path: &Path) -> Result<Attachment, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let attachment: Attachment = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let name = file_name(&attachment.id);
    if path.file_name().is_some_and(|found| *found == *name) {
        Ok(attachment)
    } else {
        Err(format!("it holds what belongs into {name}"))
    }
}

fn set_aside(path: &Path, problem: &str) {
    let aside = path.with_extension("malformed");
    tracing::error!(
        file = %path.display(), problem,
        "cannot read what is remembered of a pod; the file is set aside with the suffix .malformed, restart the pod to have its network looked after again"
    );
    if let Err(error) = fs::rename(path, &aside) {
        tracing::error!(file = %path.display(), %error, "cannot set the malformed file aside");
    }
}

/// The id of the current boot of this node.
#[must_use]
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Whether the sandbox of `attachment` is certainly gone: the node was booted since, or the folder that its namespace
/// was in is visible and the namespace is not. (Where the folder is not visible either, the daemon more likely lacks a mount.)
#[must_use]
pub fn sandbox_gone(attachment: &Attachment, boot_id: &str) -> bool {
    if attachment.boot_id != boot_id {
        return true;
    }
    let is_namespace = nix::sys::statfs::statfs(&attachment.netns)
        .is_ok_and(|stat| stat.filesystem_type() == nix::sys::statfs::NSFS_MAGIC);
    !is_namespace && attachment.netns.parent().is_some_and(Path::exists)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn what_was_inserted_is_there_after_a_restart_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = Attachments::load(folder.path().join("a/b")).unwrap();
        let attachment = Arc::new(testing::attachment("c0ffee", 1));
        store.insert(Arc::clone(&attachment)).await.unwrap();
        assert_eq!(store.of_pod(&attachment.pod_uid), (true, None), "its ADD has not ended");
        store.attached(&attachment.id);
        assert_eq!(store.of_pod(&attachment.pod_uid), (true, Some(Arc::clone(&attachment))));

        let restarted = Attachments::load(folder.path().join("a/b")).unwrap();
        assert_eq!(restarted.all(), [Arc::clone(&attachment)]);
        assert_eq!(names(&folder.path().join("a/b")), ["c0ffee@eth0.json"]);
        restarted.remove(&attachment.id).await.unwrap();
        restarted.remove(&attachment.id).await.unwrap();
        assert_eq!((restarted.count(), names(&folder.path().join("a/b")).len()), (0, 0));
        assert_eq!(restarted.of_pod(&attachment.pod_uid), (false, None));
    }

    #[tokio::test]
    async fn malformed_files_are_set_aside_and_half_written_ones_removed() {
        let folder = tempfile::tempdir().unwrap();
        let good = testing::attachment("good", 1);
        Attachments::load(folder.path().into()).unwrap().insert(good.clone().into()).await.unwrap();
        fs::write(folder.path().join("bad@eth0.json"), "{\"containerId\":").unwrap();
        fs::write(folder.path().join("half@eth0.tmp"), "{").unwrap();
        fs::copy(folder.path().join("good@eth0.json"), folder.path().join("copy@eth0.json")).unwrap();
        let store = Attachments::load(folder.path().into()).unwrap();
        assert_eq!(store.all(), [Arc::new(good)]);
        assert_eq!(names(folder.path()), ["bad@eth0.malformed", "copy@eth0.malformed", "good@eth0.json"]);
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Attachments::load(file.path().join("x")).unwrap_err();
        assert!(error.to_string().contains(file.path().to_str().unwrap()), "{error}");
    }

    #[test]
    fn a_sandbox_is_gone_only_if_that_is_certain() {
        let boot = boot_id();
        let mut attachment = testing::attachment("c0ffee", 1);
        attachment.boot_id.clone_from(&boot);
        attachment.netns = "/proc/self/ns/net".into();
        assert!(!sandbox_gone(&attachment, &boot), "it is here");
        assert!(sandbox_gone(&attachment, "another boot"));
        let folder = tempfile::tempdir().unwrap();
        attachment.netns = folder.path().join("cni-1");
        assert!(sandbox_gone(&attachment, &boot), "deleted");
        fs::write(&attachment.netns, "").unwrap();
        assert!(sandbox_gone(&attachment, &boot), "unmounted, its file is left");
        attachment.netns = folder.path().join("missing/cni-1");
        assert!(!sandbox_gone(&attachment, &boot), "the folder is not visible");
    }
}
