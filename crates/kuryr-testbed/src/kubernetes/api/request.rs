//! What a request asks for: the path and the query of the Kubernetes API taken apart.

use std::collections::HashMap;

use http::Method;
use percent_encoding::percent_decode_str;

/// The part of the URL's path that names a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: Option<String>,
    pub(crate) resource: String,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
}

impl Target {
    /// Parses `/api/v1/...` and `/apis/<group>/<version>/...`; `None` if the path names no resource.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let parts: Vec<String> = path
            .split('/')
            .filter(|part| !part.is_empty())
            .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
            .collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let mut target = Self { group: group.into(), version: version.into(), ..Self::default() };
        let rest = match rest {
            ["namespaces", namespace, "status" | "finalize"] => {
                target.resource = "namespaces".into();
                target.name = Some((*namespace).into());
                target.subresource = rest.last().map(|s| (*s).into());
                return Some(target);
            }
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => {
                target.namespace = Some((*namespace).into());
                rest
            }
            rest => rest,
        };
        match rest {
            [resource] => target.resource = (*resource).into(),
            [resource, name] => {
                target.resource = (*resource).into();
                target.name = Some((*name).into());
            }
            [resource, name, sub] => {
                target.resource = (*resource).into();
                target.name = Some((*name).into());
                target.subresource = Some((*sub).into());
            }
            _ => return None,
        }
        Some(target)
    }

    /// The verb in the sense of RBAC and of the call log.
    pub(crate) fn verb(&self, method: &Method, query: &Query) -> &'static str {
        match (method.as_str(), &self.name) {
            ("GET" | "HEAD", _) if query.flag("watch") => "watch",
            ("GET" | "HEAD", Some(_)) => "get",
            ("GET" | "HEAD", None) => "list",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", Some(_)) => "delete",
            ("DELETE", None) => "deletecollection",
            _ => "unknown",
        }
    }

    /// `pods` or `pods/status`.
    pub(crate) fn full_resource(&self) -> String {
        match &self.subresource {
            Some(sub) => format!("{}/{sub}", self.resource),
            None => self.resource.clone(),
        }
    }
}

/// The query of a URL.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(HashMap<String, String>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        Self(form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// The value of a parameter that is given and not empty.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether a boolean parameter is set.
    pub(crate) fn flag(&self, key: &str) -> bool {
        matches!(self.get(key), Some("true" | "1"))
    }

    /// The value of a numeric parameter.
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.get(key).and_then(|value| value.parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_resources() {
        let pod = Target::parse("/api/v1/namespaces/a/pods/b/status").unwrap();
        assert_eq!(pod.full_resource(), "pods/status");
        assert_eq!((pod.namespace.as_deref(), pod.name.as_deref()), (Some("a"), Some("b")));
        let all = Target::parse("/apis/kuryr.openstack.org/v1/kuryrports").unwrap();
        assert_eq!((all.group.as_str(), all.namespace, all.name), ("kuryr.openstack.org", None, None));
        let namespace = Target::parse("/api/v1/namespaces/a").unwrap();
        assert_eq!((namespace.resource.as_str(), namespace.name.as_deref()), ("namespaces", Some("a")));
        let status = Target::parse("/api/v1/namespaces/a/status").unwrap();
        assert_eq!(status.full_resource(), "namespaces/status");
        assert_eq!(Target::parse("/healthz"), None);
    }

    #[test]
    fn verbs_follow_method_name_and_watch() {
        let list = Target::parse("/api/v1/pods").unwrap();
        let one = Target::parse("/api/v1/namespaces/a/pods/b").unwrap();
        assert_eq!(list.verb(&Method::GET, &Query::parse(Some("watch=true"))), "watch");
        assert_eq!(list.verb(&Method::GET, &Query::default()), "list");
        assert_eq!(list.verb(&Method::DELETE, &Query::default()), "deletecollection");
        assert_eq!(one.verb(&Method::DELETE, &Query::default()), "delete");
    }
}
