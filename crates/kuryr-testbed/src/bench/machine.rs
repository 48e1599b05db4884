//! Where and with what it was measured, and what processes use of it.

use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::{fmt, fs, path::Path, process::Command};

/// What the figures depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Machine {
    date: String,
    processor: String,
    cores: usize,
    kernel: String,
    memory_mib: u64,
    /// Load average at the start: others may use the machine too.
    #[serde(rename = "load_average")]
    load: String,
    profile: String,
    version: String,
    commit: Option<String>,
}

impl Machine {
    pub(super) fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let total = field(&read("/proc/meminfo"), "MemTotal");
        Self {
            date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            processor: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory_mib: total.trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1024,
            load: read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
            profile: if cfg!(debug_assertions) { "dev" } else { "release" }.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: commit(),
        }
    }

    /// A name for the file of this run.
    pub(super) fn run_name(&self) -> String {
        format!("{}-{}", self.date.replace(':', ""), self.profile)
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}; {} cores ({}), {} MiB, Linux {}, load {}; kuryr {}{}, profile {}",
            self.date,
            self.cores,
            self.processor,
            self.memory_mib,
            self.kernel,
            self.load,
            self.version,
            self.commit.as_ref().map(|commit| format!(" ({commit})")).unwrap_or_default(),
            self.profile,
        )?;
        if self.profile == "dev" {
            f.write_str(" - not what is installed: times are a multiple of the release profile's")?;
        }
        Ok(())
    }
}

/// The commit of the working tree that this is run in, if it is one.
fn commit() -> Option<String> {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// What a process uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// Proportional set size: its own memory, and its share of what several processes map.
    pub(super) pss_mib: f64,
    /// The most that it ever had in memory.
    pub(super) peak_mib: f64,
    /// Processor time so far, in seconds.
    pub(super) cpu: f64,
}

/// What the process `pid` uses.
pub(super) fn usage(pid: u32) -> anyhow::Result<Usage> {
    let read = |name: &str| {
        let path = format!("/proc/{pid}/{name}");
        fs::read_to_string(&path).with_context(|| path.clone())
    };
    let (rollup, status, stat) = (read("smaps_rollup")?, read("status")?, read("stat")?);
    Ok(Usage {
        pss_mib: kib(&rollup, "Pss:").context("no Pss")? / 1024.0,
        peak_mib: kib(&status, "VmHWM:").context("no VmHWM")? / 1024.0,
        cpu: cpu(&stat).context("no processor time")?,
    })
}

fn kib(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line[name.len()..].trim().trim_end_matches(" kB").parse().ok()
}

/// User and system time; the fields after the name, which may have spaces and ends with the last parenthesis. The
/// kernel's unit is a hundredth of a second on every architecture that Linux shows to programs.
fn cpu(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / 100.0)
}

/// Size of a file in MiB.
pub(super) fn size_mib(path: &Path) -> anyhow::Result<f64> {
    let bytes = fs::metadata(path).with_context(|| path.display().to_string())?.len();
    #[expect(clippy::cast_precision_loss)]
    let mib = bytes as f64 / f64::from(1 << 20);
    Ok(mib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        let stat = "12 (a b) c) S 1 1 1 0 -1 4194560 100 0 0 0 150 25 0 0 20 0 5 0 100 1 1";
        assert_eq!(cpu(stat), Some(1.75));
        assert_eq!(kib("Rss:  10 kB\nPss:      2048 kB\n", "Pss:"), Some(2048.0));
        let own = usage(std::process::id()).unwrap();
        assert!(own.pss_mib > 0.1 && own.peak_mib >= own.pss_mib * 0.5, "{own:?}");
    }
}
