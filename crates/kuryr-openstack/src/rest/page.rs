//! The bodies around the services' objects: `{"ports": [...], "ports_links": [...]}`, `{"port": {...}}`.

use serde::{
    Deserialize, Serialize, Serializer,
    de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor},
    ser::SerializeMap as _,
};
use serde_json::Value;
use std::{borrow::Cow, fmt, marker::PhantomData};

/// A value under its key.
pub(crate) struct Wrapped<'a, T>(pub(crate) &'static str, pub(crate) &'a T);

impl<T: Serialize> Serialize for Wrapped<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.0, self.1)?;
        map.end()
    }
}

#[derive(Deserialize)]
struct Link {
    rel: String,
    href: String,
}

struct Body<'a, T> {
    key: &'a str,
    value: PhantomData<T>,
}

impl<'de, T: DeserializeOwned> DeserializeSeed<'de> for Body<'_, T> {
    type Value = (T, Vec<Link>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: DeserializeOwned> Visitor<'de> for Body<'_, T> {
    type Value = (T, Vec<Link>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object with {:?}", self.key)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut value = None;
        let mut links = Vec::new();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if key == self.key {
                value = Some(map.next_value()?);
            } else if key.strip_suffix("_links") == Some(self.key) {
                // Octavia without paging writes null.
                links = map.next_value::<Option<_>>()?.unwrap_or_default();
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        let value = value.ok_or_else(|| A::Error::custom(format_args!("{:?} is missing", self.key)))?;
        Ok((value, links))
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8], key: &str) -> Result<(T, Vec<Link>), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let parsed = Body { key, value: PhantomData }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(parsed)
}

/// The value under `key`.
pub(crate) fn read<T: DeserializeOwned>(bytes: &[u8], key: &str) -> Result<T, serde_json::Error> {
    parse(bytes, key).map(|(value, _)| value)
}

/// The objects under `key` and the marker of the next page. An object that cannot be read is none that Kuryr made or
/// could use (an InfiniBand port, say): it is left out with a warning and spoils nothing else.
pub(crate) fn read_list<T: DeserializeOwned>(
    bytes: &[u8],
    key: &str,
) -> Result<(Vec<T>, Option<String>), serde_json::Error> {
    if let Ok((items, links)) = parse::<Vec<T>>(bytes, key) {
        return Ok((items, next(&links)));
    }
    let (rows, links) = parse::<Vec<Value>>(bytes, key)?;
    let read = |row: Value| {
        let id = row.get("id").and_then(Value::as_str).unwrap_or("?").to_owned();
        serde_json::from_value(row)
            .inspect_err(|error| tracing::warn!(%error, id, list = key, "left out an object that cannot be read"))
            .ok()
    };
    Ok((rows.into_iter().filter_map(read).collect(), next(&links)))
}

/// Only the marker is used of the link: behind a proxy its host and scheme are often wrong.
fn next(links: &[Link]) -> Option<String> {
    let link = links.iter().find(|link| link.rel == "next")?;
    let (_, query) = link.href.split_once('?')?;
    let marker = query.split('&').find_map(|pair| pair.strip_prefix("marker="))?;
    percent_encoding::percent_decode_str(marker).decode_utf8().ok().map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kuryr_model::neutron::Port;

    const ID: &str = "6e2a7d52-6a7e-4f0e-9d6c-0123456789ab";

    #[test]
    fn the_marker_of_the_next_page_is_taken_from_its_link() {
        let body = br#"{"other": [1], "ports_links": [{"rel": "previous", "href": "http://x/?marker=a"},
               {"rel": "next", "href": "http://wrong:1/v2.0/ports?limit=2&marker=b%2Dc"}], "ports": []}"#;
        let (ports, next) = read_list::<Port>(body, "ports").unwrap();
        assert_eq!((ports.len(), next.as_deref()), (0, Some("b-c")));
    }

    #[test]
    fn an_object_that_cannot_be_read_is_left_out() {
        let body = format!(
            r#"{{"ports": [{{"id": "{ID}", "network_id": "{ID}", "mac_address": "fa:16:3e:00:00:01"}},
               {{"id": "{ID}", "network_id": "{ID}", "mac_address": "a0:00:0f:60:fe:80:00:00:00:00:00:00:00:11:22:33"}}]}}"#
        );
        assert_eq!(read_list::<Port>(body.as_bytes(), "ports").unwrap().0.len(), 1);
    }

    #[test]
    fn a_body_without_its_key_is_refused() {
        assert!(read::<Value>(b"{}", "port").unwrap_err().to_string().contains("\"port\" is missing"));
        assert!(read_list::<Port>(b"[]", "ports").is_err());
        assert!(read::<Value>(br#"{"port": 1} x"#, "port").is_err());
    }
}
