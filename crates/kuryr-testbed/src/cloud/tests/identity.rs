use serde_json::{Value, json};

use super::World;
use super::client::{Client, Reply};

async fn log_in(world: &World, identity: Value, scope: Value) -> Reply {
    let mut auth = json!({ "identity": identity });
    if !scope.is_null() {
        auth["scope"] = scope;
    }
    Client::new(&world.server.auth_url(), None).post("/auth/tokens", &json!({ "auth": auth })).await
}

fn password(password: &str) -> Value {
    let user = json!({ "name": "admin", "password": password, "domain": { "name": "Default" } });
    json!({ "methods": ["password"], "password": { "user": user } })
}

#[tokio::test]
async fn a_wrong_password_answers_401_and_issues_nothing() {
    let world = World::new().await;
    let reply = log_in(&world, password("wrong"), Value::Null).await;
    assert_eq!(reply.status, 401);
    assert!(reply.header("x-subject-token").is_none());
    assert!(reply.header("www-authenticate").unwrap().starts_with("Keystone uri="));
    assert_eq!(reply.body["error"]["title"], "Unauthorized");
}

#[tokio::test]
async fn a_scope_that_does_not_exist_answers_401() {
    let world = World::new().await;
    let scope = json!({ "project": { "name": "nobody", "domain": { "id": "default" } } });
    assert_eq!(log_in(&world, password("secret"), scope).await.status, 401);
}

#[tokio::test]
async fn a_body_without_auth_answers_400() {
    let world = World::new().await;
    let reply = Client::new(&world.server.auth_url(), None).post("/auth/tokens", &json!({})).await;
    assert_eq!(reply.expect(400)["error"]["title"], "Bad Request");
}

#[tokio::test]
async fn an_application_credential_logs_in_to_its_project() {
    let world = World::new().await;
    let credential = &world.cloud.config().application_credential;
    let by_id = json!({ "methods": ["application_credential"],
        "application_credential": { "id": credential.id, "secret": credential.secret } });
    let reply = log_in(&world, by_id.clone(), Value::Null).await;
    assert_eq!(reply.expect(201)["token"]["project"]["name"], "admin");

    let user = json!({ "name": "admin", "domain": { "name": "Default" } });
    let by_name = json!({ "methods": ["application_credential"],
        "application_credential": { "name": credential.name, "user": user, "secret": credential.secret } });
    assert_eq!(log_in(&world, by_name, Value::Null).await.status, 201);

    let scope = json!({ "project": { "name": "admin", "domain": { "id": "default" } } });
    assert_eq!(log_in(&world, by_id, scope).await.status, 401, "a credential cannot ask for a scope");
}

#[tokio::test]
async fn a_token_makes_another_token_of_the_same_project() {
    let world = World::new().await;
    let scope = json!({ "project": { "name": "kuryr", "domain": { "id": "default" } } });
    let first = log_in(&world, password("secret"), scope).await;
    let again = json!({ "methods": ["token"], "token": { "id": first.header("x-subject-token").unwrap() } });
    let second = log_in(&world, again, Value::Null).await;
    assert_ne!(first.header("x-subject-token"), second.header("x-subject-token"));
    assert_eq!(second.expect(201)["token"]["project"]["name"], "kuryr");
}

#[tokio::test]
async fn the_catalog_names_the_services_at_the_address_that_the_client_used() {
    let world = World::new().await;
    let scope = json!({ "project": { "name": "admin", "domain": { "id": "default" } } });
    let body = log_in(&world, password("secret"), scope).await.expect(201);
    let catalog = body["token"]["catalog"].as_array().unwrap();
    let url = |kind: &str| {
        let entry = catalog.iter().find(|entry| entry["type"] == kind).unwrap();
        entry["endpoints"][0]["url"].as_str().unwrap().to_owned()
    };
    assert_eq!(url("network"), format!("{}/network", world.server.url()));
    assert_eq!(url("load-balancer"), format!("{}/load-balancer", world.server.url()));
}

#[tokio::test]
async fn neutron_answers_401_without_a_token_and_after_tokens_expired() {
    let world = World::new().await;
    let stranger = Client::new(&format!("{}/network", world.server.url()), None);
    let reply = stranger.get("/v2.0/ports").await;
    assert_eq!(reply.body["error"]["code"], 401);
    assert_eq!(reply.status, 401);

    assert_eq!(world.neutron.get("/v2.0/ports").await.status, 200);
    world.cloud.expire_tokens();
    assert_eq!(world.neutron.get("/v2.0/ports").await.status, 401);
}

#[tokio::test]
async fn a_token_of_no_project_may_not_use_neutron() {
    let world = World::new().await;
    let reply = log_in(&world, password("secret"), Value::Null).await;
    let client = Client::new(&format!("{}/network", world.server.url()), reply.header("x-subject-token"));
    assert_eq!(client.get("/v2.0/ports").await.error(), (403, "PolicyNotAuthorized"));
}

#[tokio::test]
async fn clouds_yaml_holds_both_ways_to_log_in() {
    let world = World::new().await;
    let yaml: Value = serde_saphyr::from_str(&world.server.clouds_yaml()).unwrap();
    let password = &yaml["clouds"]["kuryr"]["auth"];
    assert_eq!(password["auth_url"], world.server.auth_url());
    assert_eq!((&password["username"], &password["password"]), (&json!("admin"), &json!("secret")));
    let credential = &yaml["clouds"]["kuryr-app"]["auth"];
    assert_eq!(credential["application_credential_id"], world.cloud.config().application_credential.id);
}

#[tokio::test]
async fn every_answer_carries_a_request_id() {
    let world = World::new().await;
    for path in ["/v2.0/ports", "/v2.0/nothing", "/v2.0/ports/x"] {
        let reply = world.neutron.get(path).await;
        let id = reply.header("x-openstack-request-id").unwrap();
        assert!(id.strip_prefix("req-").is_some_and(|id| uuid::Uuid::try_parse(id).is_ok()), "{id}");
    }
}
