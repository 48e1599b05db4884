//! As much JSON as is needed here: check a document, find some of its top-level members, and quote strings.
//!
//! The network configuration is passed on verbatim inside the request, so the whole of it must be known to be JSON:
//! otherwise it could break out of its place there. The grammar is RFC 8259's, without exceptions.

use std::fmt;

/// How deep arrays and objects may be nested: one level less than the daemon's decoder takes, for the request around it.
const MAX_DEPTH: u32 = 126;

/// A member of the top-level object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Member {
    /// A string, with its escapes resolved.
    String(String),
    /// Anything else.
    Other,
}

/// Why a text is not JSON: what was expected, and at which byte.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct JsonError {
    expected: &'static str,
    at: usize,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not JSON: expected {} at byte {}", self.expected, self.at)
    }
}

/// Checks that `text` is one JSON object, and returns its members of these names; of members that are there twice, the last.
pub(crate) fn top_level<const N: usize>(text: &str, names: [&str; N]) -> Result<[Option<Member>; N], JsonError> {
    let mut found = [const { None }; N];
    let mut scanner = Scanner { text, at: 0, depth: 0 };
    scanner.space();
    if scanner.peek() != Some(b'{') {
        return scanner.expected("an object");
    }
    scanner.object(|scanner, name| {
        let member = match scanner.peek() {
            Some(b'"') => Member::String(scanner.string()?),
            _ => scanner.value().map(|()| Member::Other)?,
        };
        if let Some(index) = names.iter().position(|wanted| *wanted == name) {
            found[index] = Some(member);
        }
        Ok(())
    })?;
    scanner.space();
    if scanner.at < text.len() { scanner.expected("the end") } else { Ok(found) }
}

/// `text` as a JSON string, quotes included.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c if c < ' ' => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

