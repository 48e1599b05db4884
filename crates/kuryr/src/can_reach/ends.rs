//! What a person wrote as FROM and TO, taken apart.

use kuryr_model::ObjectKey;
use kuryr_plan::policy::Protocol;
use std::{fmt, net::IpAddr, str::FromStr};

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Pod(ObjectKey),
    Service(ObjectKey),
    Node(String),
    Address(IpAddr),
}

/// The end that is reached, and at what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct To {
    pub(crate) end: End,
    pub(crate) port: Option<PortRef>,
    pub(crate) protocol: Option<Protocol>,
}

/// A port number, or its name at the end that is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PortRef {
    Number(u16),
    Name(String),
}

/// It cannot be taken apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EndError {
    #[error(
        "{0:?} is neither NAMESPACE/POD, pod/NAMESPACE/NAME, svc/NAMESPACE/NAME, node/NAME nor an address; of a pod or \
         Service the namespace must be said"
    )]
    End(String),
    #[error("{0:?} is no name that Kubernetes has")]
    Name(String),
    #[error("{0:?} is neither a port number from 1 to 65535 nor the name of a port")]
    Port(String),
    #[error("{0:?} is none of the protocols tcp, udp, sctp")]
    Protocol(String),
    #[error("{0:?}: with a port number an IPv6 address stands in brackets, like [fd00::1]:80")]
    Brackets(String),
    #[error("{0:?}: only the end that is reached has a port number; who connects may send from any")]
    FromPort(String),
}

/// The longest name of an object, in characters.
const LONGEST_NAME: usize = 253;
/// The longest name of a port of a Service; of containers they are shorter.
const LONGEST_PORT: usize = 63;

/// Parses the end that connects.
pub(crate) fn from(text: &str) -> Result<End, EndError> {
    match end(text) {
        Ok(end) => Ok(end),
        Err(error) => match text.parse::<To>() {
            Ok(_) => Err(EndError::FromPort(text.to_owned())),
            Err(_) => Err(error),
        },
    }
}

impl FromStr for To {
    type Err = EndError;

    /// `END[:PORT][/PROTOCOL]`. What may be an end as a whole is one: `shop/tcp` is a pod.
    fn from_str(text: &str) -> Result<Self, EndError> {
        if let Some((end_text, rest)) = split_port(text)? {
            let (port, protocol) = match rest.split_once('/') {
                Some((port, word)) => (port, Some(protocol(word)?)),
                None => (rest, None),
            };
            return Ok(Self { end: end(end_text)?, port: Some(port_ref(port)?), protocol });
        }
        let whole = end(text);
        let behind = text.rsplit_once('/').and_then(|(before, word)| Some((end(before).ok()?, protocol(word).ok()?)));
        if let Some((end, protocol)) = behind
            && (whole.is_err() || matches!(end, End::Address(_)))
        {
            return Ok(Self { end, port: None, protocol: Some(protocol) });
        }
        Ok(Self { end: whole?, port: None, protocol: None })
    }
}

/// The end, and what stands behind the colon of its port number, if there is one.
fn split_port(text: &str) -> Result<Option<(&str, &str)>, EndError> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, behind) = rest.split_once(']').ok_or_else(|| EndError::End(text.to_owned()))?;
        return match behind.strip_prefix(':') {
            Some(port) => Ok(Some((address, port))),
            None if behind.is_empty() || behind.starts_with('/') => Ok(None),
            None => Err(EndError::End(text.to_owned())),
        };
    }
    let before_protocol = text.rsplit_once('/').map_or(text, |(before, _)| before);
    if text.parse::<IpAddr>().is_ok() || before_protocol.parse::<IpAddr>().is_ok() {
        return Ok(None);
    }
    let Some((before, port)) = text.split_once(':') else { return Ok(None) };
    if port.contains(':') {
        return Err(EndError::Brackets(text.to_owned()));
    }
    Ok(Some((before, port)))
}

