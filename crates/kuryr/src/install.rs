//! `kuryr install-cni`

use anyhow::Context;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Arguments of `kuryr install-cni`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the runtime looks for CNI plugins
    #[arg(long, default_value = "/opt/cni/bin", value_name = "DIR")]
    bin_dir: PathBuf,

    /// Where the runtime looks for network configurations
    #[arg(long, default_value = "/etc/cni/net.d", value_name = "DIR")]
    conf_dir: PathBuf,

    /// The network configuration list to install; its name is kept
    #[arg(long, value_name = "FILE")]
    pub(crate) conflist: PathBuf,

    /// The executable to install; by default the one beside this program
    #[arg(long, value_name = "FILE")]
    executable: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let executable = match &args.executable {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("kuryr-cni"),
    };
    let text = fs::read(&args.conflist).with_context(|| format!("--conflist {}", args.conflist.display()))?;
    serde_json::from_slice::<serde_json::Value>(&text)
        .with_context(|| format!("--conflist {} is not JSON", args.conflist.display()))?;
    let name = args.conflist.file_name().context("--conflist names no file")?;
    let program = fs::read(&executable).with_context(|| format!("--executable {}", executable.display()))?;
    // The executable first: once the runtime sees the configuration, it begins to call.
    replace(&args.bin_dir.join("kuryr-cni"), &program, 0o755)?;
    replace(&args.conf_dir.join(name), &text, 0o644)?;
    Ok(())
}

/// Writes a file so that nobody ever sees half of it, also while the old one is being executed.
fn replace(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let new = path.with_extension("kuryr-new");
    let written = fs::write(&new, content)
        .and_then(|()| fs::set_permissions(&new, fs::Permissions::from_mode(mode)))
        .and_then(|()| fs::rename(&new, path));
    written.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_and_the_configuration_are_put_in_place_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("kuryr-cni-built"), "program").unwrap();
        fs::write(at("10-kuryr.conflist"), "{}").unwrap();
        let args = Args {
            bin_dir: at("bin"),
            conf_dir: at("conf"),
            conflist: at("10-kuryr.conflist"),
            executable: Some(at("kuryr-cni-built")),
        };
        for _ in 0..2 {
            run(&args).unwrap();
        }
        assert_eq!(fs::metadata(at("bin/kuryr-cni")).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_dir(at("conf")).unwrap().count(), 1);
        fs::write(at("10-kuryr.conflist"), "not json").unwrap();
        assert!(run(&args).unwrap_err().to_string().contains("10-kuryr.conflist"));
    }
}
