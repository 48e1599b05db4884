//! One kind of rule after the other.

use super::{
    lab::{Group, Lab, Role, family},
    probe::{self, NUMBERS, Outcome, Probe},
};
use ipnet::IpNet;
use kuryr_model::neutron::{Direction, EtherType, RuleContent};
use kuryr_openstack::{chain, network::address_groups::EXTENSIONS};
use std::{fmt, io::Write, net::IpAddr, time::Duration};
use tokio::time::Instant;

/// How long is looked whether address groups are enforced: nothing depends on it.
const BRIEFLY: Duration = Duration::from_secs(5);
/// A packet may be lost for another reason: that something is dropped must be seen as often, one after the other.
const DROPS: usize = 2;

const FIRST: u16 = NUMBERS[0];
const SECOND: u16 = NUMBERS[1];
const THIRD: u16 = NUMBERS[2];

/// Who tries what, and what should come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Expected {
    from: Role,
    probe: Probe,
    outcome: Outcome,
}

/// What is not as expected.
struct Wrong {
    expected: Expected,
    family: EtherType,
}

fn passes(from: Role, probe: Probe) -> Expected {
    Expected { from, probe, outcome: Outcome::Passed }
}

fn dropped(from: Role, probe: Probe) -> Expected {
    Expected { from, probe, outcome: Outcome::Dropped }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.expected.from {
            Role::Server => "the server",
            Role::Member => "the port that the rule is about",
            Role::Other => "a port that the rule is not about",
        };
        let (protocol, number) = match self.expected.probe {
            Probe::Tcp(number) => ("TCP", number),
            Probe::Udp(number) => ("UDP", number),
        };
        let what = match self.expected.outcome {
            Outcome::Passed => "does not get through",
            Outcome::Dropped => "gets through",
        };
        let family = match self.family {
            EtherType::IPv4 => "IPv4",
            EtherType::IPv6 => "IPv6",
        };
        write!(f, "{who} {what} to {protocol} {number} over {family}")
    }
}

/// The checks, and how many have failed.
struct Report<'a> {
    out: &'a mut dyn Write,
    /// How long a change may take until packets see it. A cloud under load takes seconds.
    patience: Duration,
    failed: usize,
}

impl Report<'_> {
    /// One line for what was tried; what it means where it failed.
    fn say(&mut self, what: &str, wrong: &[String], means: &str) -> anyhow::Result<()> {
        if wrong.is_empty() {
            return Ok(writeln!(self.out, "✓ {what}")?);
        }
        self.failed += 1;
        writeln!(self.out, "✗ {what}: {}", wrong.join("; "))?;
        Ok(writeln!(self.out, "    {means}")?)
    }
}

/// Runs them all. True: everything is enforced.
pub(super) async fn run(lab: &mut Lab, patience: Duration, out: &mut dyn Write) -> anyhow::Result<bool> {
    let mut report = Report { out, patience, failed: 0 };
    closed(lab, &mut report).await?;
    if report.failed > 0 {
        // Nothing else would tell more.
        writeln!(report.out, "  the other kinds of rules were not tried: without this they mean nothing")?;
        return Ok(false);
    }
    if !everything(lab, &mut report).await? {
        writeln!(report.out, "  the other kinds of rules were not tried: no packet gets through")?;
        return Ok(false);
    }
    group(lab, &mut report).await?;
    addresses(lab, &mut report).await?;
    egress(lab, &mut report).await?;
    address_group(lab, &mut report).await?;
    Ok(report.failed == 0)
}

/// A port whose groups have no rules.
async fn closed(lab: &mut Lab, report: &mut Report<'_>) -> anyhow::Result<()> {
    let each = [Probe::Tcp(FIRST), Probe::Udp(FIRST)];
    let expected: Vec<Expected> =
        [Role::Member, Role::Other].into_iter().flat_map(|from| each.map(|probe| dropped(from, probe))).collect();
    let wrong = settle(lab, report.patience, &expected).await?;
    report.say(
        "a port without rules lets nothing in",
        &wrong,
        "security groups are not enforced here: is port security on for the pod network, and does the node's agent or \
         OVN filter? Whatever NetworkPolicies say, everyone reaches every pod",
    )
}

