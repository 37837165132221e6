//! `/realtime/v1` through official clients.

use crate::binary::Server;
use crate::clients::{Person, browse, python};

const BOARD: &str = include_str!("realtime.sql");
const AN_HOUR: i64 = 3_600;

fn people(server: &Server) -> [(&'static str, String); 3] {
    [
        ("LONGHOUSE_TEST_ADA", Person::Ada.token(server, AN_HOUR)),
        ("LONGHOUSE_TEST_BOB", Person::Bob.token(server, AN_HOUR)),
        ("LONGHOUSE_TEST_EXPIRED", Person::Bob.token(server, -AN_HOUR)),
    ]
}

#[tokio::test]
async fn two_browsers_meet_and_rights_decide_what_each_hears() {
    let server = Server::with_migration(BOARD, &[]).await;
    browse(&server, "board", &people(&server)).await;
}

#[tokio::test]
async fn supabase_py_meets_and_is_refused() {
    let server = Server::with_migration(BOARD, &[]).await;
    python(&server, "board", &people(&server)).await;
}
