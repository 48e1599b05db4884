//! The Container Network Interface as data: what a runtime asks and what it is answered, without doing any of it.
//!
//! ```text
//!  Request (JSON from kuryr-cni) ─▶ Call: version, network, one verb's parameters ─▶ verbs
//!  Attachment ─▶ result of the runtime's version                         CniError ◀─┘
//! ```
//!
//! Invariant: a [`Call`] is valid: its container id is fit to be a file's name, its interface name one that Linux
//! takes, and its version one that [`result`] can write.

pub mod args;
pub mod error;
pub mod request;
pub mod result;
pub mod version;

pub use error::{CniError, Code};
pub use request::{AttachmentId, Call, Request, Verb};
pub use version::CniVersion;
