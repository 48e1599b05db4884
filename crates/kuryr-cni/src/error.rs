//! CNI errors, with the codes of the specification.

use crate::json;

/// `CNI_*` is missing or wrong.
pub(crate) const ENVIRONMENT: u32 = 4;
/// Reading or writing failed.
pub(crate) const IO: u32 = 5;
/// What came in is not what it should be.
const DECODE: u32 = 6;
/// The network configuration is wrong.
pub(crate) const CONFIGURATION: u32 = 7;
/// It may work later.
pub(crate) const TRY_AGAIN: u32 = 11;
/// STATUS: no ADD can be served.
pub(crate) const NOT_AVAILABLE: u32 = 50;

/// What went wrong, for the runtime (code) and for people (message and details).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CniError {
    pub(crate) code: u32,
    pub(crate) message: String,
    pub(crate) details: String,
}

impl CniError {
    pub(crate) fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    pub(crate) fn decode(details: impl Into<String>) -> Self {
        Self { code: DECODE, message: "failed to decode content".to_owned(), details: details.into() }
    }

    /// The error as the runtime wants it on stdout.
    pub(crate) fn to_json(&self, cni_version: &str) -> String {
        let details = match self.details.as_str() {
            "" => String::new(),
            details => format!(r#","details":{}"#, json::quote(details)),
        };
        format!(
            r#"{{"cniVersion":{},"code":{},"msg":{}{details}}}"#,
            json::quote(cni_version),
            self.code,
            json::quote(&self.message)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_json_whatever_its_words_are() {
        let error = CniError::decode("a \"quote\",\na \\ and \u{1}");
        let value: serde_json::Value = serde_json::from_str(&error.to_json("1.0.0")).unwrap();
        assert_eq!(value["cniVersion"], "1.0.0");
        assert_eq!(value["code"], 6);
        assert_eq!(value["msg"], "failed to decode content");
        assert_eq!(value["details"], error.details);
        let plain = CniError::new(TRY_AGAIN, "later").to_json("1.1.0");
        assert_eq!(plain, r#"{"cniVersion":"1.1.0","code":11,"msg":"later"}"#);
    }
}
