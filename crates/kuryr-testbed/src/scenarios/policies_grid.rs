//! Nine pods in three namespaces, and who of them reaches whom: asked with packets, all 81 pairs at once.
//!
//! ```text
//!   x/a  x/b  x/c      each serves at two port numbers, over TCP and UDP; a namespace has the label `ns`, a pod
//!   y/a  y/b  y/c      the labels `pod` and, some, `tier`, and the named ports of [`NAMED`]
//!   z/a  z/b  z/c
//! ```
//!
//! What is expected is said by hand, by a predicate about an [`Ask`]: who may reach whom as the specification of
//! Kubernetes has it. A pod always reaches itself.

use crate::{
    dataplane::probe::{self, Echo, Outcome, Question, Transport, ask_all, sctp},
    world::{NewPod, World, addresses},
};
use anyhow::{Context, bail, ensure};
use futures::future::{try_join, try_join_all};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};
use tokio::time::Instant;

/// The namespaces.
pub(super) const SPACES: [&str; 3] = ["x", "y", "z"];

/// The pods of each.
pub(super) const PODS: [&str; 3] = ["a", "b", "c"];

/// The port numbers at which every pod serves.
pub(super) const NUMBERS: [u16; 2] = [80, 81];

/// How long a table may take to become what it should be.
const WITHIN: Duration = Duration::from_secs(60);

/// After this time, what is not as it should be is told.
const SLOW: Duration = Duration::from_secs(10);

/// For what must arrive.
const PATIENCE: Duration = Duration::from_secs(5);

/// For a look at what should arrive, and may not yet.
const LOOK: Duration = Duration::from_millis(700);

/// For what must not arrive: long enough for what would.
const SILENCE: Duration = Duration::from_millis(400);

/// One question: from whom to whom, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ask<'a> {
    /// Who asks, like `x/a`.
    pub(super) from: &'a str,
    /// Who is asked.
    pub(super) to: &'a str,
    /// At which port number.
    pub(super) number: u16,
    /// Over what.
    pub(super) over: Transport,
    /// Whether by IPv6.
    pub(super) v6: bool,
}

impl Ask<'_> {
    /// Whether it comes from one of these; `x/*` and `*/a` are patterns.
    pub(super) fn from(&self, patterns: &[&str]) -> bool {
        patterns.iter().any(|pattern| matches(self.from, pattern))
    }

    /// Whether it goes to one of these.
    pub(super) fn to(&self, patterns: &[&str]) -> bool {
        patterns.iter().any(|pattern| matches(self.to, pattern))
    }

    /// Over TCP to this number.
    pub(super) fn tcp(&self, number: u16) -> bool {
        (self.over, self.number) == (Transport::Tcp, number)
    }

    /// Over UDP to this number.
    pub(super) fn udp(&self, number: u16) -> bool {
        (self.over, self.number) == (Transport::Udp, number)
    }
}

fn matches(name: &str, pattern: &str) -> bool {
    let (Some((space, pod)), Some((spaces, pods))) = (name.split_once('/'), pattern.split_once('/')) else {
        return name == pattern;
    };
    [(space, spaces), (pod, pods)].iter().all(|(part, wanted)| *wanted == "*" || part == wanted)
}

