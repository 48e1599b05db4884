//! Runs the executable against a scripted daemon.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail them")]

use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixListener,
    path::Path,
    process::{Command, Output, Stdio},
    thread::JoinHandle,
};

/// Runs `kuryr-cni` with these variables and nothing else in its environment.
fn run(variables: &[(&str, &str)], stdin: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kuryr-cni"));
    command.env_clear().envs(variables.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may have found fault with its environment and gone already.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    child.wait_with_output().unwrap()
}

fn pod(verb: &'static str) -> Vec<(&'static str, &'static str)> {
    vec![
        ("CNI_COMMAND", verb),
        ("CNI_CONTAINERID", "c0ffee"),
        ("CNI_NETNS", "/run/netns/cni-1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0"),
        ("CNI_PATH", "/opt/cni/bin"),
    ]
}

fn answer(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn config(socket: &Path) -> String {
    json!({ "cniVersion": "1.0.0", "name": "kuryr", "type": "kuryr-cni", "kuryrSocket": socket }).to_string()
}

/// A daemon that answers one request with `answer` and returns the head and body that it got.
fn daemon(socket: &Path, answer: String) -> JoinHandle<(String, Value)> {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "hung up in the head: {head}");
        }
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap().parse().unwrap();
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        (&stream).write_all(answer.as_bytes()).unwrap();
        (head, serde_json::from_slice(&body).unwrap())
    })
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn version_needs_no_daemon() {
    for (stdin, version) in [("", "1.1.0"), ("\n", "1.1.0"), (r#"{"cniVersion":"0.4.0"}"#, "0.4.0")] {
        let output = run(&[("CNI_COMMAND", "VERSION")], stdin.as_bytes());
        assert!(output.status.success());
        let expected = json!({ "cniVersion": version, "supportedVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] });
        assert_eq!(answer(&output), expected);
    }
}

#[test]
fn a_result_comes_back_as_the_daemon_wrote_it() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("with space.sock");
    let daemon = daemon(&socket, http("200 OK", r#"{"cniVersion":"1.0.0","ips":[]}"#));
    let output = run(&pod("ADD"), config(&socket).as_bytes());
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, br#"{"cniVersion":"1.0.0","ips":[]}"#);
    let (head, body) = daemon.join().unwrap();
    assert!(head.starts_with("POST /cni HTTP/1.1\r\n"), "{head}");
    assert_eq!(
        body,
        json!({
            "command": "ADD", "containerId": "c0ffee", "netns": "/run/netns/cni-1", "ifname": "eth0",
            "args": "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0", "path": "/opt/cni/bin",
            "config": { "cniVersion": "1.0.0", "name": "kuryr", "type": "kuryr-cni", "kuryrSocket": socket },
        })
    );
}

#[test]
fn the_daemons_error_is_printed_and_the_exit_code_is_1() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("cni.sock");
    let error = r#"{"cniVersion":"1.0.0","code":11,"msg":"subnet pods-a has no free address"}"#;
    let daemon = daemon(&socket, http("500 Internal Server Error", error));
    let output = run(&pod("ADD"), config(&socket).as_bytes());
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stdout), error);
    daemon.join().unwrap();
}

#[test]
fn without_a_daemon_the_runtime_is_told_to_try_again() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("cni.sock");
    for (verb, code) in [("ADD", 11), ("DEL", 11), ("CHECK", 11), ("GC", 11), ("STATUS", 50)] {
        let output = run(&pod(verb), config(&socket).as_bytes());
        assert_eq!(output.status.code(), Some(1));
        let error = answer(&output);
        assert_eq!(error["code"], code, "{verb}");
        assert_eq!(error["cniVersion"], "1.0.0");
        let message = error["msg"].as_str().unwrap();
        assert!(message.contains(socket.to_str().unwrap()) && message.contains("daemon"), "{message}");
    }
}

#[test]
fn a_daemon_that_hangs_up_is_a_daemon_that_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("cni.sock");
    let daemon = daemon(&socket, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{".to_owned());
    let output = run(&pod("DEL"), config(&socket).as_bytes());
    assert_eq!(answer(&output)["code"], 11);
    daemon.join().unwrap();
}

#[test]
fn bad_input_is_a_cni_error_that_names_it() {
    let cases: [(_, &[u8], _, _); 6] = [
        (vec![], b"{}", 4, "CNI_COMMAND"),
        (vec![("CNI_COMMAND", "EXPLODE")], b"{}", 4, "EXPLODE"),
        (vec![("CNI_COMMAND", "ADD")], b"{}", 4, "CNI_CONTAINERID"),
        (pod("ADD"), b"{\"name\": }", 6, "byte 9"),
        (pod("ADD"), b"{\"name\": \"\xff\"}", 6, "UTF-8"),
        (pod("ADD"), b"{\"kuryrSocket\": 1}", 7, "kuryrSocket"),
    ];
    for (variables, stdin, code, words) in cases {
        let output = run(&variables, stdin);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(answer(&output)["code"], code);
        assert!(String::from_utf8_lossy(&output.stdout).contains(words), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
}
