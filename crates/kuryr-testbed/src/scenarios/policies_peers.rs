//! Whom policies select, and whom they let in: selectors of pods and namespaces, alone and together.

use super::policies_grid::{Case, Grid, tell};
use crate::{dataplane::probe::Transport, world::World};

pub(super) async fn policies_let_in_whom_their_selectors_mean(world: &mut World) -> anyhow::Result<()> {
    let grid = Grid::new(world, &[Transport::Tcp, Transport::Udp]).await?;
    tell(world, &grid, CASES).await
}

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a policy without rules lets nobody into the pods of its namespace",
        policies: &[("x", "{podSelector: {}, policyTypes: [Ingress]}")],
        allows: |ask| !ask.to(&["x/*"]),
    },
    Case {
        name: "an empty rule lets everybody in",
        policies: &[("x", "{podSelector: {}, ingress: [{}]}")],
        allows: |_| true,
    },
    Case {
        name: "an empty list of peers lets everybody in",
        policies: &[("x", "{podSelector: {}, ingress: [{from: []}]}")],
        allows: |_| true,
    },
    Case {
        name: "one pod of a namespace is closed, and no other",
        policies: &[("x", "{podSelector: {matchLabels: {pod: b}}, policyTypes: [Ingress]}")],
        allows: |ask| !ask.to(&["x/b"]),
    },
    Case {
        name: "a selector of pods alone means pods of the policy's namespace",
        policies: &[("x", "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}")],
        allows: |ask| !ask.to(&["x/*"]) || ask.from(&["x/b"]),
    },
    Case {
        name: "an empty selector of pods alone means all pods of the policy's namespace",
        policies: &[("x", "{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}")],
        allows: |ask| !ask.to(&["x/*"]) || ask.from(&["x/*"]),
    },
    Case {
        name: "a selector of namespaces alone means all pods of those",
        policies: &[("x", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}]}]}")],
        allows: |ask| !ask.to(&["x/*"]) || ask.from(&["y/*"]),
    },
    Case {
        name: "an empty selector of namespaces means all pods of all of them",
        policies: &[("x", "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {}}]}]}")],
        allows: |_| true,
    },
    Case {
        name: "both selectors in one peer must both hold",
        policies: &[(
            "x",
            "podSelector: {}
ingress:
- from:
  - namespaceSelector: {matchLabels: {ns: y}}
    podSelector: {matchLabels: {pod: b}}",
        )],
        allows: |ask| !ask.to(&["x/*"]) || ask.from(&["y/b"]),
    },
    Case {
        name: "of two peers either may hold",
        policies: &[(
            "x",
            "podSelector: {}
ingress:
- from:
  - namespaceSelector: {matchLabels: {ns: y}}
  - podSelector: {matchLabels: {pod: b}}",
        )],
        allows: |ask| !ask.to(&["x/*"]) || ask.from(&["y/*", "x/b"]),
    },
    Case {
        name: "both selectors with several namespaces mean the pods in each of them",
        policies: &[(
            "x",
            "podSelector: {}
ingress:
- from:
  - namespaceSelector: {matchExpressions: [{key: ns, operator: In, values: [y, z]}]}
    podSelector: {matchLabels: {pod: a}}",
        )],
        allows: |ask| !ask.to(&["x/*"]) || ask.from(&["y/a", "z/a"]),
    },
    Case {
        name: "an empty selector of namespaces with one of pods means those pods everywhere",
        policies: &[(
            "x",
            "podSelector: {}
ingress:
- from:
  - namespaceSelector: {}
    podSelector: {matchExpressions: [{key: pod, operator: NotIn, values: [a, b]}]}",
        )],
        allows: |ask| !ask.to(&["x/*"]) || ask.from(&["*/c"]),
    },
    Case {
        name: "a namespace is meant by its name",
        policies: &[(
            "x",
            "podSelector: {}
ingress:
- from:
  - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: '{z}'}}",
        )],
        allows: |ask| !ask.to(&["x/*"]) || ask.from(&["z/*"]),
    },
    Case {
        name: "NotIn holds for who has no such label",
        policies: &[(
            "x",
            "podSelector: {}
ingress:
- from:
  - podSelector: {matchExpressions: [{key: tier, operator: NotIn, values: [front]}]}",
        )],
        allows: |ask| !ask.to(&["x/*"]) || ask.from(&["x/b", "x/c"]),
    },
    Case {
        name: "Exists holds for a label without a value",
        policies: &[(
            "x",
            "podSelector: {matchExpressions: [{key: tier, operator: Exists}]}
ingress:
- from:
  - podSelector: {matchExpressions: [{key: tier, operator: DoesNotExist}]}",
        )],
        allows: |ask| !ask.to(&["x/a", "x/b"]) || ask.from(&["x/c"]),
    },
    Case {
        name: "a label without a value is selected by that",
        policies: &[("x", "{podSelector: {matchLabels: {tier: ''}}, policyTypes: [Ingress]}")],
        allows: |ask| !ask.to(&["x/b"]),
    },
    Case {
        name: "labels and expressions of one selector must all hold",
        policies: &[(
            "x",
            "podSelector:
  matchLabels: {pod: a}
  matchExpressions: [{key: tier, operator: In, values: [front, back]}, {key: none, operator: DoesNotExist}]
ingress:
- from:
  - namespaceSelector: {matchExpressions: [{key: ns, operator: NotIn, values: [x, y]}]}
    podSelector: {matchLabels: {pod: b}, matchExpressions: [{key: tier, operator: Exists}]}",
        )],
        // Namespaces without the label `ns` have no pods here.
        allows: |ask| !ask.to(&["x/a"]) || ask.from(&["z/b"]),
    },
    Case {
        name: "no label is left out of a selector: who lacks one is not meant",
        policies: &[
            ("x", "{podSelector: {matchLabels: {pod: a, pod-template-hash: '1'}}, policyTypes: [Ingress]}"),
            (
                "y",
                "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {pod: b, pod-template-hash: '1'}}}]}]}",
            ),
        ],
        allows: |ask| !ask.to(&["y/*"]),
    },
    Case {
        name: "what policies of one pod allow adds up",
        policies: &[
            ("x", "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {}}]}]}"),
            ("x", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: y}}}]}]}"),
            ("x", "{podSelector: {matchLabels: {pod: c}}, policyTypes: [Ingress]}"),
        ],
        allows: |ask| !ask.to(&["x/*"]) || ask.from(&["y/*"]) || (ask.to(&["x/a"]) && ask.from(&["x/*"])),
    },
    Case {
        name: "policies of all namespaces hold at once",
        policies: &[
            ("x", "{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}"),
            ("y", "{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}]}]}"),
            ("z", "{podSelector: {}, policyTypes: [Ingress]}"),
        ],
        allows: |ask| ask.from(&["x/*"]) && ask.to(&["x/*", "y/*"]),
    },
];
