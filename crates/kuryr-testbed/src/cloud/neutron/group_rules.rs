//! Security group rules.

use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Neutron;
use super::attrs::{Access, Attr, Body, Check, Kind, attr, shown};
use super::error::{Error, Result};
use super::resource::{Caller, Resource, Standard, kept_in};

const ATTRS: &[Attr] = &[
    attr("direction", Access::Required, Check::OneOf(&["ingress", "egress"])),
    attr("ethertype", Access::Create, Check::Any),
    attr("normalized_cidr", Access::Read, Check::Any),
    attr("port_range_max", Access::Create, Check::Any),
    attr("port_range_min", Access::Create, Check::Any),
    attr("protocol", Access::Create, Check::Any),
    attr("remote_address_group_id", Access::Create, Check::UuidOrNull),
    attr("remote_group_id", Access::Create, Check::UuidOrNull),
    attr("remote_ip_prefix", Access::Create, Check::Any),
    attr("security_group_id", Access::Required, Check::Uuid),
];

/// Names of protocols with their numbers.
const PROTOCOLS: &[(&str, u8)] = &[
    ("ah", 51),
    ("dccp", 33),
    ("egp", 8),
    ("esp", 50),
    ("gre", 47),
    ("hopopt", 0),
    ("icmp", 1),
    ("icmpv6", 58),
    ("igmp", 2),
    ("ip", 0),
    ("ipip", 4),
    ("ipv6-encap", 41),
    ("ipv6-frag", 44),
    ("ipv6-icmp", 58),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("ipv6-route", 43),
    ("ospf", 89),
    ("pgm", 113),
    ("rsvp", 46),
    ("sctp", 132),
    ("tcp", 6),
    ("udp", 17),
    ("udplite", 136),
    ("vrrp", 112),
];

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Protocols with port numbers: TCP, UDP, DCCP, SCTP, UDP-Lite.
const WITH_PORT_NUMBERS: &[u8] = &[6, 17, 33, 132, 136];
const V6_ONLY: &[u8] = &[41, 43, 44, ICMPV6, 59, 60];

/// What a rule says; two rules of a group never say the same.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spec {
    pub(crate) group: Uuid,
    pub(crate) direction: String,
    pub(crate) ethertype: String,
    pub(crate) protocol: Option<String>,
    /// Lowest port number, or ICMP type.
    pub(crate) min: Option<u16>,
    /// Highest port number, or ICMP code.
    pub(crate) max: Option<u16>,
    pub(crate) prefix: Option<IpNet>,
    pub(crate) remote_group: Option<Uuid>,
    pub(crate) address_group: Option<Uuid>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rule {
    pub(crate) standard: Standard,
    pub(crate) spec: Spec,
}

impl Rule {
    /// A rule without conditions but, perhaps, a remote group.
    pub(crate) fn open(
        group: Uuid,
        project: &str,
        direction: &str,
        ethertype: &str,
        remote_group: Option<Uuid>,
        now: Timestamp,
    ) -> Self {
        let caller = Caller { project: project.to_owned(), now };
        let spec = Spec {
            group,
            direction: direction.to_owned(),
            ethertype: ethertype.to_owned(),
            protocol: None,
            min: None,
            max: None,
            prefix: None,
            remote_group,
            address_group: None,
        };
        Self { standard: Standard::new(&caller, &Body::default()), spec }
    }
}

