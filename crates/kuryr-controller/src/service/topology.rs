//! What the cloud has for Services: subnets, external networks, Octavia.

use crate::config::{ControllerConfig, ServiceClass, ServicesConfig};
use ipnet::IpNet;
use kuryr_model::{
    ClusterId, Mark, NetworkId, Purpose, SubnetId,
    mark::{Base, cluster_tag},
    neutron::{Network, Subnet},
};
use kuryr_openstack::{
    Cloud, Error as CloudError, Filter, NoEndpoint, Service as CloudService, chain,
    load_balancer::{ApiVersion, Feature},
};
use kuryr_plan::service::{Class, ExternalSubnet, Provider, Refusals, Site, SiteSubnet};
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What is to become of Services.
#[derive(Debug)]
pub(crate) enum Services {
    /// They get load balancers.
    On(Box<Site>),
    /// They do not, for this reason.
    Off(String),
}

impl Services {
    /// The ranges that VIPs are from.
    pub(crate) fn ranges(&self) -> Vec<IpNet> {
        match self {
            Self::On(site) => site.services.iter().map(|subnet| subnet.cidr).collect(),
            Self::Off(_) => Vec::new(),
        }
    }
}

/// The cloud lacks something that Services need.
#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    /// OpenStack refused, or did not answer.
    #[error("the cloud cannot be looked at for Services: {0}")]
    Cloud(#[from] CloudError),
    /// There is no Octavia.
    #[error("Services need Octavia: {0}")]
    NoOctavia(#[from] NoEndpoint),
    /// Octavia is too old.
    #[error("Octavia's API is {0}, and Services need {since} or later: what Kuryr makes is found again by its tags", since = Feature::Tags.since())]
    OldOctavia(ApiVersion),
    /// No subnet is configured and none was set up.
    #[error(
        "there is no service subnet: [services] subnets is empty and no subnet carries the tags kuryr:{0} and \
         kuryr:base:services; run `kuryr setup --service-cidr`, or name subnets"
    )]
    NoSubnets(ClusterId),
    /// A setting names what is not there.
    #[error("[services] {setting} names {name:?}, and there is no such {kind} that this project can see")]
    NoSuch {
        /// The setting, within its section.
        setting: String,
        /// The name or id.
        name: String,
        /// What it should be.
        kind: &'static str,
    },
    /// A name stands for several things.
    #[error(
        "[services] {setting} names {name:?}, and there are {count} {kind}s of that name; give the id of one instead"
    )]
    Ambiguous {
        /// The setting, within its section.
        setting: String,
        /// The name.
        name: String,
        /// What they are.
        kind: &'static str,
        /// How many there are.
        count: usize,
    },
    /// Octavia has no such provider.
    #[error("[services] provider = {name:?}: Octavia has no such provider; it has {}", there.join(", "))]
    NoProvider {
        /// The setting's value.
        name: String,
        /// Those that there are.
        there: Vec<String>,
    },
}

impl ServicesError {
    /// The cloud simply has nothing for Services, which is no fault unless somebody wants them.
    fn is_absence(&self) -> bool {
        matches!(self, Self::NoOctavia(_) | Self::OldOctavia(_) | Self::NoSubnets(_))
    }
}

impl Services {
    /// Looks at the cloud.
    pub(crate) async fn find(cloud: &Cloud, config: &ControllerConfig, pods: &[Subnet]) -> Result<Self, ServicesError> {
        let services = &config.services;
        if services.enabled == Some(false) {
            return Ok(Self::Off("[services] enabled = false".to_owned()));
        }
        match (Finder { cloud, cluster: &config.cluster }).site(services, pods).await {
            Ok(site) => Ok(Self::On(Box::new(site))),
            Err(error) if error.is_absence() && services.enabled.is_none() => Ok(Self::Off(error.to_string())),
            Err(error) => Err(error),
        }
    }
}

struct Finder<'a> {
    cloud: &'a Cloud,
    cluster: &'a ClusterId,
}

