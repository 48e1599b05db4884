//! `CNI_ARGS`: which pod a container is the sandbox of.

use super::{CniError, Code};
use kuryr_model::{ObjectKey, PodUid};

/// The pod of a sandbox, as the runtime names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Its UID; older runtimes do not say.
    pub uid: Option<PodUid>,
}

impl PodRef {
    /// Whether the pod of `uid`, as the API server knows it, can be the one that the runtime means.
    ///
    /// Kubelet names a static pod by the hash of its manifest (32 hexadecimal digits), the API server gives its mirror
    /// pod a UUID: such pods are told by name alone.
    #[must_use]
    pub fn is(&self, uid: &PodUid) -> bool {
        match &self.uid {
            Some(ours) => ours == uid || (ours.as_str().len() == 32 && !ours.as_str().contains('-')),
            None => true,
        }
    }
}

/// Reads `KEY=VALUE;KEY=VALUE`. Keys that mean nothing to us are left to whom they mean something.
///
/// # Errors
/// A pair has no `=`, or the pod's namespace or name is missing.
pub fn parse(args: &str) -> Result<PodRef, CniError> {
    let (mut namespace, mut name, mut uid) = (None, None, None);
    for pair in args.split(';').filter(|pair| !pair.is_empty()) {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(error(format!("CNI_ARGS has {pair:?}, which is not of the form KEY=VALUE")));
        };
        match key {
            "K8S_POD_NAMESPACE" => namespace = Some(value),
            "K8S_POD_NAME" => name = Some(value),
            "K8S_POD_UID" => uid = Some(value),
            _ => {}
        }
    }
    let present = |value: Option<&str>, key: &str| match value {
        Some(value) if !value.is_empty() && !value.contains('/') => Ok(value.to_owned()),
        Some(value) => Err(error(format!("CNI_ARGS has {key}={value:?}, which names no pod"))),
        None => Err(error(format!("CNI_ARGS has no {key}; only pods of Kubernetes can be given a port"))),
    };
    let key = ObjectKey::new(present(namespace, "K8S_POD_NAMESPACE")?, present(name, "K8S_POD_NAME")?);
    Ok(PodRef { key, uid: uid.filter(|uid| !uid.is_empty()).map(PodUid::from) })
}

fn error(message: String) -> CniError {
    CniError::new(Code::Environment, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_container_runtimes_write() {
        let pod = parse(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_INFRA_CONTAINER_ID=c0ffee;K8S_POD_UID=u-1",
        );
        assert_eq!(pod.unwrap(), PodRef { key: ObjectKey::new("shop", "web-0"), uid: Some("u-1".into()) });
        assert_eq!(parse("K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;").unwrap().uid, None);
    }

    #[test]
    fn what_is_missing_is_named() {
        for (args, words) in [
            ("", "K8S_POD_NAMESPACE"),
            ("K8S_POD_NAMESPACE=a", "K8S_POD_NAME"),
            ("K8S_POD_NAMESPACE=a;K8S_POD_NAME=", "K8S_POD_NAME"),
            ("K8S_POD_NAMESPACE=a;K8S_POD_NAME=../b", "../b"),
            ("K8S_POD_NAMESPACE", "KEY=VALUE"),
        ] {
            let error = parse(args).unwrap_err();
            assert_eq!(error.code, Code::Environment);
            assert!(error.message.contains(words), "{}", error.message);
        }
    }

    #[test]
    fn a_pod_is_told_by_uid_unless_it_is_static_or_the_runtime_is_old() {
        let uid = PodUid::from("0d4bbd2b-6a1f-4cf2-9a5a-3d3f9b1f2c11");
        let pod = |uid: Option<&str>| PodRef { key: ObjectKey::new("a", "b"), uid: uid.map(PodUid::from) };
        assert!(pod(Some(uid.as_str())).is(&uid));
        assert!(!pod(Some("0d4bbd2b-6a1f-4cf2-9a5a-3d3f9b1f2c12")).is(&uid));
        assert!(pod(Some("0d4bbd2b6a1f4cf29a5a3d3f9b1f2c12")).is(&uid));
        assert!(pod(None).is(&uid));
    }
}