impl Scanner<'_> {
    fn expected<T>(&self, expected: &'static str) -> Result<T, JsonError> {
        Err(JsonError { expected, at: self.at })
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'{') => self.object(|scanner, _| scanner.value()),
            Some(b'[') => self.array(),
            Some(b'"') => self.string().map(drop),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &'static str) -> Result<(), JsonError> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return self.expected(word);
        }
        self.at += word.len();
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonError> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits("a value")?;
        }
        if self.take(b'.') {
            self.digits("a digit")?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits("a digit")?;
        }
        Ok(())
    }

    fn digits(&mut self, expected: &'static str) -> Result<(), JsonError> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == start { self.expected(expected) } else { Ok(()) }
    }

    fn enter(&mut self) -> Result<(), JsonError> {
        self.depth += 1;
        self.at += 1;
        if self.depth > MAX_DEPTH { self.expected("no more than 126 levels") } else { Ok(()) }
    }

    fn array(&mut self) -> Result<(), JsonError> {
        self.enter()?;
        self.space();
        if !self.take(b']') {
            loop {
                self.space();
                self.value()?;
                self.space();
                if self.take(b']') {
                    break;
                }
                if !self.take(b',') {
                    return self.expected("',' or ']'");
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// An object; `member` is called at the value of each member and must scan it.
    fn object(&mut self, mut member: impl FnMut(&mut Self, &str) -> Result<(), JsonError>) -> Result<(), JsonError> {
        self.enter()?;
        self.space();
        if !self.take(b'}') {
            loop {
                self.space();
                if self.peek() != Some(b'"') {
                    return self.expected("a member's name");
                }
                let name = self.string()?;
                self.space();
                if !self.take(b':') {
                    return self.expected("':'");
                }
                self.space();
                member(self, &name)?;
                self.space();
                if self.take(b'}') {
                    break;
                }
                if !self.take(b',') {
                    return self.expected("',' or '}'");
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn string(&mut self) -> Result<String, JsonError> {
        self.at += 1;
        let mut string = String::new();
        loop {
            let start = self.at;
            while self.peek().is_some_and(|byte| byte != b'"' && byte != b'\\' && byte >= b' ') {
                self.at += 1;
            }
            string.push_str(&self.text[start..self.at]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(string);
                }
                Some(b'\\') => string.push(self.escape()?),
                _ => return self.expected("the rest of a string"),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        self.at += 1;
        let resolved = match self.peek() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode();
            }
            _ => return self.expected("an escape"),
        };
        self.at += 1;
        Ok(resolved)
    }

    /// After `\u`: four digits, or for what lies beyond U+FFFF two such escapes, a surrogate pair.
    fn unicode(&mut self) -> Result<char, JsonError> {
        let first = self.four_digits()?;
        let code = if (0xd800..0xdc00).contains(&first) {
            if !(self.take(b'\\') && self.take(b'u')) {
                return self.expected("the second half of a surrogate pair");
            }
            let second = self.four_digits()?;
            if !(0xdc00..0xe000).contains(&second) {
                return self.expected("the second half of a surrogate pair");
            }
            0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
        } else {
            first
        };
        match char::from_u32(code) {
            Some(c) => Ok(c),
            None => self.expected("the first half of a surrogate pair"),
        }
    }

    fn four_digits(&mut self) -> Result<u32, JsonError> {
        let mut code = 0;
        for _ in 0..4 {
            let Some(digit) = self.peek().and_then(|byte| char::from(byte).to_digit(16)) else {
                return self.expected("a hexadecimal digit");
            };
            code = code * 16 + digit;
            self.at += 1;
        }
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn scan(text: &str) -> Result<Option<Member>, JsonError> {
        top_level(text, ["kuryrSocket"]).map(|[member]| member)
    }

    #[test]
    fn a_top_level_string_is_found_past_nested_values_of_the_same_name() {
        let text = r#" { "a": {"kuryrSocket": "/no"}, "b": [1, {"kuryrSocket": "/no"}], "kuryrSocket" : "\/run\u002fk\ud83d\ude00" } "#;
        assert_eq!(scan(text), Ok(Some(Member::String("/run/k😀".into()))));
        assert_eq!(scan(r#"{"kuryrSocket": 7}"#), Ok(Some(Member::Other)));
        assert_eq!(scan(r#"{"kuryrsocket": ""}"#), Ok(None));
        assert_eq!(scan(r#"{"\u006buryrSocket": "x"}"#), Ok(Some(Member::String("x".into()))));
        assert_eq!(scan(r#"{"kuryrSocket": "a", "kuryrSocket": "b"}"#), Ok(Some(Member::String("b".into()))));
        assert_eq!(scan("{}"), Ok(None));
    }

    #[test]
    fn what_is_not_json_is_refused_with_the_place() {
        for bad in [
            "",
            " ",
            "[]",
            "1",
            "null",
            "{",
            "{\"a\"",
            "{\"a\":",
            "{\"a\":1",
            "{\"a\":1,}",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":-}",
            "{\"a\":1e}",
            "{\"a\":tru}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"\\udc00\"}",
            "{\"a\":\"\\ud800\\u0041\"}",
            "{\"a\":\"\\u12g4\"}",
            "{a:1}",
            "{} {}",
            "{\"a\":[1,]}",
            "{\"a\":[1 2]}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":NaN}",
            "{\"a\":+1}",
            "{\"a\" 1}",
            "{\"é",
            "{\"a\":.5}",
        ] {
            assert!(scan(bad).is_err(), "{bad:?} was taken");
            assert!(serde_json::from_str::<serde_json::Map<String, Value>>(bad).is_err(), "{bad:?} is JSON after all");
        }
        assert_eq!(scan("{\"a\":\u{7f}1}").unwrap_err().to_string(), "not JSON: expected a value at byte 5");
    }

    #[test]
    fn nesting_is_bounded_where_the_daemons_decoder_bounds_it() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        let daemon_takes = |config: &str| serde_json::from_str::<Value>(&format!("{{\"config\":{config}}}")).is_ok();
        assert!(scan(&nested(126)).is_ok() && daemon_takes(&nested(126)));
        assert!(scan(&nested(127)).is_err() && !daemon_takes(&nested(127)));
        assert!(scan(&"{\"a\":".repeat(1_000_000)).is_err(), "the stack holds");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::hash_map(name(), inner, 0..8).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![Just("kuryrSocket".to_owned()), any::<String>()]
    }

    proptest! {
        #[test]
        fn reads_what_serde_json_writes(value in any_json(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let found = scan(&text);
            match value.as_object() {
                None => prop_assert!(found.is_err()),
                Some(object) => prop_assert_eq!(found.unwrap(), object.get("kuryrSocket").map(|member| match member {
                    Value::String(text) => Member::String(text.clone()),
                    _ => Member::Other,
                })),
            }
        }

        #[test]
        fn agrees_with_serde_json_on_damaged_documents(value in any_json(), at: prop::sample::Index, byte in "[\"{}\\[\\],:\\\\0-9eE+.\\-tu a]?") {
            let mut text = serde_json::to_string(&serde_json::json!({ "kuryrSocket": value })).unwrap();
            let places: Vec<usize> = text.char_indices().map(|(place, _)| place).collect();
            let place = places[at.index(places.len())];
            let end = place + text[place..].chars().next().unwrap().len_utf8();
            text.replace_range(place..end, &byte);
            // Its numbers have a range; the grammar's do not.
            let theirs = serde_json::from_str::<serde_json::Map<String, Value>>(&text);
            let out_of_range = theirs.as_ref().is_err_and(|error| error.to_string().contains("out of range"));
            prop_assert!(out_of_range || theirs.is_ok() == scan(&text).is_ok(), "{}: {:?} {:?}", text, theirs, scan(&text));
        }

        #[test]
        fn a_quoted_string_reads_back(text: String) {
            prop_assert_eq!(serde_json::from_str::<String>(&quote(&text)).unwrap(), text);
        }
    }
}