/// A rule for everything, and its end. False: nothing gets through, rule or not.
async fn everything(lab: &mut Lab, report: &mut Report<'_>) -> anyhow::Result<bool> {
    let rules = of_each_family(lab, |family| RuleContent::everything(Direction::Ingress, family));
    lab.allow(Group::Into, &rules).await?;
    let expected = [
        passes(Role::Member, Probe::Tcp(FIRST)),
        passes(Role::Other, Probe::Tcp(SECOND)),
        passes(Role::Other, Probe::Udp(FIRST)),
    ];
    let wrong = settle(lab, report.patience, &expected).await?;
    report.say(
        "a rule for everything lets everything in",
        &wrong,
        "pods that no policy isolates would not be reached: does the node's data plane get Neutron's changes?",
    )?;
    if !wrong.is_empty() {
        return Ok(false);
    }
    let streams = lab.connect(Role::Member, FIRST).await?;
    lab.forbid(Group::Into).await?;
    let wrong = settle(
        lab,
        report.patience,
        &[dropped(Role::Member, Probe::Tcp(FIRST)), dropped(Role::Other, Probe::Udp(FIRST))],
    )
    .await?;
    report.say(
        "nothing new gets in when the rule is gone",
        &wrong,
        "a NetworkPolicy that is made or tightened would not close what was open before it",
    )?;
    let mut wrong = Vec::new();
    for stream in &streams {
        if !ends(stream, report.patience).await? {
            wrong.push(format!("a connection from {} goes on", stream.local_addr()?));
        }
    }
    report.say(
        "an established connection ends with the rule that let it in",
        &wrong,
        "connections that are open when a NetworkPolicy forbids them stay open",
    )?;
    Ok(true)
}

/// A rule whose other side is a group.
async fn group(lab: &mut Lab, report: &mut Report<'_>) -> anyhow::Result<()> {
    let peers = Some(lab.named(Group::Peers));
    let rules = of_each_family(lab, |family| RuleContent {
        remote_group_id: peers,
        ..RuleContent::everything(Direction::Ingress, family)
    });
    lab.allow(Group::Into, &rules).await?;
    lab.carry(Role::Member, &[Group::Out, Group::Peers]).await?;
    let tcp = Probe::Tcp(FIRST);
    let wrong = settle(lab, report.patience, &[passes(Role::Member, tcp), dropped(Role::Other, tcp)]).await?;
    report.say(
        "a rule for the members of a group lets in those and nobody else",
        &wrong,
        "rules of NetworkPolicies about pods do not hold",
    )?;
    lab.carry(Role::Member, &[Group::Out]).await?;
    let wrong = settle(lab, report.patience, &[dropped(Role::Member, tcp)]).await?;
    report.say(
        "who leaves the group is no longer let in",
        &wrong,
        "a pod keeps what its old labels allowed when it gets other ones",
    )?;
    lab.forbid(Group::Into).await
}

/// A rule with addresses, a protocol and port numbers.
async fn addresses(lab: &mut Lab, report: &mut Report<'_>) -> anyhow::Result<()> {
    let rules = lab.addresses(Role::Member).iter().map(|address| RuleContent {
        protocol: Some("tcp".to_owned()),
        port_range_min: Some(FIRST),
        port_range_max: Some(SECOND),
        remote_ip_prefix: Some(IpNet::from(*address)),
        ..RuleContent::everything(Direction::Ingress, family(*address))
    });
    let rules: Vec<RuleContent> = rules.collect();
    lab.allow(Group::Into, &rules).await?;
    let expected = [
        passes(Role::Member, Probe::Tcp(FIRST)),
        passes(Role::Member, Probe::Tcp(SECOND)),
        dropped(Role::Member, Probe::Tcp(THIRD)),
        dropped(Role::Member, Probe::Udp(FIRST)),
        dropped(Role::Other, Probe::Tcp(FIRST)),
    ];
    let wrong = settle(lab, report.patience, &expected).await?;
    report.say(
        "a rule for addresses, a protocol and a range of port numbers lets in just that",
        &wrong,
        "rules of NetworkPolicies with ipBlock or ports do not hold",
    )?;
    lab.forbid(Group::Into).await
}

/// Rules at the sender.
async fn egress(lab: &mut Lab, report: &mut Report<'_>) -> anyhow::Result<()> {
    let open = of_each_family(lab, |family| RuleContent::everything(Direction::Ingress, family));
    lab.allow(Group::Into, &open).await?;
    lab.forbid(Group::Out).await?;
    let (first, second) = (Probe::Tcp(FIRST), Probe::Tcp(SECOND));
    let wrong = settle(lab, report.patience, &[dropped(Role::Member, first), passes(Role::Other, first)]).await?;
    report.say(
        "a port without rules lets nothing out",
        &wrong,
        "NetworkPolicies for egress do not hold: pods that they isolate may connect to everyone",
    )?;
    let rules = lab.addresses(Role::Server).iter().map(|address| RuleContent {
        protocol: Some("tcp".to_owned()),
        port_range_min: Some(FIRST),
        port_range_max: Some(FIRST),
        remote_ip_prefix: Some(IpNet::from(*address)),
        ..RuleContent::everything(Direction::Egress, family(*address))
    });
    let rules: Vec<RuleContent> = rules.collect();
    lab.allow(Group::Out, &rules).await?;
    let expected =
        [passes(Role::Member, first), dropped(Role::Member, second), dropped(Role::Member, Probe::Udp(FIRST))];
    let wrong = settle(lab, report.patience, &expected).await?;
    report.say(
        "a rule for addresses and a port number lets out just that",
        &wrong,
        "rules of NetworkPolicies for egress with ipBlock or ports do not hold",
    )?;
    lab.forbid(Group::Out).await?;
    let peers = Some(lab.named(Group::Peers));
    let rules = of_each_family(lab, |family| RuleContent {
        remote_group_id: peers,
        ..RuleContent::everything(Direction::Egress, family)
    });
    lab.allow(Group::Out, &rules).await?;
    let outside = settle(lab, report.patience, &[dropped(Role::Member, second), passes(Role::Other, second)]).await?;
    lab.carry(Role::Server, &[Group::Into, Group::Peers]).await?;
    let inside = settle(lab, report.patience, &[passes(Role::Member, second)]).await?;
    let mut wrong: Vec<String> =
        outside.into_iter().map(|it| format!("{it}, before the server was a member")).collect();
    wrong.extend(inside);
    report.say(
        "a rule for the members of a group lets out to those and nobody else",
        &wrong,
        "rules of NetworkPolicies for egress about pods do not hold",
    )?;
    lab.carry(Role::Server, &[Group::Into]).await?;
    lab.forbid(Group::Into).await
}

