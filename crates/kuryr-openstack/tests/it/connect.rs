//! What a person reads when there is no connection, and that no secret is ever among it.

use crate::server::{PASSWORD, Server, ok};
use kuryr_openstack::{Cloud, CloudConfig, ConnectError, Service, chain};
use serde_json::json;
use tokio::net::TcpListener;

async fn refused(config: CloudConfig) -> (ConnectError, String) {
    let error = Cloud::connect(config).await.unwrap_err();
    let text = chain(&error);
    assert!(!text.contains(PASSWORD) && !format!("{error:?}").contains(PASSWORD), "{error:?}");
    (error, text)
}

#[tokio::test]
async fn nobody_at_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let (error, text) = refused(CloudConfig::password(&url, "kuryr", PASSWORD, "k8s", "Default")).await;
    assert!(error.is_transient());
    assert!(text.starts_with(&format!("Keystone at {url}/v3 does not answer (check auth_url")), "{text}");
    assert!(text.contains("Connection refused"), "{text}");
}

#[tokio::test]
async fn a_wrong_password() {
    let server = Server::start(|_| ok(json!({}))).await;
    *server.keystone.lock().unwrap() = Some((401, json!({"error": {"title": "Unauthorized", "message": "Wrong."}})));
    let (error, text) = refused(server.config()).await;
    assert!(!error.is_transient());
    assert_eq!(
        text,
        format!(
            "Keystone at {}/v3 refuses user kuryr of domain Default (wrong name, password, domain or project): check \
             username, password, project_name: 401 Unauthorized: Wrong.",
            server.url
        )
    );
}

#[tokio::test]
async fn something_that_is_not_keystone() {
    let server = Server::start(|_| ok(json!({}))).await;
    let mut config = server.config();
    config.auth_url = format!("{}/elsewhere/v3", server.url);
    let (error, text) = refused(config).await;
    assert!(!error.is_transient() && text.contains("does not answer like Keystone v3: check auth_url"), "{text}");
}

#[tokio::test]
async fn keystone_out_of_order() {
    let server = Server::start(|_| ok(json!({}))).await;
    *server.keystone.lock().unwrap() = Some((503, json!({"message": "no backend"})));
    let (error, text) = refused(server.config()).await;
    assert!(error.is_transient() && text.ends_with("failed: 503: no backend"), "{text}");
}

#[tokio::test]
async fn no_neutron_in_the_region() {
    let server = Server::start(|_| ok(json!({}))).await;
    let mut config = server.config();
    config.region = Some("two".into());
    let (_, text) = refused(config).await;
    assert_eq!(
        text,
        "the catalog has no public endpoint of type network in region two; there are: public in one; set region_name \
         and interface to one of them"
    );
}

#[tokio::test]
async fn an_unreadable_bundle() {
    let server = Server::start(|_| ok(json!({}))).await;
    let mut config = server.config();
    config.tls.cacert = Some("/nonexistent/ca.pem".into());
    let (_, text) = refused(config).await;
    assert!(text.starts_with("cacert /nonexistent/ca.pem cannot be read as PEM"), "{text}");
}

#[tokio::test]
async fn a_server_without_tls_under_an_https_address() {
    let server = Server::start(|_| ok(json!({}))).await;
    let mut config = server.config();
    config.auth_url = config.auth_url.replace("http:", "https:");
    let (error, text) = refused(config).await;
    assert!(!error.is_transient() && text.contains("check cacert"), "{text}");
}

#[tokio::test]
async fn no_debug_shows_a_secret() {
    let server = Server::start(|_| ok(json!({}))).await;
    let cloud = server.connect().await;
    for text in [format!("{:?}", server.config()), format!("{cloud:?}"), format!("{:?}", cloud.network())] {
        assert!(!text.contains(PASSWORD) && !text.contains("token-1"), "{text}");
    }
    assert_eq!(cloud.url(Service::Network).unwrap(), format!("{}/network/v2.0", server.url));
}
