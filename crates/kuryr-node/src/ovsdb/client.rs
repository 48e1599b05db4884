//! The connection: one task that owns the socket.

use super::{
    cache::{Cache, DATABASE},
    error::Error,
    frame::Framer,
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

/// The first and the longest wait before connecting again.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// Name of our subscription, and id of the request that makes it.
const MONITOR: &str = "kuryr";

/// A database that is connected to whenever it can be.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    requests: mpsc::UnboundedSender<Transaction>,
    cache: watch::Receiver<Cache>,
    task: JoinHandle<()>,
}

/// A transaction on its way to the task.
#[derive(Debug)]
struct Transaction {
    operations: Vec<Value>,
    answer: oneshot::Sender<Result<Value, Error>>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    /// Starts connecting to the database behind `socket`, and never stops until dropped. Needs a tokio runtime.
    #[must_use]
    pub fn start(socket: &Path) -> Self {
        let (requests, incoming) = mpsc::unbounded_channel();
        let (publish, cache) = watch::channel(Cache::default());
        let task = tokio::spawn(keep_connected(socket.to_owned(), incoming, publish));
        Self { socket: socket.to_owned(), requests, cache, task }
    }

    /// The database's socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Looks at the database, once it is reachable.
    ///
    /// # Errors
    /// [`Error::Away`] at the deadline.
    pub async fn look<T>(&self, deadline: Instant, at: impl FnOnce(&Cache) -> T) -> Result<T, Error> {
        let start = Instant::now();
        let mut cache = self.cache.clone();
        match timeout_at(deadline, cache.wait_for(|cache| cache.current)).await {
            Ok(Ok(cache)) => Ok(at(&cache)),
            _ => Err(self.away(start)),
        }
    }

    /// Waits until `until` finds what it looks for in the database; asks it anew after every change.
    ///
    /// # Errors
    /// [`Error::Away`] or [`Error::Deadline`] at the deadline.
    pub async fn wait<T>(&self, deadline: Instant, mut until: impl FnMut(&Cache) -> Option<T>) -> Result<T, Error> {
        let start = Instant::now();
        let mut cache = self.cache.clone();
        let mut found = None;
        let seen = timeout_at(
            deadline,
            cache.wait_for(|cache| {
                found = if cache.current { until(cache) } else { None };
                found.is_some()
            }),
        )
        .await;
        drop(seen);
        match found {
            Some(found) => Ok(found),
            None if self.cache.borrow().current => Err(Error::Deadline(start.elapsed())),
            None => Err(self.away(start)),
        }
    }

    /// Does `operations` as one transaction; their results, one each.
    ///
    /// # Errors
    /// The first operation's refusal, or why there is no answer.
    pub async fn transact(&self, deadline: Instant, operations: Vec<Value>) -> Result<Vec<Value>, Error> {
        let start = Instant::now();
        self.look(deadline, |_| ()).await?;
        let (answer, answered) = oneshot::channel();
        let count = operations.len();
        if self.requests.send(Transaction { operations, answer }).is_err() {
            return Err(self.away(start));
        }
        match timeout_at(deadline, answered).await {
            Ok(Ok(result)) => results(result?, count),
            Ok(Err(_)) => Err(Error::Lost),
            Err(_) => Err(Error::Deadline(start.elapsed())),
        }
    }

    fn away(&self, start: Instant) -> Error {
        let source = self.cache.borrow().trouble.map(io::Error::from);
        Error::Away { socket: self.socket.clone(), waited: start.elapsed(), source }
    }
}

/// A refused operation leaves its error in its place, or behind all places when the commit failed.
fn results(result: Value, count: usize) -> Result<Vec<Value>, Error> {
    let Value::Array(results) = result else { return Err(Error::Malformed(result.to_string())) };
    if let Some(refused) = results.iter().find(|result| result.get("error").is_some_and(|error| !error.is_null())) {
        let text = |key: &str| refused.get(key).and_then(Value::as_str).map(str::to_owned);
        return Err(Error::Refused { error: text("error").unwrap_or_default(), details: text("details") });
    }
    if results.len() < count {
        return Err(Error::Malformed(format!("{} results for {count} operations", results.len())));
    }
    Ok(results)
}

