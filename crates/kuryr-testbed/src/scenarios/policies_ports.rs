//! What policies let through: protocols, port numbers, ranges and names.

use super::policies_grid::{Case, Grid, tell};
use crate::{dataplane::probe::Transport, world::World};

pub(super) async fn policies_let_through_what_their_ports_say(world: &mut World) -> anyhow::Result<()> {
    let grid = Grid::new(world, &[Transport::Tcp, Transport::Udp]).await?;
    tell(world, &grid, CASES).await
}

pub(super) async fn policies_tell_sctp_from_the_rest(world: &mut World) -> anyhow::Result<()> {
    let grid = Grid::new(world, &[Transport::Sctp, Transport::Tcp]).await?;
    tell(world, &grid, SCTP).await
}

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a number is let through, over TCP unless said otherwise",
        policies: &[("x", "{podSelector: {}, ingress: [{ports: [{port: 80}]}]}")],
        allows: |ask| !ask.to(&["x/*"]) || ask.tcp(80),
    },
    Case {
        name: "a protocol without a number is let through whole",
        policies: &[("x", "{podSelector: {}, ingress: [{ports: [{protocol: UDP}]}]}")],
        allows: |ask| !ask.to(&["x/*"]) || ask.over == Transport::Udp,
    },
    Case {
        name: "an empty list of ports lets all through",
        policies: &[(
            "x",
            "{podSelector: {}, ingress: [{ports: [], from: [{namespaceSelector: {matchLabels: {ns: z}}}]}]}",
        )],
        allows: |ask| !ask.to(&["x/*"]) || ask.from(&["z/*"]),
    },
    Case {
        name: "a range lets all numbers of it through",
        policies: &[("x", "{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 81}]}]}")],
        allows: |ask| !ask.to(&["x/*"]) || ask.over == Transport::Tcp,
    },
    Case {
        name: "a range ends at its last number",
        policies: &[("x", "{podSelector: {}, ingress: [{ports: [{protocol: UDP, port: 1, endPort: 80}]}]}")],
        allows: |ask| !ask.to(&["x/*"]) || ask.udp(80),
    },
    Case {
        name: "a range begins at its first number",
        policies: &[("x", "{podSelector: {}, ingress: [{ports: [{port: 81, endPort: 65535}]}]}")],
        allows: |ask| !ask.to(&["x/*"]) || ask.tcp(81),
    },
    Case {
        name: "several ports of a rule, over several protocols",
        policies: &[("x", "{podSelector: {}, ingress: [{ports: [{port: 80}, {protocol: UDP, port: 81}]}]}")],
        allows: |ask| !ask.to(&["x/*"]) || ask.tcp(80) || ask.udp(81),
    },
    Case {
        name: "each rule has its own peers and ports",
        policies: &[(
            "x",
            "podSelector: {}
ingress:
- from: [{namespaceSelector: {matchLabels: {ns: y}}}]
  ports: [{port: 80}]
- from: [{namespaceSelector: {matchLabels: {ns: z}}}]
  ports: [{port: 81}, {protocol: UDP}]",
        )],
        allows: |ask| {
            !ask.to(&["x/*"])
                || (ask.from(&["y/*"]) && ask.tcp(80))
                || (ask.from(&["z/*"]) && (ask.tcp(81) || ask.over == Transport::Udp))
        },
    },
    Case {
        name: "an empty rule that is not the first lets all through",
        policies: &[("x", "{podSelector: {}, ingress: [{ports: [{port: 80}], from: [{podSelector: {}}]}, {}]}")],
        allows: |_| true,
    },
    Case {
        name: "a name of a port is a number of its own in each pod, for whoever asks",
        policies: &[("x", "{podSelector: {}, ingress: [{ports: [{port: web}]}]}")],
        allows: |ask| !ask.to(&["x/*"]) || (ask.to(&["x/a"]) && ask.tcp(80)) || (ask.to(&["x/b"]) && ask.tcp(81)),
    },
    Case {
        name: "a name counts for the protocol that the policy names only",
        policies: &[("x", "{podSelector: {}, ingress: [{ports: [{port: web, protocol: UDP}]}]}")],
        allows: |ask| !ask.to(&["x/*"]) || (ask.to(&["x/c"]) && ask.udp(80)),
    },
    Case {
        name: "a name that few pods have opens no other",
        policies: &[(
            "x",
            "podSelector: {}
ingress:
- from: [{namespaceSelector: {matchLabels: {ns: y}}, podSelector: {matchLabels: {pod: c}}}]
  ports: [{port: only-a}, {protocol: UDP, port: dns}]",
        )],
        allows: |ask| !ask.to(&["x/*"]) || (ask.to(&["x/a"]) && ask.from(&["y/c"]) && (ask.tcp(81) || ask.udp(81))),
    },
    Case {
        name: "a name that no pod has opens nothing",
        policies: &[("x", "{podSelector: {}, ingress: [{ports: [{port: nowhere}]}]}")],
        allows: |ask| !ask.to(&["x/*"]),
    },
    Case {
        name: "names and numbers of one rule add up",
        policies: &[("x", "{podSelector: {}, ingress: [{ports: [{port: web}, {protocol: UDP, port: 81}]}]}")],
        allows: |ask| {
            !ask.to(&["x/*"]) || ask.udp(81) || (ask.to(&["x/a"]) && ask.tcp(80)) || (ask.to(&["x/b"]) && ask.tcp(81))
        },
    },
];

pub(super) const SCTP: &[Case] = &[
    Case {
        name: "a number over SCTP is let through, and nothing over TCP",
        policies: &[("x", "{podSelector: {}, ingress: [{ports: [{protocol: SCTP, port: 80}]}]}")],
        allows: |ask| !ask.to(&["x/*"]) || (ask.over == Transport::Sctp && ask.number == 80),
    },
    Case {
        name: "all of TCP lets nothing through over SCTP",
        policies: &[("x", "{podSelector: {}, ingress: [{ports: [{protocol: TCP}]}]}")],
        allows: |ask| !ask.to(&["x/*"]) || ask.over == Transport::Tcp,
    },
    Case {
        name: "all of SCTP, from some",
        policies: &[(
            "x",
            "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: c}}}], ports: [{protocol: SCTP}]}]}",
        )],
        allows: |ask| !ask.to(&["x/*"]) || (ask.from(&["x/c"]) && ask.over == Transport::Sctp),
    },
    Case {
        name: "a range over SCTP, out of pods",
        policies: &[(
            "y",
            "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{protocol: SCTP, port: 81, endPort: 99}]}]}",
        )],
        allows: |ask| !ask.from(&["y/*"]) || (ask.over == Transport::Sctp && ask.number == 81),
    },
    Case {
        name: "a rule without ports lets SCTP through, too",
        policies: &[("x", "{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}")],
        allows: |ask| !ask.to(&["x/*"]) || ask.from(&["x/*"]),
    },
];
