//! What every cluster puts on Services first: its DNS, and a router for host names. The real ones, with `dig` and `curl`.

use super::services::{SOON, client};
use crate::world::{NewPod, World, cluster_ip, services::SERVED};
use anyhow::{Context, ensure};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Pod, Secret, ServiceAccount},
    rbac::v1::ClusterRoleBinding,
};
use kube::{
    Api, Resource,
    api::{DeleteParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{fmt::Debug, fs, path::Path};
use tokio::{process::Command, time::timeout};

/// Anew where an earlier run of the scenario on this stack left one.
async fn make<K>(api: &Api<K>, object: Value) -> anyhow::Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    let object: K = serde_json::from_value(object)?;
    match api.delete(object.meta().name.as_deref().unwrap_or_default(), &DeleteParams::default()).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        Err(error) => return Err(error.into()),
    }
    api.create(&PostParams::default(), &object).await?;
    Ok(())
}

/// Runs a program in a network namespace until it prints what is looked for.
async fn until(netns: &Path, program: &[&str], wanted: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let mut last = String::new();
    let printed = async {
        loop {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={}", netns.display())).args(program);
            let output = command.output().await.with_context(|| format!("{command:?}"))?;
            last = String::from_utf8_lossy(&output.stdout).into_owned();
            if wanted(&last) {
                return anyhow::Ok(());
            }
        }
    };
    match timeout(SOON, printed).await {
        Ok(done) => done,
        Err(_) => anyhow::bail!("{} prints {last:?}", program.join(" ")),
    }
}

/// A pod of one of the stack's images, with a volume of this source at `path`.
async fn run_image(world: &World, app: &str, account: &str, path: &str, volume: Value) -> anyhow::Result<()> {
    let mut volume = volume;
    volume["name"] = json!("config");
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), world.namespace());
    make(
        &pods,
        json!({
            "metadata": {"name": app, "labels": {"app": app}},
            "spec": {
                "serviceAccountName": account, "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "main", "image": format!("kuryr.test/{app}:1"), "imagePullPolicy": "IfNotPresent",
                    "volumeMounts": [{"name": "config", "mountPath": path}],
                }],
                "volumes": [volume],
            },
        }),
    )
    .await?;
    world.pods().running(app).await.map(drop)
}

pub(super) async fn coredns_answers_pods_over_udp_and_tcp(world: &mut World) -> anyhow::Result<()> {
    let namespace = world.namespace().to_owned();
    let accounts: Api<ServiceAccount> = Api::namespaced(world.client.clone(), &namespace);
    make(&accounts, json!({"metadata": {"name": "dns"}})).await?;
    let bindings: Api<ClusterRoleBinding> = Api::all(world.client.clone());
    make(
        &bindings,
        json!({
            "metadata": {"name": &namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": "dns", "namespace": &namespace}],
        }),
    )
    .await?;
    let told = dns(world).await;
    bindings.delete(&namespace, &DeleteParams::default()).await?;
    told
}

async fn dns(world: &World) -> anyhow::Result<()> {
    const COREFILE: &str = ".:53 {\n errors\n kubernetes cluster.local\n}\n";
    let services = world.services();
    let named = services.create("named", json!({})).await?;
    let ports = json!({"ports": [
        {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]});
    let service = services.create("coredns", ports).await?;
    let config: Api<ConfigMap> = Api::namespaced(world.client.clone(), world.namespace());
    make(&config, json!({"metadata": {"name": "coredns"}, "data": {"Corefile": COREFILE}})).await?;
    // It asks the API server by the cluster IP of the Service "kubernetes".
    run_image(world, "coredns", "dns", "/etc/coredns", json!({"configMap": {"name": "coredns"}})).await?;
    let from = client(world).await?;
    services.ready("coredns", 1).await?;
    let name = format!("named.{}.svc.cluster.local", world.namespace());
    let (server, wanted) = (format!("@{}", cluster_ip(&service)?), cluster_ip(&named)?.to_string());
    for transport in ["+notcp", "+tcp"] {
        let dig = ["dig", server.as_str(), name.as_str(), transport, "+short", "+tries=1", "+time=2"];
        until(&from, &dig, |printed| printed.trim() == wanted).await?;
    }
    Ok(())
}

pub(super) async fn haproxy_routes_host_names_from_outside_to_services(world: &mut World) -> anyhow::Result<()> {
    const APPS: [&str; 2] = ["shop", "blog"];
    let services = world.services();
    let mut config = "defaults\n mode http\n timeout connect 5s\n timeout client 10s\n timeout server 10s\n\
                      frontend all\n bind :80\n bind :443 ssl crt /etc/haproxy/tls.pem\n use_backend %[req.hdr(host),field(1,.)]\n"
        .to_owned();
    for app in APPS {
        let serve = format!("mkdir -p /www && echo {app} > /www/index.html && exec httpd -f -p {SERVED} -h /www");
        world.run_pod(&NewPod::new(app).app(app).command(&["sh", "-c", &serve]), app).await?;
        let service = services.create(app, json!({})).await?;
        services.ready(app, 1).await?;
        config += &format!("backend {app}\n server {app} {}:80\n", cluster_ip(&service)?);
    }
    let ports = json!({"type": "LoadBalancer", "ports": [
        {"name": "http", "port": 80, "targetPort": 80}, {"name": "https", "port": 443, "targetPort": 443},
    ]});
    services.create("haproxy", ports).await?;
    let secrets: Api<Secret> = Api::namespaced(world.client.clone(), world.namespace());
    let files = json!({"haproxy.cfg": config, "tls.pem": certificate().await?});
    make(&secrets, json!({"metadata": {"name": "haproxy"}, "stringData": files})).await?;
    run_image(world, "haproxy", "default", "/etc/haproxy", json!({"secret": {"secretName": "haproxy"}})).await?;
    services.ready("haproxy", 1).await?;
    let outside = services.ingress("haproxy").await?;
    for app in APPS {
        for (scheme, number) in [("http", 80), ("https", 443)] {
            let (url, resolve) = (format!("{scheme}://{app}.test/"), format!("{app}.test:{number}:{outside}"));
            let curl =
                ["curl", "--silent", "--insecure", "--noproxy", "*", "--max-time", "5", "--resolve", &resolve, &url];
            until(&world.outside(), &curl, |printed| printed.trim() == app).await?;
        }
    }
    Ok(())
}

/// A certificate for whomever, signed by itself, and its key.
async fn certificate() -> anyhow::Result<String> {
    let folder = tempfile::tempdir()?;
    let (key, certificate) = (folder.path().join("key"), folder.path().join("certificate"));
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=*.test",
    ]);
    let output = command.arg("-keyout").arg(&key).arg("-out").arg(&certificate).output().await?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(fs::read_to_string(certificate)? + &fs::read_to_string(key)?)
}
