//! One HTTP/1.1 request over the daemon's unix socket.

use crate::{
    error::{CniError, IO, NOT_AVAILABLE, TRY_AGAIN},
    invocation::{Invocation, Verb},
    json::{self, Member},
};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

/// How long the daemon may be silent. Its own limits end every verb earlier, so that its reason is heard, not this one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// How long the daemon may take to take the request.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer that is read, and the longest line of its head, in bytes.
const MAX_ANSWER: u64 = 4 << 20;
const MAX_LINE: u64 = 8 << 10;

/// Sends the request to the daemon; its answer, or the error that the way there gave.
pub(crate) fn ask_daemon(invocation: &Invocation, request: &str) -> Result<Answer, CniError> {
    let unreachable = |doing: &str, error: &io::Error| {
        let code = if invocation.verb == Verb::Status { NOT_AVAILABLE } else { TRY_AGAIN };
        let socket = invocation.socket.display();
        let message = format!("cannot {doing} the kuryr daemon at {socket}: {error}; is it running on this node?");
        CniError::new(code, message)
    };
    let mut stream = UnixStream::connect(&invocation.socket).map_err(|error| unreachable("connect to", &error))?;
    let asked = stream
        .set_read_timeout(Some(ANSWER_TIMEOUT))
        .and_then(|()| stream.set_write_timeout(Some(WRITE_TIMEOUT)))
        .and_then(|()| stream.write_all(message(request).as_bytes()));
    asked.map_err(|error| unreachable("ask", &error))?;
    let (status, body) = read_answer(BufReader::new(stream)).map_err(|error| unreachable("hear", &error))?;
    judge(status, body)
}

fn message(body: &str) -> String {
    format!(
        "POST /cni HTTP/1.1\r\nHost: kuryr\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// What the daemon said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Whether it did what was asked.
    pub(crate) success: bool,
    /// For the runtime: a CNI result, a CNI error, or nothing.
    pub(crate) body: Vec<u8>,
}

/// Who answers something else than 200 with a CNI error is the daemon; who answers anything else is not.
fn judge(status: u16, body: Vec<u8>) -> Result<Answer, CniError> {
    let text = String::from_utf8_lossy(&body);
    if status == 200 || matches!(json::top_level(&text, ["msg"]), Ok([Some(Member::String(_))])) {
        return Ok(Answer { success: status == 200, body });
    }
    Err(CniError {
        code: IO,
        message: format!("what listens on the kuryr daemon's socket answered with HTTP status {status}"),
        details: text.chars().take(200).collect(),
    })
}

/// Status and body of an HTTP answer that says its length, as the daemon's do.
fn read_answer(mut stream: impl BufRead) -> io::Result<(u16, Vec<u8>)> {
    let status_line = read_line(&mut stream)?;
    let status = status_line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(|code| code.parse().ok())
        .ok_or_else(|| invalid(format!("{status_line:?} is not how an HTTP answer begins")))?;
    let mut length = None;
    loop {
        let line = read_line(&mut stream)?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = Some(value.trim().parse::<u64>().map_err(|_| invalid(format!("{line:?} is no length")))?);
        }
    }
    let length = length.ok_or_else(|| invalid("the answer does not say how long it is".to_owned()))?;
    if length > MAX_ANSWER {
        return Err(invalid(format!("the answer has {length} bytes")));
    }
    let mut body = Vec::new();
    stream.take(length).read_to_end(&mut body)?;
    if body.len() as u64 != length {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer ended in the middle"));
    }
    Ok((status, body))
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    stream.take(MAX_LINE).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up before it answered"));
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| invalid("the answer's head is not text".to_owned()))
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_to_its_length_and_no_further() {
        let text = "HTTP/1.1 200 OK\r\nx: y\r\ncontent-Length: 2\r\n\r\n{}rest";
        assert_eq!(read_answer(text.as_bytes()).unwrap(), (200, b"{}".to_vec()));
        assert_eq!(read_answer("HTTP/1.1 500 \r\nContent-Length:0\r\n\r\n".as_bytes()).unwrap(), (500, vec![]));
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for bad in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        ] {
            assert!(read_answer(bad.as_bytes()).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn only_a_cni_error_is_passed_on_from_a_failure() {
        assert_eq!(judge(200, vec![]), Ok(Answer { success: true, body: vec![] }));
        let spoken = br#"{"cniVersion":"1.0.0","code":11,"msg":"later"}"#.to_vec();
        assert_eq!(judge(500, spoken.clone()), Ok(Answer { success: false, body: spoken }));
        let error = judge(404, b"<html>".to_vec()).unwrap_err();
        assert_eq!((error.code, error.details.as_str()), (IO, "<html>"));
    }
}
