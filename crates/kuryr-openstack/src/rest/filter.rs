//! What a list is asked for.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt::{self, Display, Write as _};

/// What need not be escaped in a query or a path segment.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b':');

/// Objects on one page.
const PAGE: usize = 1000;
/// Values of one key in one request: servers refuse addresses of more than some 8 KiB.
const CHUNK: usize = 100;

/// Which objects a list is to have: all conditions hold at once. Empty: all objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pairs: Vec<(&'static str, String)>,
    /// One key with any of several values.
    any: Option<(&'static str, Vec<String>)>,
    /// Objects on one page.
    page: Option<usize>,
}

impl Filter {
    /// All objects.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only those that carry all these tags.
    #[must_use]
    pub fn tags<T: Display>(self, tags: impl IntoIterator<Item = T>) -> Self {
        let tags: Vec<_> = tags.into_iter().map(|tag| tag.to_string()).collect();
        self.with("tags", tags.join(","))
    }

    /// Only those whose `key` is `value`; `key` as the service writes it: `name`, `network_id`, `device_owner`.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl Display) -> Self {
        self.pairs.push((key, value.to_string()));
        self
    }

    /// Only those whose `key` is one of `values`: none if there are none. Asked for in several requests if they are
    /// many. Of two calls the last one counts.
    #[must_use]
    pub fn any<V: Display>(mut self, key: &'static str, values: impl IntoIterator<Item = V>) -> Self {
        self.any = Some((key, values.into_iter().map(|value| value.to_string()).collect()));
        self
    }

    /// Asks for this many objects at a time, 1000 unless said: the list is the same, in more answers.
    #[must_use]
    pub fn page(mut self, objects: usize) -> Self {
        self.page = Some(objects);
        self
    }

    /// Filters that give the same together, each short enough for one request.
    pub(crate) fn chunks(&self) -> Vec<Self> {
        let Some((key, values)) = &self.any else { return vec![self.clone()] };
        values.chunks(CHUNK).map(|part| Self { any: Some((key, part.to_vec())), ..self.clone() }).collect()
    }

    pub(crate) fn query(&self, fields: &[&str], marker: Option<&str>) -> String {
        let mut query = self.fields_only(fields);
        let any = self.any.iter().flat_map(|(key, values)| values.iter().map(move |value| (*key, value)));
        for (key, value) in self.pairs.iter().map(|(key, value)| (*key, value)).chain(any) {
            push(&mut query, key, value);
        }
        push(&mut query, "limit", self.page.unwrap_or(PAGE));
        if let Some(marker) = marker {
            push(&mut query, "marker", marker);
        }
        query
    }

    pub(crate) fn fields_only(&self, fields: &[&str]) -> String {
        let mut query = String::new();
        for field in fields {
            push(&mut query, "fields", field);
        }
        query
    }
}

fn push(query: &mut String, key: &str, value: impl Display) {
    let mark = if query.is_empty() { "" } else { "&" };
    // Writing into a String does not fail.
    let _: fmt::Result = write!(query, "{mark}{}={}", escape(key), escape(&value.to_string()));
}

/// A text as part of a query or a path.
pub(crate) fn escape(text: &str) -> impl Display {
    utf8_percent_encode(text, ESCAPED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_has_fields_conditions_and_page() {
        let filter = Filter::new().tags(["kuryr:a", "x y"]).with("name", "a&b=c").any("id", [1, 2]);
        assert_eq!(
            filter.query(&["id", "binding:host_id"], Some("m")),
            "fields=id&fields=binding:host_id&tags=kuryr:a%2Cx%20y&name=a%26b%3Dc&id=1&id=2&limit=1000&marker=m"
        );
    }

    #[test]
    fn many_values_are_asked_for_in_parts_and_no_values_not_at_all() {
        let chunks = Filter::new().with("name", "x").any("id", 0..250).chunks();
        assert_eq!(chunks.len(), 3);
        assert!(chunks.iter().all(|chunk| chunk.query(&[], None).starts_with("name=x&id=")));
        assert!(Filter::new().any("id", [""; 0]).chunks().is_empty());
        assert_eq!(Filter::new().chunks().len(), 1);
    }
}
