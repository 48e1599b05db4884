//! Where the services are: Keystone's catalog and what the configuration says instead of it.

use serde::Deserialize;
use std::{collections::BTreeMap, fmt};

/// The services that Kuryr calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    /// Keystone.
    Identity,
    /// Neutron.
    Network,
    /// Octavia.
    LoadBalancer,
}

impl Service {
    /// The service's type, as catalogs, settings and metrics write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Network => "network",
            Self::LoadBalancer => "load-balancer",
        }
    }

    /// The types under which catalogs list it, the official one first.
    fn types(self) -> &'static [&'static str] {
        match self {
            Self::Identity => &["identity"],
            Self::Network => &["network"],
            Self::LoadBalancer => &["load-balancer", "loadbalancer", "octavia"],
        }
    }

    /// The version in the paths of its API.
    fn version(self) -> &'static str {
        match self {
            Self::Identity => "v3",
            Self::Network => "v2.0",
            Self::LoadBalancer => "v2",
        }
    }

    /// The setting that gives its address instead of the catalog.
    #[must_use]
    pub fn override_setting(self) -> &'static str {
        match self {
            Self::Identity => "identity_endpoint_override",
            Self::Network => "network_endpoint_override",
            Self::LoadBalancer => "load_balancer_endpoint_override",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// For whom an endpoint is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interface {
    /// For users.
    #[default]
    Public,
    /// For services inside the cloud.
    Internal,
    /// For administrators.
    Admin,
}

impl Interface {
    /// Reads `public`, `internal`, `admin` and the older `publicURL` and so on.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix("URL").unwrap_or(text) {
            "public" => Some(Self::Public),
            "internal" => Some(Self::Internal),
            "admin" => Some(Self::Admin),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Admin => "admin",
        }
    }
}

/// One service of the catalog in Keystone's answer.
#[derive(Clone, Debug, Deserialize)]
pub struct Entry {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, Deserialize)]
struct Endpoint {
    interface: String,
    #[serde(default)]
    region_id: Option<String>,
    #[serde(default)]
    region: Option<String>,
    url: String,
}

impl Endpoint {
    fn region(&self) -> Option<&str> {
        self.region_id.as_deref().or(self.region.as_deref())
    }
}

/// The catalog has no address for a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentence())]
pub struct NoEndpoint {
    service: Service,
    interface: &'static str,
    region: Option<String>,
    /// Interface and region of the endpoints that there are.
    found: Vec<(String, String)>,
}

impl NoEndpoint {
    fn sentence(&self) -> String {
        let region = self.region.as_ref().map(|region| format!(" in region {region}")).unwrap_or_default();
        let wanted = format!("the catalog has no {} endpoint of type {}{region}", self.interface, self.service);
        if self.found.is_empty() {
            return format!(
                "{wanted}, nor any other of that type: register the service in Keystone, or set {}",
                self.service.override_setting()
            );
        }
        let found: Vec<_> = self.found.iter().map(|(interface, region)| format!("{interface} in {region}")).collect();
        format!("{wanted}; there are: {}; set region_name and interface to one of them", found.join(", "))
    }
}

/// Finds the services' addresses.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    entries: Vec<Entry>,
    region: Option<String>,
    interface: Interface,
    overrides: BTreeMap<Service, String>,
}

impl Catalog {
    /// A catalog as Keystone gave it, read for one region and interface. `overrides` are used instead where they are.
    #[must_use]
    pub fn new(
        entries: Vec<Entry>,
        region: Option<String>,
        interface: Interface,
        overrides: BTreeMap<Service, String>,
    ) -> Self {
        Self { entries, region, interface, overrides }
    }

