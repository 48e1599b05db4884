//! Octavia's errors: status and fault text as the real one gives them.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::cloud::body::shown;
use crate::cloud::http::Answer;

/// An error that a client sees.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{status}: {message}")]
pub(crate) struct Error {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

/// What a verb gives or how it fails.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    /// What the real one fails at without having meant to.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// A value that the types of the API refuse.
    pub(crate) fn input(field: &str, value: &Value, reason: impl std::fmt::Display) -> Self {
        Self::bad(format!("Invalid input for field/attribute {field}. Value: '{}'. {reason}", shown(value)))
    }

    /// A value that the API refuses after a look at others.
    pub(crate) fn validation(detail: impl std::fmt::Display) -> Self {
        Self::bad(format!("Validation failure: {detail}"))
    }

    pub(crate) fn option(value: impl std::fmt::Display, option: impl std::fmt::Display) -> Self {
        Self::bad(format!("{value} is not a valid option for {option}"))
    }

    pub(crate) fn not_found(kind: &str, id: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("{kind} {id} not found."))
    }

    /// Something that a body names is not there.
    pub(crate) fn missing(kind: &str, id: impl std::fmt::Display) -> Self {
        Self::bad(format!("{kind} {id} not found."))
    }

    pub(crate) fn immutable(kind: &str, id: uuid::Uuid) -> Self {
        Self::conflict(format!("{kind} {id} is immutable and cannot be updated."))
    }

    pub(crate) fn quota(kind: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, format!("Quota has been met for resources: {kind}"))
    }

    /// A provider cannot do what an option asks for.
    pub(crate) fn unsupported(provider: &str, what: impl std::fmt::Display) -> Self {
        let message = format!("Provider '{provider}' does not support a requested option: {what}");
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    /// A provider cannot do such a thing at all.
    pub(crate) fn not_implemented(provider: &str, what: impl std::fmt::Display) -> Self {
        let message = format!("Provider '{provider}' does not support a requested action: {what}");
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    /// A provider failed.
    pub(crate) fn driver(provider: &str, what: impl std::fmt::Display) -> Self {
        Self::internal(format!("Provider '{provider}' reports error: {what}"))
    }

    /// A path that does not exist.
    pub(crate) fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "The resource could not be found.")
    }

    /// A path that exists, but not with this method.
    pub(crate) fn no_such_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "The method is not allowed for this resource.")
    }

    pub(crate) fn answer(&self) -> Answer {
        let code = if self.status.is_client_error() { "Client" } else { "Server" };
        let body = json!({ "faultcode": code, "faultstring": self.message, "debuginfo": null });
        Answer::new(self.status, body)
    }
}
