//! Bodies in Kubernetes' protobuf, which kubectl uses for built-in kinds in commands like `create namespace`.
//!
//! Only the messages that such commands send are known; a field that is not is refused by name.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::status::ApiError;

/// What precedes every body.
const MAGIC: &[u8] = b"k8s\0";

/// Message, then `number:field:type`: s string, b boolean, i integer, y bytes, m map to strings, n map to bytes,
/// q map to quantities, - nothing that a create keeps, or a message; * for a list.
const MESSAGES: &[(&str, &str)] = &[
    (
        "ObjectMeta",
        "1:name:s 2:generateName:s 3:namespace:s 4:selfLink:s 5:uid:s 6:resourceVersion:s 7:generation:i \
         8:creationTimestamp:Time 9:deletionTimestamp:Time 10:deletionGracePeriodSeconds:i 11:labels:m 12:annotations:m \
         13:ownerReferences:*OwnerReference 14:finalizers:*s",
    ),
    ("OwnerReference", "5:apiVersion:s 1:kind:s 3:name:s 4:uid:s 6:controller:b 7:blockOwnerDeletion:b"),
    ("LabelSelector", "1:matchLabels:m 2:matchExpressions:*LabelSelectorRequirement"),
    ("LabelSelectorRequirement", "1:key:s 2:operator:s 3:values:*s"),
    (
        "DeleteOptions",
        "1:gracePeriodSeconds:i 2:preconditions:Preconditions 3:orphanDependents:b 4:propagationPolicy:s 5:dryRun:*s",
    ),
    ("Preconditions", "1:uid:s 2:resourceVersion:s"),
    ("Namespace", "1:metadata:ObjectMeta 2:spec:NamespaceSpec 3:status:-"),
    ("NamespaceSpec", "1:finalizers:*s"),
    ("ConfigMap", "1:metadata:ObjectMeta 4:immutable:b 2:data:m 3:binaryData:n"),
    ("Secret", "1:metadata:ObjectMeta 5:immutable:b 2:data:n 4:stringData:m 3:type:s"),
    (
        "ServiceAccount",
        "1:metadata:ObjectMeta 3:imagePullSecrets:*LocalObjectReference 4:automountServiceAccountToken:b",
    ),
    ("LocalObjectReference", "1:name:s"),
    ("Service", "1:metadata:ObjectMeta 2:spec:ServiceSpec 3:status:-"),
    (
        "ServiceSpec",
        "1:ports:*ServicePort 2:selector:m 3:clusterIP:s 18:clusterIPs:*s 4:type:s 5:externalIPs:*s 7:sessionAffinity:s \
         8:loadBalancerIP:s 9:loadBalancerSourceRanges:*s 10:externalName:s 11:externalTrafficPolicy:s \
         12:healthCheckNodePort:i 13:publishNotReadyAddresses:b 19:ipFamilies:*s 17:ipFamilyPolicy:s \
         20:allocateLoadBalancerNodePorts:b 21:loadBalancerClass:s 22:internalTrafficPolicy:s 23:trafficDistribution:s",
    ),
    ("ServicePort", "1:name:s 2:protocol:s 6:appProtocol:s 3:port:i 4:targetPort:IntOrString 5:nodePort:i"),
    ("PodTemplateSpec", "1:metadata:ObjectMeta 2:spec:PodSpec"),
    (
        "PodSpec",
        "20:initContainers:*Container 2:containers:*Container 3:restartPolicy:s 4:terminationGracePeriodSeconds:i \
         5:activeDeadlineSeconds:i 6:dnsPolicy:s 7:nodeSelector:m 8:serviceAccountName:s 9:serviceAccount:s \
         21:automountServiceAccountToken:b 10:nodeName:s 11:hostNetwork:b 12:hostPID:b 13:hostIPC:b 16:hostname:s \
         17:subdomain:s 19:schedulerName:s 24:priorityClassName:s 25:priority:i 30:enableServiceLinks:b",
    ),
    (
        "Container",
        "1:name:s 2:image:s 3:command:*s 4:args:*s 5:workingDir:s 6:ports:*ContainerPort 7:env:*EnvVar \
         8:resources:ResourceRequirements 24:restartPolicy:s 13:terminationMessagePath:s 20:terminationMessagePolicy:s \
         14:imagePullPolicy:s 16:stdin:b 17:stdinOnce:b 18:tty:b",
    ),
    ("ContainerPort", "1:name:s 2:hostPort:i 3:containerPort:i 4:protocol:s 5:hostIP:s"),
    ("EnvVar", "1:name:s 2:value:s"),
    ("ResourceRequirements", "1:limits:q 2:requests:q"),
    ("Deployment", "1:metadata:ObjectMeta 2:spec:DeploymentSpec 3:status:-"),
    (
        "DeploymentSpec",
        "1:replicas:i 2:selector:LabelSelector 3:template:PodTemplateSpec 4:strategy:DeploymentStrategy \
         5:minReadySeconds:i 6:revisionHistoryLimit:i 7:paused:b 9:progressDeadlineSeconds:i",
    ),
    ("DeploymentStrategy", "1:type:s"),
    ("Job", "1:metadata:ObjectMeta 2:spec:JobSpec 3:status:-"),
    (
        "JobSpec",
        "1:parallelism:i 2:completions:i 3:activeDeadlineSeconds:i 7:backoffLimit:i 4:selector:LabelSelector \
         5:manualSelector:b 6:template:PodTemplateSpec 8:ttlSecondsAfterFinished:i 9:completionMode:s 10:suspend:b",
    ),
    ("Role", "1:metadata:ObjectMeta 2:rules:*PolicyRule"),
    ("ClusterRole", "1:metadata:ObjectMeta 2:rules:*PolicyRule"),
    ("RoleBinding", "1:metadata:ObjectMeta 2:subjects:*Subject 3:roleRef:RoleRef"),
    ("ClusterRoleBinding", "1:metadata:ObjectMeta 2:subjects:*Subject 3:roleRef:RoleRef"),
    ("PolicyRule", "1:verbs:*s 2:apiGroups:*s 3:resources:*s 4:resourceNames:*s 5:nonResourceURLs:*s"),
    ("RoleRef", "1:apiGroup:s 2:kind:s 3:name:s"),
    ("Subject", "1:kind:s 2:apiGroup:s 3:name:s 4:namespace:s"),
    ("Eviction", "1:metadata:ObjectMeta 2:deleteOptions:DeleteOptions"),
    ("PriorityClass", "1:metadata:ObjectMeta 2:value:i 3:globalDefault:b 4:description:s 5:preemptionPolicy:s"),
    ("Unknown", "1:typeMeta:TypeMeta 2:raw:y 3:contentEncoding:s 4:contentType:s"),
    ("TypeMeta", "1:apiVersion:s 2:kind:s"),
];