    /// The address of a service with the version of its API at the end and no slash after it.
    pub fn url(&self, service: Service) -> Result<String, NoEndpoint> {
        if let Some(url) = self.overrides.get(&service) {
            return Ok(versioned(url, service));
        }
        let endpoints = || {
            let entries = service.types().iter().flat_map(|kind| self.entries.iter().filter(move |e| e.kind == *kind));
            entries.flat_map(|entry| &entry.endpoints)
        };
        let wanted = endpoints().find(|endpoint| {
            Interface::parse(&endpoint.interface) == Some(self.interface)
                && self.region.as_deref().is_none_or(|region| endpoint.region() == Some(region))
        });
        wanted.map(|endpoint| versioned(&endpoint.url, service)).ok_or_else(|| NoEndpoint {
            service,
            interface: self.interface.as_str(),
            region: self.region.clone(),
            found: endpoints().map(|e| (e.interface.clone(), e.region().unwrap_or("no region").to_owned())).collect(),
        })
    }
}

/// Catalogs list Neutron with and without `/v2.0`, Octavia with and without `/v2`.
pub(crate) fn versioned(url: &str, service: Service) -> String {
    let url = url.trim_end_matches('/');
    if unversioned(url) == url { format!("{url}/{}", service.version()) } else { url.to_owned() }
}

/// The address without the version at its end.
pub(crate) fn unversioned(url: &str) -> &str {
    match url.rsplit_once('/') {
        Some((root, last)) if last.strip_prefix('v').is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit())) => {
            root
        }
        _ => url,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn catalog(region: Option<&str>, interface: Interface) -> Catalog {
        let entries = serde_json::from_value(json!([
            {"type": "network", "endpoints": [
                {"interface": "public", "region": "one", "region_id": "one", "url": "http://one:9696"},
                {"interface": "internal", "region": "one", "region_id": "one", "url": "http://inner:9696/v2.0/"},
                {"interface": "public", "region": "two", "url": "http://two/network"},
            ]},
            {"type": "octavia", "endpoints": [{"interface": "publicURL", "region": "one", "url": "http://lb:9876"}]},
        ]))
        .unwrap();
        Catalog::new(entries, region.map(str::to_owned), interface, BTreeMap::new())
    }

    #[test]
    fn an_address_is_found_by_region_and_interface_and_gets_its_version() {
        let url = |region, interface| catalog(region, interface).url(Service::Network).unwrap();
        assert_eq!(url(None, Interface::Public), "http://one:9696/v2.0");
        assert_eq!(url(Some("one"), Interface::Internal), "http://inner:9696/v2.0");
        assert_eq!(url(Some("two"), Interface::Public), "http://two/network/v2.0");
    }

    #[test]
    fn octavia_is_found_however_it_was_registered() {
        for (registered, root) in [
            ("http://cloud:9876", "http://cloud:9876"),
            ("http://cloud:9876/", "http://cloud:9876"),
            ("https://cloud/load-balancer", "https://cloud/load-balancer"),
            ("https://cloud/load-balancer/v2/", "https://cloud/load-balancer"),
            ("http://cloud:9876/v2.0", "http://cloud:9876"),
        ] {
            let url = versioned(registered, Service::LoadBalancer);
            assert_eq!(unversioned(&url), root, "{url}");
            assert!(url == format!("{root}/v2") || url == format!("{root}/v2.0"), "{url}");
        }
    }

    #[test]
    fn an_older_name_of_a_service_is_known() {
        assert_eq!(catalog(None, Interface::Public).url(Service::LoadBalancer).unwrap(), "http://lb:9876/v2");
    }

    #[test]
    fn a_missing_endpoint_says_which_there_are() {
        let error = catalog(Some("three"), Interface::Public).url(Service::Network).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the catalog has no public endpoint of type network in region three; there are: public in one, internal \
             in one, public in two; set region_name and interface to one of them"
        );
        let error = Catalog::default().url(Service::LoadBalancer).unwrap_err().to_string();
        assert!(error.contains("set load_balancer_endpoint_override"), "{error}");
    }

    #[test]
    fn the_configuration_wins_over_the_catalog() {
        let overrides = BTreeMap::from([(Service::Network, "http://here:1/".to_owned())]);
        let catalog = Catalog::new(Vec::new(), Some("nowhere".into()), Interface::Admin, overrides);
        assert_eq!(catalog.url(Service::Network).unwrap(), "http://here:1/v2.0");
    }
}