impl Resource for Rule {
    const KIND: &'static Kind = &Kind {
        plural: "security_group_rules",
        singular: "security_group_rule",
        attrs: ATTRS,
        tagged: false,
        not_found: |id| {
            Error::not_found("SecurityGroupRuleNotFound", format!("Security group rule {id} does not exist"))
        },
    };

    kept_in!(rules);

    fn attribute(&self, name: &str, _neutron: &Neutron) -> Option<Value> {
        let spec = &self.spec;
        Some(match name {
            "direction" => json!(spec.direction),
            "ethertype" => json!(spec.ethertype),
            "normalized_cidr" => json!(spec.prefix.map(|net| net.trunc())),
            "port_range_max" => json!(spec.max),
            "port_range_min" => json!(spec.min),
            "protocol" => json!(spec.protocol),
            "remote_address_group_id" => json!(spec.address_group),
            "remote_group_id" => json!(spec.remote_group),
            "remote_ip_prefix" => json!(spec.prefix),
            "security_group_id" => json!(spec.group),
            _ => return None,
        })
    }

    fn check_bulk(neutron: &Neutron, bodies: &[Body]) -> Result<()> {
        let specs = bodies.iter().map(|body| Spec::read(neutron, body)).collect::<Result<Vec<_>>>()?;
        if specs.iter().any(|spec| spec.group != specs[0].group) {
            let message = "Only allowed to update rules for one security profile at a time";
            return Err(Error::bad_request("SecurityGroupNotSingleGroupRules", message));
        }
        let keys: std::collections::HashSet<String> = specs.iter().map(Spec::key).collect();
        if keys.len() < specs.len() {
            return Err(Error::conflict("DuplicateSecurityGroupRuleInPost", "Duplicate Security Group Rule in POST."));
        }
        Ok(())
    }

    fn create(neutron: &mut Neutron, caller: &Caller, body: &Body) -> Result<Uuid> {
        let spec = Spec::read(neutron, body)?;
        let key = spec.key();
        let group = neutron.groups.find(spec.group)?;
        let twin = |id: &&Uuid| neutron.rules.get(**id).is_some_and(|rule| rule.spec.key() == key);
        if let Some(id) = group.rules.iter().find(twin) {
            let message = format!("Security group rule already exists. Rule id is {id}.");
            return Err(Error::conflict("SecurityGroupRuleExists", message));
        }
        let mut standard = Standard::new(caller, body);
        standard.project.clone_from(&group.standard.project);
        let group = spec.group;
        let id = insert(neutron, Self { standard, spec });
        neutron.groups.touch(group, caller.now);
        Ok(id)
    }

    fn update(neutron: &mut Neutron, caller: &Caller, id: Uuid, body: &Body) -> Result<()> {
        let mut rule = neutron.rules.find(id)?.clone();
        rule.standard.update(body);
        neutron.rules.replace(rule, caller.now);
        Ok(())
    }

    fn delete(neutron: &mut Neutron, caller: &Caller, id: Uuid) -> Result<()> {
        remove(neutron, id, caller.now);
        Ok(())
    }
}

/// Adds a rule to its group without a check for a twin.
pub(crate) fn insert(neutron: &mut Neutron, rule: Rule) -> Uuid {
    let group = rule.spec.group;
    let id = neutron.rules.insert(rule);
    // The caller decides whether this counts as a change of the group.
    neutron.groups.edit(group, |group| group.rules.push(id));
    id
}

fn remove(neutron: &mut Neutron, id: Uuid, now: Timestamp) {
    if let Some(rule) = neutron.rules.remove(id)
        && let Some(mut group) = neutron.groups.get(rule.spec.group).cloned()
    {
        group.rules.retain(|&other| other != id);
        neutron.groups.replace(group, now);
    }
}

/// Removes the rules that name a group as their remote group.
pub(crate) fn remove_of_remote(neutron: &mut Neutron, group: Uuid, now: Timestamp) {
    let ids: Vec<Uuid> = neutron
        .rules
        .iter()
        .filter(|rule| rule.spec.remote_group == Some(group))
        .map(|rule| rule.standard.id)
        .collect();
    for id in ids {
        remove(neutron, id, now);
    }
}

impl Spec {
    fn read(neutron: &Neutron, body: &Body) -> Result<Self> {
        let ethertype = match body.given("ethertype").map(shown) {
            None => "IPv4".to_owned(),
            Some(text) if text.eq_ignore_ascii_case("ipv4") => "IPv4".to_owned(),
            Some(text) if text.eq_ignore_ascii_case("ipv6") => "IPv6".to_owned(),
            Some(text) => return Err(Error::attribute("ethertype", format!("'{text}' is not in ['IPv4', 'IPv6']"))),
        };
        let mut protocol = body.given("protocol").map(read_protocol).transpose()?.flatten();
        if ethertype == "IPv6" && protocol.as_deref().is_some_and(|p| p == "icmp" || p == "icmpv6") {
            protocol = Some("ipv6-icmp".into());
        }
        let spec = Self {
            group: body.uuid("security_group_id").unwrap_or_default(),
            direction: body.text("direction").unwrap_or_default().to_owned(),
            ethertype,
            protocol,
            min: port_number(body.given("port_range_min"))?,
            max: port_number(body.given("port_range_max"))?,
            prefix: body.given("remote_ip_prefix").map(read_prefix).transpose()?,
            remote_group: body.uuid("remote_group_id"),
            address_group: body.uuid("remote_address_group_id"),
        };
        spec.check_range()?;
        spec.check_family()?;
        let spec = spec.without_whole_range();
        let remotes = [spec.prefix.is_some(), spec.remote_group.is_some(), spec.address_group.is_some()];
        if remotes.into_iter().filter(|given| *given).count() > 1 {
            return Err(Error::bad_request(
                "SecurityGroupMultipleRemoteEntites",
                "Only one of remote_ip_prefix or remote_group_id or remote_address_group_id may be provided.",
            ));
        }
        if let Some(remote) = spec.remote_group {
            neutron.groups.find(remote)?;
        }
        if let Some(remote) = spec.address_group {
            neutron.address_groups.find(remote)?;
        }
        neutron.groups.find(spec.group)?;
        Ok(spec)
    }

