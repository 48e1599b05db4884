//! A client for Open vSwitch's database.
/// Why the database did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {}
