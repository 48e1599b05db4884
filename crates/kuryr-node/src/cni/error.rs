//! CNI errors: a code for the runtime, words for people.

use serde_json::{Value, json};

/// What kind of error it is, as the runtime sees it. Codes below 100 are the specification's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Code {
    /// The network configuration asks for a version of the specification that we do not speak.
    IncompatibleVersion = 1,
    /// The network configuration has a field that is not supported.
    UnsupportedField = 2,
    /// The container, or the pod that it is for, does not exist (any more).
    UnknownContainer = 3,
    /// A `CNI_*` variable is missing or wrong.
    Environment = 4,
    /// The node's disk or kernel failed us.
    Io = 5,
    /// What came in could not be decoded.
    Decode = 6,
    /// The network configuration is wrong.
    Configuration = 7,
    /// It may work later: the runtime should try again.
    TryAgain = 11,
    /// STATUS: no ADD can be served now.
    NotAvailable = 50,
    /// STATUS: no ADD can be served now, and containers may have lost their network.
    LimitedConnectivity = 51,
    /// Ours: a VIF could not be plugged.
    PlugFailed = 100,
    /// Ours: a VIF could not be unplugged completely.
    UnplugFailed = 101,
    /// Ours: CHECK found something missing or different.
    CheckFailed = 102,
}

/// Why a verb failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CniError {
    /// For the runtime.
    pub code: Code,
    /// For people: what happened, to what, and what to do.
    pub message: String,
    /// More of the same, if there is more.
    pub details: String,
}

impl CniError {
    /// An error without details.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// The same with details.
    #[must_use]
    pub fn details(self, details: impl Into<String>) -> Self {
        Self { details: details.into(), ..self }
    }

    /// The error as the runtime wants it on stdout; `cni_version` is what it asked for.
    #[must_use]
    pub fn to_json(&self, cni_version: &str) -> Value {
        let mut error = json!({ "cniVersion": cni_version, "code": self.code as u32, "msg": self.message });
        if !self.details.is_empty() {
            error["details"] = self.details.as_str().into();
        }
        error
    }
}