    fn number(&self) -> Option<u8> {
        protocol_number(self.protocol.as_deref()?)
    }

    fn check_range(&self) -> Result<()> {
        let (min, max) = (self.min, self.max);
        if min.is_none() && max.is_none() {
            return Ok(());
        }
        let Some(number) = self.number() else {
            let message = "Must also specify protocol if port range is given.";
            return Err(Error::bad_request("SecurityGroupProtocolRequiredWithPorts", message));
        };
        if WITH_PORT_NUMBERS.contains(&number) {
            if min == Some(0) || max == Some(0) {
                return Err(Error::bad_request("SecurityGroupInvalidPortValue", "Invalid value for port 0"));
            }
            return match (min, max) {
                (Some(min), Some(max)) if min <= max => Ok(()),
                _ => Err(Error::bad_request(
                    "SecurityGroupInvalidPortRange",
                    "For TCP/UDP protocols, port_range_min must be <= port_range_max",
                )),
            };
        }
        if number == ICMP || number == ICMPV6 {
            for (value, attr, field) in [(min, "port_range_min", "type"), (max, "port_range_max", "code")] {
                if let Some(value) = value.filter(|&value| value > 255) {
                    let message = format!("Invalid value for ICMP {field} ({attr}) {value}. It must be 0 to 255.");
                    return Err(Error::bad_request("SecurityGroupInvalidIcmpValue", message));
                }
            }
            return match (min, max) {
                (None, Some(code)) => Err(Error::bad_request(
                    "SecurityGroupMissingIcmpType",
                    format!("ICMP code (port-range-max) {code} is provided but ICMP type (port-range-min) is missing."),
                )),
                _ => Ok(()),
            };
        }
        let message = format!(
            "Ports cannot be specified for protocol {number}. Ports are only supported for protocols DCCP, SCTP, TCP, UDP, UDPLITE."
        );
        Err(Error::bad_request("SecurityGroupInvalidProtocolForPort", message))
    }

    /// All port numbers are the same as none in particular.
    fn without_whole_range(self) -> Self {
        let whole = (self.min, self.max) == (Some(1), Some(u16::MAX));
        if whole { Self { min: None, max: None, ..self } } else { self }
    }

    fn check_family(&self) -> Result<()> {
        if let (Some(number), Some(name)) = (self.number(), &self.protocol)
            && self.ethertype == "IPv4"
            && V6_ONLY.contains(&number)
        {
            let message = format!("Invalid ethertype {} for protocol {name}.", self.ethertype);
            return Err(Error::bad_request("SecurityGroupEthertypeConflictWithProtocol", message));
        }
        if let Some(net) = self.prefix
            && matches!(net, IpNet::V6(_)) != (self.ethertype == "IPv6")
        {
            let message = format!("Conflicting value ethertype {} for CIDR {net}", self.ethertype);
            return Err(Error::bad_request("SecurityGroupRuleParameterConflict", message));
        }
        Ok(())
    }

    /// Equal for rules that say the same: names and numbers of protocols are one, and so are no prefix and the prefix of all.
    fn key(&self) -> String {
        let prefix = self.prefix.filter(|net| net.prefix_len() > 0);
        let protocol = self.number().map(|number| number.to_string()).or_else(|| self.protocol.clone());
        format!(
            "{}_{}_{:?}_{:?}_{protocol:?}_{:?}_{:?}_{prefix:?}",
            self.direction, self.ethertype, self.min, self.max, self.remote_group, self.address_group
        )
    }
}

fn protocol_number(text: &str) -> Option<u8> {
    text.parse().ok().or_else(|| PROTOCOLS.iter().find(|(name, _)| *name == text).map(|&(_, number)| number))
}

fn read_protocol(value: &Value) -> Result<Option<String>> {
    let text = shown(value).to_ascii_lowercase();
    if text == "any" || text.is_empty() {
        return Ok(None);
    }
    if protocol_number(&text).is_some() {
        return Ok(Some(text));
    }
    let names: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
    let message = format!(
        "Security group rule protocol {} not supported. Only protocol values [None, '{}'] and integer representations [0 to 255] \
         are supported.",
        shown(value),
        names.join("', '")
    );
    Err(Error::bad_request("SecurityGroupRuleInvalidProtocol", message))
}

fn port_number(value: Option<&Value>) -> Result<Option<u16>> {
    let Some(value) = value else { return Ok(None) };
    match shown(value).parse() {
        Ok(number) => Ok(Some(number)),
        Err(_) => {
            Err(Error::bad_request("SecurityGroupInvalidPortValue", format!("Invalid value for port {}", shown(value))))
        }
    }
}

fn read_prefix(value: &Value) -> Result<IpNet> {
    let text = shown(value);
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(IpNet::from));
    net.ok_or_else(|| Error::bad_request("InvalidCIDR", format!("Invalid CIDR {text} given as IP prefix.")))
}
