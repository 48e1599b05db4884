//! Network namespaces.
/// Why a namespace could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {}
