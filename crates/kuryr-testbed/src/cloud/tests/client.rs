//! A small HTTP client for tests: it knows a base URL and a token and nothing of what serves them, so that the same tests can ask a
//! real cloud.

use std::io;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Value,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body of an answer that must have this status.
    #[track_caller]
    pub(super) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// An error as Neutron writes it: status and type.
    #[track_caller]
    pub(super) fn error(&self) -> (u16, &str) {
        (self.status, self.body["NeutronError"]["type"].as_str().unwrap_or("no NeutronError"))
    }

    /// An error as Octavia writes it: status and text.
    #[track_caller]
    pub(super) fn fault(&self) -> (u16, &str) {
        (self.status, self.body["faultstring"].as_str().unwrap_or("no faultstring"))
    }

    #[track_caller]
    pub(super) fn message(&self) -> &str {
        self.body["NeutronError"]["message"].as_str().unwrap_or_default()
    }
}

/// Asks one service.
#[derive(Debug, Clone)]
pub(super) struct Client {
    /// `http://host:port/path`, without a slash at the end.
    base: String,
    token: Option<String>,
}

impl Client {
    pub(super) fn new(base: &str, token: Option<&str>) -> Self {
        Self { base: base.trim_end_matches('/').to_owned(), token: token.map(str::to_owned) }
    }

    /// Logs in with a password at a Keystone URL such as `http://host/identity/v3` and gives a client of the service of that type.
    pub(super) async fn log_in(auth_url: &str, user: &str, password: &str, project: &str, service: &str) -> Self {
        let domain = json!({ "id": "default" });
        let body = json!({ "auth": {
            "identity": { "methods": ["password"], "password": { "user": { "name": user, "password": password, "domain": domain } } },
            "scope": { "project": { "name": project, "domain": domain } },
        }});
        let reply = Self::new(auth_url, None).post("/auth/tokens", &body).await;
        assert_eq!(reply.status, 201, "{}", reply.body);
        let entry = reply.body["token"]["catalog"].as_array().unwrap().iter().find(|entry| entry["type"] == service);
        let url = entry.unwrap()["endpoints"][0]["url"].as_str().unwrap();
        Self::new(url, reply.header("x-subject-token"))
    }

    pub(super) async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, None, &[]).await.unwrap()
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, Some(body), &[]).await.unwrap()
    }

    pub(super) async fn put(&self, path: &str, body: &Value) -> Reply {
        self.send("PUT", path, Some(body), &[]).await.unwrap()
    }

    pub(super) async fn delete(&self, path: &str) -> Reply {
        self.send("DELETE", path, None, &[]).await.unwrap()
    }

    /// One request on a connection of its own. An error when the connection ends without an answer.
    pub(super) async fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> io::Result<Reply> {
        let rest = self.base.strip_prefix("http://").unwrap();
        let (host, root) =
            rest.split_once('/').map_or((rest, String::new()), |(host, path)| (host, format!("/{path}")));
        let body = body.map(Value::to_string).unwrap_or_default();
        let mut head = format!("{method} {root}{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
        if let Some(token) = &self.token {
            head.push_str(&format!("X-Auth-Token: {token}\r\n"));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        let mut stream = TcpStream::connect(host).await?;
        stream.write_all(head.as_bytes()).await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        parse(&bytes).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

fn parse(bytes: &[u8]) -> Option<Reply> {
    let split = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..split]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let raw = &bytes[split + 4..];
    let body = if chunked { join_chunks(raw)? } else { raw.to_vec() };
    Some(Reply { status, headers, body: serde_json::from_slice(&body).unwrap_or(Value::Null) })
}

fn join_chunks(mut raw: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let end = raw.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&raw[..end]).ok()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(out);
        }
        out.extend_from_slice(raw.get(end + 2..end + 2 + size)?);
        raw = raw.get(end + 4 + size..)?;
    }
}
