//! Ways into a cluster by its URL.

use serde_json::json;

/// A kubeconfig, as text, for the API server at a URL.
pub fn kubeconfig(url: &str) -> String {
    // JSON is YAML.
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "kuryr", "cluster": { "server": url } }],
        "users": [{ "name": "kuryr", "user": {} }],
        "contexts": [{ "name": "kuryr", "context": { "cluster": "kuryr", "user": "kuryr", "namespace": "default" } }],
        "current-context": "kuryr",
    });
    format!("{config:#}\n")
}

/// A client for the API server at a URL that calls itself `user_agent`.
///
/// # Errors
/// If the URL is none, or the user agent is not a header's value.
pub fn client(url: &str, user_agent: &str) -> anyhow::Result<kube::Client> {
    use anyhow::Context as _;
    let uri = url.parse::<http::Uri>().with_context(|| format!("{url:?} is not a URL"))?;
    let mut config = kube::Config::new(uri);
    let agent =
        http::HeaderValue::from_str(user_agent).with_context(|| format!("{user_agent:?} is not a user agent"))?;
    config.headers.push((http::header::USER_AGENT, agent));
    kube::Client::try_from(config).context("cannot make a Kubernetes client")
}