async fn keep_connected(
    socket: PathBuf,
    mut requests: mpsc::UnboundedReceiver<Transaction>,
    publish: watch::Sender<Cache>,
) {
    let mut pause = BACK_OFF.0;
    loop {
        let ended = match UnixStream::connect(&socket).await {
            Ok(stream) => {
                let mut connection =
                    Connection { stream, requests: &mut requests, publish: &publish, waiting: HashMap::new(), last: 0 };
                let ended = connection.run().await;
                if publish.borrow().current {
                    pause = BACK_OFF.0;
                }
                ended
            }
            Err(error) => Err(error),
        };
        match ended {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(socket = %socket.display(), %error, "Open vSwitch's database is away");
                publish.send_replace(Cache { trouble: Some(error.kind()), ..Cache::default() });
            }
        }
        // The server's coming back is no event that can be waited for: its socket file may be there all the time.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(BACK_OFF.1);
    }
}

struct Connection<'a> {
    stream: UnixStream,
    requests: &'a mut mpsc::UnboundedReceiver<Transaction>,
    publish: &'a watch::Sender<Cache>,
    waiting: HashMap<u64, oneshot::Sender<Result<Value, Error>>>,
    last: u64,
}

impl Connection<'_> {
    /// Serves until the connection ends (an error) or the client is dropped.
    async fn run(&mut self) -> io::Result<()> {
        let subscribe = json!({ "method": "monitor", "params": Cache::monitor(MONITOR), "id": MONITOR });
        self.send(&subscribe).await?;
        let mut framer = Framer::default();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            tokio::select! {
                read = self.stream.read(&mut buffer) => {
                    let length = read?;
                    if length == 0 {
                        return Err(io::ErrorKind::ConnectionReset.into());
                    }
                    framer.push(&buffer[..length]);
                    while let Some(message) = framer.take().map_err(malformed)? {
                        self.take(serde_json::from_slice(&message).map_err(malformed)?).await?;
                    }
                }
                request = self.requests.recv() => match request {
                    Some(request) => self.transact(request).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    async fn transact(&mut self, transaction: Transaction) -> io::Result<()> {
        self.last += 1;
        self.waiting.insert(self.last, transaction.answer);
        let mut params = vec![Value::from(DATABASE)];
        params.extend(transaction.operations);
        self.send(&json!({ "method": "transact", "params": params, "id": self.last })).await
    }

    async fn send(&mut self, message: &Value) -> io::Result<()> {
        self.stream.write_all(message.to_string().as_bytes()).await
    }

    async fn take(&mut self, mut message: Value) -> io::Result<()> {
        match message.get("method").and_then(Value::as_str) {
            Some("echo") => {
                let answer = json!({ "result": message["params"], "error": null, "id": message["id"] });
                self.send(&answer).await
            }
            Some("update") => self.publish(&message["params"][1], false),
            Some(_) => Ok(()),
            None if message["id"] == MONITOR => match &message["error"] {
                Value::Null => self.publish(&message["result"], true),
                error => Err(malformed(format!("it refuses to be watched: {error}"))),
            },
            None => {
                let waiting = message["id"].as_u64().and_then(|id| self.waiting.remove(&id));
                let answer = match message["error"].take() {
                    Value::Null => Ok(message["result"].take()),
                    error => Err(Error::Refused { error: error.to_string(), details: None }),
                };
                // Whoever asked may have given up.
                waiting.map(|waiting| waiting.send(answer));
                Ok(())
            }
        }
    }

    fn publish(&self, updates: &Value, first: bool) -> io::Result<()> {
        let mut outcome = Ok(());
        self.publish.send_modify(|cache| {
            if first {
                *cache = Cache { current: true, ..Cache::default() };
            }
            outcome = cache.apply(updates);
        });
        outcome.map_err(malformed)
    }
}

fn malformed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
