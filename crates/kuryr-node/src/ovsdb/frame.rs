//! Cuts a stream of bytes into JSON values: there is nothing between the messages, and a read may end anywhere.

/// The longest message that is taken, in bytes; the dump of a node with thousands of ports is a few MB.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// Collects bytes until they make whole JSON values.
#[derive(Debug, Default)]
pub struct Framer {
    bytes: Vec<u8>,
    /// How far `bytes` has been looked at.
    position: usize,
    depth: usize,
    place: Place,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Outside,
    String,
    /// In a string, after a backslash.
    Escape,
}

/// The stream is not a sequence of JSON objects and arrays, or one of them is too long.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A message begins with something else than a brace or a bracket.
    #[error("a message begins with byte {0:#04x}")]
    NoMessage(u8),
    /// A message does not end.
    #[error("a message is longer than {MAX_MESSAGE} bytes")]
    TooLong,
}

impl Framer {
    /// Adds what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole value, if all of it is there.
    ///
    /// # Errors
    /// The stream makes no sense; nothing after this will.
    pub fn take(&mut self) -> Result<Option<Vec<u8>>, Error> {
        while let Some(&byte) = self.bytes.get(self.position) {
            self.position += 1;
            match (self.place, byte) {
                (Place::String, b'\\') => self.place = Place::Escape,
                (Place::String, b'"') => self.place = Place::Outside,
                (Place::Outside, b'{' | b'[') => self.depth += 1,
                (Place::Outside, b' ' | b'\t' | b'\r' | b'\n') if self.depth == 0 => {}
                (Place::Outside, other) if self.depth == 0 => return Err(Error::NoMessage(other)),
                (Place::Outside, b'}' | b']') => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        let rest = self.bytes.split_off(self.position);
                        self.position = 0;
                        return Ok(Some(std::mem::replace(&mut self.bytes, rest)));
                    }
                }
                (Place::Outside, b'"') | (Place::Escape, _) => self.place = Place::String,
                (Place::Outside | Place::String, _) => {}
            }
        }
        if self.bytes.len() > MAX_MESSAGE { Err(Error::TooLong) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn value() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![any::<String>().prop_map(Value::from), any::<i64>().prop_map(Value::from), Just(Value::Null)];
        let nested = leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        });
        nested.prop_map(|value| json!({ "message": value }))
    }

    proptest! {
        #[test]
        fn however_the_stream_is_cut_the_messages_are_the_same(
            values in prop::collection::vec(value(), 0..8),
            cuts in prop::collection::vec(1usize..40, 1..50),
            pretty: bool,
        ) {
            let mut stream = Vec::new();
            for value in &values {
                let text = if pretty { serde_json::to_vec_pretty(value) } else { serde_json::to_vec(value) };
                stream.extend(text.unwrap());
            }
            let (mut framer, mut read, mut rest) = (Framer::default(), Vec::new(), &stream[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (head, tail) = rest.split_at((*cut).min(rest.len()));
                framer.push(head);
                rest = tail;
                while let Some(message) = framer.take().unwrap() {
                    read.push(serde_json::from_slice::<Value>(&message).unwrap());
                }
            }
            prop_assert_eq!(read, values);
        }
    }

    #[test]
    fn a_stream_of_something_else_is_an_error() {
        let mut framer = Framer::default();
        framer.push(b" \n HTTP/1.1 400");
        assert_eq!(framer.take(), Err(Error::NoMessage(b'H')));
    }
}
