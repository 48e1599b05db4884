//! One token for all, renewed once.

use crate::server::{PASSWORD, Server, answer, ok};
use futures::future::join_all;
use kuryr_openstack::{Class, Cloud, ErrorKind, Filter, Sources, chain};
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

#[tokio::test]
async fn fifty_requests_with_an_expired_token_make_one_login() {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    let server = Server::start(move |seen| {
        if seen.token() == "token-1" {
            count.fetch_add(1, Ordering::SeqCst);
            return answer(401, json!({"error": {"code": 401, "title": "Unauthorized", "message": "expired"}}));
        }
        ok(json!({"ports": []}))
    })
    .await;
    let network = server.connect().await.network();
    let filter = Filter::new();
    let results = join_all((0..50).map(|_| async { network.ports().list(&filter).await })).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert!(refused.load(Ordering::SeqCst) > 1, "the requests were to meet the old token together");
    assert_eq!(server.logins(), 2);
}

#[tokio::test]
async fn a_refusal_after_a_new_token_is_final_and_says_what_to_check() {
    let server = Server::start(|_| answer(401, json!({"message": "no"}))).await;
    let network = server.connect().await.network();
    let error = network.extensions().await.unwrap_err();
    assert_eq!((error.status(), server.logins()), (Some(401), 2));
    assert!(matches!(error.class(), Class::Operator(_)));
}

#[tokio::test]
async fn all_who_wait_get_the_error_of_one_failed_login() {
    let server = Server::start(|_| answer(401, json!({}))).await;
    let network = server.connect().await.network();
    *server.keystone.lock().unwrap() = Some((401, json!({"error": {"title": "Unauthorized", "message": "Wrong."}})));
    let results = join_all((0..8).map(|_| network.extensions())).await;
    for result in results {
        let error = result.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Auth(_)), "{error}");
        assert!(chain(&error).contains("refuses user kuryr"), "{}", chain(&error));
    }
    assert_eq!(server.logins(), 2);
}

#[tokio::test]
async fn an_expired_token_is_replaced_before_a_service_sees_it() {
    let server = Server::start(|_| ok(json!({"extensions": []}))).await;
    server.lifetime.store(0, Ordering::SeqCst);
    let network = server.connect().await.network();
    server.lifetime.store(3600, Ordering::SeqCst);
    network.extensions().await.unwrap();
    network.extensions().await.unwrap();
    assert_eq!(server.logins(), 2);
    assert!(server.requests().iter().all(|request| request.token() == "token-2"));
}

#[tokio::test]
async fn rotated_credentials_are_read_again() {
    let server = Server::start(|seen| match seen.token() {
        "token-1" => answer(401, json!({})),
        _ => ok(json!({"extensions": []})),
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("auth_url", &format!("{}\n", server.url));
    write("application_credential_id", "first\n");
    write("application_credential_secret", "old-secret\n");
    let sources = Sources { secret_dir: Some(dir.path().to_owned()), ..Sources::default() };
    let cloud = Cloud::connect(kuryr_openstack::CloudConfig::load(&sources).unwrap()).await.unwrap();
    write("application_credential_id", "second\n");
    write("application_credential_secret", "new-secret\n");
    cloud.network().extensions().await.unwrap();
    let logins = server.logins.lock().unwrap().clone();
    let credential = |login: &serde_json::Value| login["auth"]["identity"]["application_credential"].clone();
    assert_eq!(credential(&logins[0]), json!({"id": "first", "secret": "old-secret"}));
    assert_eq!(credential(&logins[1]), json!({"id": "second", "secret": "new-secret"}));
}

#[tokio::test]
async fn who_we_are_is_what_keystone_says() {
    let server = Server::start(|_| ok(json!({}))).await;
    let identity = server.connect().await.identity();
    assert_eq!((identity.user.as_str(), identity.project_name.as_str()), ("kuryr", "k8s"));
    assert_eq!(identity.project.unwrap().as_str(), "p1");
    let login = server.logins.lock().unwrap()[0].clone();
    assert_eq!(login["auth"]["scope"], json!({"project": {"name": "k8s", "domain": {"name": "Default"}}}));
    assert_eq!(login["auth"]["identity"]["password"]["user"]["password"], PASSWORD);
}
