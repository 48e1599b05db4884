//! Holds the documents against the code: what an operator can set, run, read or be woken by is explained.

use crate::{Cli, config::Config};
use clap::CommandFactory as _;
use std::collections::BTreeSet;

const README: &str = include_str!("../../../README.md");
const OPERATING: &str = include_str!("../../../docs/operating.md");
const CONTRIBUTING: &str = include_str!("../../../docs/contributing.md");

/// The names in backquotes that a TOML parser offers instead of one that it does not know.
fn offered(text: &str) -> Vec<String> {
    let error = toml::from_str::<Config>(text).unwrap_err().to_string();
    let (_, offered) = error.rsplit_once("expected").unwrap_or_else(|| panic!("{text:?} gave {error:?}"));
    offered.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The words in quotes of a part of a source file.
fn quoted<'a>(source: &'a str, from: &str, to: &str) -> BTreeSet<&'a str> {
    let (_, rest) = source.split_once(from).unwrap_or_else(|| panic!("no {from:?} in the source"));
    let (part, _) = rest.split_once(to).unwrap_or_else(|| panic!("no {to:?} after {from:?} in the source"));
    part.split('"').skip(1).step_by(2).collect()
}

/// What is missing of `words` in a text, each as it has to stand there.
fn missing(text: &str, words: impl IntoIterator<Item = String>) -> Vec<String> {
    let words: Vec<String> = words.into_iter().collect();
    assert!(!words.is_empty(), "nothing was looked for");
    words.into_iter().filter(|word| !text.contains(word)).collect()
}

#[test]
fn every_setting_is_explained() {
    let sections = offered("nonsense = 1");
    assert_eq!(sections, ["cluster", "openstack", "network", "services", "controller", "pools", "daemon"]);
    for section in sections {
        let (_, rest) = OPERATING.split_once(&format!("| **`[{section}]`** |")).expect("no such section");
        let part = rest.split_once("| **`[").map_or(rest, |(part, _)| part);
        let settings = offered(&format!("[{section}]\nnonsense = 1")).into_iter().map(|name| format!("\n| `{name}` |"));
        assert_eq!(missing(part, settings), [""; 0], "settings of [{section}]");
    }
}

#[test]
fn the_defaults_are_those_that_are_told() {
    let Config { services, controller, pools, daemon, .. } = Config::default();
    let seconds = |time: std::time::Duration| format!("`{}s`", time.as_secs());
    let minutes = |time: std::time::Duration| format!("`{}m`", time.as_secs() / 60);
    let rows = [
        ("request_timeout", seconds(kuryr_openstack::Options::default().timeout)),
        ("load_balancer_class", format!("`{}`", services.load_balancer_class)),
        ("lease_namespace", format!("`{}`", controller.lease_namespace)),
        ("lease_name", format!("`{}`", controller.lease_name)),
        ("lease_duration", seconds(controller.lease_duration)),
        ("node_cooldown", seconds(controller.node_cooldown)),
        ("prune_interval", minutes(controller.prune_interval)),
        ("bulk_size", format!("`{}`", controller.bulk_size)),
        ("bulk_requests", format!("`{}`", controller.bulk_requests)),
        ("enabled", format!("`{}`", pools.enabled)),
        ("floor", format!("`{}`", pools.floor)),
        ("ceiling", format!("`{}`", pools.ceiling)),
        ("budget", format!("`{}`", pools.budget)),
        ("cooldown", seconds(pools.cooldown)),
        ("memory", minutes(pools.memory)),
        ("shrink_after", minutes(pools.shrink_after)),
        ("listen", format!("`{}`", controller.listen)),
        ("listen", format!("`{}`", daemon.listen)),
        ("socket", format!("`{}`", daemon.socket.display())),
        ("state_dir", format!("`{}`", daemon.state_dir.display())),
        ("ovsdb_socket", format!("`{}`", daemon.ovsdb_socket.display())),
        ("add_timeout", seconds(daemon.add_timeout)),
        ("node_ports", format!("`{}`", daemon.node_ports)),
        ("not_ready_when_full", format!("`{}`", daemon.not_ready_when_full)),
    ];
    assert_eq!(missing(OPERATING, rows.map(|(name, value)| format!("\n| `{name}` | {value} |"))), [""; 0]);
}