impl Finder<'_> {
    async fn site(&self, config: &ServicesConfig, pods: &[Subnet]) -> Result<Site, ServicesError> {
        self.cloud.url(CloudService::LoadBalancer)?;
        let services = if config.subnets.is_empty() {
            self.set_up_subnets().await?
        } else {
            let mut subnets = Vec::new();
            for name in &config.subnets {
                subnets.push(self.subnet("subnets", name).await?);
            }
            subnets
        };
        let provider = self.octavia(config).await?;
        let network = self.cloud.network();
        let external = network.networks().list(&Filter::new().with("router:external", true)).await?;
        let floating_network = match (&config.floating_network, &external[..]) {
            (Some(name), _) => Some(self.network("floating_network", name).await?),
            (None, [only]) => Some(only.id),
            (None, _) => None,
        };
        let mut external_subnets = Vec::new();
        if !external.is_empty() {
            let of = Filter::new().any("network_id", external.iter().map(|network| network.id));
            external_subnets = network.subnets().list(&of).await?.into_iter().map(external_subnet).collect();
        }
        let mut classes = BTreeMap::new();
        for (name, class) in &config.classes {
            classes.insert(name.clone(), self.class(name, class).await?);
        }
        Ok(Site {
            cluster: self.cluster.clone(),
            services: services.iter().map(site_subnet).collect(),
            pods: pods.iter().map(site_subnet).collect(),
            nodes: Vec::new(),
            floating_network,
            external_subnets,
            provider,
            default_provider: None,
            load_balancer_class: config.load_balancer_class.clone(),
            classes,
            refusals: Refusals::default(),
        })
    }

    /// Whom to ask for load balancers. An Octavia that is just away is waited for later: pods do not need it.
    async fn octavia(&self, config: &ServicesConfig) -> Result<Provider, ServicesError> {
        let octavia = self.cloud.load_balancing();
        let away = |error: &CloudError| tracing::warn!(error = %chain(error), "Octavia does not answer; going on");
        match octavia.api_version().await {
            Ok(version) if !version.has(Feature::Tags) => return Err(ServicesError::OldOctavia(version)),
            Ok(_) => {}
            Err(error) => away(&error),
        }
        let asked = config.provider.as_deref().map(Provider::named).unwrap_or_default();
        let there: Vec<String> = match octavia.providers().await {
            Ok(there) => there.into_iter().map(|provider| provider.name).collect(),
            Err(error) => {
                away(&error);
                return Ok(asked);
            }
        };
        match &config.provider {
            Some(name) if !there.contains(name) => Err(ServicesError::NoProvider { name: name.clone(), there }),
            Some(_) => Ok(asked),
            None => Ok(only_one(&there)),
        }
    }

    async fn set_up_subnets(&self) -> Result<Vec<Subnet>, ServicesError> {
        let services = Purpose::Base(Base::Services);
        let mut subnets = self.cloud.network().subnets().list(&Filter::new().tags([cluster_tag(self.cluster)])).await?;
        subnets.retain(|subnet| Mark::read(self.cluster, &subnet.tags).is_some_and(|mark| mark.purpose == services));
        subnets.sort_by_key(|subnet| (subnet.cidr.addr().is_ipv6(), subnet.name.clone(), subnet.id));
        if subnets.is_empty() { Err(ServicesError::NoSubnets(self.cluster.clone())) } else { Ok(subnets) }
    }

    async fn class(&self, name: &str, class: &ServiceClass) -> Result<Class, ServicesError> {
        let setting = |key: &str| format!("classes.{name}.{key}");
        let mut found = Class::default();
        if let Some(name) = &class.floating_network {
            found.floating_network = Some(self.network(&setting("floating_network"), name).await?);
        }
        if let Some(name) = &class.network {
            found.network = Some(self.network(&setting("network"), name).await?);
        }
        let subnets = [
            ("floating_subnet", &class.floating_subnet, &mut found.floating_subnet),
            ("subnet", &class.subnet, &mut found.subnet),
            ("member_subnet", &class.member_subnet, &mut found.member_subnet),
        ];
        for (key, name, place) in subnets {
            if let Some(name) = name {
                *place = Some(self.subnet(&setting(key), name).await?.id);
            }
        }
        Ok(found)
    }

    async fn subnet(&self, setting: &str, name: &str) -> Result<Subnet, ServicesError> {
        let by = if name.parse::<SubnetId>().is_ok() { "id" } else { "name" };
        let found = self.cloud.network().subnets().list(&Filter::new().with(by, name)).await?;
        only("subnet", setting, name, found)
    }

    async fn network(&self, setting: &str, name: &str) -> Result<NetworkId, ServicesError> {
        let by = if name.parse::<NetworkId>().is_ok() { "id" } else { "name" };
        let found: Vec<Network> = self.cloud.network().networks().list(&Filter::new().with(by, name)).await?;
        only("network", setting, name, found).map(|network| network.id)
    }
}

/// The provider that Octavia has, if there is but one: then what it can do is known before anything is asked of it.
fn only_one(names: &[String]) -> Provider {
    let providers: BTreeSet<Provider> = names.iter().map(|name| Provider::named(name)).collect();
    let mut providers = providers.into_iter();
    match (providers.next(), providers.next()) {
        (Some(one), None) if names.iter().any(|name| one.as_str() == Some(name)) => one,
        _ => Provider::Default,
    }
}

