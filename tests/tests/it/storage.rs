//! `/storage/v1` through clients that are not ours: tus-js-client over a killed server, the AWS SDK.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use crate::binary::Server;
use crate::clients::{Person, script, scripted};

const PEOPLE: &str = include_str!("storage.sql");
/// The bar's 1 GB is measured by hand; this many are enough to be cut in pieces, and to be killed in between.
const MEGABYTES: usize = 64;

/// A file whose every block is another one.
fn large_file() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut state = 1_u64;
    for _ in 0..MEGABYTES {
        let block: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(1024 * 1024)
        .collect();
        file.write_all(&block).unwrap();
    }
    file
}

#[tokio::test]
async fn an_upload_goes_on_after_its_server_was_killed() {
    let mut server = Server::start().await;
    let file = large_file();
    let environment = [("LONGHOUSE_TEST_FILE", file.path().display().to_string())];
    let mut client = scripted(&server, "storage_tus", &environment);
    let mut client = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
    let story = tokio::time::timeout(Duration::from_secs(120), async {
        let mut story = Vec::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            if line == "kill the server" {
                server.kill();
                server.start_again().await;
            }
            story.push(line);
        }
        story
    });
    let story = story.await.expect("the upload ends");
    let mut complaint = String::new();
    client.stderr.take().unwrap().read_to_string(&mut complaint).await.unwrap();
    assert!(client.wait().await.unwrap().success(), "{story:?} {complaint}\n{}", server.log());
    assert!(story.last().unwrap().starts_with("equal: "), "{story:?}");
    // Once after the pause, once after the server's death, and never from the beginning.
    let resumed: Vec<u64> =
        story.iter().filter_map(|line| line.strip_prefix("goes on at ")?.parse().ok()).collect();
    assert!(resumed.len() >= 2 && resumed.iter().all(|offset| *offset > 0), "{story:?}");
}

#[tokio::test]
async fn the_aws_sdk_finds_its_way() {
    let keys = [
        ("S3_PROTOCOL_ACCESS_KEY_ID", "operator"),
        ("S3_PROTOCOL_ACCESS_KEY_SECRET", "an-operators-secret-of-forty-characters"),
    ];
    let server = Server::with_migration(PEOPLE, &keys).await;
    let environment = [
        ("LONGHOUSE_TEST_TOKEN", Person::Ada.token(&server, 3600)),
        ("LONGHOUSE_TEST_USER", Person::Ada.id().to_owned()),
        ("LONGHOUSE_TEST_ANON_KEY", server.fact("anon_key")),
    ];
    script(&server, "storage_s3", &environment).await;
}
