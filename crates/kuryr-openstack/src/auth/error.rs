//! Why Keystone gave no token.

use crate::{ErrorKind, Refusal, config::Origin};

/// Why Keystone gave no token. Says what to do about it; never holds a credential.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// No connection, no TLS or no answer.
    #[error("Keystone at {url} does not answer (check {} and that it can be reached from here)", origin.setting("auth_url"))]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// Where the address is from.
        origin: Origin,
        /// Why.
        #[source]
        source: ErrorKind,
    },
    /// 401.
    #[error("Keystone at {url} refuses {who}: check {fix}")]
    Refused {
        /// The Keystone.
        url: String,
        /// Who was refused.
        who: String,
        /// What to check.
        fix: String,
        /// What Keystone says.
        #[source]
        source: Answer,
    },
    /// Something that is not Keystone v3.
    #[error("{url} does not answer like Keystone v3: check {}, which usually ends in /v3", origin.setting("auth_url"))]
    NotKeystone {
        /// The address.
        url: String,
        /// Where the address is from.
        origin: Origin,
        /// What it answered.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Keystone is there and does not work.
    #[error("Keystone at {url} failed")]
    Failed {
        /// The Keystone.
        url: String,
        /// What it answered.
        #[source]
        source: Answer,
    },
    /// A token was given in the configuration, and it does not work any more.
    #[error("the token in {} has expired or was revoked, and a token cannot renew itself: give a new one, or use an application credential", origin.setting("token"))]
    TokenExpired {
        /// Where the token is from.
        origin: Origin,
    },
}

/// What Keystone answered.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Answer(pub Refusal);

impl AuthError {
    /// Whether trying again may help, as opposed to changing a setting.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => !matches!(source, ErrorKind::Tls(_)),
            Self::Failed { .. } => true,
            Self::Refused { .. } | Self::NotKeystone { .. } | Self::TokenExpired { .. } => false,
        }
    }

    #[cfg(test)]
    pub(crate) fn expired_token() -> Self {
        Self::TokenExpired { origin: Origin::Environment }
    }
}
