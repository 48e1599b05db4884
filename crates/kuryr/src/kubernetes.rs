//! The connection to Kubernetes, with errors that say what to do.

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::{future::BoxFuture, stream};
use http::{Request, Response};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Body;
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::{
    Client,
    client::{Body as KubeBody, ClientBuilder},
    config::{KubeConfigOptions, Kubeconfig},
};
use std::{path::Path, task, time::Duration};
use tokio::time::timeout;
use tower::{BoxError, Service, layer::layer_fn};

/// Selectors on fields of custom resources, by which a daemon watches only its node's objects, came with this minor.
pub(crate) const OLDEST_MINOR: u32 = 31;

/// A client for Kubernetes that has been asked for its version, and is new enough. `program` is who it says it is, so that an
/// audit log and the API server's metrics can tell the controller, the daemons and people apart.
pub(crate) async fn connect(kubeconfig: Option<&Path>, program: &str) -> anyhow::Result<Client> {
    let config = config(kubeconfig, program).await?;
    let url = config.cluster_url.clone();
    let client = patient(ClientBuilder::try_from(config)?, PATIENCE);
    let version = client.apiserver_version().await.with_context(|| {
        format!("Kubernetes at {url} does not answer; check the server in the kubeconfig and that it is running")
    })?;
    if version.major == "1" && minor(&version).unwrap_or(0) < OLDEST_MINOR {
        bail!("Kubernetes at {url} is {}; Kuryr needs 1.{OLDEST_MINOR} or later", version.git_version);
    }
    Ok(client)
}

/// A client that is used as soon as Kubernetes answers: for who has work to do until then, too.
pub(crate) async fn client(kubeconfig: Option<&Path>, program: &str) -> anyhow::Result<Client> {
    Ok(patient(ClientBuilder::try_from(config(kubeconfig, program).await?)?, PATIENCE))
}

/// How long Kubernetes may leave a call without an answer, or with half of one. Its own limit for a call is a minute, but a list
/// is asked for in pages, and the first byte of any answer comes much sooner, if the connection lives.
const PATIENCE: Duration = Duration::from_secs(30);

/// Kubernetes has left a call without an answer for this long: the connection may be dead without our knowing.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no answer from Kubernetes within {} s", .0.as_secs())]
struct NoAnswer(Duration);

/// A client of which no call waits for ever. A watch may be silent for as long as it likes once it has begun: whoever watches
/// looks to that.
fn patient<S, B>(builder: ClientBuilder<S>, patience: Duration) -> Client
where
    S: Service<Request<KubeBody>, Response = Response<B>> + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    builder.with_layer(&layer_fn(move |inner| Patient { inner, patience })).build()
}

/// The layer of [`patient`].
struct Patient<S> {
    inner: S,
    patience: Duration,
}

type Answered = Response<UnsyncBoxBody<Bytes, BoxError>>;

impl<S, B> Service<Request<KubeBody>> for Patient<S>
where
    S: Service<Request<KubeBody>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Answered;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Answered, BoxError>>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> task::Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<KubeBody>) -> Self::Future {
        let (patience, watches) = (self.patience, is_watch(request.uri().query()));
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = timeout(patience, answer).await.map_err(|_| NoAnswer(patience))?.map_err(Into::into)?;
            Ok(answer.map(|body| {
                if watches { body.map_err(Into::into).boxed_unsync() } else { limited(body, patience).boxed_unsync() }
            }))
        })
    }
}

fn is_watch(query: Option<&str>) -> bool {
    query.is_some_and(|query| query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1" | "watch")))
}

/// The body, which ends with an error where the next part of it does not come.
fn limited<B>(body: B, patience: Duration) -> impl Body<Data = Bytes, Error = BoxError> + Send
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    StreamBody::new(stream::unfold(Some(body), move |body| async move {
        let mut body = body?;
        match timeout(patience, body.frame()).await {
            Ok(frame) => Some((frame?.map_err(Into::into), Some(body))),
            Err(_) => Some((Err(NoAnswer(patience).into()), None)),
        }
    }))
}

/// The minor version; some providers write `31+`.
pub(crate) fn minor(version: &Info) -> Option<u32> {
    let digits = version.minor.find(|c: char| !c.is_ascii_digit()).map_or(&*version.minor, |end| &version.minor[..end]);
    digits.parse().ok()
}

