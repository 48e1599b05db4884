//! A request to a daemon, over whatever connection there is to it.

use anyhow::Context as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// One request without a body; the status and the body of its answer.
pub(crate) async fn request(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    method: &str,
    path: &str,
) -> anyhow::Result<(u16, String)> {
    let head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is no HTTP")?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    Ok((status.context("the answer is no HTTP/1.1")?, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_is_its_status_and_its_body() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        theirs.write_all(b"HTTP/1.1 503 Service Unavailable\r\nx: y\r\n\r\nnot yet\n").await.unwrap();
        let server = async {
            let mut head = [0; 14];
            theirs.read_exact(&mut head).await.unwrap();
            assert_eq!(&head, b"GET /readyz HT");
            theirs.shutdown().await.unwrap();
        };
        let (answer, ()) = tokio::join!(request(ours, "GET", "/readyz"), server);
        assert_eq!(answer.unwrap(), (503, "not yet\n".to_owned()));
        let (ours, mut theirs) = tokio::io::duplex(1024);
        theirs.write_all(b"220 smtp ready\r\n").await.unwrap();
        theirs.shutdown().await.unwrap();
        assert!(request(ours, "GET", "/").await.is_err());
    }
}