fn end(text: &str) -> Result<End, EndError> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(End::Address(address));
    }
    let key = |namespace: &str, of: &str| Ok(ObjectKey::new(name(namespace, text)?, name(of, text)?));
    match text.split('/').collect::<Vec<_>>()[..] {
        ["svc" | "service" | "services", namespace, of] => Ok(End::Service(key(namespace, of)?)),
        ["node" | "nodes", of] => Ok(End::Node(name(of, text)?)),
        // Not a namespace of that name: somebody forgot one.
        ["pod" | "pods" | "svc" | "service" | "services", _] => Err(EndError::End(text.to_owned())),
        ["pod" | "pods", namespace, of] | [namespace, of] => Ok(End::Pod(key(namespace, of)?)),
        _ => Err(EndError::End(text.to_owned())),
    }
}

/// A name as Kubernetes has it for these objects (a DNS subdomain).
fn name(text: &str, whole: &str) -> Result<String, EndError> {
    if text.is_empty() {
        return Err(EndError::End(whole.to_owned()));
    }
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.';
    let outer = |c: Option<&u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let bytes = text.as_bytes();
    let good =
        bytes.len() <= LONGEST_NAME && bytes.iter().all(|c| inner(*c)) && outer(bytes.first()) && outer(bytes.last());
    if good { Ok(text.to_owned()) } else { Err(EndError::Name(text.to_owned())) }
}

fn port_ref(text: &str) -> Result<PortRef, EndError> {
    let wrong = || EndError::Port(text.to_owned());
    if !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()) {
        let number = text.parse::<u16>().ok().filter(|number| *number > 0);
        return number.map(PortRef::Number).ok_or_else(wrong);
    }
    let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let good = (1..=LONGEST_PORT).contains(&text.len())
        && text.bytes().all(fits)
        && text.bytes().any(|c| c.is_ascii_lowercase());
    if good { Ok(PortRef::Name(text.to_owned())) } else { Err(wrong()) }
}

