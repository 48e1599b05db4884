//! What all resources have in common, and the table that keeps the resources of a kind.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Neutron;
use super::attrs::{Body, Kind};
use super::error::Result;
use super::query::Filters;

/// Who calls, and when.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Id of the project of the token.
    pub(crate) project: String,
    pub(crate) now: Timestamp,
}

/// The attributes that every resource has.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standard {
    pub(crate) id: Uuid,
    pub(crate) project: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) tags: BTreeSet<String>,
    pub(crate) revision: u64,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
}

impl Standard {
    pub(crate) fn new(caller: &Caller, body: &Body) -> Self {
        Self {
            id: Uuid::new_v4(),
            project: body.project().unwrap_or(&caller.project).to_owned(),
            name: body.text("name").unwrap_or_default().to_owned(),
            description: body.text("description").unwrap_or_default().to_owned(),
            tags: body.texts("tags").unwrap_or_default().into_iter().collect(),
            revision: 1,
            created: caller.now,
            updated: caller.now,
        }
    }

    pub(crate) fn update(&mut self, body: &Body) {
        body.set_text("name", &mut self.name);
        body.set_text("description", &mut self.description);
    }

    pub(crate) fn attribute(&self, name: &str) -> Option<Value> {
        Some(match name {
            "id" => json!(self.id),
            "project_id" | "tenant_id" => json!(self.project),
            "name" => json!(self.name),
            "description" => json!(self.description),
            "tags" => json!(self.tags),
            "revision_number" => json!(self.revision),
            "created_at" => json!(seconds(self.created)),
            "updated_at" => json!(seconds(self.updated)),
            _ => return None,
        })
    }
}

fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A kind of resource: where its rows are and what its verbs do.
pub(crate) trait Resource: Sized + Clone + PartialEq {
    const KIND: &'static Kind;

    fn table(neutron: &Neutron) -> &Table<Self>;
    fn table_mut(neutron: &mut Neutron) -> &mut Table<Self>;
    fn standard(&self) -> &Standard;
    fn standard_mut(&mut self) -> &mut Standard;

    /// The value of an attribute that is not one of [`Standard`].
    fn attribute(&self, name: &str, neutron: &Neutron) -> Option<Value>;

    /// Makes one and gives its id. On failure nothing has changed.
    fn create(neutron: &mut Neutron, caller: &Caller, body: &Body) -> Result<Uuid>;

    /// Changes one that is there. On failure nothing has changed.
    fn update(neutron: &mut Neutron, caller: &Caller, id: Uuid, body: &Body) -> Result<()>;

    /// Deletes one that is there. On failure nothing has changed.
    fn delete(neutron: &mut Neutron, caller: &Caller, id: Uuid) -> Result<()>;

    /// Checks on a bulk create as a whole.
    fn check_bulk(_neutron: &Neutron, _bodies: &[Body]) -> Result<()> {
        Ok(())
    }

    /// What happens before resources of the kind are listed.
    fn before_list(_neutron: &mut Neutron, _caller: &Caller) {}

    /// The ids of resources among which a filtered list finds all its results, if an index knows.
    fn candidates(_neutron: &Neutron, _filters: &Filters) -> Option<BTreeSet<Uuid>> {
        None
    }

    /// The value of any attribute.
    fn value(&self, name: &str, neutron: &Neutron) -> Value {
        self.attribute(name, neutron).or_else(|| self.standard().attribute(name)).unwrap_or(Value::Null)
    }
}

/// The part of a [`Resource`] that says where its rows are: in this table of [`Neutron`], with a field `standard`.
macro_rules! kept_in {
    ($table:ident) => {
        fn table(neutron: &$crate::cloud::neutron::Neutron) -> &$crate::cloud::neutron::resource::Table<Self> {
            &neutron.$table
        }

        fn table_mut(
            neutron: &mut $crate::cloud::neutron::Neutron,
        ) -> &mut $crate::cloud::neutron::resource::Table<Self> {
            &mut neutron.$table
        }

        fn standard(&self) -> &$crate::cloud::neutron::resource::Standard {
            &self.standard
        }

        fn standard_mut(&mut self) -> &mut $crate::cloud::neutron::resource::Standard {
            &mut self.standard
        }
    };
}
pub(crate) use kept_in;

/// The resources of a kind in the order of their ids, found by tag and counted by project.
#[derive(Debug)]
pub(crate) struct Table<R> {
    rows: BTreeMap<Uuid, R>,
    by_tag: HashMap<String, BTreeSet<Uuid>>,
    per_project: HashMap<String, i64>,
}

impl<R> Default for Table<R> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), by_tag: HashMap::new(), per_project: HashMap::new() }
    }
}

impl<R: Resource> Table<R> {
    pub(crate) fn get(&self, id: Uuid) -> Option<&R> {
        self.rows.get(&id)
    }

    /// The resource, or the kind's own error.
    pub(crate) fn find(&self, id: Uuid) -> Result<&R> {
        self.get(id).ok_or_else(|| (R::KIND.not_found)(&id.to_string()))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &R> {
        self.rows.values()
    }

    pub(crate) fn insert(&mut self, row: R) -> Uuid {
        let standard = row.standard();
        let id = standard.id;
        for tag in &standard.tags {
            self.by_tag.entry(tag.clone()).or_default().insert(id);
        }
        *self.per_project.entry(standard.project.clone()).or_default() += 1;
        self.rows.insert(id, row);
        id
    }

    pub(crate) fn remove(&mut self, id: Uuid) -> Option<R> {
        let row = self.rows.remove(&id)?;
        self.unindex_tags(id, &row.standard().tags);
        if let Some(count) = self.per_project.get_mut(&row.standard().project) {
            *count -= 1;
        }
        Some(row)
    }

    fn unindex_tags(&mut self, id: Uuid, tags: &BTreeSet<String>) {
        for tag in tags {
            if let Some(ids) = self.by_tag.get_mut(tag) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.by_tag.remove(tag);
                }
            }
        }
    }

    /// Puts a changed row in place of the old one and counts the change; an equal row changes nothing. True when it changed.
    pub(crate) fn replace(&mut self, mut row: R, now: Timestamp) -> bool {
        let id = row.standard().id;
        let Some(old) = self.rows.get(&id) else { return false };
        if *old == row {
            return false;
        }
        let standard = row.standard_mut();
        standard.revision += 1;
        standard.updated = now;
        let (old_tags, new_tags) = (old.standard().tags.clone(), standard.tags.clone());
        if old_tags != new_tags {
            self.unindex_tags(id, &old_tags);
            for tag in new_tags {
                self.by_tag.entry(tag).or_default().insert(id);
            }
        }
        self.rows.insert(id, row);
        true
    }

    /// Changes a row without counting it as a change. Not for tags and project, which are indexed.
    pub(crate) fn edit(&mut self, id: Uuid, change: impl FnOnce(&mut R)) {
        if let Some(row) = self.rows.get_mut(&id) {
            change(row);
        }
    }

    /// Counts a change of something that belongs to the row, such as a rule of a group.
    pub(crate) fn touch(&mut self, id: Uuid, now: Timestamp) {
        if let Some(row) = self.rows.get_mut(&id) {
            let standard = row.standard_mut();
            standard.revision += 1;
            standard.updated = now;
        }
    }

    pub(crate) fn tagged(&self, tag: &str) -> Option<&BTreeSet<Uuid>> {
        self.by_tag.get(tag)
    }

    /// How many resources the project has.
    pub(crate) fn used(&self, project: &str) -> i64 {
        self.per_project.get(project).copied().unwrap_or_default()
    }
}
