//! Security groups.

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Neutron;
use super::attrs::{Access, Attr, Body, Check, Kind, attr};
use super::error::{Error, Result};
use super::group_rules::{self, Rule};
use super::resource::{Caller, Resource, Standard, kept_in};
use super::verbs::render;

const ATTRS: &[Attr] = &[
    attr("name", Access::Write, Check::Text(255)),
    attr("tags", Access::Read, Check::Any),
    attr("security_group_rules", Access::Read, Check::Any),
    attr("shared", Access::Read, Check::Bool),
    attr("stateful", Access::Write, Check::Bool),
];

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Group {
    pub(crate) standard: Standard,
    pub(crate) stateful: bool,
    /// In the order in which they were made.
    pub(crate) rules: Vec<Uuid>,
}

impl Resource for Group {
    const KIND: &'static Kind = &Kind {
        plural: "security_groups",
        singular: "security_group",
        attrs: ATTRS,
        tagged: true,
        not_found: |id| Error::not_found("SecurityGroupNotFound", format!("Security group {id} does not exist")),
    };

    kept_in!(groups);

    fn attribute(&self, name: &str, neutron: &Neutron) -> Option<Value> {
        Some(match name {
            "security_group_rules" => self
                .rules
                .iter()
                .filter_map(|&id| neutron.rules.get(id))
                .map(|rule| render(neutron, rule, &[]))
                .collect(),
            "shared" => json!(false),
            "stateful" => json!(self.stateful),
            _ => return None,
        })
    }

    fn create(neutron: &mut Neutron, caller: &Caller, body: &Body) -> Result<Uuid> {
        if body.text("name") == Some("default") {
            let message = "Default security group already exists.";
            return Err(Error::conflict("SecurityGroupDefaultAlreadyExists", message));
        }
        let standard = Standard::new(caller, body);
        default_group(neutron, &standard.project, caller.now);
        let stateful = body.boolean("stateful").unwrap_or(true);
        Ok(insert(neutron, standard, stateful, caller.now))
    }

    fn update(neutron: &mut Neutron, caller: &Caller, id: Uuid, body: &Body) -> Result<()> {
        let mut group = neutron.groups.find(id)?.clone();
        if group.standard.name == "default" && body.text("name").is_some_and(|name| name != "default") {
            let message = "Updating default security group not allowed.";
            return Err(Error::conflict("SecurityGroupCannotUpdateDefault", message));
        }
        if body.boolean("stateful").is_some_and(|stateful| stateful != group.stateful)
            && neutron.port_index.uses_group(id)
        {
            return Err(in_use(id));
        }
        group.standard.update(body);
        body.set_bool("stateful", &mut group.stateful);
        neutron.groups.replace(group, caller.now);
        Ok(())
    }

    fn delete(neutron: &mut Neutron, caller: &Caller, id: Uuid) -> Result<()> {
        if neutron.port_index.uses_group(id) {
            return Err(in_use(id));
        }
        // An administrator may delete a default group; the next one who needs it makes it anew.
        neutron.default_groups.retain(|_, default| *default != id);
        if let Some(group) = neutron.groups.remove(id) {
            for rule in group.rules {
                neutron.rules.remove(rule);
            }
        }
        // Rules that name the group as their remote group go with it.
        group_rules::remove_of_remote(neutron, id, caller.now);
        Ok(())
    }

    fn before_list(neutron: &mut Neutron, caller: &Caller) {
        default_group(neutron, &caller.project, caller.now);
    }
}

fn in_use(id: Uuid) -> Error {
    Error::conflict("SecurityGroupInUse", format!("Security Group {id} in use."))
}

fn insert(neutron: &mut Neutron, standard: Standard, stateful: bool, now: Timestamp) -> Uuid {
    let (id, project) = (standard.id, standard.project.clone());
    neutron.groups.insert(Group { standard, stateful, rules: Vec::new() });
    for ethertype in ["IPv4", "IPv6"] {
        group_rules::insert(neutron, Rule::open(id, &project, "egress", ethertype, None, now));
    }
    id
}

/// The project's `default` group, made when it is first needed: it admits traffic among its members.
pub(crate) fn default_group(neutron: &mut Neutron, project: &str, now: Timestamp) -> Uuid {
    if let Some(&id) = neutron.default_groups.get(project) {
        return id;
    }
    let caller = Caller { project: project.to_owned(), now };
    let mut standard = Standard::new(&caller, &Body::default());
    standard.name = "default".into();
    standard.description = "Default security group".into();
    let id = insert(neutron, standard, true, now);
    for ethertype in ["IPv4", "IPv6"] {
        group_rules::insert(neutron, Rule::open(id, project, "ingress", ethertype, Some(id), now));
    }
    neutron.default_groups.insert(project.to_owned(), id);
    id
}
