//! Security groups, their rules, and quotas.

use super::{
    Site,
    site::{fresh, is_refusal, new_port, refused},
};
use anyhow::{Context, ensure};
use kuryr_model::{
    SecurityGroupId,
    neutron::{Direction, EtherType, RuleContent},
};
use kuryr_openstack::{
    Class, Error, Filter,
    network::{
        NewPort,
        ports::PortUpdate,
        security_groups::{NewRule, NewSecurityGroup},
    },
};
use std::collections::BTreeSet;

fn everything(direction: Direction) -> BTreeSet<RuleContent> {
    [EtherType::IPv4, EtherType::IPv6].map(|family| RuleContent::everything(direction, family)).into()
}

fn tcp(group: SecurityGroupId, number: u16) -> NewRule {
    let allows = RuleContent {
        protocol: Some("tcp".to_owned()),
        port_range_min: Some(number),
        port_range_max: Some(number),
        ..RuleContent::everything(Direction::Ingress, EtherType::IPv4)
    };
    NewRule { security_group_id: group, allows }
}

async fn rules(site: &Site, group: SecurityGroupId) -> Result<BTreeSet<RuleContent>, Error> {
    let group = site.neutron().security_groups().get(group).await?;
    Ok(group.rules.into_iter().map(|rule| rule.allows).collect())
}

pub(super) async fn a_new_group_lets_everything_out(site: &Site) -> anyhow::Result<()> {
    let group = site.group().await?;
    let rules: BTreeSet<_> = group.rules.iter().map(|rule| rule.allows.clone()).collect();
    ensure!(rules == everything(Direction::Egress) && group.rules.len() == 2, "it has {rules:?}");
    // Kuryr's groups allow one direction only: these rules must be deletable.
    for rule in &group.rules {
        site.neutron().security_groups().delete_rule(rule.id).await?;
    }
    ensure!(self::rules(site, group.id).await?.is_empty(), "rules are left");
    Ok(())
}

pub(super) async fn rules_are_made_in_bulk_all_or_none(site: &Site) -> anyhow::Result<()> {
    let group = site.group().await?;
    let groups = site.neutron();
    let made = groups.security_groups().create_rules(&[80, 443].map(|number| tcp(group.id, number))).await?;
    ensure!(made.len() == 2 && made.iter().all(|rule| rule.security_group_id == group.id), "{made:?}");
    let before = rules(site, group.id).await?;
    ensure!(before.contains(&tcp(group.id, 443).allows), "a rule does not read back: {before:?}");
    // The last one is there already.
    let error = groups.security_groups().create_rules(&[8080, 80].map(|number| tcp(group.id, number))).await;
    refused("a bulk with a rule that is there", error)?;
    ensure!(rules(site, group.id).await? == before, "some of the bulk was made");
    Ok(())
}

pub(super) async fn a_rule_that_is_there_is_refused(site: &Site) -> anyhow::Result<()> {
    let group = site.group().await?;
    site.neutron().security_groups().create_rules(&[tcp(group.id, 80)]).await?;
    let error = site.neutron().security_groups().create_rules(&[tcp(group.id, 80)]).await;
    let error = refused("a rule that is there", error)?;
    is_refusal(&error, 409, &["SecurityGroupRuleExists"])?;
    ensure!(error.class() == Class::RetryNow, "{error} is {:?}", error.class());
    Ok(())
}

pub(super) async fn a_group_in_use_is_kept(site: &Site) -> anyhow::Result<()> {
    let group = site.group().await?;
    let (network, subnet) = site.wire("10.231.0.0/24").await?;
    let port = site.port(NewPort { security_groups: vec![group.id], ..new_port(network.id, subnet.id) }).await?;
    let groups = site.neutron();
    let error = refused("to delete a group in use", groups.security_groups().delete(group.id).await)?;
    is_refusal(&error, 409, &["SecurityGroupInUse"])?;
    groups.ports().delete(port.id).await?;
    groups.security_groups().delete(group.id).await?;
    Ok(())
}

pub(super) async fn groups_come_with_their_rules(site: &Site) -> anyhow::Result<()> {
    let group = site.group().await?;
    let filter = Filter::new().with("name", &group.name);
    let mut listed = site.neutron().security_groups().list(&filter).await?;
    let listed = listed.pop().filter(|_| listed.is_empty()).context("not exactly one group of this name")?;
    let rules: BTreeSet<_> = listed.rules.into_iter().map(|rule| rule.allows).collect();
    ensure!(listed.id == group.id && rules == everything(Direction::Egress), "{rules:?}");
    Ok(())
}

