//! The ways to say which cloud.

use kuryr_openstack::{
    CloudConfig, Interface, Service, Sources,
    config::{ConfigError, Credential, Name, Origin, Scope},
};
use secrecy::ExposeSecret as _;
use std::{collections::BTreeMap, path::Path};
use tempfile::TempDir;

fn with_variables(sources: &Sources, variables: &[(&str, &str)]) -> Result<CloudConfig, ConfigError> {
    let variables: BTreeMap<_, _> = variables.iter().copied().collect();
    CloudConfig::load_with(sources, &|name| variables.get(name).map(|value| (*value).to_owned()))
}

fn dir(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn clouds(dir: &Path, cloud: Option<&str>) -> Result<CloudConfig, ConfigError> {
    let file = dir.join("clouds.yaml");
    with_variables(&Sources { clouds_file: Some(file), cloud: cloud.map(str::to_owned), ..Sources::default() }, &[])
}

fn in_domain(name: &str, domain: Name) -> Name {
    Name::InDomain { name: name.into(), domain: Box::new(domain) }
}

const CLOUDS: &str = "
clouds:
  prod:
    auth:
      auth_url: https://cloud.example:5000/
      username: kuryr
      password: 0123456789
      project_name: k8s
      user_domain_name: Users
      project_domain_id: abc
    region_name: one
    interface: internal
    identity_api_version: 3
    verify: false
    cacert: /etc/ca.pem
    network_endpoint_override: http://neutron:9696
    regions: [one, two]
  other:
    auth_type: v3applicationcredential
    auth: {auth_url: 'http://other/identity/v3', application_credential_id: id1, application_credential_secret: xyz}
";

#[test]
fn a_cloud_of_clouds_yaml() {
    let dir = dir(&[("clouds.yaml", CLOUDS)]);
    let config = clouds(dir.path(), Some("prod")).unwrap();
    assert_eq!(config.auth_url, "https://cloud.example:5000/v3");
    assert_eq!(config.region.as_deref(), Some("one"));
    assert_eq!(config.interface, Interface::Internal);
    assert!(!config.tls.verify);
    assert_eq!(config.overrides[&Service::Network], "http://neutron:9696");
    let Credential::Password { user, password, scope } = &config.credential else { panic!("{config:?}") };
    assert_eq!(*user, in_domain("kuryr", Name::Name("Users".into())));
    assert_eq!(password.expose_secret(), "0123456789");
    assert_eq!(*scope, Scope::Project(in_domain("k8s", Name::Id("abc".into()))));
    assert!(!format!("{config:?}").contains("0123456789"));

    let config = clouds(dir.path(), Some("other")).unwrap();
    let Credential::ApplicationCredential { id, user: None, secret } = &config.credential else { panic!("{config:?}") };
    assert_eq!((id.as_str(), secret.expose_secret()), ("id1", "xyz"));
}

#[test]
fn which_cloud_is_asked_when_there_are_several() {
    let dir = dir(&[("clouds.yaml", CLOUDS)]);
    let error = clouds(dir.path(), None).unwrap_err().to_string();
    assert!(error.ends_with("none is chosen: set OS_CLOUD to one of other, prod"), "{error}");
    let error = clouds(dir.path(), Some("test")).unwrap_err().to_string();
    assert!(error.starts_with("cloud \"test\" is not in ") && error.ends_with("which has: other, prod"), "{error}");
}

#[test]
fn secrets_may_be_in_a_file_of_their_own() {
    let public = "clouds: {a: {auth: {auth_url: 'http://k', username: u, project_id: p}}}";
    let secret = "clouds: {a: {auth: {password: hidden}}, b: {auth: {password: other}}}";
    let dir = dir(&[("clouds.yaml", public), ("secure.yaml", secret)]);
    let config = clouds(dir.path(), None).unwrap();
    let Credential::Password { user, password, scope } = &config.credential else { panic!("{config:?}") };
    assert_eq!(*user, in_domain("u", Name::Id("default".into())));
    assert_eq!(password.expose_secret(), "hidden");
    assert_eq!(*scope, Scope::Project(Name::Id("p".into())));
}

#[test]
fn a_broken_file_says_where_and_shows_none_of_it() {
    let dir = dir(&[("clouds.yaml", "clouds:\n  a:\n    auth: {password: hunter2\n")]);
    let error = clouds(dir.path(), None).unwrap_err();
    assert!(error.to_string().contains("is not a clouds.yaml: line "), "{error}");
    assert!(!format!("{error:?} {error}").contains("hunter2"));
}

#[test]
fn variables() {
    let variables = [
        ("OS_AUTH_URL", "http://keystone:5000/v2.0"),
        ("OS_TOKEN", "gAAAA"),
        ("OS_PROJECT_NAME", "k8s"),
        ("OS_DEFAULT_DOMAIN", "heat"),
        ("OS_INTERFACE", "admin"),
        ("OS_LOAD_BALANCER_ENDPOINT_OVERRIDE", "http://octavia:9876"),
        ("OS_INSECURE", "true"),
        ("OS_REGION_NAME", ""),
    ];
    let config = with_variables(&Sources::default(), &variables).unwrap();
    assert_eq!((config.auth_url.as_str(), config.origin), ("http://keystone:5000/v3", Origin::Environment));
    assert_eq!((config.region, config.interface, config.tls.verify), (None, Interface::Admin, false));
    assert!(config.overrides.contains_key(&Service::LoadBalancer));
    let Credential::Token { token, scope } = &config.credential else { panic!() };
    assert_eq!(token.expose_secret(), "gAAAA");
    assert_eq!(*scope, Scope::Project(in_domain("k8s", Name::Id("heat".into()))));
}

#[test]
fn a_named_application_credential_belongs_to_a_user() {
    let variables = [
        ("OS_AUTH_URL", "http://keystone"),
        ("OS_APPLICATION_CREDENTIAL_NAME", "kuryr"),
        ("OS_APPLICATION_CREDENTIAL_SECRET", "s"),
        ("OS_USER_ID", "u1"),
    ];
    let config = with_variables(&Sources::default(), &variables).unwrap();
    let Credential::ApplicationCredential { id, user, .. } = &config.credential else { panic!("{config:?}") };
    assert_eq!((id.as_str(), user.as_ref()), ("kuryr", Some(&Name::Id("u1".into()))));
}

#[test]
fn os_cloud_wins_over_the_other_variables_and_the_search_path_is_everybodys() {
    let home = dir(&[]);
    let openstack = home.path().join(".config/openstack");
    std::fs::create_dir_all(&openstack).unwrap();
    std::fs::write(openstack.join("clouds.yaml"), CLOUDS).unwrap();
    let home = home.path().to_str().unwrap();
    let variables = [("HOME", home), ("OS_CLOUD", "prod"), ("OS_AUTH_URL", "http://elsewhere")];
    assert_eq!(with_variables(&Sources::default(), &variables).unwrap().region.as_deref(), Some("one"));

    let chosen = dir(&[("my.yaml", "clouds: {only: {auth: {auth_url: 'http://k', token: t, project_id: p}}}")]);
    let file = chosen.path().join("my.yaml");
    let variables = [("HOME", home), ("OS_CLIENT_CONFIG_FILE", file.to_str().unwrap())];
    assert_eq!(with_variables(&Sources::default(), &variables).unwrap().auth_url, "http://k/v3");
}

#[test]
fn a_secret_is_a_directory_of_settings() {
    let dir = dir(&[
        ("auth_url", "http://k/v3\n"),
        ("username", "kuryr\n"),
        ("password", " with spaces \n"),
        ("project_id", "p\n"),
        ("cacert", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"),
        ("..data", "kubernetes' own"),
    ]);
    let sources = Sources { secret_dir: Some(dir.path().to_owned()), ..Sources::default() };
    let config = with_variables(&sources, &[("OS_AUTH_URL", "http://ignored")]).unwrap();
    assert_eq!(config.auth_url, "http://k/v3");
    assert_eq!(config.tls.cacert, Some(dir.path().join("cacert")));
    let Credential::Password { password, .. } = &config.credential else { panic!() };
    assert_eq!(password.expose_secret(), " with spaces ");

    std::fs::write(dir.path().join("passwrod"), "x").unwrap();
    let error = with_variables(&sources, &[]).unwrap_err().to_string();
    assert!(error.contains("passwrod is no setting: remove it from the secret; the settings are auth_url"), "{error}");
}

#[test]
fn a_secret_may_hold_a_clouds_yaml() {
    let text = "clouds: {a: {auth: {}}, openstack: {auth: {auth_url: 'http://k', token: t, project_id: p}}}";
    let dir = dir(&[("clouds.yaml", text)]);
    let sources = Sources { secret_dir: Some(dir.path().to_owned()), ..Sources::default() };
    assert_eq!(with_variables(&sources, &[]).unwrap().auth_url, "http://k/v3");
}

#[test]
fn what_is_missing_or_wrong_is_named_as_its_writer_knows_it() {
    let base = [("OS_AUTH_URL", "http://k"), ("OS_USERNAME", "u"), ("OS_PASSWORD", "hunter2"), ("OS_PROJECT_ID", "p")];
    let refused = |name: &str, value: Option<&'static str>| {
        let kept = base.iter().filter(|(key, _)| *key != name).copied();
        let name: &'static str = String::from(name).leak();
        let variables: Vec<_> = kept.chain(value.map(|value| (name, value))).collect();
        let error = with_variables(&Sources::default(), &variables).unwrap_err();
        assert!(!format!("{error:?} {error}").contains("hunter2"));
        error.to_string()
    };
    assert_eq!(refused("OS_USERNAME", None), "OS_USERNAME is missing: set the user's name, or user_id");
    assert_eq!(refused("OS_PASSWORD", None), "OS_PASSWORD is missing: set the user's password");
    assert_eq!(
        refused("OS_PROJECT_ID", None),
        "OS_PROJECT_NAME is missing: set the project in which Kuryr is to make its ports, or project_id"
    );
    assert_eq!(
        refused("OS_AUTH_TYPE", Some("v3kerberos")),
        "OS_AUTH_TYPE is \"v3kerberos\": set password, v3applicationcredential or token"
    );
    assert_eq!(refused("OS_INTERFACE", Some("outer")), "OS_INTERFACE is \"outer\": set public, internal or admin");
    assert_eq!(refused("OS_INSECURE", Some("maybe")), "OS_INSECURE is \"maybe\": set true or false");
    assert!(refused("OS_AUTH_URL", Some("keystone:5000")).contains("set an address like https://"));
    assert!(!refused("OS_AUTH_URL", Some("http://u:hunter3@k")).contains("hunter3"));
    let dir = dir(&[("clouds.yaml", "clouds: {a: {auth: {username: u}}}")]);
    let error = clouds(dir.path(), None).unwrap_err().to_string();
    assert!(error.starts_with("auth_url of cloud \"a\" in ") && error.contains(" is missing: set it to"), "{error}");
}

#[test]
fn nothing_configured_says_what_may_be() {
    let home = dir(&[]);
    let variables = [("HOME", home.path().to_str().unwrap())];
    let error = with_variables(&Sources::default(), &variables).unwrap_err().to_string();
    assert!(error.starts_with("no cloud is configured: set OS_CLOUD and put a clouds.yaml into"), "{error}");
    let sources = Sources { cloud: Some("x".into()), ..Sources::default() };
    let error = with_variables(&sources, &variables).unwrap_err().to_string();
    assert!(error.starts_with("cloud \"x\" is chosen, but there is no clouds.yaml in"), "{error}");
}