/// What is expected: whether a question may be answered.
pub(super) type Allows = fn(&Ask<'_>) -> bool;

/// A pod of the grid.
struct Member {
    /// Its name, like `x/a`.
    name: String,
    /// Its network namespace.
    netns: PathBuf,
    /// Its addresses.
    ips: Vec<IpAddr>,
    _echoes: Vec<Echo>,
    _servers: Vec<sctp::Server>,
}

/// The pods, and what they are asked over.
pub(super) struct Grid {
    /// What the names of the namespaces begin with.
    prefix: String,
    transports: Vec<Transport>,
    members: BTreeMap<String, Member>,
}

/// The label `tier` of the pods: one has it with an empty value, one has none.
const TIERS: [(&str, &str); 2] = [("a", "front"), ("b", "")];

/// Named ports: pod, name, protocol and number. `web` is another number in each pod, and of another protocol in the last.
pub(super) const NAMED: [(&str, &str, &str, u16); 5] = [
    ("a", "web", "TCP", 80),
    ("b", "web", "TCP", 81),
    ("c", "web", "UDP", 80),
    ("a", "only-a", "TCP", 81),
    ("a", "dns", "UDP", 81),
];

impl Grid {
    /// Makes namespaces and pods and waits until all run.
    pub(super) async fn new(world: &mut World, transports: &[Transport]) -> anyhow::Result<Self> {
        let prefix = world.namespace().to_owned();
        let mut grid = Self { prefix, transports: transports.to_vec(), members: BTreeMap::new() };
        for space in SPACES {
            let labels = BTreeMap::from([("ns".to_owned(), space.to_owned())]);
            world.add_namespace(&grid.namespace(space), &labels).await?;
        }
        let names: Vec<String> =
            SPACES.iter().flat_map(|space| PODS.iter().map(move |pod| format!("{space}/{pod}"))).collect();
        let made = try_join_all(names.iter().map(|name| grid.start(world, name))).await?;
        grid.members.extend(made.into_iter().map(|member| (member.name.clone(), member)));
        Ok(grid)
    }

    /// The name in Kubernetes of a namespace of the grid.
    pub(super) fn namespace(&self, space: &str) -> String {
        format!("{}-{space}", self.prefix)
    }

    /// A member by its name.
    fn member(&self, name: &str) -> anyhow::Result<&Member> {
        self.members.get(name).with_context(|| format!("there is no pod {name}"))
    }

    fn spot<'a>(&self, name: &'a str) -> anyhow::Result<(String, &'a str)> {
        let (space, pod) = name.split_once('/').with_context(|| format!("{name} is no pod of the grid"))?;
        Ok((self.namespace(space), pod))
    }

    /// Makes the pod of this name.
    async fn start(&self, world: &World, name: &str) -> anyhow::Result<Member> {
        let (namespace, pod) = self.spot(name)?;
        let mut new = NewPod::new(pod).label("pod", pod);
        for (_, tier) in TIERS.iter().filter(|(who, _)| *who == pod) {
            new = new.label("tier", tier);
        }
        for (_, port, protocol, number) in NAMED.iter().filter(|(who, ..)| *who == pod) {
            new = new.named_port_of(protocol, port, *number);
        }
        // On every node some of each namespace, where there are several.
        let place = SPACES.iter().position(|space| name.starts_with(space)).unwrap_or_default()
            + PODS.iter().position(|one| *one == pod).unwrap_or_default();
        new = new.on(&world.nodes[place % world.nodes.len()]);
        let pods = world.pods_of(&namespace);
        pods.create(&new).await?;
        self.serve(world, name, &pods.running(pod).await?).await
    }

    async fn serve(&self, world: &World, name: &str, pod: &Pod) -> anyhow::Result<Member> {
        let (netns, ips) = (world.netns(pod)?, addresses(pod)?);
        let (mut echoes, mut servers) = (Vec::new(), Vec::new());
        for address in ips.iter().flat_map(|ip| NUMBERS.map(|number| (*ip, number).into())) {
            echoes.push(probe::listen_as(&netns, address, name).await?);
            if self.transports.contains(&Transport::Sctp) {
                servers.push(sctp::listen(&netns, address).await?);
            }
        }
        Ok(Member { name: name.to_owned(), netns, ips, _echoes: echoes, _servers: servers })
    }

    /// Deletes a pod and makes another one of its name.
    pub(super) async fn recreate(&mut self, world: &World, name: &str) -> anyhow::Result<()> {
        let (namespace, pod) = self.spot(name)?;
        self.members.remove(name);
        let pods = world.pods_of(&namespace);
        pods.delete(pod).await?;
        pods.gone(pod).await?;
        let made = self.start(world, name).await?;
        self.members.insert(name.to_owned(), made);
        Ok(())
    }

    /// Changes labels of a pod; null takes one away.
    pub(super) async fn label_pod(&self, world: &World, name: &str, labels: Value) -> anyhow::Result<()> {
        let (namespace, pod) = self.spot(name)?;
        let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
        world.pods_of(&namespace).api().patch(pod, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Changes labels of a namespace.
    pub(super) async fn label_space(&self, world: &World, space: &str, labels: Value) -> anyhow::Result<()> {
        let namespaces: Api<Namespace> = Api::all(world.client.clone());
        let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
        namespaces.patch(&self.namespace(space), &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// The specification of a policy, in YAML, where `{x}` is the name of the namespace x and `{x/a}` the address of a pod,
    /// `{x/a:v6}` its one of IPv6.
    pub(super) fn spec(&self, yaml: &str) -> anyhow::Result<Value> {
        let mut text = yaml.to_owned();
        for space in SPACES {
            text = text.replace(&format!("{{{space}}}"), &self.namespace(space));
        }
        for (name, member) in &self.members {
            for ip in &member.ips {
                let end = if ip.is_ipv6() { ":v6" } else { "" };
                text = text.replace(&format!("{{{name}{end}}}"), &ip.to_string());
            }
        }
        ensure!(!text.contains("{x") && !text.contains("{y") && !text.contains("{z"), "something is left in {text}");
        // As Kubernetes reads it: `y` is a word.
        let options = serde_saphyr::options! { strict_booleans: true };
        serde_saphyr::from_str_with_options(&text, options).with_context(|| format!("no YAML: {text}"))
    }

    /// All questions.
    fn asks(&self) -> Vec<(Ask<'_>, IpAddr)> {
        let mut asks = Vec::new();
        for (from, to) in self.members.keys().flat_map(|from| self.members.keys().map(move |to| (from, to))) {
            for ip in &self.members[to].ips {
                for (over, number) in self.transports.iter().flat_map(|over| NUMBERS.map(|number| (*over, number))) {
                    asks.push((Ask { from, to, number, over, v6: ip.is_ipv6() }, *ip));
                }
            }
        }
        asks
    }

    /// Asks, and gives back the questions whose outcome is not what is expected.
    async fn wrong<'a>(
        &self,
        asks: &[(Ask<'a>, IpAddr)],
        expected: &impl Fn(&Ask<'_>) -> bool,
        patience: Duration,
    ) -> anyhow::Result<Vec<((Ask<'a>, IpAddr), Outcome)>> {
        let mut by_member: BTreeMap<&str, Vec<(Ask<'a>, IpAddr)>> = BTreeMap::new();
        for ask in asks {
            by_member.entry(ask.0.from).or_default().push(*ask);
        }
        let asked = by_member.into_iter().map(|(from, asks)| async move {
            let question = |(ask, ip): &(Ask<'_>, IpAddr)| Question {
                transport: ask.over,
                target: (*ip, ask.number).into(),
                patience: if expected(ask) { patience } else { SILENCE },
            };
            let questions: Vec<Question> = asks.iter().map(question).collect();
            let outcomes = ask_all(&self.member(from)?.netns, &questions).await?;
            anyhow::Ok(asks.into_iter().zip(outcomes).collect::<Vec<_>>())
        });
        let outcomes = try_join_all(asked).await?.into_iter().flatten();
        let wanted = |ask: &Ask<'_>| if expected(ask) { Outcome::Answered } else { Outcome::Silent };
        Ok(outcomes.filter(|((ask, _), outcome)| *outcome != wanted(ask)).collect())
    }

    /// Waits until everybody reaches exactly whom they may, and looks once more whether that stays so.
    pub(super) async fn expect(&self, allows: impl Fn(&Ask<'_>) -> bool) -> anyhow::Result<()> {
        self.expect_within(WITHIN, allows).await.map(drop)
    }

    /// The same within a time of its own; how long it took.
    pub(super) async fn expect_within(
        &self,
        within: Duration,
        allows: impl Fn(&Ask<'_>) -> bool,
    ) -> anyhow::Result<Duration> {
        let expected = |ask: &Ask<'_>| ask.from == ask.to || allows(ask);
        let (all, started) = (self.asks(), Instant::now());
        let (mut open, mut told) = (all.clone(), false);
        loop {
            let wrong = self.wrong(&open, &expected, LOOK).await?;
            let took = started.elapsed();
            if wrong.is_empty() && open.len() == all.len() {
                let wrong = self.wrong(&all, &expected, PATIENCE).await?;
                ensure!(wrong.is_empty(), "it did not stay so:\n{}", table(&all, &wrong));
                return Ok(took);
            }
            if took > within {
                bail!("after {took:.1?} it is not so:\n{}", table(&all, &wrong));
            }
            // Later, whoever looks for the reason finds that it came right, or was taken down.
            if took > SLOW && !told && !wrong.is_empty() {
                tracing::warn!("after {took:.1?} it is not so yet:\n{}", table(&all, &wrong));
                told = true;
            }
            open = if wrong.is_empty() { all.clone() } else { wrong.into_iter().map(|(ask, _)| ask).collect() };
            // A refusal comes at once, and nothing tells when it will be another answer.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Deletes all pods and waits until they are gone.
    pub(super) async fn end(self, world: &World) -> anyhow::Result<()> {
        for space in SPACES {
            world.pods_of(&self.namespace(space)).delete_all().await?;
        }
        for space in SPACES {
            world.pods_of(&self.namespace(space)).all_gone().await?;
        }
        Ok(())
    }
}

/// What is not as expected, for people: each pair on a line.
fn table(all: &[(Ask<'_>, IpAddr)], wrong: &[((Ask<'_>, IpAddr), Outcome)]) -> String {
    let mut pairs: BTreeMap<(&str, &str), BTreeSet<String>> = BTreeMap::new();
    for ((ask, _), outcome) in wrong {
        let family = if ask.v6 { " IPv6" } else { "" };
        let said = format!("{}/{}{family} {outcome:?}", ask.over, ask.number);
        pairs.entry((ask.from, ask.to)).or_default().insert(said);
    }
    let mut text = format!("{} of {} questions", wrong.len(), all.len());
    for ((from, to), said) in pairs {
        let said: Vec<String> = said.into_iter().collect();
        let _ = write!(text, "\n  {from} -> {to}: {}", said.join(", "));
    }
    text
}

/// A policy of a case: the namespace that it is in, and its specification in YAML.
pub(super) type Written = (&'static str, &'static str);

/// Policies, and what they come to.
pub(super) struct Case {
    /// What is said by it.
    pub(super) name: &'static str,
    /// The policies.
    pub(super) policies: &'static [Written],
    /// Who may reach whom.
    pub(super) allows: Allows,
}

/// Tells cases one after another: the policies of the one before are deleted, and those of the next made, at once.
pub(super) async fn tell(world: &World, grid: &Grid, cases: &[Case]) -> anyhow::Result<()> {
    grid.expect(|_| true).await.context("without any policy")?;
    let mut before: Vec<(String, String)> = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let started = Instant::now();
        let mut now = Vec::new();
        let mut make = Vec::new();
        for (index, (space, yaml)) in case.policies.iter().enumerate() {
            let (namespace, name) = (grid.namespace(space), format!("case-{number}-{index}"));
            make.push((world.policies_of(&namespace), name.clone(), grid.spec(yaml).context(case.name)?));
            now.push((namespace, name));
        }
        let made = try_join_all(make.iter().map(|(policies, name, spec)| policies.create(name, spec)));
        let deleted = try_join_all(
            before.iter().map(|(namespace, name)| async move { world.policies_of(namespace).delete(name).await }),
        );
        try_join(made, deleted).await.context(case.name)?;
        let took = grid.expect_within(WITHIN, case.allows).await.context(case.name)?;
        tracing::info!(case = case.name, enforced = ?took, took = ?started.elapsed(), "holds");
        before = now;
    }
    for (namespace, name) in before {
        world.policies_of(&namespace).delete(&name).await?;
    }
    grid.expect(|_| true).await.context("after all policies are gone")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_a_policy_that_the_api_server_takes_and_says_something() {
        use super::super::{policies_peers, policies_ports, policies_ways};
        use k8s_openapi::api::networking::v1::NetworkPolicySpec;
        let tables = [
            policies_peers::CASES,
            policies_ports::CASES,
            policies_ports::SCTP,
            policies_ways::DIRECTIONS,
            policies_ways::BLOCKS,
            policies_ways::FAMILIES,
        ];
        let mut grid = Grid { prefix: "test".into(), transports: Vec::new(), members: BTreeMap::new() };
        for (number, name) in SPACES.iter().flat_map(|space| PODS.map(|pod| format!("{space}/{pod}"))).enumerate() {
            let ips = [format!("10.0.0.{number}"), format!("fd00::{number}")].map(|ip| ip.parse().unwrap());
            let member = Member {
                name: name.clone(),
                netns: PathBuf::new(),
                ips: ips.into(),
                _echoes: Vec::new(),
                _servers: Vec::new(),
            };
            grid.members.insert(name, member);
        }
        let mut names = BTreeSet::new();
        let mut open = 0;
        for case in tables.into_iter().flatten() {
            assert!(names.insert(case.name), "{} is there twice", case.name);
            for (space, yaml) in case.policies {
                assert!(SPACES.contains(space), "{}", case.name);
                let spec = grid.spec(yaml).unwrap_or_else(|error| panic!("{}: {error:?}", case.name));
                let read: NetworkPolicySpec =
                    serde_json::from_value(spec.clone()).unwrap_or_else(|error| panic!("{}: {error}", case.name));
                // A word that is no field is lost on the way.
                let back = serde_json::to_value(read).unwrap();
                for (field, value) in spec.as_object().unwrap() {
                    let empty = value.as_array().is_some_and(Vec::is_empty);
                    assert!(empty || back[field] == *value || same(value, &back[field]), "{}: {field}", case.name);
                }
            }
            open += usize::from(grid.asks_of_all().iter().all(case.allows));
        }
        assert!(names.len() >= 60, "there are {} cases", names.len());
        assert!(open <= 10, "{open} cases forbid nothing");
    }

    /// Whether what was written is still there; empty lists may go.
    fn same(written: &Value, read: &Value) -> bool {
        match (written, read) {
            (Value::Object(written), read) => written.iter().all(|(key, value)| same(value, &read[key])),
            (Value::Array(written), Value::Array(read)) => {
                written.len() == read.len() && written.iter().zip(read).all(|(one, other)| same(one, other))
            }
            (Value::Array(written), Value::Null) => written.is_empty(),
            (written, read) => written == read,
        }
    }

    impl Grid {
        /// Every question of any protocol and family.
        fn asks_of_all(&self) -> Vec<Ask<'_>> {
            let mut asks = Vec::new();
            for (from, to) in self.members.keys().flat_map(|from| self.members.keys().map(move |to| (from, to))) {
                for (over, number) in [Transport::Tcp, Transport::Udp, Transport::Sctp]
                    .into_iter()
                    .flat_map(|over| NUMBERS.map(|number| (over, number)))
                {
                    asks.extend([false, true].map(|v6| Ask { from, to, number, over, v6 }));
                }
            }
            asks
        }
    }

    #[test]
    fn patterns_are_of_namespaces_and_pods() {
        let ask = Ask { from: "x/a", to: "y/b", number: 80, over: Transport::Tcp, v6: false };
        assert!(ask.from(&["x/a"]) && ask.from(&["x/*"]) && ask.from(&["*/a"]) && ask.from(&["z/c", "*/*"]));
        assert!(!ask.from(&["y/*", "*/b"]) && !ask.from(&[]) && !ask.to(&["x/*"]));
        assert!(ask.tcp(80) && !ask.tcp(81) && !ask.udp(80));
    }
}
