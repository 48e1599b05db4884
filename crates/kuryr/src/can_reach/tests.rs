//! Cases, told in manifests: who reaches whom, and what a person is told.

use super::{answer, ends, files, objects::Objects, print};
use std::path::Path;

/// Two tiers in one namespace, a client in another, and what else a cluster has.
const CLUSTER: &str = r#"
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: red}}}
- {apiVersion: v1, kind: Namespace, metadata: {name: other}}
- apiVersion: v1
  kind: Node
  metadata: {name: n1}
  status: {addresses: [{type: InternalIP, address: 192.0.2.1}, {type: Hostname, address: n1}]}
- apiVersion: v1
  kind: Pod
  metadata: {namespace: shop, name: web, labels: {app: web}}
  spec: {nodeName: n1, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}
  status: {phase: Running, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}
- apiVersion: v1
  kind: Pod
  metadata: {namespace: shop, name: db, labels: {app: db}}
  spec:
    nodeName: n2
    containers:
    - name: c
      ports: [{name: sql, containerPort: 5432}, {name: dns, containerPort: 53}, {name: dns, containerPort: 53, protocol: UDP}]
  status: {phase: Running, podIPs: [{ip: 10.0.0.2}]}
- apiVersion: v1
  kind: Pod
  metadata: {namespace: other, name: client, labels: {app: web}}
  spec: {nodeName: n1, containers: []}
  status: {phase: Running, podIPs: [{ip: 10.0.1.1}]}
- apiVersion: v1
  kind: Pod
  metadata: {namespace: shop, name: agent}
  spec: {nodeName: n1, hostNetwork: true, containers: []}
  status: {phase: Running, podIPs: [{ip: 192.0.2.1}]}
- apiVersion: v1
  kind: Pod
  metadata: {namespace: shop, name: done, labels: {app: web}}
  spec: {nodeName: n1, containers: []}
  status: {phase: Succeeded, podIPs: [{ip: 10.0.0.9}]}
- apiVersion: v1
  kind: Service
  metadata: {namespace: shop, name: db}
  spec: {clusterIP: 10.96.0.2, selector: {app: db}, ports: [{name: sql, port: 3306, targetPort: sql}, {name: dns, port: 53, protocol: UDP}]}
- apiVersion: v1
  kind: Service
  metadata: {namespace: shop, name: all}
  spec: {clusterIP: None, selector: {app: db}, ports: [{port: 1}]}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: of-no-concern}}
---
# Only web may reach the database, at its port; and a range, and SCTP.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: db}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: sql}]
  - from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: other}}}]
    ports: [{port: 7000, endPort: 7010}, {port: 9, protocol: SCTP}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: other, name: out}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
  - to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.1/32]}}]
"#;

fn objects(text: &str) -> Objects {
    let mut objects = Objects::default();
    files::parse(Path::new("cluster.yaml"), text, &mut objects).unwrap();
    objects
}

/// What a person is told, and the exit code that goes with it; the error if there is no answer.
fn asked(text: &str, from: &str, to: &str) -> (String, Option<bool>) {
    let cluster = objects(text).cluster();
    let answer = || -> anyhow::Result<(String, bool)> {
        let question = answer::question(&cluster, &ends::from(from)?, &to.parse()?)?;
        let verdict = answer::verdict(&cluster, &question)?;
        let answer = answer::answer(&cluster, &question, verdict.as_ref(), &[])?;
        let mut out = Vec::new();
        print::text(&answer, &mut out)?;
        Ok((String::from_utf8(out)?, answer.answer == "yes"))
    };
    match answer() {
        Ok((text, yes)) => (text, Some(yes)),
        Err(error) => (error.to_string(), None),
    }
}

#[test]
fn who_reaches_whom_in_a_cluster_of_two_tiers() {
    let (yes, no) = (Some(true), Some(false));
    for (from, to, answer) in [
        ("shop/web", "shop/db:5432", yes),
        ("shop/web", "shop/db:sql", yes),
        ("shop/web", "shop/db:3306", no),
        ("shop/web", "shop/db:5432/udp", no),
        ("shop/web", "shop/db:dns/udp", no),
        ("shop/web", "10.0.0.2:5432", yes),
        ("10.0.0.1", "shop/db:5432", yes),
        ("10.9.9.9", "shop/db:5432", no),
        // Through the Service it is the target's number that counts.
        ("shop/web", "svc/shop/db:3306", yes),
        ("shop/web", "svc/shop/db:sql", yes),
        ("shop/web", "10.96.0.2:3306", yes),
        ("shop/web", "svc/shop/db:53/udp", no),
        ("shop/web", "svc/shop/db:dns", no),
        ("other/client", "svc/shop/db:sql", no),
        // The same labels in another namespace are another matter.
        ("other/client", "shop/db:5432", no),
        ("other/client", "shop/db:7000", yes),
        ("other/client", "shop/db:7010", yes),
        ("other/client", "shop/db:6999", no),
        ("other/client", "shop/db:7011", no),
        ("other/client", "shop/db:9/sctp", yes),
        ("other/client", "shop/db:9/tcp", no),
        // An exception of a block.
        ("other/client", "shop/web:80", no),
        ("other/client", "203.0.113.1:80", no),
        ("other/client", "other/client:1234", yes),
        // Its own node, and one that is not.
        ("node/n1", "other/client:80", yes),
        ("other/client", "node/n1:10250", yes),
        ("node/n1", "shop/db:5432", no),
        ("shop/agent", "shop/db:5432", no),
        ("shop/agent", "shop/web:80", yes),
        ("shop/web", "shop/agent:80", yes),
        ("shop/db", "shop/db:1", yes),
        ("shop/db", "svc/shop/db:sql", yes),
        ("shop/db", "shop/web:8080/sctp", yes),
    ] {
        let (text, found) = asked(CLUSTER, from, to);
        assert_eq!(found, answer, "{from} {to}: {text}");
        let begins = if answer == yes { "yes: " } else { "no: " };
        assert!(text.starts_with(begins), "{from} {to}: {text}");
    }
}

