//! Rows without bytes, bytes without a row, and bytes that are others.

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use longhouse_storage::Error;
use longhouse_storage::blobs::Version;
use longhouse_storage::check::{CheckOptions, Checked, Finding};

use crate::harness::{As, TestStorage};

async fn check(app: &TestStorage, verify: bool, prune: bool) -> (Checked, Vec<Finding>) {
    let mut found = Vec::new();
    let options = CheckOptions { verify, prune };
    let checked = app.storage.check(options, &mut |finding| found.push(finding.clone())).await.unwrap();
    (checked, found)
}

#[tokio::test]
async fn what_does_not_belong_together_is_found_and_pruned() {
    let app = TestStorage::start().await;
    for name in ["sound", "lost", "short", "changed"] {
        app.put(As::Service, &format!("files/{name}"), "content").await;
    }
    let (checked, found) = check(&app, true, false).await;
    assert_eq!((checked, found), (Checked { rows: 4, blobs: 4, ..Checked::default() }, Vec::new()));

    let file = async |name: &str| {
        let sql = "select version from storage.objects where name = $1";
        let version: String = app.owner.query_one(sql, &[&name]).await.unwrap().get(0);
        app.folder.path().join("blobs").join(Version::parse(&version).unwrap().path())
    };
    fs::remove_file(file("lost").await).unwrap();
    fs::write(file("short").await, "con").unwrap();
    fs::write(file("changed").await, "CONTENT").unwrap();
    let stray = Version::new();
    fs::write(app.folder.path().join("blobs").join(stray.path()), "stray").unwrap();
    let draft = Version::new();
    let draft = app.folder.path().join("staging").join(draft.to_string());
    fs::write(&draft, "half").unwrap();
    // A young one may be an upload that is about to be entered into the ledger.
    let (checked, _) = check(&app, false, false).await;
    assert_eq!(checked.without_row, 1);
    let old = SystemTime::now() - Duration::from_secs(2 * 3600);
    File::options().write(true).open(&draft).unwrap().set_modified(old).unwrap();
    fs::write(app.folder.path().join("blobs").join("README"), "not ours").unwrap();
    app.owner
        .batch_execute("insert into storage.objects (bucket_id, name) values ('files', 'by hand')")
        .await
        .unwrap();
    let pending = app.storage.begin().await.unwrap();

    let (checked, found) = check(&app, false, false).await;
    assert_eq!((checked.without_bytes, checked.damaged, checked.without_row), (2, 1, 2), "{found:?}");
    let (checked, found) = check(&app, true, true).await;
    assert_eq!((checked.without_bytes, checked.damaged, checked.without_row), (2, 2, 2), "{found:?}");
    assert_eq!((checked.rows_removed, checked.blobs_removed), (2, 2));
    assert!(found.contains(&Finding::WithoutRow { version: stray, size: 5 }));
    let (checked, found) = check(&app, true, true).await;
    assert_eq!((checked.rows, checked.blobs, checked.damaged), (3, 3, 2), "damaged files stay: {found:?}");
    assert_eq!(app.text(As::Service, "files/sound").await.unwrap(), "content");
    assert_eq!(app.text(As::Service, "files/short").await, Err(500), "less than was uploaded is not served");
    pending.touch().await.expect("an upload in progress is left alone");
}

#[tokio::test]
async fn a_wrong_folder_costs_no_rows() {
    let app = TestStorage::start().await;
    app.put(As::Service, "files/a", "content").await;
    for file in app.files() {
        fs::remove_file(file).unwrap();
    }
    let refused = app.storage.check(CheckOptions { verify: false, prune: true }, &mut |_| {}).await;
    assert!(matches!(refused, Err(Error::InvalidRequest(_))), "{refused:?}");
    assert_eq!(app.count("objects").await, 1);
}
