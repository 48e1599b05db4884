//! From a NetworkPolicy as the API server sends it to one that the compiler takes.
//!
//! The API server refuses most of what is a problem here, but not all versions refuse the same, and a newer one may
//! allow what this code does not know. What cannot be read must never open anything: a requirement that cannot be read
//! counts as met where it selects the pods to isolate, and a peer or port that cannot be read matches nothing. The rest
//! of the policy holds.

use super::{
    cidr::IpBlock,
    problem::{Effect, MAX_RULES, Problem},
    selector::{Requirement, Selector},
    spec::{Namespaces, Peer, Policy, PolicyRule, Ports, Protocol},
};
use ipnet::IpNet;
use k8s_openapi::{
    api::networking::v1::{
        IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
        util::intstr::IntOrString,
    },
};
use kuryr_model::ObjectKey;

/// The object has no namespace, name or UID, which no API server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the NetworkPolicy has no namespace, name or UID")]
pub struct Nameless;

impl Policy {
    /// Reads a NetworkPolicy; what of it cannot be read is in its [`problems`](Policy::problems).
    ///
    /// Defaults are those of the API server, for objects that it has not seen (`kuryr can-reach` with files).
    ///
    /// # Errors
    /// The object has no namespace, name or UID.
    pub fn read(object: &NetworkPolicy) -> Result<Self, Nameless> {
        let metadata = &object.metadata;
        let (Some(namespace), Some(name), Some(uid)) = (&metadata.namespace, &metadata.name, &metadata.uid) else {
            return Err(Nameless);
        };
        let spec = object.spec.clone().unwrap_or_default();
        let mut reader = Reader { namespace, problems: Vec::new() };
        let pods = reader.selected(&spec.pod_selector.unwrap_or_default());
        let (egress, ingress) = (spec.egress.unwrap_or_default(), spec.ingress.unwrap_or_default());
        let (into, out) = reader.directions(&spec.policy_types.unwrap_or_default(), !egress.is_empty());
        let ingress = into.then(|| reader.rules("ingress", ingress.into_iter().map(Into::into)));
        let egress = out.then(|| reader.rules("egress", egress.into_iter().map(Into::into)));
        let problems = reader.problems;
        Ok(Self { key: ObjectKey::new(namespace, name), uid: uid.as_str().into(), pods, ingress, egress, problems })
    }
}

/// A rule of either direction.
struct RawRule {
    peers_field: &'static str,
    peers: Vec<NetworkPolicyPeer>,
    ports: Vec<NetworkPolicyPort>,
}

impl From<NetworkPolicyIngressRule> for RawRule {
    fn from(rule: NetworkPolicyIngressRule) -> Self {
        Self { peers_field: "from", peers: rule.from.unwrap_or_default(), ports: rule.ports.unwrap_or_default() }
    }
}

impl From<NetworkPolicyEgressRule> for RawRule {
    fn from(rule: NetworkPolicyEgressRule) -> Self {
        Self { peers_field: "to", peers: rule.to.unwrap_or_default(), ports: rule.ports.unwrap_or_default() }
    }
}

