//! Where policies look: in, out, both ways; and blocks of addresses.

use super::policies_grid::{Case, Grid, tell};
use crate::{dataplane::probe::Transport, world::World};

pub(super) async fn policies_hold_in_the_directions_that_they_name(world: &mut World) -> anyhow::Result<()> {
    let grid = Grid::new(world, &[Transport::Tcp, Transport::Udp]).await?;
    tell(world, &grid, DIRECTIONS).await
}

pub(super) async fn policies_tell_addresses_apart(world: &mut World) -> anyhow::Result<()> {
    let grid = Grid::new(world, &[Transport::Tcp, Transport::Udp]).await?;
    tell(world, &grid, BLOCKS).await
}

pub(super) async fn policies_hold_for_both_families(world: &mut World) -> anyhow::Result<()> {
    world.set_up_ipv6().await?;
    let grid = Grid::new(world, &[Transport::Tcp, Transport::Udp]).await?;
    tell(world, &grid, FAMILIES).await?;
    // The real world is the same for all scenarios.
    grid.end(world).await?;
    world.take_down_ipv6().await
}

pub(super) const DIRECTIONS: &[Case] = &[
    Case {
        name: "nothing gets out",
        policies: &[("x", "{podSelector: {}, policyTypes: [Egress]}")],
        allows: |ask| !ask.from(&["x/*"]),
    },
    Case {
        name: "out to one namespace",
        policies: &[(
            "x",
            "podSelector: {}
policyTypes: [Egress]
egress:
- to: [{namespaceSelector: {matchLabels: {ns: y}}}]",
        )],
        allows: |ask| !ask.from(&["x/*"]) || ask.to(&["y/*"]),
    },
    Case {
        name: "out to some pods at one number",
        policies: &[(
            "x",
            "podSelector: {matchLabels: {pod: a}}
policyTypes: [Egress]
egress:
- to:
  - namespaceSelector: {matchExpressions: [{key: ns, operator: In, values: [x, z]}]}
    podSelector: {matchLabels: {pod: b}}
  ports: [{port: 80}]",
        )],
        allows: |ask| !ask.from(&["x/a"]) || (ask.to(&["x/b", "z/b"]) && ask.tcp(80)),
    },
    Case {
        name: "an empty list of destinations lets out to all",
        policies: &[("x", "{podSelector: {}, policyTypes: [Egress], egress: [{to: []}]}")],
        allows: |_| true,
    },
    Case {
        name: "out to all at one number",
        policies: &[("x", "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{protocol: UDP, port: 81}]}]}")],
        allows: |ask| !ask.from(&["x/*"]) || ask.udp(81),
    },
    Case {
        name: "rules about a direction that the policy does not name mean nothing: egress",
        policies: &[("x", "{podSelector: {}, policyTypes: [Ingress], ingress: [{}], egress: [{ports: [{port: 80}]}]}")],
        allows: |_| true,
    },
    Case {
        name: "rules about a direction that the policy does not name mean nothing: ingress",
        policies: &[("x", "{podSelector: {}, policyTypes: [Egress], egress: [{}], ingress: [{ports: [{port: 80}]}]}")],
        allows: |_| true,
    },
    Case {
        name: "without a word about directions, rules for egress isolate both",
        policies: &[("x", "{podSelector: {}, egress: [{to: [{namespaceSelector: {matchLabels: {ns: y}}}]}]}")],
        allows: |ask| !ask.to(&["x/*"]) && (!ask.from(&["x/*"]) || ask.to(&["y/*"])),
    },
    Case {
        name: "without a word about directions, nothing is said of egress",
        policies: &[("x", "{podSelector: {}}")],
        allows: |ask| !ask.to(&["x/*"]),
    },
    Case {
        name: "sender and receiver must both agree",
        policies: &[
            (
                "x",
                "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: y}}}]}]}",
            ),
            (
                "y",
                "podSelector: {}
ingress:
- from: [{namespaceSelector: {}, podSelector: {matchLabels: {pod: a}}}]
  ports: [{port: 80}]",
            ),
        ],
        allows: |ask| {
            (!ask.from(&["x/*"]) || ask.to(&["y/*"])) && (!ask.to(&["y/*"]) || (ask.from(&["*/a"]) && ask.tcp(80)))
        },
    },
    Case {
        name: "everything is forbidden but one way",
        policies: &[
            ("x", "{podSelector: {}, policyTypes: [Ingress, Egress]}"),
            ("y", "{podSelector: {}, policyTypes: [Ingress, Egress]}"),
            (
                "x",
                "podSelector: {matchLabels: {pod: a}}
policyTypes: [Egress]
egress:
- to: [{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {pod: b}}}]
  ports: [{port: 80}]",
            ),
            (
                "y",
                "podSelector: {matchLabels: {pod: b}}
ingress:
- from: [{namespaceSelector: {matchLabels: {ns: x}}, podSelector: {matchLabels: {pod: a}}}]
  ports: [{port: 80, endPort: 81}]",
            ),
        ],
        allows: |ask| {
            (ask.from(&["z/*"]) && ask.to(&["z/*"])) || (ask.from(&["x/a"]) && ask.to(&["y/b"]) && ask.tcp(80))
        },
    },
    Case {
        name: "out to a name, which is a number of its own in each pod",
        policies: &[(
            "x",
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: web}]}]}",
        )],
        allows: |ask| !ask.from(&["x/*"]) || (ask.to(&["*/a"]) && ask.tcp(80)) || (ask.to(&["*/b"]) && ask.tcp(81)),
    },
];