#[test]
fn every_reason_is_explained() {
    let errors = include_str!("../../kuryr-controller/src/error.rs");
    let events = include_str!("../../kuryr-node/src/events.rs");
    let told = include_str!("../../kuryr-controller/src/events.rs");
    let mut reasons = quoted(errors, "fn as_str(self)", "\n    }");
    reasons.extend(quoted(events, "fn as_str(self)", "\n    }"));
    reasons.extend(quoted(told, "mod reasons {", "\n}"));
    reasons.insert("Allocated");
    let service = include_str!("../../kuryr-controller/src/service/error.rs");
    reasons.extend(quoted(service, "fn reason(&self)", "\n    }"));
    let status = include_str!("../../kuryr-controller/src/service/status.rs");
    reasons.extend(quoted(status, "const PENDING: &str =", ";"));
    let ready = quoted(status, "fn ready(", "\n}");
    reasons.extend(ready.into_iter().filter(|word| word.len() > 5 && word.starts_with(char::is_uppercase)));
    let policies = include_str!("../../kuryr-controller/src/policy/error.rs");
    reasons.extend(quoted(policies, "match error.class()", "};"));
    let status = include_str!("../../kuryr-controller/src/policy/status.rs");
    let words = quoted(status, "fn problems(", "\n}").into_iter().chain(quoted(status, "fn ready(", "\n}"));
    reasons.extend(words.filter(|word| word.len() > 5 && word.chars().all(char::is_alphanumeric)));
    reasons.extend(kuryr_plan::service::Reason::ALL.iter().map(|reason| reason.as_str()));
    assert!(reasons.len() >= 40, "{reasons:?}");
    assert_eq!(missing(OPERATING, reasons.iter().map(|reason| format!("\n| `{reason}` |"))), [""; 0]);
}

#[test]
fn every_cni_error_is_explained() {
    let source = include_str!("../../kuryr-node/src/cni/error.rs");
    let (_, rest) = source.split_once("pub enum Code {").expect("no Code");
    let (part, _) = rest.split_once("\n}").expect("no end of Code");
    let codes = part.lines().filter_map(|line| Some(line.trim().strip_suffix(',')?.split_once(" = ")?.1));
    assert_eq!(missing(OPERATING, codes.map(|code| format!("\n| {code} |"))), [""; 0]);
}

#[test]
fn every_annotation_is_explained() {
    let names = kuryr_plan::service::annotations::ALL.iter();
    let name = |name: &&str| format!("`{}`", name.strip_prefix("loadbalancer.openstack.org/").unwrap_or(name));
    assert_eq!(missing(OPERATING, names.map(name)), [""; 0]);
}

#[test]
fn every_metric_is_explained() {
    for source in
        [include_str!("../../kuryr-controller/src/metrics.rs"), include_str!("../../kuryr-node/src/metrics.rs")]
    {
        let code = source.split_once("#[cfg(test)]").map_or(source, |(code, _)| code);
        let name = |call: &str| call.split('"').nth(1).map(str::to_owned);
        let plain = code.split(".register(").skip(1).filter_map(name);
        let with_unit = code.split(".register_with_unit(").skip(1).filter_map(|call| Some(name(call)? + "_seconds"));
        let all = plain.chain(with_unit).map(|name| {
            let counter = format!("| `kuryr_{name}_total` |");
            if OPERATING.contains(&counter) { counter } else { format!("| `kuryr_{name}` |") }
        });
        assert_eq!(missing(OPERATING, all), [""; 0]);
    }
}

#[test]
fn every_command_and_option_is_explained() {
    for command in Cli::command().get_subcommands().filter(|command| command.get_name() != "help") {
        let name = command.get_name();
        assert_eq!(missing(OPERATING, [format!("| `kuryr {name}` |")]), [""; 0]);
        let options = command.get_arguments().filter_map(|option| Some(format!("`--{}`", option.get_long()?)));
        let row = OPERATING.lines().find(|line| line.starts_with(&format!("| `{name}` |"))).unwrap_or_default();
        assert_eq!(options.filter(|option| !row.contains(option)).collect::<Vec<_>>(), [""; 0], "kuryr {name}");
    }
    let all = Cli::command();
    let options = all.get_arguments().filter_map(|option| Some(format!("`--{}`", option.get_long()?)));
    assert_eq!(missing(OPERATING, options), [""; 0]);
}

#[test]
fn the_documents_name_commands_and_targets_that_there_are() {
    let makefile = include_str!("../../../Makefile");
    let commands: BTreeSet<String> =
        Cli::command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
    for (name, text) in [("README.md", README), ("operating.md", OPERATING), ("contributing.md", CONTRIBUTING)] {
        for before in ["`kuryr ", "$ kuryr ", "\n   kuryr "] {
            for rest in text.split(before).skip(1) {
                let word: String = rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
                assert!(commands.contains(&word), "{name} names `kuryr {word}`, and there is no such command");
            }
        }
        for rest in ["`make ", "\nmake "].into_iter().flat_map(|before| text.split(before).skip(1)) {
            let word: String =
                rest.chars().take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-').collect();
            assert!(
                makefile.contains(&format!("\n{word}:")),
                "{name} names `make {word}`, and there is no such target"
            );
        }
    }
}

#[test]
fn the_way_through_the_code_exists() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let paths = CONTRIBUTING.split('`').skip(1).step_by(2).filter(|path| path.starts_with("crates/"));
    let gone: Vec<_> = paths.filter(|path| !root.join(path).exists()).collect();
    assert_eq!(gone, [""; 0]);
}
