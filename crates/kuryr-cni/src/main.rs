//! The CNI executable: hands what the container runtime says to the node daemon and prints the answer.
//!
//! ```text
//!  CNI_* variables ─┐
//!  stdin ───────────┴▶ invocation ─▶ POST /cni over the daemon's unix socket ─▶ stdout, exit code
//! ```
//!
//! It is started twice in the life of every pod, so it uses `std` alone, decides nothing that the daemon can
//! decide, and keeps no state. Invariants: whatever happens, what it prints on stdout is a CNI result or a CNI error;
//! it never waits without a limit; `VERSION` needs no daemon.

mod error;
mod http;
mod invocation;
mod json;

use error::CniError;
use http::Answer;
use invocation::{Invocation, LATEST_VERSION, SUPPORTED_VERSIONS, Verb};
use std::{
    io::{self, IsTerminal, Read, Write},
    process::ExitCode,
};

/// The most that is read from stdin, in bytes: GC lists every pod of the node, nothing else comes near.
const MAX_STDIN: u64 = 16 << 20;

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some() {
        return about();
    }
    let mut version = LATEST_VERSION.to_owned();
    match run(&mut version) {
        Ok(Answer { success, body }) => print(&body, if success { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        Err(error) => print(error.to_json(&version).as_bytes(), ExitCode::FAILURE),
    }
}

/// Serves one invocation. `version` becomes the CNI version that the configuration asks for, as soon as it is known.
fn run(version: &mut String) -> Result<Answer, CniError> {
    let verb = Verb::from_environment()?;
    let stdin = read_stdin()?;
    if verb == Verb::Version && stdin.trim().is_empty() {
        return Ok(versions(version));
    }
    let invocation = Invocation::new(verb, stdin)?;
    if let Some(asked) = &invocation.cni_version {
        version.clone_from(asked);
    }
    match verb {
        Verb::Version => Ok(versions(version)),
        _ => http::ask_daemon(&invocation, &invocation.to_request()?),
    }
}

fn read_stdin() -> Result<String, CniError> {
    let stdin = io::stdin();
    let mut bytes = Vec::new();
    // A person's terminal would never say that it is done.
    if !stdin.is_terminal() {
        let read = stdin.lock().take(MAX_STDIN + 1).read_to_end(&mut bytes);
        read.map_err(|error| CniError::new(error::IO, format!("cannot read the network configuration: {error}")))?;
    }
    if bytes.len() as u64 > MAX_STDIN {
        return Err(CniError::decode(format!("the network configuration is larger than {MAX_STDIN} bytes")));
    }
    String::from_utf8(bytes)
        .map_err(|error| CniError::decode(format!("the network configuration is not UTF-8: {error}")))
}

fn versions(asked: &str) -> Answer {
    let supported: Vec<String> = SUPPORTED_VERSIONS.iter().map(|version| json::quote(version)).collect();
    let body = format!(r#"{{"cniVersion":{},"supportedVersions":[{}]}}"#, json::quote(asked), supported.join(","));
    Answer { success: true, body: body.into_bytes() }
}

fn about() -> ExitCode {
    let text = format!(
        "kuryr-cni {}: the CNI plugin of Kuryr, for CNI {}.\nIt is run by the container runtime (CNI_COMMAND and the network configuration on stdin), not by people.\n",
        env!("CARGO_PKG_VERSION"),
        SUPPORTED_VERSIONS.join(", ")
    );
    print(text.as_bytes(), ExitCode::SUCCESS)
}

/// Writes the answer; a runtime that does not listen any more learns it from the exit code alone.
fn print(answer: &[u8], code: ExitCode) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(answer).and_then(|()| stdout.flush()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}