/// Address groups, which Kuryr does not use: it is only told what they are worth.
async fn address_group(lab: &mut Lab, report: &mut Report<'_>) -> anyhow::Result<()> {
    let extensions = lab.neutron().extensions().await?;
    if !extensions.missing(EXTENSIONS).is_empty() {
        return Ok(writeln!(report.out, "- address groups: this cloud has none, and Kuryr does without")?);
    }
    let Some(member) = lab.addresses(Role::Member).iter().copied().find(IpAddr::is_ipv4) else {
        return Ok(writeln!(report.out, "- address groups: not tried, as the pod network has no IPv4")?);
    };
    let everything = of_each_family(lab, |family| RuleContent::everything(Direction::Egress, family));
    lab.forbid(Group::Out).await?;
    lab.allow(Group::Out, &everything).await?;
    let name = lab.name().to_owned();
    let made = lab.neutron().address_groups().create(&name, &[IpNet::from(member)]).await;
    let addresses = match made {
        Ok(addresses) => addresses,
        Err(error) => return Ok(writeln!(report.out, "- address groups: not tried: {}", chain(&error))?),
    };
    lab.admit(&RuleContent::everything(Direction::Ingress, EtherType::IPv4), addresses).await?;
    let tcp = Probe::Tcp(FIRST);
    let wrong =
        settle_over(lab, BRIEFLY, &[passes(Role::Member, tcp), dropped(Role::Other, tcp)], |it| it.is_ipv4()).await?;
    lab.forbid(Group::Into).await?;
    let enforced = if wrong.is_empty() {
        "enforced here".to_owned()
    } else {
        format!("accepted and NOT enforced here ({})", wrong.join("; "))
    };
    Ok(writeln!(report.out, "- address groups: {enforced}; Kuryr does not need them")?)
}

fn of_each_family(lab: &Lab, rule: impl Fn(EtherType) -> RuleContent) -> Vec<RuleContent> {
    lab.families().into_iter().map(rule).collect()
}

/// Tries until all is as expected, as long as that may take; what is still wrong then.
async fn settle(lab: &Lab, patience: Duration, expected: &[Expected]) -> anyhow::Result<Vec<String>> {
    settle_over(lab, patience, expected, |_| true).await
}

async fn settle_over(
    lab: &Lab,
    patience: Duration,
    expected: &[Expected],
    over: impl Fn(IpAddr) -> bool,
) -> anyhow::Result<Vec<String>> {
    let deadline = Instant::now() + patience;
    let needed = if expected.iter().any(|it| it.outcome == Outcome::Dropped) { DROPS } else { 1 };
    let mut good = 0;
    loop {
        let tried = expected.iter().map(async |it| lab.try_once(it.from, it.probe).await.map(|found| (*it, found)));
        let found = futures::future::try_join_all(tried).await?;
        let mut wrong = Vec::new();
        for (expected, outcomes) in found {
            let of_server = lab.addresses(Role::Server).iter().zip(outcomes);
            let bad = of_server.filter(|(address, outcome)| over(**address) && *outcome != expected.outcome);
            wrong.extend(bad.map(|(address, _)| Wrong { expected, family: family(*address) }));
        }
        good = if wrong.is_empty() { good + 1 } else { 0 };
        if good >= needed || Instant::now() > deadline {
            return Ok(wrong.iter().map(ToString::to_string).collect());
        }
        if wrong.iter().all(|it| it.expected.outcome == Outcome::Dropped) && !wrong.is_empty() {
            // Silence takes its time by itself; answers come at once, and would be asked for without a pause.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Whether a connection ends within the time that it may take.
async fn ends(stream: &std::net::TcpStream, patience: Duration) -> anyhow::Result<bool> {
    let deadline = Instant::now() + patience;
    let mut silent = 0;
    while Instant::now() < deadline {
        match probe::still_works(stream).await? {
            Outcome::Dropped => silent += 1,
            Outcome::Passed => {
                silent = 0;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        if silent >= DROPS {
            return Ok(true);
        }
    }
    Ok(false)
}