#[test]
fn of_a_pod_that_shares_the_port_of_its_node_it_is_told_that_nothing_restricts_it() {
    let id = "00000000-0000-4000-8000-000000000001";
    let port = format!(
        r#"{CLUSTER}
---
apiVersion: kuryr.openstack.org/v1
kind: KuryrPort
metadata: {{namespace: shop, name: db}}
spec:
  podUid: shop/db
  nodeName: n2
  vifs:
  - {{interface: eth0, portId: {id}, networkId: {id}, mac: "fa:16:3e:00:00:01", mtu: 1442, addresses: [{{ip: 10.0.0.2, prefixLength: 24}}],
      plug: {{driver: macvlan, parent: {{portId: {id}, mac: "fa:16:3e:00:00:02"}}}}}}
"#
    );
    let (text, found) = asked(&port, "other/client", "shop/db:5432");
    assert_eq!(found, Some(false), "{text}");
    assert!(text.contains("but now: pod shop/db is not restricted: it shares the port of its node"), "{text}");
    let (text, _) = asked(&port, "shop/web", "shop/db:5432");
    assert!(!text.contains("but now") && text.contains("note: pod shop/db shares the port of its node"), "{text}");
    assert!(!asked(CLUSTER, "other/client", "shop/db:5432").0.contains("but now"));
}

#[test]
fn what_cannot_be_answered_says_why_and_what_was_meant_perhaps() {
    for (from, to, words) in [
        ("shop/done", "shop/db:1", "pod shop/done is completed"),
        ("shop/web", "shop/done:1", "pod shop/done is completed"),
        ("shop/w", "shop/db:1", "there is no pod shop/w; there is shop/web"),
        ("shop/web", "shop/all:1", "there is a Service of this name: svc/shop/all"),
        ("shop/web", "svc/shop/all:1", "headless"),
        ("shop/web", "svc/shop/web:1", "there is no Service shop/web with a cluster IP; there is a pod of this name"),
        ("shop/web", "svc/shop/db:5432", "no port 5432/TCP; it has 3306/TCP and 53/UDP"),
        ("shop/web", "svc/shop/db:http", "no port named \"http\"; it has sql (TCP 3306) and dns (UDP 53)"),
        ("shop/web", "shop/db:http", "no port named \"http\"; it has sql (TCP 5432), dns (TCP 53) and dns (UDP 53)"),
        ("shop/web", "shop/db:dns", "for TCP and for UDP: say which, like :dns/UDP"),
        ("shop/web", "node/n1:http", "give the number"),
        ("shop/web", "node/n9:1", "there is no node n9"),
        ("svc/shop/db", "shop/web:1", "does not reach out"),
        ("shop/web", "shop/db:0", "from 1 to 65535"),
    ] {
        let (text, found) = asked(CLUSTER, from, to);
        assert!(found.is_none() && text.contains(words), "{from} {to}: {text}");
    }
}

