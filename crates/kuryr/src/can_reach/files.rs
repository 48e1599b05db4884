//! Objects from files: manifests, or what `kubectl get -o yaml` prints.

use super::objects::{Objects, take};
use serde_json::Value;
use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

/// The files cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    #[error("{} cannot be read", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: {message}", .path.display())]
    Parse { path: PathBuf, message: String },
    #[error("{}: document {document}, {kind} {name}: {message}", .path.display())]
    Object { path: PathBuf, document: usize, kind: String, name: String, message: String },
    #[error("there is no pod, Service, NetworkPolicy or other object that matters in the files given")]
    Nothing,
}

/// Reads files and all `.yaml`, `.yml` and `.json` in folders; `-` is the standard input.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Objects, FilesError> {
    let (mut objects, mut found) = (Objects::default(), 0);
    for path in paths {
        if path.as_os_str() == "-" {
            let mut text = String::new();
            let read = io::stdin().read_to_string(&mut text);
            read.map_err(|source| FilesError::Read { path: path.clone(), source })?;
            found += parse(path, &text, &mut objects)?;
            continue;
        }
        for file in files(path)? {
            let text = fs::read_to_string(&file).map_err(|source| FilesError::Read { path: file.clone(), source })?;
            found += parse(&file, &text, &mut objects)?;
        }
    }
    if found == 0 { Err(FilesError::Nothing) } else { Ok(objects) }
}

/// The file itself, or those below the folder in the order of their names.
fn files(path: &Path) -> Result<Vec<PathBuf>, FilesError> {
    let failed = |source| FilesError::Read { path: path.to_owned(), source };
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut entries: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        entries.push(entry.map_err(failed)?.path());
    }
    entries.sort();
    let mut found = Vec::new();
    for entry in entries {
        let wanted = entry.extension().is_some_and(|it| ["yaml", "yml", "json"].iter().any(|end| it == *end));
        if entry.is_dir() {
            found.extend(files(&entry)?);
        } else if wanted {
            found.push(entry);
        }
    }
    Ok(found)
}

/// Reads the documents of one text; how many objects that matter were in it.
pub(crate) fn parse(path: &Path, text: &str, into: &mut Objects) -> Result<usize, FilesError> {
    // A dump of a cluster is large, and the one who gives it means it.
    let options = serde_saphyr::options! { budget: None };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let message = error.to_string();
        FilesError::Parse { path: path.to_owned(), message: message.lines().next().unwrap_or_default().to_owned() }
    })?;
    let mut found = 0;
    for (index, document) in documents.into_iter().enumerate() {
        found += object(path, index + 1, document, into)?;
    }
    Ok(found)
}

fn object(path: &Path, document: usize, value: Value, into: &mut Objects) -> Result<usize, FilesError> {
    let text = |at: &str| value.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (kind, name) = (text("/kind"), text("/metadata/name"));
    let failed = |message: String| {
        let (path, kind, name) = (path.to_owned(), kind.clone(), name.clone());
        FilesError::Object { path, document, kind, name, message }
    };
    if kind.is_empty() || text("/apiVersion").is_empty() {
        return Err(failed("an object of Kubernetes has apiVersion and kind".to_owned()));
    }
    if kind.ends_with("List")
        && let Some(Value::Array(items)) = value.get("items")
    {
        // Lists of one kind leave out the kind of their items.
        let (version, item_kind) = (text("/apiVersion"), kind.trim_end_matches("List").to_owned());
        let mut found = 0;
        for mut item in items.clone() {
            if let (Some(fields), false) = (item.as_object_mut(), item_kind.is_empty()) {
                fields.entry("kind").or_insert_with(|| item_kind.clone().into());
                fields.entry("apiVersion").or_insert_with(|| version.clone().into());
            }
            found += object(path, document, item, into)?;
        }
        return Ok(found);
    }
    if name.is_empty() {
        return Err(failed("it has no metadata.name".to_owned()));
    }
    let taken = take(value, into).map_err(|error| failed(error.to_string()))?;
    Ok(usize::from(taken))
}