fn protocol(text: &str) -> Result<Protocol, EndError> {
    Protocol::from_kubernetes(&text.to_ascii_uppercase()).ok_or_else(|| EndError::Protocol(text.to_owned()))
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod(key) => write!(f, "pod {key}"),
            Self::Service(key) => write!(f, "Service {key}"),
            Self::Node(name) => write!(f, "node {name}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn to(text: &str) -> To {
        text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"))
    }

    fn pod(namespace: &str, name: &str) -> End {
        End::Pod(ObjectKey::new(namespace, name))
    }

    #[test]
    fn every_kind_of_end_is_read() {
        for (text, end) in [
            ("shop/web", pod("shop", "web")),
            ("pod/shop/web-0.x", pod("shop", "web-0.x")),
            ("pod/svc/web", pod("svc", "web")),
            ("svc/shop/web", End::Service(ObjectKey::new("shop", "web"))),
            ("service/shop/web", End::Service(ObjectKey::new("shop", "web"))),
            ("node/n1.example", End::Node("n1.example".into())),
            ("10.0.0.1", End::Address([10, 0, 0, 1].into())),
            ("fd00::1", End::Address("fd00::1".parse().unwrap())),
            ("[fd00::1]", End::Address("fd00::1".parse().unwrap())),
        ] {
            assert_eq!(from(text), Ok(end.clone()), "{text}");
            assert_eq!(to(text), To { end, port: None, protocol: None }, "{text}");
        }
    }

    #[test]
    fn what_is_reached_may_have_a_port_and_a_protocol() {
        let number = |number| Some(PortRef::Number(number));
        for (text, end, port, protocol) in [
            ("shop/web:80", "shop/web", number(80), None),
            ("shop/web:80/udp", "shop/web", number(80), Some(Protocol::Udp)),
            ("shop/web:http/TCP", "shop/web", Some(PortRef::Name("http".into())), Some(Protocol::Tcp)),
            ("shop/web/sctp", "shop/web", None, Some(Protocol::Sctp)),
            ("shop/tcp", "shop/tcp", None, None),
            ("svc/shop/tcp", "svc/shop/tcp", None, None),
            ("svc/shop/tcp/udp", "svc/shop/tcp", None, Some(Protocol::Udp)),
            ("node/n1/tcp", "node/n1", None, Some(Protocol::Tcp)),
            ("node/n1:9100", "node/n1", number(9100), None),
            ("10.0.0.1:80/tcp", "10.0.0.1", number(80), Some(Protocol::Tcp)),
            ("10.0.0.1/udp", "10.0.0.1", None, Some(Protocol::Udp)),
            ("fd00::1/udp", "fd00::1", None, Some(Protocol::Udp)),
            ("[fd00::1]:80/tcp", "fd00::1", number(80), Some(Protocol::Tcp)),
            ("[fd00::1]/tcp", "fd00::1", None, Some(Protocol::Tcp)),
        ] {
            assert_eq!(to(text), To { end: from(end).unwrap(), port, protocol }, "{text}");
        }
    }

    #[test]
    fn bad_input_is_told_with_what_would_be_right() {
        let error = |text: &str| text.parse::<To>().unwrap_err().to_string();
        for (text, words) in [
            ("web", "the namespace must be said"),
            ("", "NAMESPACE/POD"),
            ("svc/web", "svc/NAMESPACE/NAME"),
            ("a/b/c", "svc/NAMESPACE/NAME"),
            ("shop/", "NAMESPACE/POD"),
            ("shop/Web", "no name that Kubernetes has"),
            ("shop/web:0", "from 1 to 65535"),
            ("shop/web:65536", "from 1 to 65535"),
            ("shop/web:80-90", "from 1 to 65535"),
            ("shop/web:", "from 1 to 65535"),
            ("shop/web:-80", "from 1 to 65535"),
            ("shop/web:80/icmp", "none of the protocols"),
            ("shop/web:80/tcp/x", "none of the protocols"),
            ("fd00::1:x", "brackets"),
            ("[fd00::1", "NAMESPACE/POD"),
            ("[fd00::1]80", "NAMESPACE/POD"),
            ("10.0.0.256", "NAMESPACE/POD"),
            ("10.0.0.0/8", "no name that Kubernetes has"),
        ] {
            // A block of addresses is read as a pod that nobody has; that is seen when it is looked for.
            if text == "10.0.0.0/8" {
                assert_eq!(to(text).end, pod("10.0.0.0", "8"));
                continue;
            }
            assert!(error(text).contains(words), "{text:?} gave {:?}", error(text));
        }
        assert!(from("shop/web:80").unwrap_err().to_string().contains("only the end that is reached"));
        assert!(from("shop").unwrap_err().to_string().contains("the namespace must be said"));
    }

    fn any_name() -> impl Strategy<Value = String> {
        "[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?".prop_filter("kinds are no namespaces", |name| {
            !["pod", "pods", "svc", "service", "services", "node", "nodes"].contains(&&**name)
        })
    }

    fn any_end() -> impl Strategy<Value = End> {
        let key = || (any_name(), any_name()).prop_map(|(namespace, name)| ObjectKey::new(namespace, name));
        prop_oneof![
            key().prop_map(End::Pod),
            key().prop_map(End::Service),
            any_name().prop_map(End::Node),
            any::<std::net::Ipv4Addr>().prop_map(|ip| End::Address(ip.into())),
            any::<std::net::Ipv6Addr>().prop_map(|ip| End::Address(ip.into())),
        ]
    }

    fn written(end: &End) -> String {
        match end {
            End::Pod(key) => format!("pod/{key}"),
            End::Service(key) => format!("svc/{key}"),
            End::Node(name) => format!("node/{name}"),
            End::Address(IpAddr::V4(ip)) => ip.to_string(),
            End::Address(IpAddr::V6(ip)) => format!("[{ip}]"),
        }
    }

    proptest! {
        #[test]
        fn what_is_written_out_in_full_is_read_back(
            end in any_end(),
            port in proptest::option::of(prop_oneof![
                (1u16..).prop_map(PortRef::Number), "[a-z][-a-z0-9]{0,12}".prop_map(PortRef::Name),
            ]),
            protocol in proptest::option::of(proptest::sample::select(&Protocol::ALL[..])),
        ) {
            let mut text = written(&end);
            match &port {
                Some(PortRef::Number(number)) => text += &format!(":{number}"),
                Some(PortRef::Name(name)) => text += &format!(":{name}"),
                None => {}
            }
            if let Some(protocol) = protocol {
                text += &format!("/{}", protocol.as_neutron());
            }
            prop_assert_eq!(text.parse::<To>(), Ok(To { end, port, protocol }), "{}", text);
        }

        #[test]
        fn whatever_is_written_it_is_read_or_refused_in_one_line(text in "\\PC{0,40}") {
            if let Err(error) = text.parse::<To>() {
                prop_assert!(!error.to_string().contains('\n'));
            }
            let _ = from(&text);
        }
    }
}
