//! The configuration for what was set up. The same for the same cloud, whoever made it and when.

use super::{
    Context,
    plan::{Desired, Found},
};
use kuryr_openstack::Identity;
use std::io::Write;
use toml::Value;

/// Writes what there is as comments, and the settings as TOML.
pub(crate) fn print(
    desired: &Desired,
    found: &Found,
    context: &Context,
    identity: &Identity,
    providers: &[String],
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    writeln!(out, "# Kuryr in project {}, cluster {}:", identity.project_name, desired.cluster)?;
    let mut line = |kind: &str, id: &dyn std::fmt::Display, name: &str| writeln!(out, "#   {kind:<15} {id}  {name}");
    for network in found.all_networks() {
        line("network", &network.id, &format!("{}, MTU {}", network.name, network.mtu))?;
    }
    for subnet in found.all_subnets() {
        line("subnet", &subnet.id, &format!("{}, {}", subnet.name, subnet.cidr))?;
    }
    for router in &found.routers {
        line("router", &router.id, &router.name)?;
    }
    for (_, group) in &found.groups {
        line("security group", &group.id, &group.name)?;
    }
    if !providers.is_empty() {
        writeln!(
            out,
            "# Octavia has several providers ({}): set [services] provider to one of them.",
            providers.join(", ")
        )?;
    }
    let text = |text: &String| Value::String(text.clone());
    let mut table = toml::Table::new();
    let mut set = |section: &str, key: &str, value: Option<Value>| {
        let section = table.entry(section).or_insert_with(|| Value::Table(toml::Table::new()));
        if let (Value::Table(section), Some(value)) = (section, value) {
            section.insert(key.to_owned(), value);
        }
    };
    if let Some(id) = &context.cluster_id {
        set("cluster", "id", Some(text(id)));
    }
    set("openstack", "cloud", context.cloud.as_ref().map(text));
    set("openstack", "secret_dir", context.secret_dir.as_ref().map(text));
    let subnets = found.subnets.iter().map(|subnet| Value::String(subnet.id.to_string())).collect();
    set("network", "pod_subnets", Some(Value::Array(subnets)));
    let services: Vec<_> = found.service_subnets.iter().map(|subnet| Value::String(subnet.id.to_string())).collect();
    if !services.is_empty() {
        set("services", "subnets", Some(Value::Array(services)));
    }
    write!(out, "\n{}", toml::to_string_pretty(&table)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{super::plan::RouterWish, *};

    #[test]
    fn what_is_printed_is_a_configuration_and_says_what_has_to_be_chosen() {
        let desired = Desired {
            cluster: "c1".into(),
            name: "kuryr-pods".into(),
            mtu: None,
            prefixes: vec![],
            services: vec![],
            router: RouterWish::Own { external: None },
        };
        let context = Context { cloud: Some("mycloud".into()), ..Context::default() };
        for (providers, told) in [(&["amphora".to_owned(), "ovn".to_owned()][..], true), (&[], false)] {
            let mut out = Vec::new();
            print(&desired, &Found::default(), &context, &Identity::default(), providers, &mut out).unwrap();
            let text = String::from_utf8(out).unwrap();
            let said = "several providers (amphora, ovn): set [services] provider to one of them";
            assert_eq!(text.contains(said), told, "{text}");
            let config: crate::config::Config = toml::from_str(&text).unwrap();
            assert_eq!(config.openstack.cloud.as_deref(), Some("mycloud"));
        }
    }
}
