//! Whether the kernel forwards packets, which it must for what does not end on the node itself.
//!
//! It is looked at and never switched on: for IPv4 that changes what the whole node does, for IPv6 it also makes the node
//! ignore router advertisements, from which it may have its own addresses.

use super::ruleset::Ruleset;
use std::fs;

/// By family: the setting under `/proc/sys`, and its name for `sysctl`.
const SETTINGS: [(bool, &str, &str); 2] = [
    (false, "/proc/sys/net/ipv4/ip_forward", "net.ipv4.ip_forward"),
    (true, "/proc/sys/net/ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding"),
];

/// What is wrong in the calling thread's network namespace, and what to do about it.
#[must_use]
pub fn problem(ruleset: &Ruleset) -> Option<String> {
    judge(ruleset, |path| fs::read_to_string(path).ok())
}

fn judge(ruleset: &Ruleset, read: impl Fn(&str) -> Option<String>) -> Option<String> {
    let off = |path: &str| read(path).is_some_and(|value| value.trim() == "0");
    let settings = SETTINGS.iter().filter(|(v6, path, _)| ruleset.has(*v6) && off(path));
    let names: Vec<&str> = settings.map(|(.., name)| *name).collect();
    let fixes: Vec<String> = names.iter().map(|name| format!("{name}=1")).collect();
    (!names.is_empty()).then(|| {
        format!(
            "the node does not forward packets, so nobody but itself reaches Services through it: set sysctl {} (for good: a file in /etc/sysctl.d)",
            fixes.join(" and ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use kuryr_plan::service::{At, Family, Transport};

    #[test]
    fn forwarding_that_is_off_counts_only_for_families_that_are_translated() {
        let off = |path: &str| Some(if path.contains("ipv6") { "0\n" } else { "1\n" }.to_owned());
        let mut ruleset = Ruleset::default();
        let mut add = |ip: &str, family| {
            ruleset.anyone.insert((At::NodePort(family, 30080), Transport::Tcp), (ip.parse().unwrap(), 80));
            judge(&ruleset, off)
        };
        assert_eq!(add("10.96.0.1", Family::V4), None);
        assert!(add("fd00::1", Family::V6).unwrap().contains("set sysctl net.ipv6.conf.all.forwarding=1 ("));
        assert_eq!(judge(&ruleset, |_| None), None, "a kernel without the setting has nothing to be set");
    }
}
