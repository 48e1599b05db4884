//! Services that are slow, busy, broken, or that lose an answer after doing the work.

use crate::server::{PASSWORD, Server, answer, id, neutron_error, ok, port};
use axum::response::IntoResponse as _;
use kuryr_openstack::{Class, Cloud, CloudConfig, ErrorKind, Filter, NoEndpoint, network::NewPort};
use serde_json::json;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

fn new_port() -> NewPort {
    NewPort::new(id(0).parse().unwrap())
}

#[tokio::test]
async fn reads_and_deletes_are_repeated_creates_are_not() {
    let count = Arc::new(AtomicUsize::new(0));
    let failures = count.clone();
    let server = Server::start(move |_| {
        if failures.fetch_add(1, Ordering::SeqCst) % 3 < 2 { answer(500, json!({})) } else { ok(json!({"ports": []})) }
    })
    .await;
    let network = server.connect().await.network();
    network.ports().list(&Filter::new()).await.unwrap();
    network.ports().delete(id(1).parse().unwrap()).await.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 6);
    let error = network.ports().create(&new_port()).await.unwrap_err();
    assert!(error.is_ambiguous());
    assert_eq!(count.load(Ordering::SeqCst), 7);
}

#[tokio::test]
async fn a_busy_service_is_left_alone_for_as_long_as_it_says() {
    let count = Arc::new(AtomicUsize::new(0));
    let busy = count.clone();
    let server = Server::start(move |_| {
        if busy.fetch_add(1, Ordering::SeqCst) == 0 {
            let mut response = answer(429, json!({}));
            response.headers_mut().insert("retry-after", "1".parse().unwrap());
            return response;
        }
        answer(201, json!({"port": port(1)}))
    })
    .await;
    let network = server.connect().await.network();
    let started = Instant::now();
    network.ports().create(&new_port()).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_long_wish_is_the_callers_to_grant() {
    let server = Server::start(|_| {
        let mut response = answer(429, json!({}));
        response.headers_mut().insert("retry-after", "60".parse().unwrap());
        response
    })
    .await;
    let network = server.connect().await.network();
    let error = network.ports().list(&Filter::new()).await.unwrap_err();
    assert_eq!(error.class(), Class::RetryLater { after: Some(Duration::from_secs(60)) });
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn refusals_keep_their_words_and_their_request() {
    let server = Server::start(|_| {
        let mut response = neutron_error(409, "OverQuota", "Quota exceeded for resources: ['port'].");
        response.headers_mut().insert("x-openstack-request-id", "req-abc".parse().unwrap());
        response
    })
    .await;
    let error = server.connect().await.network().ports().create(&new_port()).await.unwrap_err();
    assert!(error.is_quota() && !error.is_exhausted() && !error.is_ambiguous());
    assert_eq!(
        error.to_string(),
        "network: POST /ports: 409 OverQuota: Quota exceeded for resources: ['port']. (req-abc)"
    );
}

#[tokio::test]
async fn success_with_a_body_that_cannot_be_read_is_a_bug_and_ambiguous() {
    let server = Server::start(|_| "<html>".into_response()).await;
    let error = server.connect().await.network().ports().create(&new_port()).await.unwrap_err();
    assert_eq!(error.class(), Class::Bug);
    assert!(error.is_ambiguous());
}

#[tokio::test]
async fn a_service_that_is_not_in_the_catalog_is_only_missed_when_it_is_asked() {
    let server = Server::start(|_| ok(json!({}))).await;
    let missing: NoEndpoint = server.connect().await.url(kuryr_openstack::Service::LoadBalancer).unwrap_err();
    assert!(missing.to_string().contains("load-balancer"));
}

/// A Neutron, and an Octavia, that takes a connection, reads the request, and then does as `then` says.
pub(crate) async fn odd(then: &'static str) -> (CloudConfig, Arc<AtomicUsize>, Server) {
    let keystone = Server::start(|_| ok(json!({}))).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = CloudConfig::password(&keystone.url, "kuryr", PASSWORD, "k8s", "Default");
    let url = format!("http://{}", listener.local_addr().unwrap());
    config.overrides.insert(kuryr_openstack::Service::Network, url.clone());
    config.overrides.insert(kuryr_openstack::Service::LoadBalancer, url);
    let count = Arc::new(AtomicUsize::new(0));
    let requests = count.clone();
    tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read > 0);
            requests.fetch_add(1, Ordering::SeqCst);
            match then {
                "hang" => held.push(stream),
                "half" => stream.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 100\r\n\r\n{").await.unwrap(),
                _ => drop(stream),
            }
        }
    });
    (config, count, keystone)
}

#[tokio::test]
async fn a_lost_answer_to_a_create_is_ambiguous_and_not_asked_for_again() {
    for then in ["close", "half"] {
        let (config, count, _keystone) = odd(then).await;
        let network = Cloud::connect(config).await.unwrap().network();
        let error = network.ports().create(&new_port()).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Broken(_)) && error.is_ambiguous(), "{then}: {error:?}");
        assert_eq!(count.load(Ordering::SeqCst), 1, "{then}");
        assert!(matches!(network.ports().list(&Filter::new()).await.unwrap_err().kind(), ErrorKind::Broken(_)));
        assert_eq!(count.load(Ordering::SeqCst), 5, "{then}: a read is repeated three times");
    }
}

#[tokio::test]
async fn a_service_that_hangs_is_given_up_in_time() {
    let (config, _, _keystone) = odd("hang").await;
    let network = Cloud::connect(config).await.unwrap().network();
    let started = Instant::now();
    let error = network.within(Duration::from_millis(300)).ports().create(&new_port()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout(_)) && error.is_ambiguous(), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_create_without_a_connection_is_tried_again_and_then_given_up() {
    let (mut config, _, _keystone) = odd("close").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    config.overrides.insert(kuryr_openstack::Service::Network, url);
    let error = Cloud::connect(config).await.unwrap().network().ports().create(&new_port()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Connect(_)) && !error.is_ambiguous(), "{error:?}");
}

#[tokio::test]
async fn a_call_that_stays_in_the_queue_beyond_its_deadline_was_not_sent() {
    let (config, count, _keystone) = odd("hang").await;
    let options = kuryr_openstack::Options { concurrency: 1, ..kuryr_openstack::Options::default() };
    let network = Cloud::connect_with(config, options).await.unwrap().network();
    let first = network.within(Duration::from_secs(2));
    let hanging = tokio::spawn(async move { first.ports().create(&new_port()).await });
    while count.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let error = network.within(Duration::from_millis(100)).ports().create(&new_port()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NotSent(_)) && !error.is_ambiguous(), "{error:?}");
    assert!(hanging.await.unwrap().is_err());
}

#[tokio::test]
async fn requests_at_once_are_bounded() {
    let (config, count, _keystone) = odd("hang").await;
    let options = kuryr_openstack::Options { concurrency: 3, ..kuryr_openstack::Options::default() };
    let network = Cloud::connect_with(config, options).await.unwrap().network();
    // The first three hang, the others give up before those do.
    let calls = (0..10).map(|call| {
        let network = network.within(Duration::from_millis(if call < 3 { 2000 } else { 500 }));
        async move { network.ports().create(&new_port()).await.unwrap_err() }
    });
    let errors = futures::future::join_all(calls).await;
    assert_eq!(count.load(Ordering::SeqCst), 3);
    assert_eq!(errors.iter().filter(|error| matches!(error.kind(), ErrorKind::NotSent(_))).count(), 7);
}
