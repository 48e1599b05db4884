//! Port pools, with a Neutron that needs 200 ms for a port and 150 ms for each of a bulk, as was measured on a real one; for
//! nodes of bare metal, and for virtual machines, whose pods are subports.
//!
//! ```text
//!  neutron  what Neutron itself can do, asked as Kuryr asks it: what the others are compared with
//!  warm     a port is there for each pod: one by one, and many at once
//!  burst    no port is there, or two are
//!  churn    pods come and go: at a rate, and as fast as ports can be had
//!  whole    pods with sandboxes
//! ```

mod burst;
mod churn;
mod ground;
mod neutron;
mod warm;
mod whole;

use super::{figure::Figure, lab::Scale};
use ground::Kind;

pub(super) const GROUP: &str = "pools";

pub(super) async fn measure(scale: &Scale) -> anyhow::Result<Vec<Figure>> {
    let mut figures = whole::measure(scale).await?;
    for kind in [Kind::Bare, Kind::Nested] {
        let own = neutron::measure(scale, kind).await?;
        figures.extend(warm::measure(scale, kind).await?);
        figures.extend(burst::measure(scale, kind, &own).await?);
        figures.extend(churn::measure(scale, kind, &own).await?);
    }
    Ok(figures)
}
