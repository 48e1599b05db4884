//! One request to one server: connection, time limit, size limit. Knows nothing of tokens or retries.

use crate::{
    config::Tls,
    error::ErrorKind,
    tls::{self, TlsError},
};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use std::{error::Error as StdError, io, time::Duration};

/// The longest answer that is read, in bytes: some 20,000 ports.
const MAX_BODY: usize = 64 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Shorter than the usual keep-alive of servers, which would otherwise close a connection just as it is used.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// An answer, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// The pool of connections.
#[derive(Clone, Debug)]
pub(crate) struct Http(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Http {
    pub(crate) fn new(tls: &Tls) -> Result<Self, TlsError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls::client_config(tls)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Ok(Self(client))
    }

    /// Sends one request and reads the whole answer within `timeout`.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>, timeout: Duration) -> Result<Answer, ErrorKind> {
        let exchange = async {
            let response = self.0.request(request).await.map_err(no_answer)?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_BODY).collect().await.map_err(|error| {
                // Reading cannot be fixed by repeating it when the answer is simply too long.
                if error.is::<LengthLimitError>() { ErrorKind::Malformed(error) } else { ErrorKind::Broken(error) }
            })?;
            Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() })
        };
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(ErrorKind::Timeout(timeout)))
    }
}

fn no_answer(error: hyper_util::client::legacy::Error) -> ErrorKind {
    if !error.is_connect() {
        ErrorKind::Broken(Box::new(error))
    } else if is_tls(&error) {
        ErrorKind::Tls(Box::new(error))
    } else {
        ErrorKind::Connect(Box::new(error))
    }
}

/// What an `io::Error` wraps is not its source.
fn is_tls(error: &(dyn StdError + 'static)) -> bool {
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    error.is::<rustls::Error>() || wrapped.is_some_and(|wrapped| is_tls(wrapped)) || error.source().is_some_and(is_tls)
}
