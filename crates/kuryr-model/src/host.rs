//! What Neutron calls a node.

use crate::HOST_ANNOTATION;

/// The longest name of a host that Neutron remembers, in characters (the column `host` of `ml2_port_bindings`).
const LONGEST: usize = 255;

/// A node's name in Neutron.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// What ports of pods on it are bound to (`binding:host_id`).
    pub name: String,
    /// The annotation is there and cannot be a host's name, so it is ignored: why, and what to do.
    pub ignored: Option<String>,
}

impl Host {
    /// What the Node's annotation [`HOST_ANNOTATION`] says, else the node's own name.
    #[must_use]
    pub fn of(node: &str, annotation: Option<&str>) -> Self {
        let why = match annotation {
            None => None,
            Some(host) if host.trim().is_empty() => Some("is blank"),
            Some(host) if host.len() > LONGEST => Some("is longer than 255 characters"),
            Some(host) if !host.chars().all(|c| c.is_ascii_graphic()) => {
                Some("has blanks or characters that no host's name has")
            }
            Some(host) => return Self { name: host.to_owned(), ignored: None },
        };
        let ignored = why.map(|why| {
            format!(
                "the annotation {HOST_ANNOTATION} {why}, so it is ignored and Neutron is asked for host {node}: remove it, or \
                 set it to the name that `openstack network agent list` shows for this node"
            )
        });
        Self { name: node.to_owned(), ignored }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_called_what_its_annotation_says_or_by_its_own_name() {
        assert_eq!(Host::of("n", None), Host { name: "n".into(), ignored: None });
        assert_eq!(Host::of("n", Some("compute-1.example")), Host { name: "compute-1.example".into(), ignored: None });
    }

    #[test]
    fn an_annotation_that_cannot_be_a_host_is_ignored_and_says_what_to_do() {
        for bad in ["", "  ", "two words", "compute-1\n", "höst", &"x".repeat(256)] {
            let host = Host::of("n", Some(bad));
            let why = host.ignored.unwrap_or_else(|| panic!("{bad:?} was taken"));
            assert!(host.name == "n" && why.contains(HOST_ANNOTATION) && why.contains("agent list"), "{why}");
        }
    }
}
