//! The CNI verbs, one file each.

mod add;
mod check;
mod del;
mod gc;
mod status;
#[cfg(test)]
mod tests;

use crate::{
    cni::{CniError, Code, Request, Verb, args},
    netns,
    node::{DetachError, Node, Plugs},
    plug::{PlugError, error::chain},
};
use serde_json::Value;
use std::{sync::Arc, time::Instant};
use tracing::{
    Instrument,
    field::{Empty, display},
};

/// Serves one request; the result of ADD, nothing for the others.
///
/// May be dropped at any time (the runtime has hung up): what waits ends, what plugs or unplugs is finished.
///
/// # Errors
/// Why it could not be done, for the runtime.
pub async fn serve<P: Plugs>(node: &Arc<Node<P>>, request: &Request) -> Result<Option<Value>, CniError> {
    let started = Instant::now();
    let (verb, container, ifname) = (&request.command, &request.container_id, &request.ifname);
    let span = tracing::info_span!("cni", verb, container, ifname, pod = Empty, uid = Empty);
    if let Ok(pod) = args::parse(&request.args) {
        span.record("pod", display(&pod.key));
        span.record("uid", pod.uid.as_ref().map(display));
    }
    let result = run(node, request).instrument(span.clone()).await;
    let took = started.elapsed();
    node.metrics.request(verb, result.as_ref().err().map(|error| error.code), took);
    let _entered = span.entered();
    match &result {
        Ok(_) => tracing::debug!(?took, "done"),
        Err(error) => {
            let code = error.code as u32;
            tracing::warn!(?took, code, details = error.details, "{error}");
        }
    }
    result
}

async fn run<P: Plugs>(node: &Arc<Node<P>>, request: &Request) -> Result<Option<Value>, CniError> {
    let call = request.validate()?;
    match call.verb {
        Verb::Add { id, netns, pod } => {
            let add = add::Add { version: call.version, network: call.network, id, netns, pod };
            add::run(node, add).await.map(Some)
        }
        Verb::Del { id } => uninterrupted(node, move |node| async move { del::run(&node, &id).await }).await,
        Verb::Check { id, prev_result } => check::run(node, &id, &prev_result).await.map(|()| None),
        Verb::Gc { valid } => {
            uninterrupted(node, move |node| async move { gc::run(&node, &call.network, &valid).await }).await
        }
        Verb::Status => status::run(node).await.map(|()| None),
    }
}

/// Runs `work` to its end even if nobody waits for that any more.
async fn uninterrupted<P: Plugs, F>(
    node: &Arc<Node<P>>,
    work: impl FnOnce(Arc<Node<P>>) -> F,
) -> Result<Option<Value>, CniError>
where
    F: Future<Output = Result<(), CniError>> + Send + 'static,
{
    join(node.tasks.spawn(work(Arc::clone(node)).in_current_span())).await.map(|()| None)
}

async fn join<T>(task: tokio::task::JoinHandle<Result<T, CniError>>) -> Result<T, CniError> {
    task.await.unwrap_or_else(|error| Err(CniError::new(Code::Io, "the daemon failed").details(error.to_string())))
}

/// Another operation on the same thing has not ended in time.
fn busy(what: &str) -> CniError {
    CniError::new(Code::TryAgain, format!("another operation on {what} has not ended yet"))
}

/// The code for what stood in the way of a plug or an unplug; `otherwise` where the specification has none.
fn code(error: &PlugError, otherwise: Code) -> Code {
    match error {
        PlugError::Namespace(netns::Error::Missing { .. }) => Code::UnknownContainer,
        PlugError::Ovsdb { .. } | PlugError::Unready { .. } => Code::TryAgain,
        PlugError::Several(errors) => {
            let mut codes = errors.iter().map(|error| code(error, otherwise));
            let first = codes.next().unwrap_or(otherwise);
            if codes.all(|code| code == first) { first } else { otherwise }
        }
        _ => otherwise,
    }
}

fn detach_error(what: &str, error: &DetachError) -> CniError {
    let code = match error {
        DetachError::Unplug(error) => code(error, Code::UnplugFailed),
        DetachError::Forget(_) => Code::Io,
    };
    CniError::new(code, format!("cannot detach {what}")).details(chain(error))
}