/// The object in a protobuf body.
pub(crate) fn decode(body: &[u8]) -> Result<Value, ApiError> {
    decode_object(body).map_err(|why| {
        ApiError::new(
            415,
            "UnsupportedMediaType",
            format!("cannot decode this protobuf body ({why}); send JSON instead"),
        )
    })
}

fn decode_object(body: &[u8]) -> Result<Value, String> {
    let mut rest = body.strip_prefix(MAGIC).ok_or("it does not begin as Kubernetes' protobuf does")?;
    let (mut kind, mut api_version, mut raw) = (Value::Null, Value::Null, &[][..]);
    while !rest.is_empty() {
        let (number, field) = next(&mut rest)?;
        match (number, field) {
            (1, Field::Bytes(bytes)) => {
                let meta = message("TypeMeta", bytes)?;
                kind = meta["kind"].clone();
                api_version = meta["apiVersion"].clone();
            }
            (2, Field::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let mut object = message(kind.as_str().unwrap_or_default(), raw)?;
    object["kind"] = kind;
    object["apiVersion"] = api_version;
    Ok(object)
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn varint(input: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first().ok_or("it is cut short")?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number is too long".into())
}

/// Takes the next field and its number.
fn next<'a>(input: &mut &'a [u8]) -> Result<(u64, Field<'a>), String> {
    let tag = varint(input)?;
    let field = match tag & 7 {
        0 => Field::Number(varint(input)?),
        2 => {
            let length = usize::try_from(varint(input)?).map_err(|_| "a field is too long")?;
            let (bytes, rest) = input.split_at_checked(length).ok_or("it is cut short")?;
            *input = rest;
            Field::Bytes(bytes)
        }
        other => return Err(format!("wire type {other} is not used by Kubernetes")),
    };
    Ok((tag >> 3, field))
}

fn text(bytes: &[u8]) -> Result<Value, String> {
    std::str::from_utf8(bytes).map(|text| json!(text)).map_err(|_| "a string is not UTF-8".into())
}

/// A message as JSON; empty strings and messages, which protobuf sends for what is not set, are left out.
fn message(name: &str, mut input: &[u8]) -> Result<Value, String> {
    match name {
        "Time" => return time(input),
        "IntOrString" => return int_or_string(input),
        _ => {}
    }
    let known = MESSAGES.iter().find(|(known, _)| *known == name).map(|(_, fields)| *fields);
    let mut object = Map::new();
    while !input.is_empty() {
        let fields = known.ok_or_else(|| format!("{name} is not known"))?;
        let (number, field) = next(&mut input)?;
        let number = number.to_string();
        let mut specs = fields.split_whitespace().filter_map(|field| field.split_once(':'));
        let spec = specs.find(|(known, _)| *known == number).and_then(|(_, spec)| spec.split_once(':'));
        let (key, kind) = spec.ok_or_else(|| format!("field {number} of {name} is not known"))?;
        put(&mut object, key, kind, &field)?;
    }
    Ok(Value::Object(object))
}

fn put(object: &mut Map<String, Value>, key: &str, kind: &str, field: &Field<'_>) -> Result<(), String> {
    let (list, kind) = kind.strip_prefix('*').map_or((false, kind), |kind| (true, kind));
    let value = match (kind, field) {
        ("-", _) => return Ok(()),
        ("b", Field::Number(number)) => json!(*number != 0),
        ("i", Field::Number(number)) => json!(number.cast_signed()),
        ("s", Field::Bytes(bytes)) => text(bytes)?,
        ("y", Field::Bytes(bytes)) => json!(STANDARD.encode(bytes)),
        ("m" | "n" | "q", Field::Bytes(bytes)) => {
            let (name, value) = map_entry(kind, bytes)?;
            super::object::map(object.entry(key).or_insert_with(|| json!({}))).insert(name, value);
            return Ok(());
        }
        (kind, Field::Bytes(bytes)) => message(kind, bytes)?,
        (_, Field::Number(_)) => return Err(format!("{key} is not a number")),
    };
    if list {
        if let Value::Array(items) = object.entry(key).or_insert_with(|| json!([])) {
            items.push(value);
        }
    } else if value != json!("") && value != json!({}) && !value.is_null() {
        object.insert(key.to_owned(), value);
    }
    Ok(())
}

fn map_entry(kind: &str, mut input: &[u8]) -> Result<(String, Value), String> {
    let (mut key, mut value) = (String::new(), json!(""));
    while !input.is_empty() {
        match next(&mut input)? {
            (1, Field::Bytes(bytes)) => key = text(bytes)?.as_str().unwrap_or_default().to_owned(),
            (2, Field::Bytes(bytes)) if kind == "n" => value = json!(STANDARD.encode(bytes)),
            (2, Field::Bytes(mut bytes)) if kind == "q" => {
                if let (1, Field::Bytes(quantity)) = next(&mut bytes)? {
                    value = text(quantity)?;
                }
            }
            (2, Field::Bytes(bytes)) => value = text(bytes)?,
            _ => {}
        }
    }
    Ok((key, value))
}

fn time(mut input: &[u8]) -> Result<Value, String> {
    let mut seconds = 0;
    while !input.is_empty() {
        if let (1, Field::Number(number)) = next(&mut input)? {
            seconds = number.cast_signed();
        }
    }
    let at = jiff::Timestamp::from_second(seconds).map_err(|error| error.to_string())?;
    Ok(if seconds == 0 { Value::Null } else { json!(super::object::timestamp(at)) })
}

fn int_or_string(mut input: &[u8]) -> Result<Value, String> {
    let (mut is_text, mut number, mut string) = (false, json!(0), json!(""));
    while !input.is_empty() {
        match next(&mut input)? {
            (1, Field::Number(kind)) => is_text = kind == 1,
            (2, Field::Number(value)) => number = json!(value.cast_signed()),
            (3, Field::Bytes(bytes)) => string = text(bytes)?,
            _ => {}
        }
    }
    Ok(if is_text { string } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).unwrap()];
        out.extend_from_slice(bytes);
        out
    }

    fn body(kind: &str, raw: &[u8]) -> Vec<u8> {
        let types = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &types), field(2, raw), field(3, b"")].concat()
    }

    #[test]
    fn a_config_map_is_decoded() {
        let meta = [field(1, b"c"), field(2, b""), field(8, b"")].concat();
        let entry = [field(1, b"a"), field(2, b"b")].concat();
        let raw = [field(1, &meta), field(2, &entry)].concat();
        let wanted =
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c" }, "data": { "a": "b" } });
        assert_eq!(decode(&body("ConfigMap", &raw)).unwrap(), wanted);
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let odd = decode(&body("ConfigMap", &field(9, b"x"))).unwrap_err();
        assert_eq!(odd.code, 415);
        assert!(odd.message.contains("field 9 of ConfigMap is not known"), "{}", odd.message);
        assert!(decode(&body("Gadget", &field(1, b"x"))).unwrap_err().message.contains("Gadget is not known"));
        for cut in 4..body("ConfigMap", &field(2, b"abc")).len() {
            // Cut anywhere, it is an error or less, never a panic.
            let _ = decode(&body("ConfigMap", &field(2, b"abc"))[..cut]);
        }
    }
}
