//! The SMTP emulator refuses what the RFCs do not allow.

use longhouse_emulators::smtp::{Options, Server};
use rstest::rstest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends all lines, each after the answer to the one before; returns the codes of the answers.
async fn talk(server: &Server, lines: &[&str]) -> Vec<String> {
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let mut codes = Vec::new();
    let mut answer = async |stream: &mut TcpStream| {
        let mut buffer = vec![0; 4096];
        let length = stream.read(&mut buffer).await.unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        codes.push(text.get(..3).unwrap_or("end").to_owned());
    };
    answer(&mut stream).await;
    for line in lines {
        stream.write_all(line.as_bytes()).await.unwrap();
        answer(&mut stream).await;
    }
    codes
}

const MAIL: &str = "From: a@b.c\r\nDate: Sat, 21 Nov 2026 12:00:00 +0000\r\nSubject: x\r\n\r\n..dot\r\n.\r\n";

#[tokio::test]
async fn takes_a_mail() {
    let server = Server::start(Options::default()).await.unwrap();
    let lines = ["EHLO me\r\n", "MAIL FROM:<a@b.c>\r\n", "RCPT TO:<d@e.f>\r\n", "DATA\r\n", MAIL, "QUIT\r\n"];
    assert_eq!(talk(&server, &lines).await, ["220", "250", "250", "250", "354", "250", "221"]);
    let mails = server.wait_for(1).await;
    assert_eq!((mails[0].from.as_str(), mails[0].to.as_slice()), ("a@b.c", ["d@e.f".to_owned()].as_slice()));
    assert!(mails[0].data.ends_with("\r\n.dot\r\n"), "dots are unstuffed");
    assert_eq!(mails[0].header("subject").as_deref(), Some("x"));
}

#[rstest]
#[case::no_greeting(&["MAIL FROM:<a@b.c>\r\n"], "503")]
#[case::no_sender(&["EHLO me\r\n", "RCPT TO:<a@b.c>\r\n"], "503")]
#[case::no_recipient(&["EHLO me\r\n", "MAIL FROM:<a@b.c>\r\n", "DATA\r\n"], "503")]
#[case::two_senders(&["EHLO me\r\n", "MAIL FROM:<a@b.c>\r\n", "MAIL FROM:<a@b.c>\r\n"], "503")]
#[case::bad_path(&["EHLO me\r\n", "MAIL FROM:a@b.c\r\n"], "501")]
#[case::lone_line_feed(&["EHLO me\n"], "end")]
#[case::unknown(&["EHLO me\r\n", "TURN\r\n"], "500")]
#[case::no_tls_here(&["EHLO me\r\n", "STARTTLS\r\n"], "500")]
#[case::headless(&["EHLO me\r\n", "MAIL FROM:<a@b.c>\r\n", "RCPT TO:<d@e.f>\r\n", "DATA\r\n", "x\r\n.\r\n"], "554")]
#[tokio::test]
async fn refuses(#[case] lines: &[&str], #[case] last: &str) {
    let server = Server::start(Options::default()).await.unwrap();
    assert_eq!(talk(&server, lines).await.last().unwrap(), last);
    assert!(server.mails().is_empty());
}

#[rstest]
#[case::plain(&["EHLO me\r\n", "AUTH PLAIN AGhvdXNlAHMzY3JldA==\r\n", "MAIL FROM:<a@b.c>\r\n"], "250")]
#[case::login(&["EHLO me\r\n", "AUTH LOGIN\r\n", "aG91c2U=\r\n", "czNjcmV0\r\n", "MAIL FROM:<a@b.c>\r\n"], "250")]
#[case::wrong(&["EHLO me\r\n", "AUTH PLAIN AGhvdXNlAHdyb25n\r\n"], "535")]
#[case::none(&["EHLO me\r\n", "MAIL FROM:<a@b.c>\r\n"], "530")]
#[tokio::test]
async fn logins(#[case] lines: &[&str], #[case] last: &str) {
    let login = Some(("house".to_owned(), "s3cret".to_owned()));
    let server = Server::start(Options { login, ..Options::default() }).await.unwrap();
    assert_eq!(talk(&server, lines).await.last().unwrap(), last);
}

#[tokio::test]
async fn no_secrets_before_tls() {
    let login = Some(("house".to_owned(), "s3cret".to_owned()));
    let server = Server::start(Options { login, starttls: true, ..Options::default() }).await.unwrap();
    let lines = ["EHLO me\r\n", "AUTH PLAIN AGhvdXNlAHMzY3JldA==\r\n", "STARTTLS\r\n"];
    assert_eq!(talk(&server, &lines).await, ["220", "250", "530", "220"]);
}
