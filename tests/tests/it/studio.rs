//! `/studio` in a browser: every page looked at, what operators do, and how one becomes one.

use crate::binary::Server;
use crate::clients::browse;

const PROJECT: &str = include_str!("studio.sql");
const LOCAL: &[(&str, &str)] = &[("LONGHOUSE_STUDIO__LOCAL_OPERATOR", "true")];

async fn as_operator(scenario: &str) {
    let server = Server::with_migration(PROJECT, LOCAL).await;
    let (email, password) = server.operator();
    let environment = [("LONGHOUSE_TEST_OPERATOR", email), ("LONGHOUSE_TEST_OPERATOR_PASSWORD", password)];
    browse(&server, scenario, &environment).await;
}

#[tokio::test]
async fn every_page_is_accessible_in_both_themes_wide_and_narrow() {
    as_operator("studio_looks").await;
}

#[tokio::test]
async fn every_dialog_is_too() {
    as_operator("studio_dialogs").await;
}

#[tokio::test]
async fn operators_look_after_tables_users_files_and_mail() {
    as_operator("studio").await;
}

#[tokio::test]
async fn the_first_operator_is_made_by_the_command_line() {
    let settings = [("LONGHOUSE_SERVER__RATE_LIMIT_PER_SECOND", "0")];
    let server = Server::with_migration(PROJECT, &settings).await;
    let data = server.folder().display().to_string();
    let program = crate::binary::program().display().to_string();
    browse(&server, "studio_first", &[("LONGHOUSE_TEST_DATA", data), ("LONGHOUSE_TEST_PROGRAM", program)])
        .await;
}

#[tokio::test]
async fn the_local_operator_stays_the_same() {
    let mut server = Server::with_migration(PROJECT, LOCAL).await;
    let first = server.operator();
    server.terminate().await;
    server.start_again().await;
    assert_eq!(server.operator(), first);
    // Whoever loses the file is helped by another password, not by another account.
    server.terminate().await;
    std::fs::remove_file(server.folder().join("operator.json")).unwrap();
    server.start_again().await;
    let second = server.operator();
    assert!(second.0 == first.0 && second.1 != first.1, "{first:?} {second:?}");
    let users: i64 =
        server.database().await.query_one("select count(*) from auth.users", &[]).await.unwrap().get(0);
    assert_eq!(users, 1);
}