struct Reader<'a> {
    namespace: &'a str,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    /// Whether a policy isolates for ingress and for egress. The API server's default: always for ingress, and for
    /// egress if there are rules for it.
    fn directions(&mut self, types: &[String], has_egress: bool) -> (bool, bool) {
        if types.is_empty() {
            return (true, has_egress);
        }
        let mut isolates = (false, false);
        for (index, direction) in types.iter().enumerate() {
            match direction.as_str() {
                "Ingress" => isolates.0 = true,
                "Egress" => isolates.1 = true,
                other => {
                    self.problems.push(Problem::PolicyType(format!("spec.policyTypes[{index}]"), other.to_owned()));
                    isolates = (true, true);
                }
            }
        }
        isolates
    }

    fn rules(&mut self, field: &str, rules: impl Iterator<Item = RawRule>) -> Vec<PolicyRule> {
        let mut size = 0;
        let rules = rules.enumerate().map(|(index, rule)| {
            let at = format!("spec.{field}[{index}]");
            let rule = self.rule(&at, &rule);
            size += rule_size(&rule, MAX_RULES.saturating_sub(size));
            if size <= MAX_RULES {
                return rule;
            }
            self.problems.push(Problem::TooLarge(at));
            PolicyRule { peers: Some(vec![]), ports: Some(vec![]) }
        });
        rules.collect()
    }

    fn rule(&mut self, at: &str, rule: &RawRule) -> PolicyRule {
        let field = rule.peers_field;
        let peers = rule.peers.iter().enumerate();
        let peers: Vec<Peer> =
            peers.filter_map(|(index, peer)| self.peer(&format!("{at}.{field}[{index}]"), peer)).collect();
        let ports = rule.ports.iter().enumerate();
        let ports: Vec<Ports> =
            ports.filter_map(|(index, port)| self.port(&format!("{at}.ports[{index}]"), port)).collect();
        // Absent and empty mean everything; a list of which nothing could be read must not become empty in that sense.
        PolicyRule {
            peers: (!rule.peers.is_empty()).then_some(peers),
            ports: (!rule.ports.is_empty()).then_some(ports),
        }
    }

    fn peer(&mut self, at: &str, peer: &NetworkPolicyPeer) -> Option<Peer> {
        match (&peer.ip_block, &peer.namespace_selector, &peer.pod_selector) {
            (Some(block), None, None) => self.block(at, block).map(Peer::Block),
            (None, None, Some(pods)) => {
                let pods = self.peers(&format!("{at}.podSelector"), pods)?;
                Some(Peer::Pods { namespaces: Namespaces::Own(self.namespace.to_owned()), pods })
            }
            (None, Some(namespaces), pods) => {
                let namespaces = self.peers(&format!("{at}.namespaceSelector"), namespaces);
                let pods = match pods {
                    Some(pods) => self.peers(&format!("{at}.podSelector"), pods),
                    None => Some(Selector::everything()),
                };
                Some(Peer::Pods { namespaces: Namespaces::Labelled(namespaces?), pods: pods? })
            }
            (Some(_), _, _) | (None, None, None) => {
                self.problems.push(Problem::Peer(at.to_owned()));
                None
            }
        }
    }

    fn block(&mut self, at: &str, block: &IPBlock) -> Option<IpBlock> {
        let cidr = self.cidr(&format!("{at}.ipBlock.cidr"), &block.cidr);
        let except = block.except.as_deref().unwrap_or_default();
        if except.len() > MAX_RULES {
            self.problems.push(Problem::TooLarge(format!("{at}.ipBlock.except")));
            return None;
        }
        // Without an exception that cannot be read, the block would be too large.
        let except = except.iter().enumerate();
        let except: Vec<Option<IpNet>> =
            except.map(|(index, text)| self.cidr(&format!("{at}.ipBlock.except[{index}]"), text)).collect();
        let except: Vec<IpNet> = except.into_iter().collect::<Option<_>>()?;
        Some(IpBlock::new(cidr?, except))
    }

    fn cidr(&mut self, at: &str, text: &str) -> Option<IpNet> {
        let cidr = text.parse().ok();
        if cidr.is_none() {
            self.problems.push(Problem::Block(at.to_owned(), text.to_owned()));
        }
        cidr
    }

    fn port(&mut self, at: &str, port: &NetworkPolicyPort) -> Option<Ports> {
        let protocol = match port.protocol.as_deref() {
            None => Protocol::Tcp,
            Some(text) => match Protocol::from_kubernetes(text) {
                Some(protocol) => protocol,
                None => {
                    self.problems.push(Problem::Protocol(format!("{at}.protocol"), text.to_owned()));
                    return None;
                }
            },
        };
        match (&port.port, port.end_port) {
            (None, None) => Some(Ports::All(protocol)),
            (Some(IntOrString::String(name)), None) => Some(Ports::Named(protocol, name.clone())),
            (Some(IntOrString::Int(first)), last) => {
                let first = self.number(&format!("{at}.port"), *first);
                let last = match last {
                    Some(last) => self.number(&format!("{at}.endPort"), last),
                    None => first,
                };
                let (first, last) = (first?, last?);
                if first > last {
                    self.problems.push(Problem::EndPort(at.to_owned(), last.into()));
                    return None;
                }
                Some(Ports::Range(protocol, first, last))
            }
            (None | Some(IntOrString::String(_)), Some(last)) => {
                self.problems.push(Problem::EndPort(at.to_owned(), last));
                None
            }
        }
    }

    fn number(&mut self, at: &str, number: i32) -> Option<u16> {
        let read = u16::try_from(number).ok().filter(|number| *number > 0);
        if read.is_none() {
            self.problems.push(Problem::Number(at.to_owned(), number));
        }
        read
    }

    /// The pods to isolate: without what cannot be read, there are more of them.
    fn selected(&mut self, selector: &LabelSelector) -> Selector {
        self.selector("spec.podSelector", selector, Effect::SelectsMore).into_iter().flatten().collect()
    }

    /// The pods or namespaces to allow: with anything that cannot be read, there are none.
    fn peers(&mut self, at: &str, selector: &LabelSelector) -> Option<Selector> {
        self.selector(at, selector, Effect::AllowsNothing).into_iter().collect()
    }

    /// The requirements; `None` in place of one that cannot be read.
    fn selector(&mut self, at: &str, selector: &LabelSelector, effect: Effect) -> Vec<Option<Requirement>> {
        let labels = selector.match_labels.iter().flatten();
        let mut requirements: Vec<Option<Requirement>> =
            labels.map(|(key, value)| Some(Requirement::equals(key, value))).collect();
        for (index, expression) in selector.match_expressions.iter().flatten().enumerate() {
            let at = format!("{at}.matchExpressions[{index}]");
            requirements.push(requirement(&at, expression, effect).map_err(|problem| self.problems.push(problem)).ok());
        }
        requirements
    }
}

fn requirement(at: &str, expression: &LabelSelectorRequirement, effect: Effect) -> Result<Requirement, Problem> {
    let LabelSelectorRequirement { key, operator, values } = expression;
    let values = values.as_deref().unwrap_or_default();
    let set = || values.iter().cloned().collect();
    let key = key.clone();
    match (operator.as_str(), values.is_empty()) {
        ("In", false) => Ok(Requirement::In(key, set())),
        ("NotIn", false) => Ok(Requirement::NotIn(key, set())),
        ("Exists", true) => Ok(Requirement::Exists(key)),
        ("DoesNotExist", true) => Ok(Requirement::DoesNotExist(key)),
        ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {
            Err(Problem::Values(at.to_owned(), operator.clone(), values.len(), effect))
        }
        _ => Err(Problem::Operator(at.to_owned(), operator.clone(), effect)),
    }
}

/// How many security group rules a rule comes to for one family. Not counted on beyond `limit`.
fn rule_size(rule: &PolicyRule, limit: usize) -> usize {
    let ports = rule.ports.as_ref().map_or(1, Vec::len);
    let mut size: usize = if rule.peers.is_none() { ports } else { 0 };
    for peer in rule.peers.iter().flatten() {
        let pieces = match peer {
            Peer::Block(block) => block.pieces().len(),
            Peer::Pods { .. } => 1,
        };
        size = size.saturating_add(pieces.saturating_mul(ports));
        if size > limit {
            break;
        }
    }
    size
}