async fn config(kubeconfig: Option<&Path>, program: &str) -> anyhow::Result<kube::Config> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path).with_context(|| {
                format!("--kubeconfig {} cannot be used; name a file that kubectl can use", path.display())
            })?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => kube::Config::infer().await.context(
            "there is no way to Kubernetes: set KUBECONFIG or --kubeconfig, or run in a pod with a service account",
        )?,
    };
    let agent = format!("{program}/{}", env!("CARGO_PKG_VERSION"));
    config.headers.push(("user-agent".parse()?, agent.parse()?));
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;
    use hyper::body::Frame;
    use kube::api::{WatchEvent, WatchParams};
    use kuryr_model::chain;
    use std::convert::Infallible;
    use tower::service_fn;

    #[test]
    fn a_minor_version_may_have_something_behind_it() {
        let of = |minor: &str| super::minor(&Info { minor: minor.to_owned(), ..Info::default() });
        assert_eq!([of("31"), of("31+"), of("34-eks.1"), of(""), of("x")], [Some(31), Some(31), Some(34), None, None]);
    }

    /// A server that answers a call after `late` and then sends the parts of its body, each after as long.
    fn server(late: Duration, parts: &'static [&'static str]) -> Client {
        let service = service_fn(move |_: Request<KubeBody>| async move {
            tokio::time::sleep(late).await;
            let parts = stream::iter(parts).then(move |part| async move {
                tokio::time::sleep(late).await;
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(part.as_bytes())))
            });
            Ok::<_, Infallible>(Response::new(StreamBody::new(Box::pin(parts))))
        });
        patient(ClientBuilder::new(service, "default"), Duration::from_secs(30))
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_an_answer_ends_and_says_so() {
        let start = tokio::time::Instant::now();
        let error = server(Duration::from_secs(3600), &[]).apiserver_version().await.unwrap_err();
        assert!(chain(&error).contains("no answer from Kubernetes within 30 s"), "{}", chain(&error));
        assert_eq!(start.elapsed(), Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_be_slow_but_not_stop_half_way() {
        let whole = &[
            "{\"major\":\"1\",\"minor\":\"34\",",
            "\"gitVersion\":\"v1.34.0\",\"gitCommit\":\"\",",
            "\"gitTreeState\":\"\",\"buildDate\":\"\",\"goVersion\":\"\",\"compiler\":\"\",\"platform\":\"\"}",
        ];
        let version = server(Duration::from_secs(29), whole).apiserver_version().await.unwrap();
        assert_eq!(version.minor, "34");
        // The headers come at once, the body does not.
        let service = service_fn(|_: Request<KubeBody>| async {
            let half = stream::once(async { Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"{"))) });
            Ok::<_, Infallible>(Response::new(StreamBody::new(Box::pin(half.chain(stream::pending())))))
        });
        let client = patient(ClientBuilder::new(service, "default"), Duration::from_secs(30));
        let error = client.apiserver_version().await.unwrap_err();
        assert!(chain(&error).contains("no answer"), "{}", chain(&error));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_may_be_silent_for_long() {
        let event = "{\"type\":\"BOOKMARK\",\"object\":{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"resourceVersion\":\"7\"}}}\n";
        let service = service_fn(move |request: Request<KubeBody>| async move {
            assert!(is_watch(request.uri().query()), "{}", request.uri());
            let late = stream::once(async move {
                tokio::time::sleep(Duration::from_secs(200)).await;
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(event.as_bytes())))
            });
            Ok::<_, Infallible>(Response::new(StreamBody::new(Box::pin(late))))
        });
        let client = patient(ClientBuilder::new(service, "default"), Duration::from_secs(30));
        let pods = kube::Api::<k8s_openapi::api::core::v1::Pod>::all(client);
        let mut events = Box::pin(pods.watch(&WatchParams::default(), "0").await.unwrap());
        assert!(matches!(events.next().await, Some(Ok(WatchEvent::Bookmark(_)))));
    }

    #[test]
    fn a_watch_is_known_by_its_query() {
        assert!(is_watch(Some("limit=5&watch=true")) && is_watch(Some("watch=1")));
        assert!(!is_watch(Some("labelSelector=watch%3Dtrue")) && !is_watch(None));
    }
}