pub(super) async fn a_used_up_quota_is_told_and_makes_nothing(site: &Site) -> anyhow::Result<()> {
    let group = site.group().await?;
    let before = rules(site, group.id).await?;
    site.leave_free("security_group_rule", 1).await?;
    let error = site.neutron().security_groups().create_rules(&[80, 443].map(|number| tcp(group.id, number))).await;
    let error = refused("a bulk that is larger than the quota", error)?;
    is_refusal(&error, 409, &["OverQuota"])?;
    ensure!(error.is_quota() && !error.is_ambiguous(), "{error} is {:?}", error.class());
    ensure!(rules(site, group.id).await? == before, "some of the bulk was made");
    site.neutron().security_groups().create_rules(&[tcp(group.id, 80)]).await?;
    Ok(())
}

pub(super) async fn a_rule_reads_back_as_it_was_asked_for(site: &Site) -> anyhow::Result<()> {
    let (group, peers) = (site.group().await?, site.group().await?);
    let mut asked = BTreeSet::new();
    for (family, net, host) in
        [(EtherType::IPv4, "10.231.0.0/17", "10.231.0.7/32"), (EtherType::IPv6, "fd00:231::/64", "fd00:231::7/128")]
    {
        let open = RuleContent::everything(Direction::Ingress, family);
        let of = |protocol: &str, ports: Option<(u16, u16)>| RuleContent {
            protocol: Some(protocol.to_owned()),
            port_range_min: ports.map(|(first, _)| first),
            port_range_max: ports.map(|(_, last)| last),
            ..open.clone()
        };
        let net = Some(net.parse()?);
        let host = Some(host.parse()?);
        asked.extend([
            RuleContent { remote_group_id: Some(peers.id), ..open.clone() },
            RuleContent { remote_group_id: Some(group.id), ..of("tcp", Some((80, 80))) },
            RuleContent { remote_ip_prefix: net, ..of("udp", Some((1000, 2000))) },
            RuleContent { remote_ip_prefix: host, ..of("sctp", Some((36412, 36412))) },
            RuleContent { remote_ip_prefix: host, direction: Direction::Egress, ..open.clone() },
            of("tcp", None),
            of("sctp", None),
            of("udp", Some((1, 65534))),
        ]);
    }
    for rule in &group.rules {
        site.neutron().security_groups().delete_rule(rule.id).await?;
    }
    let new: Vec<NewRule> =
        asked.iter().map(|allows| NewRule { security_group_id: group.id, allows: allows.clone() }).collect();
    let made = site.neutron().security_groups().create_rules(&new).await?;
    let made: BTreeSet<_> = made.into_iter().map(|rule| rule.allows).collect();
    ensure!(made == asked, "the answer is {made:?}");
    let read = rules(site, group.id).await?;
    ensure!(read == asked, "what is read is {read:?}");
    Ok(())
}

pub(super) async fn a_rule_about_a_group_goes_with_that_group(site: &Site) -> anyhow::Result<()> {
    let (group, peers) = (site.group().await?, site.group().await?);
    let allows =
        RuleContent { remote_group_id: Some(peers.id), ..RuleContent::everything(Direction::Ingress, EtherType::IPv4) };
    let groups = site.neutron();
    groups.security_groups().create_rules(&[NewRule { security_group_id: group.id, allows }]).await?;
    groups.security_groups().delete(peers.id).await?;
    let left = rules(site, group.id).await?;
    ensure!(left == everything(Direction::Egress), "it has {left:?}");
    Ok(())
}

pub(super) async fn a_port_changes_all_its_groups_in_one_update(site: &Site) -> anyhow::Result<()> {
    let (before, after, both) = (site.group().await?, site.group().await?, site.group().await?);
    let (network, subnet) = site.wire("10.231.0.0/24").await?;
    let groups = vec![before.id, both.id];
    let port = site.port(NewPort { security_groups: groups, ..new_port(network.id, subnet.id) }).await?;
    let change = PortUpdate { security_groups: Some(vec![both.id, after.id]), ..PortUpdate::default() };
    let changed = site.neutron().ports().update(port.id, &change, None).await?;
    let found: BTreeSet<_> = changed.security_groups.into_iter().collect();
    ensure!(found == [both.id, after.id].into(), "it has {found:?}");
    // What it has left is free to go, and what it has is not.
    site.neutron().security_groups().delete(before.id).await?;
    refused("to delete a group in use", site.neutron().security_groups().delete(after.id).await)?;
    Ok(())
}

pub(super) async fn a_used_up_quota_of_groups_is_told(site: &Site) -> anyhow::Result<()> {
    site.leave_free("security_group", 0).await?;
    let new = NewSecurityGroup { name: fresh("group"), description: String::new() };
    let error = refused("a group beyond the quota", site.neutron().security_groups().create(&new).await)?;
    is_refusal(&error, 409, &["OverQuota"])?;
    ensure!(error.is_quota() && !error.is_ambiguous(), "{error} is {:?}", error.class());
    Ok(())
}
