//! The kernel's links, addresses, routes and neighbours.
/// Why the kernel did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {}