pub(super) const BLOCKS: &[Case] = &[
    Case {
        name: "in from one address",
        policies: &[("x", "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: '{y/a}/32'}}]}]}")],
        allows: |ask| !ask.to(&["x/*"]) || ask.from(&["y/a"]),
    },
    Case {
        name: "in from all but one address",
        policies: &[(
            "x",
            "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: ['{y/a}/32']}}]}]}",
        )],
        allows: |ask| !ask.to(&["x/*"]) || !ask.from(&["y/a"]),
    },
    Case {
        name: "in from all but several addresses, some said twice",
        policies: &[(
            "x",
            "podSelector: {}
ingress:
- from:
  - ipBlock: {cidr: 0.0.0.0/0, except: ['{y/a}/32', '{z/b}/32', '{y/a}/32', '{x/c}/32']}",
        )],
        allows: |ask| !ask.to(&["x/*"]) || !ask.from(&["y/a", "z/b", "x/c"]),
    },
    Case {
        name: "exceptions that leave nothing let nobody in",
        policies: &[(
            "x",
            "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [0.0.0.0/1, 128.0.0.0/1]}}]}]}",
        )],
        allows: |ask| !ask.to(&["x/*"]),
    },
    Case {
        name: "an exception of one block is no exception of another",
        policies: &[(
            "x",
            "podSelector: {}
ingress:
- from:
  - ipBlock: {cidr: 0.0.0.0/0, except: ['{y/a}/32', '{y/b}/32']}
  - ipBlock: {cidr: '{y/a}/32'}",
        )],
        allows: |ask| !ask.to(&["x/*"]) || !ask.from(&["y/b"]),
    },
    Case {
        name: "a block and selectors in one rule add up",
        policies: &[(
            "x",
            "podSelector: {}
ingress:
- from:
  - ipBlock: {cidr: '{z/c}/32'}
  - podSelector: {matchLabels: {pod: a}}
  ports: [{port: 80}, {protocol: UDP, port: 80}]",
        )],
        allows: |ask| !ask.to(&["x/*"]) || (ask.from(&["z/c", "x/a"]) && ask.number == 80),
    },
    Case {
        name: "out to one address at one number",
        policies: &[(
            "x",
            "podSelector: {}
policyTypes: [Egress]
egress:
- to: [{ipBlock: {cidr: '{y/a}/32'}}]
  ports: [{port: 81}]",
        )],
        allows: |ask| !ask.from(&["x/*"]) || (ask.to(&["y/a"]) && ask.tcp(81)),
    },
    Case {
        name: "out to all but two addresses",
        policies: &[(
            "x",
            "podSelector: {}
policyTypes: [Egress]
egress:
- to: [{ipBlock: {cidr: 0.0.0.0/0, except: ['{y/a}/32', '{x/b}/32']}}]",
        )],
        allows: |ask| !ask.from(&["x/*"]) || !ask.to(&["y/a", "x/b"]),
    },
    Case {
        name: "out to a name within a block",
        policies: &[(
            "x",
            "podSelector: {}
policyTypes: [Egress]
egress:
- to: [{ipBlock: {cidr: 0.0.0.0/0, except: ['{z/b}/32']}}]
  ports: [{port: web}]",
        )],
        allows: |ask| {
            !ask.from(&["x/*"]) || (ask.to(&["*/a"]) && ask.tcp(80)) || (ask.to(&["x/b", "y/b"]) && ask.tcp(81))
        },
    },
];

pub(super) const FAMILIES: &[Case] = &[
    Case {
        name: "selectors mean pods by all their addresses",
        policies: &[("x", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}]}]}")],
        allows: |ask| !ask.to(&["x/*"]) || ask.from(&["y/*"]),
    },
    Case {
        name: "a block of one family says nothing of the other",
        policies: &[("x", "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}")],
        allows: |ask| !ask.to(&["x/*"]) || !ask.v6,
    },
    Case {
        name: "a block of IPv6 with exceptions",
        policies: &[(
            "x",
            "podSelector: {}
ingress:
- from: [{ipBlock: {cidr: '::/0', except: ['{y/a:v6}/128', '{z/b:v6}/128']}}]
  ports: [{port: 80}]",
        )],
        allows: |ask| !ask.to(&["x/*"]) || (ask.v6 && ask.tcp(80) && !ask.from(&["y/a", "z/b"])),
    },
    Case {
        name: "out to an address of IPv6, and to a name by both",
        policies: &[(
            "x",
            "podSelector: {}
policyTypes: [Egress]
egress:
- to: [{ipBlock: {cidr: '{y/c:v6}/128'}}]
- to: [{podSelector: {}}]
  ports: [{port: web}]",
        )],
        allows: |ask| {
            !ask.from(&["x/*"])
                || (ask.v6 && ask.to(&["y/c"]))
                || (ask.to(&["x/a"]) && ask.tcp(80))
                || (ask.to(&["x/b"]) && ask.tcp(81))
        },
    },
    Case {
        name: "nothing in and nothing out by either",
        policies: &[("z", "{podSelector: {}, policyTypes: [Ingress, Egress]}")],
        allows: |ask| !ask.from(&["z/*"]) && !ask.to(&["z/*"]),
    },
];
