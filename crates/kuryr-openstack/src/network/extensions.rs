//! What this Neutron can do.

use super::Network;
use crate::Error;
use serde::Deserialize;
use std::collections::BTreeSet;

/// The extensions of one Neutron, by alias.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions(BTreeSet<String>);

impl Extensions {
    /// A set of aliases.
    pub fn new<T: Into<String>>(aliases: impl IntoIterator<Item = T>) -> Self {
        Self(aliases.into_iter().map(Into::into).collect())
    }

    /// Whether it has this one.
    #[must_use]
    pub fn has(&self, alias: &str) -> bool {
        self.0.contains(alias)
    }

    /// Those of `wanted` that it does not have.
    pub fn missing<'a>(&self, wanted: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
        wanted.into_iter().filter(|alias| !self.has(alias)).collect()
    }

    /// All aliases in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl Network {
    /// Asks for them.
    pub async fn extensions(&self) -> Result<Extensions, Error> {
        #[derive(Deserialize)]
        struct Extension {
            alias: String,
        }
        let all: Vec<Extension> =
            self.rest.ask("extensions", "/extensions", "fields=alias".into(), "extensions").await?;
        Ok(Extensions(all.into_iter().map(|extension| extension.alias).collect()))
    }
}
