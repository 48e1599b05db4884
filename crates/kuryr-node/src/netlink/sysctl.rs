//! Settings under `/proc/sys/net`. They show the namespace of the thread that looks.

use super::error::Error;
use std::{fs, io, path::Path};

/// Writes a setting of the calling thread's namespace, if it has another value. `name` is its path below `/proc/sys`.
///
/// # Errors
/// The kernel has no such setting, or refuses the value.
pub fn set(name: &str, value: &str) -> Result<(), Error> {
    let path = Path::new("/proc/sys").join(name);
    let failed = |source| Error::Sysctl { name: name.to_owned(), value: value.to_owned(), source };
    if fs::read_to_string(&path).map_err(failed)?.trim_end() == value {
        return Ok(());
    }
    fs::write(&path, value).map_err(failed)
}

/// The same where a kernel without that feature needs no setting: absent is success.
///
/// # Errors
/// The kernel refuses the value.
pub fn set_if_known(name: &str, value: &str) -> Result<(), Error> {
    match set(name, value) {
        Err(Error::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