fn only<T>(kind: &'static str, setting: &str, name: &str, mut found: Vec<T>) -> Result<T, ServicesError> {
    let (setting, name) = (setting.to_owned(), name.to_owned());
    match (found.pop(), found.len()) {
        (Some(one), 0) => Ok(one),
        (None, _) => Err(ServicesError::NoSuch { setting, name, kind }),
        (Some(_), others) => Err(ServicesError::Ambiguous { setting, name, kind, count: others + 1 }),
    }
}

fn site_subnet(subnet: &Subnet) -> SiteSubnet {
    SiteSubnet { id: subnet.id, network: subnet.network_id, cidr: subnet.cidr, gateway: subnet.gateway_ip }
}

fn external_subnet(subnet: Subnet) -> ExternalSubnet {
    ExternalSubnet { id: subnet.id, network: subnet.network_id, name: subnet.name, tags: subnet.tags }
}

/// The site as it is known by now: nodes come and go, and what providers cannot do is learned.
pub(crate) struct SiteState {
    current: Mutex<Arc<Site>>,
}

impl SiteState {
    pub(crate) fn new(site: Site) -> Self {
        Self { current: Mutex::new(Arc::new(site)) }
    }

    /// The site with these nodes.
    pub(crate) fn with_nodes(&self, nodes: Vec<IpNet>) -> Arc<Site> {
        let mut current = self.current.lock();
        if current.nodes != nodes {
            Arc::make_mut(&mut current).nodes = nodes;
        }
        current.clone()
    }

    /// The cluster.
    pub(crate) fn cluster(&self) -> ClusterId {
        self.current.lock().cluster.clone()
    }

    /// Whether Services ask for no provider unless they say so.
    pub(crate) fn asks_for_no_provider(&self) -> bool {
        self.current.lock().provider == Provider::Default
    }

    /// Whether it is known whom Octavia takes when no provider is asked for.
    pub(crate) fn knows_default_provider(&self) -> bool {
        self.current.lock().default_provider.is_some()
    }

    /// Who carries out what is asked for from this provider, as far as is known.
    pub(crate) fn actual(&self, asked: &Provider) -> Provider {
        let default = || self.current.lock().default_provider.clone();
        Some(asked).filter(|asked| **asked != Provider::Default).cloned().or_else(default).unwrap_or_default()
    }

    /// A provider, as it was asked for, refused a feature. False if that was known.
    pub(crate) fn learn(&self, provider: Provider, feature: kuryr_plan::service::Feature) -> bool {
        Arc::make_mut(&mut *self.current.lock()).refusals.learn(provider, feature)
    }

    /// Asked for no provider, Octavia took this one. True if that is news.
    pub(crate) fn default_provider(&self, name: &str) -> bool {
        let provider = Provider::named(name);
        let mut current = self.current.lock();
        let news = !name.is_empty() && current.default_provider.as_ref() != Some(&provider);
        if news {
            Arc::make_mut(&mut current).default_provider = Some(provider);
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_setting_and_what_is_wrong_with_it() {
        let none = only::<u8>("subnet", "classes.fast.subnet", "x", vec![]).unwrap_err().to_string();
        assert!(none.starts_with("[services] classes.fast.subnet names \"x\", and there is no such subnet"), "{none}");
        let many = only("network", "floating_network", "x", vec![1, 2]).unwrap_err().to_string();
        assert!(many.contains("there are 2 networks of that name; give the id of one"), "{many}");
        let old = ServicesError::OldOctavia(ApiVersion(2, 4)).to_string();
        assert!(old.contains("2.4") && old.contains("2.5 or later"), "{old}");
    }

    #[test]
    fn the_only_provider_is_asked_for_by_its_name() {
        let of = |names: &[&str]| only_one(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["amphora", "octavia", "amphorav2"]), Provider::Amphora, "one, by several names");
        assert_eq!(of(&["ovn"]), Provider::Ovn);
        assert_eq!(of(&["octavia"]), Provider::Default, "which is not called amphora there");
        assert_eq!((of(&["amphora", "ovn"]), of(&[])), (Provider::Default, Provider::Default));
    }

    #[test]
    fn only_what_a_cloud_may_do_without_is_no_fault() {
        assert!(ServicesError::NoSubnets("c1".into()).is_absence());
        let wrong = ServicesError::NoProvider { name: "x".into(), there: vec!["ovn".into()] };
        assert!(!wrong.is_absence());
    }
}