#[test]
fn an_operator_is_told_who_decides_it() {
    assert_eq!(
        asked(CLUSTER, "shop/web", "shop/db:5432").0,
        "yes: pod shop/web reaches pod shop/db at TCP 5432\n\n  ✓ pod shop/web sends: no policy isolates it for egress\n  ✓ shop/db \
         receives: a rule allows it\n      shop/db spec.ingress[0]: the TCP port named \"sql\" from pods app=web in namespace \
         shop\n\n  note: Service shop/db is answered by the pods that its selector means: there are no EndpointSlices here\n"
    );
    let (text, _) = asked(CLUSTER, "other/client", "shop/db:5432");
    for words in [
        "✓ pod other/client sends: a rule allows it\n      other/out spec.egress[0]: everything to addresses in 10.0.0.0/8 except 10.0.0.1/32\n",
        "✗ shop/db receives: isolated for ingress, and no rule allows it\n",
        "shop/db spec.ingress[0]: the TCP port named \"sql\" from pods app=web in namespace shop (not the other end)\n",
        "shop/db spec.ingress[1]: TCP 7000-7010 and SCTP 9 from all pods in namespaces kubernetes.io/metadata.name=other (not this port number)\n",
    ] {
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn without_a_port_number_it_says_which_are_open() {
    for (from, to, line) in [
        ("shop/web", "shop/db", "partly: pod shop/web reaches pod shop/db at only: TCP 5432\n"),
        ("other/client", "shop/db", "partly: pod other/client reaches pod shop/db at only: TCP 7000-7010; SCTP 9\n"),
        ("other/client", "shop/db/udp", "no: pod other/client reaches no port number of UDP of pod shop/db\n"),
        (
            "shop/db",
            "shop/web",
            "yes: pod shop/db reaches pod shop/web at all that is there: TCP all; UDP all; SCTP all\n",
        ),
        ("shop/web", "svc/shop/db", "partly: pod shop/web reaches Service shop/db at only: TCP 3306\n"),
    ] {
        let (text, _) = asked(CLUSTER, from, to);
        assert!(text.starts_with(line), "{from} {to}: {text}");
    }
}

/// What somebody is about to apply: nothing has an address, a node or a UID yet.
const MANIFESTS: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: x}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c, image: x, ports: [{name: sql, containerPort: 5432}]}]}}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {selector: {app: db}, ports: [{port: 80, targetPort: sql}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress: [{to: [{podSelector: {matchLabels: {app: db}}}]}]
---
---
"#;

#[test]
fn manifests_are_answered_before_they_are_applied() {
    for (from, to, answer) in [
        ("default/web", "default/db:5432", true),
        ("default/web", "default/db:80", false),
        ("default/web", "svc/default/db:80", true),
        ("default/web", "203.0.113.1:443", false),
        ("default/db", "default/web:80", true),
    ] {
        let (text, found) = asked(MANIFESTS, from, to);
        assert_eq!(found, Some(answer), "{from} {to}: {text}");
        assert!(!text.contains("0.0.0."), "an address that was made up is shown: {text}");
    }
    let (text, _) = asked(MANIFESTS, "default/web", "svc/default/db:80");
    assert!(text.contains("through 80/TCP to default/db at 5432"), "{text}");
    assert!(text.contains("namespace default is not described"), "{text}");
}

#[test]
fn a_pod_that_is_there_stands_for_what_made_it() {
    let text = format!(
        "{MANIFESTS}\n---\napiVersion: v1\nkind: Pod\nmetadata: {{namespace: default, name: web-0, labels: {{app: web, more: of-them}}}}\n"
    );
    let cluster = objects(&text).cluster();
    let names: Vec<String> = cluster.world.pods.keys().map(ToString::to_string).collect();
    assert_eq!(names, ["default/db", "default/web-0"]);
}

#[test]
fn files_that_cannot_be_used_are_named_with_the_place() {
    let error = |text: &str| files::parse(Path::new("x.yaml"), text, &mut Objects::default()).unwrap_err().to_string();
    for (text, words) in [
        ("a: [", "x.yaml: "),
        ("a: {{ .Values.x }}\nb: }", "x.yaml: "),
        ("kind: Pod\nmetadata: {name: x}", "document 1, Pod x: an object of Kubernetes has apiVersion and kind"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {}", "it has no metadata.name"),
        (
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n---\napiVersion: networking.k8s.io/v1\nkind: \
             NetworkPolicy\nmetadata: {name: np}\nspec: {podSelector: 5}",
            "x.yaml: document 2, NetworkPolicy np: ",
        ),
    ] {
        let said = error(text);
        assert!(said.contains(words) && !said.contains('\n'), "{text:?} gave {said:?}");
    }
    assert!(files::read(&["/nowhere/at-all".into()]).unwrap_err().to_string().contains("/nowhere/at-all"));
}

#[test]
fn folders_are_read_and_what_is_no_manifest_in_them_is_not() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("more")).unwrap();
    let pod =
        |name: &str| format!("apiVersion: v1\nkind: PodList\nitems: [{{metadata: {{namespace: a, name: {name}}}}}]");
    for (path, text) in [("a.yaml", pod("one")), ("more/b.yml", pod("two")), ("README.md", "a: [".to_owned())] {
        std::fs::write(folder.path().join(path), text).unwrap();
    }
    let json = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": "three"}}"#;
    std::fs::write(folder.path().join("more/c.json"), json).unwrap();
    let read = files::read(&[folder.path().to_owned()]).unwrap();
    let names: Vec<&str> = read.pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
    assert_eq!(names, ["one", "two", "three"]);
    let empty = tempfile::tempdir().unwrap();
    assert!(files::read(&[empty.path().to_owned()]).unwrap_err().to_string().contains("there is no pod"));
}
