//! Neutron's errors: status, type name and message as the real one gives them.

use axum::http::StatusCode;
use serde_json::json;

use crate::cloud::http::Answer;

/// An error that a client sees.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status} {kind}: {message}")]
pub(crate) struct Error {
    pub(crate) status: StatusCode,
    pub(crate) kind: String,
    pub(crate) message: String,
}

/// What a verb gives or how it fails.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(status: StatusCode, kind: &str, message: impl Into<String>) -> Self {
        Self { status, kind: kind.to_owned(), message: message.into() }
    }

    pub(crate) fn bad_request(kind: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, kind, message)
    }

    /// A request that the API layer refuses before any plugin sees it.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::bad_request("HTTPBadRequest", message)
    }

    /// A value that a plugin refuses.
    pub(crate) fn invalid(what: impl std::fmt::Display) -> Self {
        Self::bad_request("InvalidInput", format!("Invalid input for operation: {what}."))
    }

    /// An attribute's value that the API layer refuses.
    pub(crate) fn attribute(name: &str, reason: impl std::fmt::Display) -> Self {
        Self::refused(format!("Invalid input for {name}. Reason: {reason}."))
    }

    pub(crate) fn conflict(kind: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, kind, message)
    }

    pub(crate) fn not_found(kind: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, kind, message)
    }

    /// A path that does not exist.
    pub(crate) fn no_such_path() -> Self {
        Self::not_found("HTTPNotFound", "The resource could not be found.")
    }

    /// A path that exists, but not with this method.
    pub(crate) fn no_such_method() -> Self {
        let message = "The method is not allowed for this resource.";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "HTTPMethodNotAllowed", message)
    }

    pub(crate) fn answer(&self) -> Answer {
        let body = json!({ "NeutronError": { "type": self.kind, "message": self.message, "detail": "" } });
        Answer::new(self.status, body)
    }
}
