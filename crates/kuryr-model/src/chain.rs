//! Errors for people.

use std::error::Error;

/// An error and its causes in one line. A cause that the text before it ends with already is left out: some libraries
/// repeat theirs.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        #[source]
        cause: Option<Box<Link>>,
    }

    #[test]
    fn causes_follow_and_are_not_repeated() {
        let root = Link { text: "no route", cause: None };
        let middle = Link { text: "cannot connect: no route", cause: Some(Box::new(root)) };
        let top = Link { text: "cannot list ports", cause: Some(Box::new(middle)) };
        assert_eq!(chain(&top), "cannot list ports: cannot connect: no route");
    }
}
